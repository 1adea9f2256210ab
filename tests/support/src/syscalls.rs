//! System calls as a contract sees them: by what they do to a server's sockets, not by which of several calls a program
//! chose for it.

use std::{fmt, os::fd::RawFd};

use nix::{errno::Errno, unistd::Pid};

/// One system call of a traced server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The thread that made it.
    pub tid: Pid,
    /// What it does.
    pub kind: Kind,
    /// Its number on this architecture (`libc::SYS_*`).
    pub number: i64,
    /// Its arguments, as raw register values.
    pub args: [u64; 6],
    /// How it ended, if it has.
    pub outcome: Outcome,
    /// What a finished [`Kind::Wait`] reported.
    pub ready: Vec<Ready>,
    /// What an [`Kind::EpollCtl`] asked for.
    pub control: Option<Control>,
    /// Whether a [`Kind::Wait`] or [`Kind::Poll`] sleeps when nothing is ready, that is: has a timeout other than 0.
    pub sleeps: bool,
}

/// What a system call does. Variants of one call count alike: a right server may use any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `accept`, `accept4`.
    Accept,
    /// `read`, `readv`, `recvfrom` (which `recv` is), `recvmsg`, `recvmmsg`, on a socket.
    Receive,
    /// `write`, `writev`, `sendto` (which `send` is), `sendmsg`, `sendmmsg`, on a socket.
    Send,
    /// `epoll_wait`, `epoll_pwait`, `epoll_pwait2`.
    Wait,
    /// `poll`, `ppoll`, `select`, `pselect6`.
    Poll,
    /// `epoll_ctl`.
    EpollCtl,
    /// `close`.
    Close,
    /// Any other.
    Other,
}

/// How a system call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The thread is inside it.
    InProgress,
    /// It returned this.
    Returned(i64),
    /// It failed.
    Failed(Errno),
    /// A signal or the tracer interrupted it, and the kernel starts it again by itself.
    Restarted,
}

/// One event that a wait reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The descriptor, when the registration that carries `data` is known.
    pub fd: Option<RawFd>,
    /// EPOLLIN and its like.
    pub events: u32,
    /// The token, which the server chose when it registered the descriptor.
    pub data: u64,
}

/// The arguments of one `epoll_ctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// EPOLL_CTL_ADD, EPOLL_CTL_MOD or EPOLL_CTL_DEL.
    pub operation: i32,
    /// The descriptor to be watched.
    pub fd: RawFd,
    /// The mask; 0 when the call carries none.
    pub events: u32,
    /// The token; 0 when the call carries none.
    pub data: u64,
}

impl Call {
    /// The descriptor it works on: of `epoll_ctl` the one to be watched, else the first argument.
    pub fn fd(&self) -> RawFd {
        match self.control {
            Some(control) => control.fd,
            None => first_fd(&self.args),
        }
    }

    /// What it returned, when it succeeded.
    pub fn returned(&self) -> Option<i64> {
        match self.outcome {
            Outcome::Returned(value) => Some(value),
            _ => None,
        }
    }

    /// The bytes that a [`Kind::Receive`] or [`Kind::Send`] moved.
    pub fn bytes(&self) -> usize {
        match self.kind {
            Kind::Receive | Kind::Send => self
                .returned()
                .map_or(0, |bytes| usize::try_from(bytes).unwrap_or(0)),
            _ => 0,
        }
    }

    /// Whether this is a wait that reported something.
    pub fn is_wake_up(&self) -> bool {
        self.kind == Kind::Wait && self.returned().is_some_and(|events| events > 0)
    }

    /// Whether this is a wait that reported `fd`.
    pub fn reports(&self, fd: RawFd) -> bool {
        self.ready.iter().any(|ready| ready.fd == Some(fd))
    }

    /// Whether a thread is asleep in this call until epoll has something to report.
    pub fn is_resting(&self) -> bool {
        self.kind == Kind::Wait && self.sleeps && self.outcome == Outcome::InProgress
    }

    /// The call's name, without arguments.
    pub fn name(&self) -> String {
        match name(self.number) {
            Some(name) => name.to_owned(),
            None => format!("syscall {}", self.number),
        }
    }
}

/// The first argument as a descriptor.
pub(crate) fn first_fd(args: &[u64; 6]) -> RawFd {
    // The kernel, too, looks at the lower half only.
    args[0] as u32 as RawFd
}

