//! A client that waits for everything with a deadline and says exactly what came.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd},
    slice, thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{PATIENCE, Protocol, Server, Trouble, chat, explain::End, http, server, wait_until};

/// One connection to a server. Every wait ends after a deadline, [`PATIENCE`] unless told
/// otherwise.
///
/// All methods take `&self`: a socket's two directions are independent, so one thread may send what
/// another receives.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    patience: Duration,
}

/// How to connect, where the defaults will not do.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientOptions {
    receive_buffer: Option<usize>,
    send_buffer: Option<usize>,
    segment: Option<u32>,
    patience: Option<Duration>,
}

impl ClientOptions {
    /// Connect as [`Client::connect`] does.
    pub fn new() -> ClientOptions {
        ClientOptions::default()
    }

    /// Little room on the way in either direction, so that a client that does not read is soon
    /// felt: some 100 KB, instead of 3 MB with loopback's defaults.
    pub fn small() -> ClientOptions {
        ClientOptions::new()
            .receive_buffer(4096)
            .send_buffer(4096)
            .segment(1024)
    }

    /// SO_RCVBUF in bytes, set before connecting so that the window is small from the first packet
    /// on. The kernel doubles it for its own bookkeeping, and makes it at least 2,304 (socket(7)).
    pub fn receive_buffer(mut self, bytes: usize) -> ClientOptions {
        self.receive_buffer = Some(bytes);
        self
    }

    /// SO_SNDBUF in bytes; doubled like the receive buffer, and at least 4,608.
    pub fn send_buffer(mut self, bytes: usize) -> ClientOptions {
        self.send_buffer = Some(bytes);
        self
    }

    /// TCP_MAXSEG in bytes, for both directions. On loopback a segment has 64 KiB, and Linux gives
    /// a socket a send buffer of 20 segments at least: small segments make the *server's* send
    /// buffer small, which nobody else can.
    pub fn segment(mut self, bytes: u32) -> ClientOptions {
        self.segment = Some(bytes);
        self
    }

    /// How long each wait may take, instead of [`PATIENCE`].
    pub fn patience(mut self, patience: Duration) -> ClientOptions {
        self.patience = Some(patience);
        self
    }

    /// Connects to any address.
    ///
    /// # Errors
    ///
    /// [`Trouble::Connect`].
    pub fn connect_to(self, addr: SocketAddr) -> Result<Client, Trouble> {
        let patience = self.patience.unwrap_or(PATIENCE);
        let connect = || {
            let socket = self.socket(addr)?;
            socket.connect_timeout(&addr.into(), patience)?;
            Ok(TcpStream::from(socket))
        };
        match connect() {
            Ok(stream) => Ok(Client { stream, patience }),
            Err(error) => Err(Trouble::Connect { addr, error }),
        }
    }

    /// Connects to a server.
    ///
    /// # Errors
    ///
    /// [`Trouble::Connect`].
    pub fn connect(self, server: &Server) -> Result<Client, Trouble> {
        self.connect_to(server.addr())
    }

    /// Begins to connect: a server that is paused, or whose backlog is full, does not hold up the
    /// caller.
    ///
    /// # Errors
    ///
    /// [`Trouble::Connect`].
    pub fn begin(self, server: &Server) -> Result<Connecting, Trouble> {
        let addr = server.addr();
        let begin = || {
            let socket = self.socket(addr)?;
            socket.set_nonblocking(true)?;
            match socket.connect(&addr.into()) {
                Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
                done => done.map(|()| socket),
            }
        };
        match begin() {
            Ok(socket) => Ok(Connecting {
                socket,
                addr,
                patience: self.patience.unwrap_or(PATIENCE),
            }),
            Err(error) => Err(Trouble::Connect { addr, error }),
        }
    }

    fn socket(self, addr: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.segment {
            socket.set_tcp_mss(bytes)?;
        }
        // Small messages leave at once: a check that sends byte by byte must not be collected by
        // Nagle.
        socket.set_tcp_nodelay(true)?;
        Ok(socket)
    }
}

/// A connection on its way.
#[derive(Debug)]
pub struct Connecting {
    socket: Socket,
    addr: SocketAddr,
    patience: Duration,
}

impl Connecting {
    /// Waits for the connection.
    ///
    /// # Errors
    ///
    /// [`Trouble::Connect`].
    pub fn finish(self) -> Result<Client, Trouble> {
        let finish = || {
            let wait = PollTimeout::try_from(self.patience).unwrap_or(PollTimeout::MAX);
            let mut watched = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
            if poll(&mut watched, wait)? == 0 {
                return Err(ErrorKind::TimedOut.into());
            }
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            self.socket.set_nonblocking(false)
        };
        match finish() {
            Ok(()) => Ok(Client {
                stream: self.socket.into(),
                patience: self.patience,
            }),
            Err(error) => Err(Trouble::Connect {
                addr: self.addr,
                error,
            }),
        }
    }

