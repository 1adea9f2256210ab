//! The echo servers of the tests, to try loadgen on by hand:
//! `cargo run -p loadgen --example flawed_echo -- reorder 9000`.

#[path = "../tests/server/mod.rs"]
mod server;

use server::{Flaw, Server};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let flaw = match arguments.next().as_deref() {
        None | Some("none") => Flaw::None,
        Some("corrupt") => Flaw::Corrupt,
        Some("drop") => Flaw::Drop,
        Some("reorder") => Flaw::Reorder,
        Some("repeat") => Flaw::Repeat,
        Some("close") => Flaw::Close,
        Some("deaf") => Flaw::Deaf,
        Some(_) => return eprintln!("flaws: none, corrupt, drop, reorder, repeat, close, deaf"),
    };
    let port: u16 = match arguments.next().map(|port| port.parse()) {
        None => 9000,
        Some(Ok(port)) => port,
        Some(Err(_)) => return eprintln!("the second argument is a port"),
    };
    let server = Server::on(([127, 0, 0, 1], port).into(), flaw);
    println!(
        "echo server on port {}, flaw: {flaw:?}",
        server.address.port()
    );
    loop {
        std::thread::park();
    }
}