impl Kind {
    /// What the call `number` does. `is_socket` says whether its first argument is a socket, and is asked only where the
    /// number alone does not tell.
    pub(crate) fn of(number: i64, is_socket: impl Fn() -> bool) -> Kind {
        match number {
            libc::SYS_recvfrom | libc::SYS_recvmsg | libc::SYS_recvmmsg => Kind::Receive,
            libc::SYS_sendto | libc::SYS_sendmsg | libc::SYS_sendmmsg => Kind::Send,
            libc::SYS_read | libc::SYS_readv if is_socket() => Kind::Receive,
            libc::SYS_write | libc::SYS_writev if is_socket() => Kind::Send,
            libc::SYS_accept | libc::SYS_accept4 => Kind::Accept,
            libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => Kind::Wait,
            libc::SYS_ppoll | libc::SYS_pselect6 => Kind::Poll,
            libc::SYS_epoll_ctl => Kind::EpollCtl,
            libc::SYS_close => Kind::Close,
            // Newer architectures were born without these.
            #[cfg(target_arch = "x86_64")]
            libc::SYS_epoll_wait => Kind::Wait,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll | libc::SYS_select => Kind::Poll,
            _ => Kind::Other,
        }
    }
}

/// Names of the calls that a server is likely to make.
fn name(number: i64) -> Option<&'static str> {
    macro_rules! names {
        ($($(#[$attribute:meta])* $constant:ident $name:literal),* $(,)?) => {
            match number {
                $($(#[$attribute])* libc::$constant => Some($name),)*
                _ => None,
            }
        };
    }
    names! {
        SYS_read "read", SYS_write "write", SYS_readv "readv", SYS_writev "writev", SYS_close "close",
        SYS_recvfrom "recvfrom", SYS_recvmsg "recvmsg", SYS_recvmmsg "recvmmsg",
        SYS_sendto "sendto", SYS_sendmsg "sendmsg", SYS_sendmmsg "sendmmsg", SYS_sendfile "sendfile",
        SYS_splice "splice",
        SYS_socket "socket", SYS_bind "bind", SYS_listen "listen", SYS_connect "connect",
        SYS_accept "accept", SYS_accept4 "accept4", SYS_shutdown "shutdown",
        SYS_getsockname "getsockname", SYS_getpeername "getpeername",
        SYS_setsockopt "setsockopt", SYS_getsockopt "getsockopt", SYS_fcntl "fcntl", SYS_ioctl "ioctl",
        SYS_epoll_create1 "epoll_create1", SYS_epoll_ctl "epoll_ctl", SYS_epoll_pwait "epoll_pwait",
        SYS_epoll_pwait2 "epoll_pwait2", SYS_ppoll "ppoll", SYS_pselect6 "pselect6",
        SYS_timerfd_create "timerfd_create", SYS_timerfd_settime "timerfd_settime", SYS_signalfd4 "signalfd4",
        SYS_eventfd2 "eventfd2", SYS_rt_sigprocmask "rt_sigprocmask", SYS_rt_sigaction "rt_sigaction",
        SYS_rt_sigreturn "rt_sigreturn", SYS_restart_syscall "restart_syscall",
        SYS_mmap "mmap", SYS_munmap "munmap", SYS_mremap "mremap", SYS_brk "brk", SYS_madvise "madvise",
        SYS_futex "futex", SYS_clock_gettime "clock_gettime", SYS_clock_nanosleep "clock_nanosleep",
        SYS_nanosleep "nanosleep", SYS_sched_yield "sched_yield", SYS_prlimit64 "prlimit64",
        SYS_openat "openat", SYS_getrandom "getrandom", SYS_exit "exit", SYS_exit_group "exit_group",
        SYS_clone "clone", SYS_clone3 "clone3", SYS_execve "execve", SYS_wait4 "wait4", SYS_getpid "getpid",
        SYS_io_uring_enter "io_uring_enter",
        #[cfg(target_arch = "x86_64")] SYS_epoll_wait "epoll_wait",
        #[cfg(target_arch = "x86_64")] SYS_poll "poll",
        #[cfg(target_arch = "x86_64")] SYS_select "select",
        #[cfg(target_arch = "x86_64")] SYS_fork "fork",
        #[cfg(target_arch = "x86_64")] SYS_vfork "vfork",
    }
}

/// An event mask in the words of epoll_ctl(2), without the prefix: `IN|RDHUP|ET`.
pub fn mask(events: u32) -> String {
    const BITS: [(i32, &str); 8] = [
        (libc::EPOLLIN, "IN"),
        (libc::EPOLLOUT, "OUT"),
        (libc::EPOLLRDHUP, "RDHUP"),
        (libc::EPOLLPRI, "PRI"),
        (libc::EPOLLERR, "ERR"),
        (libc::EPOLLHUP, "HUP"),
        (libc::EPOLLET, "ET"),
        (libc::EPOLLONESHOT, "ONESHOT"),
    ];
    let mut left = events;
    let mut words = Vec::new();
    for (bit, word) in BITS {
        let bit = bit as u32;
        if left & bit != 0 {
            words.push(word.to_owned());
            left &= !bit;
        }
    }
    if left != 0 || words.is_empty() {
        words.push(format!("{left:#x}"));
    }
    words.join("|")
}

/// As strace would print it, with the arguments that matter here.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match (self.kind, self.control) {
            (Kind::EpollCtl, Some(control)) => {
                let operation = match control.operation {
                    libc::EPOLL_CTL_ADD => "ADD",
                    libc::EPOLL_CTL_MOD => "MOD",
                    libc::EPOLL_CTL_DEL => "DEL",
                    _ => "?",
                };
                write!(
                    f,
                    "{name}({}, {operation}, {}",
                    first_fd(&self.args),
                    control.fd
                )?;
                match control.operation {
                    libc::EPOLL_CTL_DEL => write!(f, ")")?,
                    _ => write!(f, ", {})", mask(control.events))?,
                }
            }
            (Kind::Poll, _) => write!(f, "{name}(…)")?,
            (Kind::Wait, _) if !self.sleeps => {
                write!(f, "{name}({}, …, timeout 0)", first_fd(&self.args))?
            }
            (Kind::Receive | Kind::Send, _) => {
                write!(f, "{name}({}, …, {})", first_fd(&self.args), self.args[2])?;
            }
            (Kind::Other, _) => write!(f, "{name}(…)")?,
            _ => write!(f, "{name}({})", first_fd(&self.args))?,
        }
        match self.outcome {
            Outcome::InProgress => write!(f, " …"),
            Outcome::Returned(value) => {
                write!(f, " = {value}")?;
                for ready in self.ready.iter().take(4) {
                    match ready.fd {
                        Some(fd) => write!(f, " [fd {fd}: {}]", mask(ready.events))?,
                        None => write!(f, " [data {:#x}: {}]", ready.data, mask(ready.events))?,
                    }
                }
                match self.ready.len() {
                    0..=4 => Ok(()),
                    more => write!(f, " and {} more", more - 4),
                }
            }
            Outcome::Failed(errno) => write!(f, " = {errno:?}"),
            Outcome::Restarted => write!(f, " = interrupted, begins again"),
        }
    }
}

