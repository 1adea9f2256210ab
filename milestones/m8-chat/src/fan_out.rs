//! Fan-out: one message becomes owed to many, and is then sent to a bounded number of them a turn.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::connection::Connection;
use crate::idle::IdleList;
use crate::room::Message;
use crate::token::Token;

// ANCHOR: limits
/// Above this debt, in bytes, a client is a slow consumer and loses its connection at once.
const HARD_LIMIT: usize = 4 * 1024 * 1024;

/// Above this debt, in bytes, it has [`PATIENCE`] to catch up.
const SOFT_LIMIT: usize = 3 * 512 * 1024;

/// How long a client may be above the soft limit.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many messages may be owed that have not been offered to a socket yet, counted once per receiver.
/// Above it no new lines are taken: whoever floods the room waits for it.
const BACKLOG_LIMIT: usize = 64 * 1024;
// ANCHOR_END: limits

/// Who is owed something and has to be offered it, and who is behind.
pub struct FanOut {
    /// Connections that are owed something which their socket has not been offered yet. (Those whose
    /// socket is full are not here: an event will tell.)
    queue: VecDeque<Token>,
    /// How many messages have become owed since the queue was last empty.
    backlog: usize,
    /// Those above the soft limit, in the order in which they came to be.
    lagging: IdleList,
}

impl FanOut {
    /// For connections in up to `capacity` slots, or more if need be.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            backlog: 0,
            lagging: IdleList::with_capacity(capacity, PATIENCE),
        }
    }

    // ANCHOR: owe
    /// From now on the client is owed `message`. Returns `false` if that is too much: it reads too slowly.
    #[must_use]
    pub fn owe(
        &mut self,
        token: Token,
        connection: &mut Connection,
        message: &Message,
        now: u64,
    ) -> bool {
        let is_blocked = connection.is_blocked();
        if !connection.owe(Rc::clone(message)) {
            return true;
        }
        if !is_blocked {
            self.backlog += 1;
            if connection.start_flushing() {
                self.queue.push_back(token);
            }
            return true;
        }
        if connection.debt() > SOFT_LIMIT && !self.lagging.contains(token.slot()) {
            self.lagging.insert(token.slot(), now);
        }
        connection.debt() <= HARD_LIMIT
    }
    // ANCHOR_END: owe

    /// The next connection to be offered what it is owed.
    pub fn next(&mut self) -> Option<Token> {
        let next = self.queue.pop_front();
        if self.queue.is_empty() {
            self.backlog = 0;
        }
        next
    }

    /// Whether there is one.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether so much is waiting to be offered that no more lines should be taken.
    pub fn is_busy(&self) -> bool {
        self.backlog >= BACKLOG_LIMIT
    }

    /// A client has taken some of what it is owed.
    pub fn relieve(&mut self, token: Token, connection: &Connection) {
        if connection.debt() <= SOFT_LIMIT {
            self.lagging.remove(token.slot());
        }
    }

    /// A connection was closed.
    pub fn forget(&mut self, token: Token) {
        self.lagging.remove(token.slot());
    }

    /// The slot of a client that has been above the soft limit for too long.
    pub fn expired(&self, now: u64) -> Option<u32> {
        self.lagging.expired(now)
    }

    /// How long until there is one, in milliseconds.
    pub fn until_next(&self, now: u64) -> Option<u64> {
        self.lagging.until_next(now)
    }
}
