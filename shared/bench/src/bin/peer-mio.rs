//! A peer for the bench: an echo server on mio, written as mio's own documentation teaches.
//!
//! Readiness is edge-triggered, so every event is drained until `WouldBlock`; interest in writing is
//! added only while bytes wait. mio's example keeps its connections in a `HashMap`; a `Slab` is what
//! its users take for it, and the faster of the two. Usage: `peer-mio [PORT]`, 0 for a free one.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: TcpStream,
    /// Received and not yet sent back; takes memory only once a client has been slow to read.
    unsent: Vec<u8>,
}

fn main() -> anyhow::Result<()> {
    let port: u16 = std::env::args()
        .nth(1)
        .as_deref()
        .unwrap_or("9000")
        .parse()?;
    let mut listener = TcpListener::bind(([127, 0, 0, 1], port).into())?;
    println!("mio echo server on port {}", listener.local_addr()?.port());

    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut connections = Slab::new();
    let mut buffer = vec![0; 4096];

    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            let Token(key) = event.token();
            if event.token() == LISTENER {
                accept_all(&listener, poll.registry(), &mut connections)?;
            } else if let Some(connection) = connections.get_mut(key) {
                let open = echo(connection, key, poll.registry(), &mut buffer);
                if !open.unwrap_or(false) {
                    connections.remove(key);
                }
            }
        }
    }
}

fn accept_all(
    listener: &TcpListener,
    registry: &Registry,
    connections: &mut Slab<Connection>,
) -> io::Result<()> {
    loop {
        // Whatever stops us, no more can be accepted now.
        let Ok((mut stream, _)) = listener.accept() else {
            return Ok(());
        };
        // What m6 and m7 do too: nobody is slowed down by Nagle's algorithm.
        let _ = stream.set_nodelay(true);
        let entry = connections.vacant_entry();
        registry.register(&mut stream, Token(entry.key()), Interest::READABLE)?;
        entry.insert(Connection {
            stream,
            unsent: Vec::new(),
        });
    }
}

/// Sends what waits, then echoes until nothing is left to read or the client stops reading.
/// `false` when the client is done.
fn echo(
    connection: &mut Connection,
    key: usize,
    registry: &Registry,
    buffer: &mut [u8],
) -> io::Result<bool> {
    let Connection { stream, unsent } = connection;
    if !unsent.is_empty() {
        let sent = send(stream, unsent)?;
        unsent.drain(..sent);
        if !unsent.is_empty() {
            return Ok(true);
        }
        registry.reregister(stream, Token(key), Interest::READABLE)?;
    }
    loop {
        match stream.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(received) => {
                let sent = send(stream, &buffer[..received])?;
                if sent < received {
                    unsent.extend_from_slice(&buffer[sent..received]);
                    let both = Interest::READABLE | Interest::WRITABLE;
                    registry.reregister(stream, Token(key), both)?;
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends as much as the kernel takes now; returns how many bytes that was.
fn send(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(taken) => sent += taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
