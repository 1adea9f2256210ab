//! A peer for the bench: one thread per connection, nothing but the standard library.
//!
//! Usage: `peer-threads [PORT]`, 0 for a free one.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

fn main() -> anyhow::Result<()> {
    let port: u16 = std::env::args()
        .nth(1)
        .as_deref()
        .unwrap_or("9000")
        .parse()?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!(
        "thread-per-connection echo server on port {}",
        listener.local_addr()?.port()
    );

    for stream in listener.incoming() {
        // An error of accept concerns one client, or passes when another leaves.
        let Ok(stream) = stream else { continue };
        // Not `thread::spawn`, which panics when there are too many: this client is then closed.
        let _ = thread::Builder::new().spawn(move || echo(stream));
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    // What m6 and m7 do too: nobody is slowed down by Nagle's algorithm.
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    loop {
        let received = stream.read(&mut buffer)?;
        if received == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..received])?;
    }
}
