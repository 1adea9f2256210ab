//! A connection of an echo server against what it may and may not do, one event after the other.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use proptest::prelude::*;

use crate::connection::{Connection, Next, READ_SIZE, Readiness};
use crate::sockets::{pair, pattern, read};

/// Most bytes taken in one turn, to be finished by one more read.
const READ_BUDGET: usize = 65_536;

/// With so many bytes owed, a client is no longer read from; with so many left, it is again.
const HIGH_WATERMARK: usize = 65_536;
const LOW_WATERMARK: usize = 16_384;

#[derive(Clone, Debug)]
enum Step {
    /// The client sends so many bytes, or as many as go.
    Send(usize),
    /// The client reads so many.
    Read(usize),
    /// The client has no more to say.
    End,
    /// One that has bytes to read of which no event will tell has its turn.
    Resume,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop_oneof![1..100_usize, 1..20_000_usize, 1..150_000_usize].prop_map(Step::Send),
        6 => prop_oneof![1..5_000_usize, 1..60_000_usize].prop_map(Step::Read),
        1 => Just(Step::End),
        3 => Just(Step::Resume),
    ];
    prop::collection::vec(step, 0..60)
}

/// The connection, its client, and what is known of both.
struct Model {
    connection: Connection,
    shared: crate::Shared,
    client: OwnedFd,
    /// The server's end of the connection, to look at what it has not read.
    socket: OwnedFd,
    sent: usize,
    received: usize,
    has_ended: bool,
    is_paused: bool,
    is_resuming: bool,
    is_closed: bool,
}

impl Model {
    fn new(room: usize) -> Self {
        let (socket, client) = pair(room);
        Self {
            connection: Connection::new(socket.try_clone().expect("a descriptor")),
            shared: crate::shared(),
            client,
            socket,
            sent: 0,
            received: 0,
            has_ended: false,
            is_paused: false,
            is_resuming: false,
            is_closed: false,
        }
    }

    /// Bytes that the client has sent and the server has taken.
    fn taken(&self) -> usize {
        self.sent - unread(&self.socket)
    }

    /// Bytes that the server has taken and its socket has not.
    fn owed(&self) -> usize {
        self.taken() - self.received - unread(&self.client)
    }

    /// Something may have become possible: the server is told, once.
    fn on_event(&mut self) -> Result<(), TestCaseError> {
        let is_readable = self.has_ended || unread(&self.socket) > 0;
        let mut flags = EpollFlags::EPOLLOUT;
        flags.set(EpollFlags::EPOLLIN, is_readable);
        flags.set(EpollFlags::EPOLLRDHUP, self.has_ended);
        let readiness = Readiness::from(flags);
        self.turn(false, |connection, shared| {
            crate::on_event(connection, readiness, shared)
        })
    }

    fn on_resume(&mut self) -> Result<(), TestCaseError> {
        self.is_resuming = false;
        self.turn(true, crate::on_resume)
    }

    /// Lets the connection have its turn, and looks at what it has made of it.
    fn turn(
        &mut self,
        resumes: bool,
        act: impl FnOnce(&mut Connection, &mut crate::Shared) -> Next,
    ) -> Result<(), TestCaseError> {
        let (taken, owed) = (self.taken(), self.owed());
        let next = act(&mut self.connection, &mut self.shared);
        let just_taken = self.taken() - taken;
        prop_assert!(
            just_taken < READ_BUDGET + READ_SIZE,
            "{just_taken} bytes in one turn"
        );
        if self.is_resuming {
            prop_assert!(just_taken == 0, "a turn in between");
        }
        prop_assert!(
            self.owed() < HIGH_WATERMARK + READ_SIZE,
            "{} bytes are owed",
            self.owed()
        );
        // Back-pressure has two marks: it begins at one, and ends at the other.
        let was_paused = self.is_paused;
        if was_paused && just_taken > 0 {
            prop_assert!(!resumes, "a pause has its own end");
            let given = owed + just_taken - self.owed();
            prop_assert!(
                owed - given.min(owed) <= LOW_WATERMARK,
                "read from again with {owed} bytes owed, of which the socket took {given}"
            );
        }
        let still_paused = was_paused && just_taken == 0 && self.owed() > LOW_WATERMARK;
        self.is_paused = still_paused || self.owed() >= HIGH_WATERMARK;
        let all_taken = self.has_ended && self.taken() == self.sent;
        match next {
            Next::Close => {
                prop_assert!(all_taken && self.owed() == 0, "closed before it was served");
                self.is_closed = true;
            }
            Next::Resume => {
                prop_assert!(!self.is_paused, "a pause has its own end");
                prop_assert!(
                    just_taken >= READ_BUDGET,
                    "gave up its turn after {just_taken} bytes"
                );
                self.is_resuming = true;
            }
            Next::Wait if self.is_resuming || self.is_paused => {}
            Next::Wait => {
                prop_assert_eq!(
                    self.taken(),
                    self.sent,
                    "left bytes of which no event will tell"
                );
                let is_done = self.has_ended && self.owed() == 0;
                prop_assert!(!is_done, "not closed, and nothing is left to do");
            }
        }
        crate::check_counters(&self.shared, self.taken(), self.taken() - self.owed())
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Send(length) if !self.has_ended => {
                let bytes: Vec<u8> = pattern(self.sent, length).collect();
                let client = self.client.as_raw_fd();
                // Less than all, or nothing, when there is no room.
                self.sent += send(client, &bytes, MsgFlags::MSG_NOSIGNAL).unwrap_or(0);
                self.on_event()
            }
            Step::Read(most) => {
                let bytes = read(&self.client, most);
                prop_assert!(
                    pattern(self.received, bytes.len()).eq(bytes.iter().copied()),
                    "other bytes come back than were sent"
                );
                self.received += bytes.len();
                self.on_event()
            }
            Step::End if !self.has_ended => {
                shutdown(self.client.as_raw_fd(), Shutdown::Write).expect("shut down");
                self.has_ended = true;
                self.on_event()
            }
            Step::Resume if self.is_resuming => self.on_resume(),
            Step::Send(_) | Step::End | Step::Resume => Ok(()),
        }
    }
}

/// How many bytes lie in a socket, to be read.
fn unread(socket: &OwnedFd) -> usize {
    let mut bytes = vec![0; 1 << 20];
    recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_PEEK).unwrap_or(0)
}

fn check(room: usize, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut model = Model::new(room);
    // From here on, both ends; at the end, all that has to happen happens.
    let last = [Step::End, Step::Resume, Step::Read(30_000)];
    let last = last
        .iter()
        .chain(std::iter::repeat_n(&[Step::Resume, Step::Read(30_000)], 60).flatten());
    for step in steps.iter().chain(last) {
        if model.is_closed {
            break;
        }
        model.step(step)?;
    }
    prop_assert!(
        model.is_closed,
        "{} bytes were sent, and {} came back",
        model.sent,
        model.received
    );
    let left = read(&model.client, 1 << 20).len();
    prop_assert_eq!(model.received + left, model.sent);
    Ok(())
}

proptest! {
    #![proptest_config(crate::config::config())]

    #[test]
    fn a_connection_echoes_within_its_bounds(room in 1..200_000_usize, steps in steps()) {
        check(room, &steps)?;
    }
}
