//! Milestone 3: many clients on one thread, by letting the kernel say which are ready.
//!
//! The server registers each socket with epoll once and then waits for all of them in one call, which
//! reports those that are ready. Level-triggered: it reports a socket again and again while bytes wait.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use cli::{Failure, OrFail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrStorage, accept4, bind, recv,
    send, setsockopt, socket, sockopt,
};

const PROGRAM: cli::Program = cli::program!("epoll echo server", "level-triggered");

/// Most bytes taken from a client by one read.
const READ_SIZE: usize = 4096;

/// Finished handshakes that the kernel may queue for us.
const BACKLOG: i32 = 128;

/// Most events taken from the kernel by one wait.
const EVENTS_PER_WAIT: usize = 1024;

/// How long to wait before asking for a descriptor again when none can be had and no client can leave.
const RETRY: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    PROGRAM.run(serve)
}

/// Listens, and serves until something fails that is not one client's affair.
fn serve(options: cli::Options) -> Result<(), Failure> {
    let address = options.address();
    let listener = listen(address).map_err(|errno| Failure::listen(address, errno))?;
    PROGRAM.announce(&listener)?;
    Server::new(listener)?.run()
}

// ANCHOR: server
struct Server {
    epoll: Epoll,
    listener: OwnedFd,
    /// Whether the listener is registered. It is not while no descriptor is left for another client.
    listening: bool,
    /// By descriptor, which is also the token that epoll gives back with each event.
    clients: HashMap<RawFd, OwnedFd>,
    /// Where every read puts its bytes; they are sent before the next read.
    buffer: [u8; READ_SIZE],
}
// ANCHOR_END: server

impl Server {
    fn new(listener: OwnedFd) -> Result<Self, Failure> {
        let epoll =
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).or_fail("create an epoll instance")?;
        let mut server = Self {
            epoll,
            listener,
            listening: false,
            clients: HashMap::new(),
            buffer: [0; READ_SIZE],
        };
        server.start_listening()?;
        Ok(server)
    }

    // ANCHOR: loop
    fn run(mut self) -> Result<(), Failure> {
        let mut events = [EpollEvent::empty(); EVENTS_PER_WAIT];
        loop {
            let ready = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(ready) => ready,
                // A signal, or a debugger.
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(Failure::new("wait for events", errno)),
            };
            for event in &events[..ready] {
                let token = event.data() as RawFd;
                if token == self.listener.as_raw_fd() {
                    self.accept_client()?;
                } else {
                    self.serve_client(token)?;
                }
            }
        }
    }
    // ANCHOR_END: loop

    // ANCHOR: accept
    /// Takes in one client. If more are waiting, the next wait reports the listener again.
    fn accept_client(&mut self) -> Result<(), Failure> {
        match accept(&self.listener) {
            Ok(client) => self.add_client(client),
            Err(errno) if is_no_room(errno) => {
                PROGRAM.warn_once_no_room(errno);
                if self.clients.is_empty() {
                    // Nobody can leave, and nobody is held up.
                    sleep(RETRY);
                } else {
                    // The listener stays ready: waiting for it would return at once, again and again.
                    // It is watched anew when a client has left.
                    self.stop_listening()?;
                }
            }
            // EAGAIN: nobody is waiting. Anything else is about one client, which has gone.
            Err(_) => {}
        }
        Ok(())
    }
    // ANCHOR_END: accept

    // ANCHOR: add
    /// Watches a new client. Where the kernel cannot (out of memory, or of epoll watches), the client
    /// is dropped, which closes its connection.
    fn add_client(&mut self, client: OwnedFd) {
        let token = client.as_raw_fd();
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token as u64);
        match self.epoll.add(&client, event) {
            Ok(()) => drop(self.clients.insert(token, client)),
            Err(errno) => PROGRAM.warn_once_no_room(errno),
        }
    }
    // ANCHOR_END: add

    // ANCHOR: serve
    /// One client has something for us: bytes, its end of input, or an error.
    fn serve_client(&mut self, token: RawFd) -> Result<(), Failure> {
        let Some(client) = self.clients.get(&token) else {
            return Ok(());
        };
        if echo(client, &mut self.buffer) == State::Closed {
            // Closing the last descriptor of a socket also takes it out of epoll.
            self.clients.remove(&token);
            if !self.listening {
                self.start_listening()?;
            }
        }
        Ok(())
    }
    // ANCHOR_END: serve

    // ANCHOR: listening
    fn start_listening(&mut self) -> Result<(), Failure> {
        let token = self.listener.as_raw_fd();
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token as u64);
        self.epoll
            .add(&self.listener, event)
            .or_fail("watch the listener")?;
        self.listening = true;
        Ok(())
    }
    // ANCHOR_END: listening

    // ANCHOR: stop-listening
    fn stop_listening(&mut self) -> Result<(), Failure> {
        self.epoll
            .delete(&self.listener)
            .or_fail("stop watching the listener")?;
        self.listening = false;
        Ok(())
    }
    // ANCHOR_END: stop-listening
}

/// Whether a client is still with us.
#[derive(PartialEq)]
enum State {
    Open,
    /// It has no more to say and all that it said was answered, or its connection broke.
    Closed,
}

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

fn wait_until_writable(client: &OwnedFd) -> nix::Result<()> {
    let mut watched = [PollFd::new(client.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut watched, PollTimeout::NONE) {
        // Whatever it reports, also an error: the next send says what it is.
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

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

/// Whether `accept` failed for want of descriptors or memory, so that it fails again until some are free.
fn is_no_room(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM
    )
}
