//! What `/proc` tells about a running server (proc(5)): its descriptors, epoll's interest list, threads, memory, time.
//!
//! All of it is state, not history: it says what a socket is, whatever call made it so.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    os::fd::RawFd,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::{Client, PATIENCE, Server, Trouble, sock_diag, wait_until};

/// What a descriptor refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A socket, with its inode number, by which `/proc/net/tcp` knows it.
    Socket(u64),
    /// An epoll instance.
    Epoll,
    /// Anything else, as the symbolic link in `/proc/PID/fd` names it.
    Other(String),
}

/// One entry of an epoll instance's interest list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The epoll instance.
    pub epoll: RawFd,
    /// The descriptor that was registered.
    pub fd: RawFd,
    /// The mask it was registered with. The kernel adds EPOLLERR and EPOLLHUP.
    pub events: u32,
    /// The token.
    pub data: u64,
}

impl Watch {
    /// Whether it was registered with EPOLLET.
    pub fn is_edge_triggered(&self) -> bool {
        self.events & libc::EPOLLET as u32 != 0
    }
}

/// The open descriptors of a process, in ascending order.
///
/// # Errors
///
/// [`Trouble::Server`] when the process is gone.
pub fn descriptors(pid: Pid) -> Result<Vec<(RawFd, Target)>, Trouble> {
    let dir = path(pid, "fd");
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).map_err(|error| gone(&dir, &error))? {
        let entry = entry.map_err(|error| gone(&dir, &error))?;
        let Some(fd) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A descriptor may be closed between the listing and this look.
        if let Ok(target) = target(pid, fd) {
            found.push((fd, target));
        }
    }
    found.sort_unstable_by_key(|&(fd, _)| fd);
    Ok(found)
}

/// What one descriptor refers to.
///
/// # Errors
///
/// That of readlink(2): ENOENT when it is not open.
pub fn target(pid: Pid, fd: RawFd) -> io::Result<Target> {
    let link = fs::read_link(path(pid, &format!("fd/{fd}")))?;
    let link = link.to_string_lossy();
    let inode = link
        .strip_prefix("socket:[")
        .and_then(|rest| rest.strip_suffix(']'));
    Ok(match inode.and_then(|inode| inode.parse().ok()) {
        Some(inode) => Target::Socket(inode),
        None if link == "anon_inode:[eventpoll]" => Target::Epoll,
        None => Target::Other(link.into_owned()),
    })
}

/// The file status flags of a descriptor, `O_NONBLOCK` among them, as fcntl(F_GETFL) would give them in the process.
///
/// # Errors
///
/// [`Trouble::Server`] when it is not open.
pub fn status_flags(pid: Pid, fd: RawFd) -> Result<i32, Trouble> {
    let file = path(pid, &format!("fdinfo/{fd}"));
    let text = fs::read_to_string(&file).map_err(|error| gone(&file, &error))?;
    text.lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok())
        .ok_or_else(|| Trouble::Server(format!("{} has no line `flags:`", file.display())))
}

/// The interest lists of all epoll instances of a process.
///
/// # Errors
///
/// [`Trouble::Server`] when the process is gone.
pub fn watches(pid: Pid) -> Result<Vec<Watch>, Trouble> {
    let mut found = Vec::new();
    for (epoll, target) in descriptors(pid)? {
        if target != Target::Epoll {
            continue;
        }
        let file = path(pid, &format!("fdinfo/{epoll}"));
        let text = fs::read_to_string(&file).map_err(|error| gone(&file, &error))?;
        found.extend(text.lines().filter_map(|line| watch(epoll, line)));
    }
    Ok(found)
}

/// `tfd:        5 events:       1d data:                5  pos:0 ino:61 sdev:7`: the first decimal, the rest hexadecimal.
fn watch(epoll: RawFd, line: &str) -> Option<Watch> {
    let mut words = line.strip_prefix("tfd:")?.split_whitespace();
    let fd = words.next()?.parse().ok()?;
    let mut after = |label: &str| words.by_ref().skip_while(|&word| word != label).nth(1);
    let events = u32::from_str_radix(after("events:")?, 16).ok()?;
    let data = u64::from_str_radix(after("data:")?, 16).ok()?;
    Some(Watch {
        epoll,
        fd,
        events,
        data,
    })
}

/// The threads of a process; the first is the one it began with.
///
/// # Errors
///
/// [`Trouble::Server`] when the process is gone.
pub fn threads(pid: Pid) -> Result<Vec<Pid>, Trouble> {
    let dir = path(pid, "task");
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).map_err(|error| gone(&dir, &error))? {
        let name = entry.map_err(|error| gone(&dir, &error))?.file_name();
        found.extend(
            name.to_str()
                .and_then(|name| name.parse().ok())
                .map(Pid::from_raw),
        );
    }
    found.sort_unstable_by_key(|&tid| (tid != pid, tid));
    Ok(found)
}

