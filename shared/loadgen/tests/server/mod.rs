//! Echo servers to try the clients on: a right one, and some with a flaw.
#![allow(dead_code, reason = "every test program uses a part of it")]

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};

/// What the server does to byte number `EVERY`, `2 * EVERY`, … of all it ever received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing: the right server.
    None,
    /// Flips one bit of it.
    Corrupt,
    /// Forgets it.
    Drop,
    /// Sends it after the byte that follows it.
    Reorder,
    /// Sends it twice.
    Repeat,
    /// Closes its connection before answering.
    Close,
    /// Accepts nobody: connections stay in the backlog.
    Deaf,
}

/// One byte in a million.
pub const EVERY: u64 = 1_000_000;

/// A server in a thread of its own; ends when dropped.
pub struct Server {
    pub address: SocketAddr,
    /// Bytes received from all clients so far.
    pub received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a free loopback port.
    pub fn start(flaw: Flaw) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), flaw)
    }

    /// Listens on `address`.
    pub fn on(address: SocketAddr, flaw: Flaw) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicU64::new(0));
        let thread = std::thread::spawn({
            let (stop, received) = (stop.clone(), received.clone());
            move || serve(&listener, flaw, &stop, &received)
        });
        Self {
            address,
            received,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        // A panic while a test fails already would hide why it failed.
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

struct Client {
    stream: TcpStream,
    outbox: Vec<u8>,
    armed_for_output: bool,
    /// It has no more to say, and gets what it is owed.
    half_closed: bool,
}

fn serve(listener: &TcpListener, flaw: Flaw, stop: &AtomicBool, received: &AtomicU64) {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    if flaw != Flaw::Deaf {
        epoll
            .add(listener, EpollEvent::new(EpollFlags::EPOLLIN, 0))
            .unwrap();
    }
    let mut events = [EpollEvent::empty(); 256];
    let mut clients = HashMap::new();
    let mut seen = 0;
    while !stop.load(Ordering::Relaxed) {
        let ready = epoll.wait(&mut events, 20_u8).unwrap_or(0);
        for event in &events[..ready] {
            let fd = event.data();
            if fd == 0 {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    stream.set_nodelay(true).unwrap();
                    let fd = stream.as_raw_fd() as u64;
                    epoll
                        .add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, fd))
                        .unwrap();
                    clients.insert(
                        fd,
                        Client {
                            stream,
                            outbox: Vec::new(),
                            armed_for_output: false,
                            half_closed: false,
                        },
                    );
                }
                continue;
            }
            // A closed connection may still be reported: while some other test starts a program, the
            // forked child holds a copy of every descriptor for a moment.
            let Some(client) = clients.get_mut(&fd) else {
                continue;
            };
            if turn(client, &epoll, fd, flaw, &mut seen).is_err() {
                clients.remove(&fd);
            }
        }
        received.store(seen, Ordering::Relaxed);
    }
}

/// One read, one write; level-triggered, so whatever is left is reported again.
fn turn(client: &mut Client, epoll: &Epoll, fd: u64, flaw: Flaw, seen: &mut u64) -> io::Result<()> {
    if client.outbox.len() < 1 << 20 && !client.half_closed {
        let mut buffer = [0; 16 * 1024];
        match client.stream.read(&mut buffer) {
            Ok(0) => client.half_closed = true,
            Ok(n) => answer(client, &buffer[..n], flaw, seen)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    if !client.outbox.is_empty() {
        match client.stream.write(&client.outbox) {
            Ok(n) => drop(client.outbox.drain(..n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    if client.half_closed && client.outbox.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if client.armed_for_output == client.outbox.is_empty() || client.half_closed {
        client.armed_for_output = !client.outbox.is_empty();
        let mut interest = EpollFlags::empty();
        // The end of input is reported again and again, too.
        interest.set(EpollFlags::EPOLLIN, !client.half_closed);
        interest.set(EpollFlags::EPOLLOUT, client.armed_for_output);
        epoll
            .modify(&client.stream, &mut EpollEvent::new(interest, fd))
            .unwrap();
    }
    Ok(())
}

/// Appends what is to be sent for `bytes`, flaw included.
fn answer(client: &mut Client, bytes: &[u8], flaw: Flaw, seen: &mut u64) -> io::Result<()> {
    let before = *seen;
    *seen += bytes.len() as u64;
    let outbox = &mut client.outbox;
    if flaw == Flaw::None || before / EVERY == *seen / EVERY {
        outbox.extend_from_slice(bytes);
        return Ok(());
    }
    let at = (EVERY - 1 - before % EVERY) as usize;
    match flaw {
        Flaw::Corrupt => {
            outbox.extend_from_slice(bytes);
            let at = outbox.len() - bytes.len() + at;
            outbox[at] ^= 0x20;
        }
        Flaw::Drop => {
            outbox.extend_from_slice(&bytes[..at]);
            outbox.extend_from_slice(&bytes[at + 1..]);
        }
        Flaw::Repeat => {
            outbox.extend_from_slice(&bytes[..=at]);
            outbox.extend_from_slice(&bytes[at..]);
        }
        Flaw::Reorder if bytes.len() == 1 => outbox.extend_from_slice(bytes),
        Flaw::Reorder => {
            outbox.extend_from_slice(bytes);
            let at = outbox.len() - bytes.len() + at.min(bytes.len() - 2);
            outbox.swap(at, at + 1);
        }
        Flaw::Close => return Err(io::ErrorKind::ConnectionAborted.into()),
        Flaw::None | Flaw::Deaf => unreachable!("handled above"),
    }
    Ok(())
}

/// An address that refuses every connection for as long as the socket lives: it has the port, and does not
/// listen. (A server that has ended will not do: another may be given its port, and a child that is just
/// being started holds its listener for a moment longer.)
pub fn refusing() -> (OwnedFd, SocketAddr) {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let address: SockaddrIn = getsockname(socket.as_raw_fd()).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], address.port()));
    (socket, address)
}