    /// Ends it with a reset, finished or not.
    pub fn reset(self) {
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }
}

impl Client {
    /// Connects to a server.
    ///
    /// # Errors
    ///
    /// [`Trouble::Connect`].
    pub fn connect(server: &Server) -> Result<Client, Trouble> {
        ClientOptions::new().connect(server)
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The port at this end, by which `/proc/net/tcp` knows the connection.
    pub fn port(&self) -> u16 {
        self.stream
            .local_addr()
            .expect("a connected socket has an address")
            .port()
    }

    /// Sends all bytes, waiting as long as the server takes some within the deadline.
    ///
    /// # Errors
    ///
    /// [`Trouble::Send`].
    pub fn send(&self, bytes: &[u8]) -> Result<(), Trouble> {
        let mut taken = 0;
        let trouble = |taken, error| Trouble::Send {
            taken,
            total: bytes.len(),
            error,
        };
        self.stream
            .set_write_timeout(Some(self.patience))
            .map_err(|error| trouble(0, error))?;
        while taken < bytes.len() {
            match (&self.stream).write(&bytes[taken..]) {
                Ok(sent) => taken += sent,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(trouble(taken, error)),
            }
        }
        Ok(())
    }

    /// Sends what the kernel takes at once, and gives the number of bytes.
    ///
    /// # Errors
    ///
    /// [`Trouble::Send`], for any error but EAGAIN.
    pub fn send_what_fits(&self, bytes: &[u8]) -> Result<usize, Trouble> {
        let mut taken = 0;
        while taken < bytes.len() {
            // Not O_NONBLOCK, which would change the reading direction too.
            match SockRef::from(&self.stream)
                .send_with_flags(&bytes[taken..], libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            {
                Ok(sent) => taken += sent,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    return Err(Trouble::Send {
                        taken,
                        total: bytes.len(),
                        error,
                    });
                }
            }
        }
        Ok(taken)
    }

    /// Receives up to `n` bytes: until they are there, the connection ends, or the deadline passes
    /// without all of them.
    pub fn receive_up_to(&self, n: usize) -> (Vec<u8>, End) {
        self.receive_within(n, self.patience)
    }

    /// [`Client::receive_up_to`] with another deadline for the whole.
    pub fn receive_within(&self, n: usize, within: Duration) -> (Vec<u8>, End) {
        let deadline = Instant::now() + within;
        let mut received = Vec::with_capacity(n.min(1 << 20));
        let mut buffer = vec![0; n.clamp(1, 64 * 1024)];
        while received.len() < n {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return (received, End::Silence(within));
            }
            if let Err(error) = self.stream.set_read_timeout(Some(left)) {
                return (received, End::Error(error.kind()));
            }
            let wanted = buffer.len().min(n - received.len());
            match (&self.stream).read(&mut buffer[..wanted]) {
                Ok(0) => return (received, End::Eof),
                Ok(read) => received.extend_from_slice(&buffer[..read]),
                Err(error) => match error.kind() {
                    // The deadline itself is looked at above.
                    ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                    ErrorKind::ConnectionReset => return (received, End::Reset),
                    kind => return (received, End::Error(kind)),
                },
            }
        }
        (received, End::Enough)
    }