/// The process, first, and all that it started and that those started.
pub fn family(pid: Pid) -> Vec<Pid> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        for tid in threads(parent).unwrap_or_default() {
            let children = fs::read_to_string(path(parent, &format!("task/{tid}/children")));
            for child in children.unwrap_or_default().split_whitespace() {
                // A number may be given out anew while we look.
                let child = child.parse().ok().map(Pid::from_raw);
                found.extend(child.filter(|child| !found.contains(child)));
            }
        }
    }
    found
}

/// Bytes of memory that belong to the process alone and that no file stands behind: heap, stacks, and what else it has
/// written to. `Anonymous` in `smaps_rollup`; proc(5) calls the resident size in `status` inaccurate.
///
/// # Errors
///
/// [`Trouble::Server`] when the process is gone, or may not be looked at.
pub fn anonymous_memory(pid: Pid) -> Result<usize, Trouble> {
    let file = path(pid, "smaps_rollup");
    let text = fs::read_to_string(&file).map_err(|error| gone(&file, &error))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Anonymous:"))
        .and_then(|value| value.trim().strip_suffix(" kB"))
        .and_then(|kibibytes| kibibytes.trim().parse::<usize>().ok())
        .map(|kibibytes| kibibytes * 1024)
        .ok_or_else(|| Trouble::Server(format!("{} has no line `Anonymous:`", file.display())))
}

/// The most bytes of memory that the process has ever had resident at once: `VmHWM` in `status`.
/// Accurate to some tens of kilobytes (proc(5)), so for growth of megabytes only.
///
/// # Errors
///
/// [`Trouble::Server`] when the process is gone.
pub fn peak_memory(pid: Pid) -> Result<usize, Trouble> {
    let file = path(pid, "status");
    let text = fs::read_to_string(&file).map_err(|error| gone(&file, &error))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().strip_suffix(" kB"))
        .and_then(|kibibytes| kibibytes.trim().parse::<usize>().ok())
        .map(|kibibytes| kibibytes * 1024)
        .ok_or_else(|| Trouble::Server(format!("{} has no line `VmHWM:`", file.display())))
}

/// The processor time that all threads of the process have used, in user space and in the kernel; in steps of a clock
/// tick, usually 10 ms.
///
/// # Errors
///
/// [`Trouble::Server`] when the process is gone.
pub fn processor_time(pid: Pid) -> Result<Duration, Trouble> {
    const UTIME: usize = 14;
    const STIME: usize = 15;
    // The second field, the name in parentheses, may hold spaces and parentheses itself.
    const FIRST_AFTER_NAME: usize = 3;

    let file = path(pid, "stat");
    let text = fs::read_to_string(&file).map_err(|error| gone(&file, &error))?;
    let ticks = || {
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
        let field = |number: usize| fields.get(number - FIRST_AFTER_NAME)?.parse::<u64>().ok();
        Some(field(UTIME)? + field(STIME)?)
    };
    let ticks = ticks()
        .ok_or_else(|| Trouble::Server(format!("{} is not as proc(5) has it", file.display())))?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Ok(Duration::from_millis(ticks * 1000 / per_second as u64))
}

/// The soft and the hard limit on descriptors (RLIMIT_NOFILE) of a process.
///
/// # Errors
///
/// [`Trouble::Server`] when the process is gone.
pub fn descriptor_limits(pid: Pid) -> Result<(u64, u64), Trouble> {
    let file = path(pid, "limits");
    let text = fs::read_to_string(&file).map_err(|error| gone(&file, &error))?;
    let limits = || {
        let mut words = text
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))?
            .split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    limits().ok_or_else(|| Trouble::Server(format!("{} is not as proc(5) has it", file.display())))
}

/// A TCP socket of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// Its own end.
    pub local: SocketAddr,
    /// The other end; port 0 for a listener.
    pub remote: SocketAddr,
    /// Whether it is a listener.
    pub listens: bool,
    /// Bytes received and not read; for a listener, connections not accepted.
    pub unread: usize,
    /// What `/proc/PID/fd` calls it; 0 for a connection that nobody has accepted yet, or that its process has closed.
    pub inode: u64,
}

/// The TCP sockets whose own end has this port: a server's listener, and its connections, accepted or not.
///
/// The kernel gives the list in pieces, and while others open and close connections one may be missed: who needs one
/// that must be there looks again, as [`connection_of`] does.
pub fn tcp_sockets(port: u16) -> Vec<TcpSocket> {
    sock_diag::tcp_sockets(port).unwrap_or_else(|_| tcp_sockets_in_proc(port))
}

/// The same from `/proc/net/tcp` and `/proc/net/tcp6` (proc_net_tcp in the kernel's documentation), which every kernel
/// has. Connections in TIME_WAIT stand there for a minute, and are left out as they are there.
pub(crate) fn tcp_sockets_in_proc(port: u16) -> Vec<TcpSocket> {
    // Thousands of rows may be about others.
    let word = format!(":{port:04X} ");
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        // No tcp6 where the kernel has no IPv6.
        .flat_map(fs::read_to_string)
        .flat_map(|table| {
            let rows = table.lines().filter(|row| row.contains(&word));
            rows.filter_map(tcp_socket).collect::<Vec<_>>()
        })
        .filter(|socket| socket.local.port() == port)
        .collect()
}

