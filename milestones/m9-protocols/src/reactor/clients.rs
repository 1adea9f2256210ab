//! All clients: their connections, and all that a protocol can do for them.

use std::time::Duration;

use super::connection::Connection;
use super::connections::Connections;
use super::fan_out::FanOut;
use super::idle::IdleList;
use super::stats::Counters;
use super::token::Token;
use crate::protocol::{Clients, Message};

/// How long a client that was dismissed may take to read why.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections, and what waits to be done about them: what a protocol reaches while it is called.
pub struct ConnectedClients<S> {
    pub connections: Connections<Connection<S>>,
    pub fan_out: FanOut,
    /// For whom the protocol has started a deadline. (A list of the idle serves here as well: nobody in it
    /// is active.)
    pub deadlines: IdleList,
    /// Who was dismissed and has not gone yet.
    pub dismissed: IdleList,
    /// Whose connection is to be closed when the protocol's call has come back.
    pub doomed: Vec<Token>,
    pub counters: Counters,
    /// Whose turn it is.
    pub current: Token,
    /// When the last wait ended, in milliseconds since the start.
    pub now: u64,
}

impl<S> ConnectedClients<S> {
    /// Nobody yet; for up to `capacity` clients, or more if need be.
    pub fn with_capacity(capacity: usize, deadline: Duration) -> Self {
        Self {
            connections: Connections::with_capacity(capacity),
            fan_out: FanOut::with_capacity(capacity),
            deadlines: IdleList::with_capacity(capacity, deadline),
            dismissed: IdleList::with_capacity(capacity, FAREWELL_TIMEOUT),
            doomed: Vec::new(),
            counters: Counters::default(),
            current: Token::LISTENER,
            now: 0,
        }
    }

    /// Closes a connection; `false` if it was closed before.
    pub fn remove(&mut self, token: Token) -> bool {
        // Closing the last descriptor of a socket also takes it out of epoll.
        if self.connections.remove(token).is_none() {
            return false;
        }
        self.fan_out.forget(token);
        self.deadlines.remove(token.slot());
        self.dismissed.remove(token.slot());
        true
    }
}

impl<S: Default> Clients for ConnectedClients<S> {
    fn reply(&mut self, bytes: &[u8]) {
        if let Some(connection) = self.connections.get_mut(self.current)
            && connection.reply(bytes, &mut self.counters).is_err()
        {
            self.doomed.push(self.current);
        }
    }

    // ANCHOR: tell
    fn tell(&mut self, client: Token, message: &Message) {
        if let Some(connection) = self.connections.get_mut(client)
            && !self.fan_out.owe(client, connection, message, self.now)
        {
            self.doomed.push(client);
        }
    }
    // ANCHOR_END: tell

    fn dismiss(&mut self, client: Token) {
        if let Some(connection) = self.connections.get_mut(client) {
            connection.finish();
            self.dismissed.touch(client.slot(), self.now);
        }
    }

    fn start_deadline(&mut self, client: Token) {
        if self.connections.get_mut(client).is_some() {
            self.deadlines.touch(client.slot(), self.now);
        }
    }

    fn clear_deadline(&mut self, client: Token) {
        if self.connections.get_mut(client).is_some() {
            self.deadlines.remove(client.slot());
        }
    }

    fn is_busy(&self) -> bool {
        self.fan_out.is_busy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    #[test]
    fn is_busy_while_very_much_is_waiting_to_be_offered() {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (socket, _client) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)
            .expect("a pair of sockets");
        let mut clients = ConnectedClients::<()>::with_capacity(1, Duration::ZERO);
        let client = clients.connections.insert(Connection::new(socket));
        let message: Message = b"x".as_slice().into();
        while !clients.is_busy() {
            clients.tell(client, &message);
            assert!(clients.doomed.is_empty(), "never busy");
        }
        assert_eq!(clients.fan_out.next(), Some(client));
        assert!(!clients.is_busy());
    }
}