    /// What has arrived already, without waiting; `None` when that is nothing.
    pub fn has_received(&self) -> Option<End> {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        match SockRef::from(&self.stream)
            .recv_with_flags(&mut byte, libc::MSG_DONTWAIT | libc::MSG_PEEK)
        {
            Ok(0) => Some(End::Eof),
            Ok(_) => Some(End::Enough),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => None,
                ErrorKind::ConnectionReset => Some(End::Reset),
                kind => Some(End::Error(kind)),
            },
        }
    }

    /// Receives exactly these bytes.
    ///
    /// # Errors
    ///
    /// [`Trouble::Short`] or [`Trouble::Differs`].
    pub fn expect(&self, expected: &[u8]) -> Result<(), Trouble> {
        match self.receive_up_to(expected.len()) {
            (received, End::Enough) => Trouble::compare(expected, &received),
            (received, end) => Err(Trouble::Short {
                expected: expected.to_vec(),
                received,
                end,
            }),
        }
    }

    /// Receives up to and including the next line end, and gives the line without it.
    ///
    /// # Errors
    ///
    /// [`Trouble::Short`].
    pub fn receive_line(&self) -> Result<String, Trouble> {
        let mut line = Vec::new();
        loop {
            // Byte by byte: what follows the line belongs to the next call.
            match self.receive_up_to(1) {
                (byte, End::Enough) if byte == *b"\n" => {
                    return Ok(String::from_utf8_lossy(&line).into_owned());
                }
                (byte, End::Enough) => line.extend(byte),
                (_, end) => {
                    let mut expected = line.clone();
                    expected.push(b'\n');
                    return Err(Trouble::Short {
                        expected,
                        received: line,
                        end,
                    });
                }
            }
        }
    }

    /// Sends these bytes and receives them again. Only for what fits into the buffers on the way: a
    /// server may stop reading from a client that does not.
    ///
    /// # Errors
    ///
    /// [`Trouble::Send`], [`Trouble::Short`] or [`Trouble::Differs`].
    pub fn echo(&self, bytes: &[u8]) -> Result<(), Trouble> {
        self.send(bytes)?;
        self.expect(bytes)
    }

    /// Has the server serve this client, which has just connected: it echoes a line, or takes a
    /// name and says who else is there, or answers a request.
    ///
    /// # Errors
    ///
    /// [`Trouble::Send`], [`Trouble::Short`] or [`Trouble::Differs`].
    pub fn be_served(&self, server: &Server) -> Result<(), Trouble> {
        match server.program().protocol() {
            Protocol::Echo | Protocol::EchoOrHttp => self.echo(b"hello\n"),
            Protocol::Chat => chat::join_under_any_name(self),
            Protocol::Http => http::be_answered(self),
        }
    }

    /// Sends these bytes and receives them at the same time, so that there may be any number of
    /// them.
    ///
    /// # Errors
    ///
    /// [`Trouble::Send`], [`Trouble::Short`] or [`Trouble::Differs`].
    pub fn exchange(&self, bytes: &[u8]) -> Result<(), Trouble> {
        thread::scope(|scope| {
            let sending = scope.spawn(|| self.send(bytes));
            let received = self.expect(bytes);
            if received.is_err() {
                // The verdict is known; let the sender not wait for a server that has stopped
                // taking bytes.
                let _ = self.stream.shutdown(Shutdown::Both);
            }
            let sent = sending.join().expect("sending does not panic");
            received.and(sent)
        })
    }

    /// [`send_until_stuck`] of this client alone.
    ///
    /// # Errors
    ///
    /// [`Trouble::Send`], or [`Trouble::Never`] when the server goes on running without taking
    /// bytes.
    pub fn send_until_stuck(&self, server: &Server, bytes: &[u8]) -> Result<usize, Trouble> {
        let taken = send_until_stuck(server, slice::from_ref(self), bytes)?;
        Ok(taken[0])
    }

    /// The bytes of ours that lie in the server's kernel and that the server has not read.
    pub fn unread_by(&self, server: &Server) -> usize {
        let unread = server::unread_by_server(server.addr());
        unread.get(&self.local_addr()).copied().unwrap_or(0)
    }

    fn local_addr(&self) -> SocketAddr {
        self.stream
            .local_addr()
            .expect("a connected socket has an address")
    }

    /// Waits for the server to close its side, with nothing left to receive.
    ///
    /// # Errors
    ///
    /// [`Trouble::NotTheEnd`].
    pub fn expect_eof(&self) -> Result<(), Trouble> {
        match self.receive_up_to(1) {
            (_, End::Eof) => Ok(()),
            (mut extra, end) => {
                extra.extend(self.receive_within(1024, Duration::from_millis(100)).0);
                Err(Trouble::NotTheEnd { extra, end })
            }
        }
    }

    /// After an end was received: no reset came behind it. (This system's `recv` goes on to say that
    /// all is well; that of others forgets the end, and what was to be read before it.)
    ///
    /// # Errors
    ///
    /// [`Trouble::Server`], when one did.
    pub fn expect_no_reset(&self) -> Result<(), Trouble> {
        // EPIPE, if it came after the end.
        match self.stream.take_error() {
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(Trouble::Server(format!(
                "behind the end came a reset ({error})"
            ))),
        }
    }

    /// `shutdown(SHUT_WR)`: the server sees the end of our bytes, we still receive its own.
    ///
    /// # Errors
    ///
    /// [`Trouble::Server`], when the server has reset the connection before.
    pub fn half_close(&self) -> Result<(), Trouble> {
        self.stream
            .shutdown(Shutdown::Write)
            .map_err(|error| Trouble::Server(format!("shutdown(SHUT_WR) failed: {error}")))
    }

    /// Ends the connection with a reset (SO_LINGER 0) instead of an orderly end.
    pub fn reset(self) {
        // Fails only when the server has reset it first, which is as good.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// The trouble of a call made on [`Client::stream`] itself.
    pub fn trouble(&self, error: &io::Error) -> Trouble {
        Trouble::Server(error.to_string())
    }

    /// SIOCOUTQ (tcp(7)): the bytes that the server's kernel has not acknowledged yet.
    pub fn unacknowledged(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        #[allow(unsafe_code, reason = "no safe wrapper for this ioctl")]
        // SAFETY: the kernel writes one int through a pointer to one int.
        unsafe { siocoutq(self.stream.as_raw_fd(), &raw mut bytes) }
            .expect("a TCP socket knows its queue");
        usize::try_from(bytes).expect("a queue has no negative length")
    }

    /// Waits until the server's kernel has acknowledged everything that was sent: it is in the
    /// server's receive buffer, or the server has read it.
    ///
    /// # Errors
    ///
    /// [`Trouble::Never`].
    pub fn wait_until_acknowledged(&self) -> Result<(), Trouble> {
        wait_until(
            "the server's kernel took every byte sent",
            self.patience,
            || self.unacknowledged() == 0,
        )
    }
}