/// `   0: 0100007F:2328 00000000:0000 0A 00000000:00000000 …`: local and remote address, state, the queues for sending and
/// receiving, and further on the inode. `None` for a connection in TIME_WAIT, which no process has any more.
fn tcp_socket(row: &str) -> Option<TcpSocket> {
    const TIME_WAIT: &str = "06";
    const LISTEN: &str = "0A";
    let mut words = row.split_whitespace().skip(1);
    let local = address(words.next()?)?;
    let remote = address(words.next()?)?;
    let state = words.next()?;
    if state == TIME_WAIT {
        return None;
    }
    Some(TcpSocket {
        local,
        remote,
        listens: state == LISTEN,
        unread: usize::from_str_radix(words.next()?.split_once(':')?.1, 16).ok()?,
        inode: words.nth(4)?.parse().ok()?,
    })
}

/// An address as it stands there: words of 32 bits, each in this machine's byte order, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The server's descriptors for its clients' connections, by the client's port. (On loopback, where a port is enough to
/// tell clients apart.)
///
/// # Errors
///
/// [`Trouble::Server`] when the server is gone.
pub fn connections(server: &Server) -> Result<HashMap<u16, RawFd>, Trouble> {
    let descriptors = sockets(server.pid())?;
    let sockets = tcp_sockets(server.addr().port()).into_iter();
    let accepted = sockets
        .filter(|socket| !socket.listens)
        .filter_map(|socket| {
            let fd = descriptors.get(&socket.inode)?;
            Some((socket.remote.port(), *fd))
        });
    Ok(accepted.collect())
}

/// The server's descriptor for the connection of a client that it has accepted.
///
/// # Errors
///
/// [`Trouble::Never`] when it has none, [`Trouble::Server`] when it is gone.
pub fn connection_of(server: &Server, client: &Client) -> Result<RawFd, Trouble> {
    let port = client.port();
    let mut found = Ok(None);
    wait_until(
        "the server has a descriptor for the client's connection",
        PATIENCE,
        || {
            found = connections(server).map(|connections| connections.get(&port).copied());
            !matches!(found, Ok(None))
        },
    )?;
    found.map(|fd| fd.expect("found is what was waited for"))
}

/// The server's listening socket.
///
/// # Errors
///
/// [`Trouble::Never`] when it has none, [`Trouble::Server`] when it is gone.
pub fn listener_of(server: &Server) -> Result<RawFd, Trouble> {
    let port = server.addr().port();
    let mut found = Ok(None);
    wait_until(
        "the server has a socket that listens on its port",
        PATIENCE,
        || {
            found = sockets(server.pid()).map(|descriptors| {
                let mut listeners = tcp_sockets(port)
                    .into_iter()
                    .filter(|socket| socket.listens);
                listeners.find_map(|socket| descriptors.get(&socket.inode).copied())
            });
            !matches!(found, Ok(None))
        },
    )?;
    found.map(|fd| fd.expect("found is what was waited for"))
}

/// The sockets of a process: from inode to descriptor.
fn sockets(pid: Pid) -> Result<HashMap<u64, RawFd>, Trouble> {
    let sockets = descriptors(pid)?
        .into_iter()
        .filter_map(|(fd, target)| match target {
            Target::Socket(inode) => Some((inode, fd)),
            _ => None,
        });
    Ok(sockets.collect())
}

fn path(pid: Pid, rest: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{rest}"))
}

fn gone(file: &Path, error: &io::Error) -> Trouble {
    let file = file.display();
    Trouble::Server(match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{file} is not there: the server has ended, or closed that descriptor")
        }
        io::ErrorKind::PermissionDenied => {
            format!("may not read {file}: the server runs as another user")
        }
        _ => format!("cannot read {file}: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line_of_an_interest_list() {
        let line = "tfd:       11 events: 8000201d data:        100000002  pos:0 ino:61 sdev:7";
        let watch = watch(4, line).unwrap();
        assert_eq!((watch.epoll, watch.fd, watch.data), (4, 11, 1 << 32 | 2));
        assert!(watch.is_edge_triggered());
        assert_eq!(watch_of_other_line(), None);
    }

    fn watch_of_other_line() -> Option<Watch> {
        watch(4, "flags:\t02")
    }

    #[test]
    fn reads_a_row_of_the_table_of_sockets() {
        let row = "  12: 0100007F:2328 0200007F:D431 01 00000000:00001000 00:00000000 00000000     0        0 61823 1 0 20";
        let seen = tcp_socket(row).unwrap();
        assert_eq!(seen.local.port(), 0x2328);
        #[cfg(target_endian = "little")]
        assert_eq!(seen.remote, "127.0.0.2:54321".parse().unwrap());
        assert_eq!(
            (seen.listens, seen.unread, seen.inode),
            (false, 4096, 61823)
        );
    }

    #[test]
    fn knows_its_own_process() {
        let me = Pid::this();
        assert!(threads(me).unwrap().contains(&me));
        assert!(anonymous_memory(me).unwrap() > 0);
        assert!(processor_time(me).is_ok());
        assert_eq!(family(me)[0], me);
    }
}
