//! Milestone 2: many clients on one thread, by asking every socket over and over.
//!
//! No call waits any more: a socket that has nothing for us says EAGAIN, and the server goes on to the
//! next. Nobody waits for a silent client now, but the server never rests: it asks all of them, always.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;

use cli::Failure;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrStorage, accept4, bind, recv,
    send, setsockopt, socket, sockopt,
};

const PROGRAM: cli::Program = cli::program!("non-blocking echo server");

/// Most bytes taken from a client by one read.
const READ_SIZE: usize = 4096;

/// Finished handshakes that the kernel may queue for us.
const BACKLOG: i32 = 128;

fn main() -> ExitCode {
    PROGRAM.run(serve)
}

/// Listens, and serves until something fails that is not one client's affair.
fn serve(options: cli::Options) -> Result<(), Failure> {
    let address = options.address();
    let listener = listen(address).map_err(|errno| Failure::listen(address, errno))?;
    PROGRAM.announce(&listener)?;
    Server::new(listener).run()
}

// ANCHOR: server
struct Server {
    listener: OwnedFd,
    clients: Vec<OwnedFd>,
    /// Where every read puts its bytes; they are sent before the next read.
    buffer: [u8; READ_SIZE],
}
// ANCHOR_END: server

impl Server {
    fn new(listener: OwnedFd) -> Self {
        Self {
            listener,
            clients: Vec::new(),
            buffer: [0; READ_SIZE],
        }
    }

    // ANCHOR: run
    fn run(mut self) -> Result<(), Failure> {
        loop {
            self.accept_client();
            // Every connection is asked, whether or not it has anything for us: the price of knowing
            // nothing of readiness.
            let buffer = &mut self.buffer;
            self.clients
                .retain(|client| echo(client, buffer) == State::Open);
        }
    }
    // ANCHOR_END: run

    // ANCHOR: accept-client
    /// Takes in one client, if one is waiting.
    fn accept_client(&mut self) {
        match accept(&self.listener) {
            Ok(client) => self.clients.push(client),
            Err(errno) if is_no_room(errno) => PROGRAM.warn_once_no_room(errno),
            // EAGAIN: nobody is waiting. Anything else is about one client, which has gone.
            Err(_) => {}
        }
    }
    // ANCHOR_END: accept-client
}

// ANCHOR: state
/// Whether a client is still with us.
#[derive(PartialEq)]
enum State {
    Open,
    /// It has no more to say and all that it said was answered, or its connection broke.
    Closed,
}
// ANCHOR_END: state

// ANCHOR: echo
/// Sends back what one read gives, which may be nothing yet.
fn echo(client: &OwnedFd, buffer: &mut [u8]) -> State {
    match recv(client.as_raw_fd(), buffer, MsgFlags::empty()) {
        Ok(0) => State::Closed,
        Ok(received) => match send_all(client, &buffer[..received]) {
            Ok(()) => State::Open,
            Err(_) => State::Closed,
        },
        Err(Errno::EAGAIN | Errno::EINTR) => State::Open,
        // Reset, timed out: this client's affair, and nobody else's.
        Err(_) => State::Closed,
    }
}
// ANCHOR_END: echo

// ANCHOR: send-all
/// Sends all of `bytes`. Where the client is slow to read, it waits for that client, and so does
/// everybody else: there is no place to keep what could not be sent.
fn send_all(client: &OwnedFd, mut bytes: &[u8]) -> nix::Result<()> {
    while !bytes.is_empty() {
        // MSG_NOSIGNAL: a client that has gone is an error to handle, not a SIGPIPE to die of.
        match send(client.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::EAGAIN) => wait_until_writable(client)?,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
// ANCHOR_END: send-all

// ANCHOR: wait-until-writable
fn wait_until_writable(client: &OwnedFd) -> nix::Result<()> {
    let mut watched = [PollFd::new(client.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut watched, PollTimeout::NONE) {
        // Whatever it reports, also an error: the next send says what it is.
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}
// ANCHOR_END: wait-until-writable

// ANCHOR: listen
/// A non-blocking listener on `address`.
fn listen(address: SocketAddr) -> nix::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let listener = socket(family, SockType::Stream, flags, None)?;
    // Connections of an earlier run may still be in TIME_WAIT: they must not keep us from the port.
    setsockopt(&listener, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        // `::` means IPv4 as well, whatever the system's default is.
        setsockopt(&listener, sockopt::Ipv6V6Only, &false)?;
    }
    bind(listener.as_raw_fd(), &SockaddrStorage::from(address))?;
    nix::sys::socket::listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok(listener)
}
// ANCHOR_END: listen

// ANCHOR: accept
/// The next client in the queue, as a non-blocking socket.
#[allow(
    unsafe_code,
    reason = "accept4 gives a raw descriptor; this makes it an owned one"
)]
fn accept(listener: &OwnedFd) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let client = accept4(listener.as_raw_fd(), flags)?;
    // SAFETY: accept4 has just opened this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(client) })
}
// ANCHOR_END: accept

/// Whether `accept` failed for want of descriptors or memory, so that it fails again until some are free.
fn is_no_room(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM
    )
}