#[allow(
    unsafe_code,
    missing_docs,
    reason = "the macro writes an unsafe function"
)]
mod ioctl {
    // TIOCOUTQ and SIOCOUTQ are one number (linux/sockios.h).
    nix::ioctl_read_bad!(siocoutq, libc::TIOCOUTQ, libc::c_int);
}
use ioctl::siocoutq;

/// Has each client send from `bytes`, receiving nothing, until the server takes no more from any of
/// them. Gives how many bytes left each client, which is all of them if the server never stopped.
///
/// That it takes no more is seen, not guessed from a pause: each client's send buffer is full, the
/// server's kernel holds bytes of its that the server has not read, and the server sleeps.
///
/// # Errors
///
/// [`Trouble::Send`], or [`Trouble::Never`] when the server goes on running without taking bytes.
pub fn send_until_stuck(
    server: &Server,
    clients: &[Client],
    bytes: &[u8],
) -> Result<Vec<usize>, Trouble> {
    let mut taken = vec![0; clients.len()];
    let mut trouble = None;
    let mut looks = 0;
    let what = "the server sleeps, and leaves bytes of every client unread";
    wait_until(what, PATIENCE, || {
        let mut moved = false;
        let mut seems_stuck = true;
        for (client, taken) in clients.iter().zip(&mut taken) {
            match client.send_what_fits(&bytes[*taken..]) {
                Ok(sent) => {
                    *taken += sent;
                    moved |= sent > 0;
                }
                Err(error) => trouble = Some(error),
            }
            seems_stuck &= *taken == bytes.len() || client.unacknowledged() > 0;
        }
        // The kernel's table of sockets is long: it is read only when all else speaks for it. And
        // one look may fall between the arrival of bytes and the wake-up that they cause.
        looks = match !moved && seems_stuck && server.is_asleep() {
            true => looks + 1,
            false => 0,
        };
        trouble.is_some() || looks >= 5 && leaves_unread(server, clients, &taken, bytes.len())
    })?;
    match trouble {
        Some(trouble) => Err(trouble),
        None => Ok(taken),
    }
}

/// Whether the server sleeps although its kernel holds bytes of each client that has not sent all.
fn leaves_unread(server: &Server, clients: &[Client], taken: &[usize], all: usize) -> bool {
    let unread = server::unread_by_server(server.addr());
    let is_stuck = |(client, taken): (&Client, &usize)| {
        *taken == all || unread.get(&client.local_addr()).is_some_and(|&n| n > 0)
    };
    clients.iter().zip(taken).all(is_stuck) && server.is_asleep()
}

/// Bytes that differ by position and by connection, so that a lost, repeated, moved or misdelivered
/// byte cannot go unseen: the first `len` of connection `connection`.
pub fn pattern(connection: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    for block in 0..len.div_ceil(8) as u64 {
        // SplitMix64: every block's bytes depend on all of its number.
        let mut x = (connection << 40) ^ block;
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(x ^ (x >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_the_same_however_long() {
        let long = pattern(7, 1000);
        assert_eq!(long.len(), 1000);
        assert_eq!(pattern(7, 13), long[..13]);
        assert_eq!(pattern(7, 0), []);
    }

    #[test]
    fn no_piece_of_a_pattern_occurs_in_another_place_or_connection() {
        let mut seen = std::collections::HashSet::new();
        for connection in 0..50 {
            for piece in pattern(connection, 4000).windows(8) {
                assert!(seen.insert(piece.to_vec()), "{piece:?} occurs twice");
            }
        }
    }
}