/// The first calls of a trace, one a line, for a failure's message.
pub fn listing(calls: &[Call]) -> String {
    const SHOWN: usize = 12;
    let mut text = String::new();
    let calls: Vec<&Call> = calls.iter().filter(|call| !is_about_memory(call)).collect();
    for call in calls.iter().take(SHOWN) {
        text += &format!("\n    {call}");
    }
    match calls.len() {
        0 => text += "\n    (no system call at all)",
        n if n > SHOWN => text += &format!("\n    … and {} more", n - SHOWN),
        _ => {}
    }
    text
}

/// Whether a call only gets memory from the kernel, or gives it back: an allocator does so when it likes.
fn is_about_memory(call: &Call) -> bool {
    matches!(
        call.number,
        libc::SYS_brk | libc::SYS_mmap | libc::SYS_mremap | libc::SYS_munmap | libc::SYS_madvise
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_of_one_call_count_alike() {
        let socket = || true;
        for number in [libc::SYS_read, libc::SYS_recvfrom, libc::SYS_recvmsg] {
            assert_eq!(Kind::of(number, socket), Kind::Receive);
        }
        for number in [libc::SYS_write, libc::SYS_sendto, libc::SYS_writev] {
            assert_eq!(Kind::of(number, socket), Kind::Send);
        }
        assert_eq!(
            Kind::of(libc::SYS_read, || false),
            Kind::Other,
            "of a timerfd, say"
        );
    }

    #[test]
    fn reads_like_strace() {
        let call = Call {
            tid: Pid::from_raw(1),
            kind: Kind::Wait,
            number: libc::SYS_epoll_pwait,
            args: [4, 0, 8, u64::MAX, 0, 0],
            outcome: Outcome::Returned(1),
            ready: vec![Ready {
                fd: Some(5),
                events: (libc::EPOLLIN | libc::EPOLLRDHUP) as u32,
                data: 5,
            }],
            control: None,
            sleeps: true,
        };
        assert_eq!(call.to_string(), "epoll_pwait(4) = 1 [fd 5: IN|RDHUP]");
        assert!(call.is_wake_up() && call.reports(5) && !call.is_resting());
        assert_eq!(mask(libc::EPOLLET as u32 | 1), "IN|ET");
    }
}
