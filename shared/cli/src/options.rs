//! What can be said on the command line, milestone by milestone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};

/// The options of every milestone.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Port to listen on; 0 asks the kernel for a free one
    // `-1` is a number out of range, not an unknown flag: the message should say so.
    #[arg(
        value_name = "PORT",
        default_value_t = 9000,
        allow_negative_numbers = true
    )]
    port: u16,

    /// Address to listen on; `::` means every IPv6 and IPv4 address of this machine
    // The default is loopback: a server without authentication is not opened to the network unasked.
    #[arg(long, value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
}

impl Options {
    /// Where to listen.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.port)
    }
}

/// The options from `m6-10k-tuning` on.
#[derive(Args, Clone, Debug)]
pub struct TuningOptions {
    #[command(flatten)]
    listen: Options,

    /// Most connections held at once; more wait in the backlog [default: what the descriptor limit
    /// allows]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=u32::MAX as u64))]
    pub max_connections: Option<usize>,

    /// Close a connection on which nothing has moved for this long [default: never]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true,
          value_parser = RangedU64ValueParser::<u64>::new().range(1..=MOST_SECONDS))]
    idle_timeout: Option<u64>,

    /// Finished handshakes that the kernel may queue for us; it caps this at net.core.somaxconn
    #[arg(long, value_name = "N", default_value_t = 4096, allow_negative_numbers = true,
          value_parser = RangedU64ValueParser::<u32>::new().range(1..=i32::MAX as u64))]
    pub backlog: u32,
}

/// A hundred years: longer is a slip of the finger, and would overflow somebody's arithmetic.
const MOST_SECONDS: u64 = 100 * 366 * 86_400;

impl TuningOptions {
    /// Where to listen.
    pub fn address(&self) -> SocketAddr {
        self.listen.address()
    }

    /// How long a connection may be idle; `None` is for ever.
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout.map(Duration::from_secs)
    }
}

/// The options from `m7-stats` on.
#[derive(Args, Clone, Debug)]
pub struct StatsOptions {
    /// Limits and timeouts.
    #[command(flatten)]
    pub tuning: TuningOptions,

    /// Print connections, bytes and events every second
    #[arg(long)]
    pub stats: bool,
}

/// The options of `epoll_echo_server`, the last milestone.
#[derive(Args, Clone, Debug)]
pub struct ProtocolOptions {
    /// The options that it shares with the milestones before.
    #[command(flatten)]
    pub stats: StatsOptions,

    /// What to speak with clients
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Protocol::Auto)]
    pub protocol: Protocol,
}

/// What `epoll_echo_server` can speak.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Echo, except for clients whose first words are an HTTP request line
    Auto,
    /// What a client sends comes back to it (RFC 862)
    Echo,
    /// Lines go to all other clients (Budget Chat)
    Chat,
    /// The answer to a request is the request
    Http,
}
