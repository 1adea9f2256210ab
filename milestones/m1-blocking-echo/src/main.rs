//! Milestone 1: an echo server that serves one client at a time.
//!
//! Every call blocks: `accept` until somebody connects, `read` until that client says something. It is
//! the shortest server there is, and while one client is silent all others wait.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use cli::Failure;

const PROGRAM: cli::Program = cli::program!("blocking echo server");

/// Most bytes taken from a client by one read.
const READ_SIZE: usize = 4096;

/// How long to wait before asking for a descriptor again when none can be had.
const RETRY: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    PROGRAM.run(serve)
}

// ANCHOR: serve
/// Listens, and serves one client after the other. Ends only when it cannot listen.
fn serve(options: cli::Options) -> Result<(), Failure> {
    let address = options.address();
    // `bind` makes the socket, sets SO_REUSEADDR, binds it and listens: four system calls.
    let listener = TcpListener::bind(address).map_err(|error| Failure::listen(address, error))?;
    PROGRAM.announce(&listener)?;

    loop {
        match listener.accept() {
            // Whatever goes wrong with this client concerns this client alone.
            Ok((client, _address)) => drop(echo(client)),
            // A signal came, or the client left before its turn: the next call may succeed.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                ) => {}
            // Out of descriptors, most likely. Asking again at once would only burn the processor.
            Err(error) => {
                PROGRAM.warn_once_no_room(error);
                sleep(RETRY);
            }
        }
    }
}
// ANCHOR_END: serve

// ANCHOR: echo
/// Sends back all that the client sends, until it has no more to say.
fn echo(mut client: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; READ_SIZE];
    loop {
        match client.read(&mut buffer) {
            // End of input. All that came was answered, so the connection may close.
            Ok(0) => return Ok(()),
            Ok(received) => client.write_all(&buffer[..received])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
// ANCHOR_END: echo
