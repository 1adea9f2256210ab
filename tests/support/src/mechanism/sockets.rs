//! What the server's sockets are, and how they are registered.

use std::{collections::HashSet, os::fd::RawFd};

use rustix::{
    io::Errno,
    process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};
use socket2::SockRef;

use super::served_clients;
use crate::{
    Client, Server, Trouble,
    explain::{Lesson, book},
    proc_fs::{self, Watch},
    skipped,
    syscalls::{Kind, mask},
    tracer::{Mark, Tracer},
};

/// The listener and every accepted socket has O_NONBLOCK.
#[track_caller]
pub fn sockets_are_non_blocking(server: &Server) {
    Lesson {
        tried: "five clients connect and are served; then the flags of the server's sockets are read from \
                /proc/PID/fdinfo",
        usually: "accept gives a blocking socket whatever the listener is: use accept4(SOCK_NONBLOCK), or \
                  fcntl(F_SETFL, O_NONBLOCK) right after it. And the listener itself must not block: a client may be gone \
                  between its readiness and the accept",
        read: book::M2_NON_BLOCKING,
    }
    .expect(|| {
        let clients = served_clients(server, 5)?;
        let listener = proc_fs::listener_of(server)?;
        is_non_blocking(server, listener, "the listener")?;
        for client in &clients {
            let fd = proc_fs::connection_of(server, client)?;
            is_non_blocking(server, fd, "a client's socket")?;
        }
        Ok(())
    });
}

fn is_non_blocking(server: &Server, fd: RawFd, what: &str) -> Result<(), Trouble> {
    let flags = proc_fs::status_flags(server.pid(), fd)?;
    if flags & libc::O_NONBLOCK != 0 {
        return Ok(());
    }
    Err(Trouble::Server(format!(
        "{what} (descriptor {fd}) is blocking: /proc/{}/fdinfo/{fd} has flags {flags:#o}, without O_NONBLOCK ({:#o})",
        server.pid(),
        libc::O_NONBLOCK
    )))
}

/// One thread serves everybody.
#[track_caller]
pub fn runs_in_one_thread(server: &Server) {
    Lesson {
        tried: "20 clients are connected at once, and leave as they are served; who serves them is seen in the trace, and \
                in /proc/PID/task",
        usually: "the server starts a thread or a process for each connection, or hands them to a pool. These servers do \
                  everything in one loop in one thread",
        read: book::M2_IDEA,
    }
    .expect(|| {
        let threads = proc_fs::threads(server.pid())?;
        if threads.len() != 1 && !server.program().is_foreign() {
            return Err(Trouble::Server(format!("it has {} threads: {threads:?}", threads.len())));
        }
        // A runtime may keep threads for its own ends (a collector, a compiler). What counts is who serves.
        let tracer = Tracer::attach(server)?;
        // All connected at once, and then leaving one after another, so that a server that serves them in turn passes.
        let clients = (0..20).map(|_| Client::connect(server)).collect::<Result<Vec<_>, _>>()?;
        for client in clients {
            client.be_served(server)?;
        }
        let calls = tracer.since(Mark::default());
        let serving = calls.iter().filter(|call| matches!(call.kind, Kind::Receive | Kind::Send));
        let serving: HashSet<_> = serving.map(|call| call.tid).collect();
        match serving.len() {
            1 => Ok(()),
            n => Err(Trouble::Server(format!(
                "{n} threads or processes read from and wrote to its clients: {serving:?}"
            ))),
        }
    });
}

/// How a descriptor is registered with epoll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Without EPOLLET: reported as long as there is something to do.
    Level,
    /// With EPOLLET: reported when something new happens.
    Edge,
}

