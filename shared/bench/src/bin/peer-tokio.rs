//! A peer for the bench: an echo server on tokio, written as tokio's own documentation teaches.
//!
//! One task per connection, a 4 KiB buffer in each, on the current-thread runtime: like the milestones,
//! it has one thread. Usage: `peer-tokio [PORT]`, 0 for a free one.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let port: u16 = std::env::args()
        .nth(1)
        .as_deref()
        .unwrap_or("9000")
        .parse()?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!(
        "tokio echo server on port {}",
        listener.local_addr()?.port()
    );

    loop {
        // An error of accept concerns one client, or passes when another leaves.
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(echo(stream))),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    // What m6 and m7 do too: nobody is slowed down by Nagle's algorithm.
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    loop {
        let received = stream.read(&mut buffer).await?;
        if received == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..received]).await?;
    }
}
