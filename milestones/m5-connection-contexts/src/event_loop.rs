//! The event loop: waits for readiness and lets each connection do what it can.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::Duration;

use cli::{Failure, OrFail};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::PROGRAM;
use crate::connection::{Connection, Next, Readiness};
use crate::connections::Connections;
use crate::listener::{accept, is_no_room};
use crate::token::Token;

/// Most events taken from the kernel by one wait.
const EVENTS_PER_WAIT: usize = 1024;

/// How long to wait before asking for a descriptor again when none can be had and no client can leave.
const RETRY: Duration = Duration::from_millis(100);

pub struct EventLoop {
    epoll: Epoll,
    listener: OwnedFd,
    /// Whether the listener is registered. It is not while no descriptor is left for another client.
    listening: bool,
    connections: Connections<Connection>,
    /// The ready list: connections that have bytes to read of which no event will tell.
    ready: VecDeque<Token>,
}

impl EventLoop {
    pub fn new(listener: OwnedFd) -> Result<Self, Failure> {
        let epoll =
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).or_fail("create an epoll instance")?;
        let mut event_loop = Self {
            epoll,
            listener,
            listening: false,
            connections: Connections::new(),
            ready: VecDeque::new(),
        };
        event_loop.start_listening()?;
        Ok(event_loop)
    }

    // ANCHOR: run
    pub fn run(mut self) -> Result<(), Failure> {
        let mut events = [EpollEvent::empty(); EVENTS_PER_WAIT];
        loop {
            let ready = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(ready) => ready,
                // A signal, or a debugger.
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(Failure::new("wait for events", errno)),
            };
            // Those that are put on the ready list from here on have their turn in the next round.
            let resuming = self.ready.len();
            for event in &events[..ready] {
                match Token::from(event.data()) {
                    Token::LISTENER => self.accept_clients()?,
                    token => self.serve_event(token, Readiness::from(event.events()))?,
                }
            }
            for _ in 0..resuming {
                if let Some(token) = self.ready.pop_front() {
                    self.serve_resumed(token)?;
                }
            }
        }
    }
    // ANCHOR_END: run

    // ANCHOR: timeout
    /// How long to wait: not at all while somebody can go on without an event.
    fn timeout(&self) -> EpollTimeout {
        if self.ready.is_empty() {
            EpollTimeout::NONE
        } else {
            EpollTimeout::ZERO
        }
    }
    // ANCHOR_END: timeout

    /// Takes in all clients that are waiting: the listener, too, is reported only once.
    fn accept_clients(&mut self) -> Result<(), Failure> {
        loop {
            match accept(&self.listener) {
                Ok(client) => self.add_client(client),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) if is_no_room(errno) => {
                    PROGRAM.warn_once_no_room(errno);
                    if self.connections.is_empty() {
                        // Nobody can leave, and nobody is held up.
                        sleep(RETRY);
                    } else {
                        // The edge is used up, and a descriptor that gets free makes no new one.
                        // Watching the listener anew does, when a client has left.
                        return self.stop_listening();
                    }
                }
                // Anything else is about one client, which has gone.
                Err(_) => {}
            }
        }
    }

    // ANCHOR: add-client
    /// Registers a new client, for all that will ever interest us of it. Where the kernel cannot (out of
    /// memory, or of epoll watches), the client is dropped, which closes its connection.
    fn add_client(&mut self, socket: OwnedFd) {
        let token = self.connections.insert(Connection::new(socket));
        let event = EpollEvent::new(Readiness::interest(), token.into());
        if let Some(connection) = self.connections.get_mut(token)
            && let Err(errno) = self.epoll.add(connection, event)
        {
            PROGRAM.warn_once_no_room(errno);
            self.connections.remove(token);
        }
    }
    // ANCHOR_END: add-client

    // ANCHOR: serve
    /// One client has something for us, or its socket has room for what it is owed.
    fn serve_event(&mut self, token: Token, readiness: Readiness) -> Result<(), Failure> {
        // There is none when it was closed earlier in this round.
        match self.connections.get_mut(token) {
            Some(connection) => {
                let next = connection.on_event(readiness);
                self.settle(token, next)
            }
            None => Ok(()),
        }
    }

    /// One client goes on where its budget ended in the round before.
    fn serve_resumed(&mut self, token: Token) -> Result<(), Failure> {
        match self.connections.get_mut(token) {
            Some(connection) => {
                let next = connection.on_resume();
                self.settle(token, next)
            }
            None => Ok(()),
        }
    }

    fn settle(&mut self, token: Token, next: Next) -> Result<(), Failure> {
        match next {
            Next::Wait => {}
            Next::Resume => self.ready.push_back(token),
            Next::Close => self.close(token)?,
        }
        Ok(())
    }
    // ANCHOR_END: serve

    // ANCHOR: close
    fn close(&mut self, token: Token) -> Result<(), Failure> {
        // Closing the last descriptor of a socket also takes it out of epoll.
        self.connections.remove(token);
        if !self.listening {
            self.start_listening()?;
        }
        Ok(())
    }
    // ANCHOR_END: close

    fn start_listening(&mut self) -> Result<(), Failure> {
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        let event = EpollEvent::new(interest, Token::LISTENER.into());
        self.epoll
            .add(&self.listener, event)
            .or_fail("watch the listener")?;
        self.listening = true;
        Ok(())
    }

    fn stop_listening(&mut self) -> Result<(), Failure> {
        self.epoll
            .delete(&self.listener)
            .or_fail("stop watching the listener")?;
        self.listening = false;
        Ok(())
    }
}