/// Every client is registered with epoll, in this way, for `events` at least; of the reader's program, which may arm
/// others when it needs them, only EPOLLIN is asked.
#[track_caller]
pub fn registers_clients(server: &Server, trigger: Trigger, events: i32) {
    let events = match server.program().is_foreign() {
        true => libc::EPOLLIN,
        false => events,
    };
    Lesson {
        tried: "three clients connect and are served; then the epoll descriptor's interest list is read from \
                /proc/PID/fdinfo",
        usually: match trigger {
            Trigger::Level => "this milestone is level-triggered: EPOLLIN without EPOLLET",
            Trigger::Edge => "a flag is missing when the client is registered (EPOLL_CTL_ADD): EPOLLET, or one of the \
                              events that this milestone arms once and for all. Or there is one too many: after one \
                              event EPOLLONESHOT disarms the client, which then has to be armed again each time \
                              (EPOLL_CTL_MOD)",
        },
        read: match trigger {
            Trigger::Level => book::M3_CODE,
            Trigger::Edge => book::M4_CODE,
        },
    }
    .expect(|| {
        let clients = served_clients(server, 3)?;
        let watches = proc_fs::watches(server.pid())?;
        for client in &clients {
            let fd = proc_fs::connection_of(server, client)?;
            is_registered(&watches, fd, "a client's socket", trigger, events)?;
        }
        Ok(())
    });
}

/// The listener is registered with epoll, in this way.
#[track_caller]
pub fn registers_the_listener(server: &Server, trigger: Trigger) {
    Lesson {
        tried: "a client connects and is served; then the epoll descriptor's interest list is read from \
                /proc/PID/fdinfo",
        usually: match trigger {
            Trigger::Level => "the listener is edge-triggered: whatever ends the accept loop early (a budget, EMFILE) \
                               then leaves clients in the queue with no event to come. Register it without EPOLLET",
            Trigger::Edge => "this milestone registers the listener, too, with EPOLLET",
        },
        read: match trigger {
            Trigger::Level => book::M6_LISTENER,
            Trigger::Edge => book::M4_ACCEPT,
        },
    }
    .expect(|| {
        let _clients = served_clients(server, 1)?;
        let watches = proc_fs::watches(server.pid())?;
        let listener = proc_fs::listener_of(server)?;
        is_registered(&watches, listener, "the listener", trigger, libc::EPOLLIN)
    });
}

fn is_registered(
    watches: &[Watch],
    fd: RawFd,
    what: &str,
    trigger: Trigger,
    events: i32,
) -> Result<(), Trouble> {
    let Some(watch) = watches.iter().find(|watch| watch.fd == fd) else {
        let fds: Vec<RawFd> = watches.iter().map(|watch| watch.fd).collect();
        return Err(Trouble::Server(format!(
            "{what} (descriptor {fd}) is not registered with any epoll instance; registered are {fds:?}"
        )));
    };
    let events = events as u32;
    if watch.is_edge_triggered() == (trigger == Trigger::Edge) && watch.events & events == events {
        return Ok(());
    }
    let wanted = match trigger {
        Trigger::Level => format!("{} without ET", mask(events)),
        Trigger::Edge => mask(events | libc::EPOLLET as u32),
    };
    Err(Trouble::Server(format!(
        "{what} (descriptor {fd}) is registered for {}; expected: {wanted}",
        mask(watch.events)
    )))
}

/// Every client's socket has TCP_NODELAY.
#[track_caller]
pub fn sends_without_delay(server: &Server) {
    let copy_of = |fd: RawFd| {
        let pid = rustix::process::Pid::from_raw(server.pid().as_raw())
            .expect("the server has a process id");
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        pidfd_getfd(process, fd, PidfdGetfdFlags::empty())
    };
    Lesson {
        tried: "a client connects and is served; then TCP_NODELAY of the server's socket is read",
        usually: "TCP_NODELAY is not set. Without it the kernel holds back a small message while an earlier one is not \
                  acknowledged (Nagle's algorithm), and the client's delayed acknowledgement makes that 40 ms",
        read: book::M6_NODELAY,
    }
    .expect(|| {
        let clients = served_clients(server, 1)?;
        let fd = proc_fs::connection_of(server, &clients[0])?;
        // A copy of the server's descriptor: the same socket, so its options.
        let copy = match copy_of(fd) {
            Ok(copy) => copy,
            Err(Errno::PERM | Errno::NOSYS) => {
                skipped("pidfd_getfd(2) is not allowed here; a container allows it with --cap-add=SYS_PTRACE");
                return Ok(());
            }
            Err(error) => return Err(Trouble::Server(format!("pidfd_getfd of descriptor {fd} failed: {error}"))),
        };
        match SockRef::from(&copy).tcp_nodelay() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Trouble::Server(format!(
                "the client's socket (descriptor {fd}) does not have TCP_NODELAY"
            ))),
            Err(error) => Err(Trouble::Server(format!("getsockopt(TCP_NODELAY) failed: {error}"))),
        }
    });
}
