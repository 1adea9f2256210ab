//! A peer for the bench: the floor, the least that an epoll echo server can do.
//!
//! `epoll_wait`, one `recv` and one `send` per message, nothing else: no connection contexts, no bounds,
//! nowhere to keep bytes that cannot be sent at once (such a client is dropped). It is not a server to
//! use; it is the cost below which no server built on epoll can go, so the others are compared with it.
//! Usage: `peer-floor [PORT]`, 0 for a free one.

#![allow(
    unsafe_code,
    reason = "raw system calls: nothing of ours may stand between the floor and the kernel"
)]

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use libc::{
    EPOLL_CTL_ADD, EPOLLET, EPOLLIN, EPOLLRDHUP, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_NONBLOCK,
};

/// Reading less than this means that the socket is empty.
const BUFFER: usize = 4096;

fn main() -> anyhow::Result<()> {
    let port: u16 = std::env::args()
        .nth(1)
        .as_deref()
        .unwrap_or("9000")
        .parse()?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    println!("epoll echo floor on port {}", listener.local_addr()?.port());

    let listener = listener.as_raw_fd();
    // SAFETY: no pointers; a failure is checked.
    let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    add(epoll, listener, EPOLLIN)?;

    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 1024];
    let mut buffer = [0; BUFFER];
    loop {
        // SAFETY: the kernel writes at most as many events as the array has room for.
        let ready =
            check(unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), events.len() as i32, -1) });
        for event in &events[..ready.unwrap_or(0) as usize] {
            let fd = event.u64 as RawFd;
            if fd == listener {
                accept_all(epoll, listener)?;
            } else if !echo(fd, event.events & EPOLLRDHUP as u32 != 0, &mut buffer) {
                // SAFETY: nobody else has this descriptor; no event for it is left in this batch.
                unsafe { libc::close(fd) };
            }
        }
    }
}

fn accept_all(epoll: RawFd, listener: RawFd) -> io::Result<()> {
    loop {
        let flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
        // SAFETY: null pointers say that the peer's address is not wanted.
        let fd = unsafe { libc::accept4(listener, ptr::null_mut(), ptr::null_mut(), flags) };
        if fd < 0 {
            return Ok(());
        }
        let on: libc::c_int = 1;
        // What m6 and m7 do too: nobody is slowed down by Nagle's algorithm.
        // SAFETY: the option's value is an int, and its size is passed with it.
        unsafe {
            let size = size_of_val(&on) as libc::socklen_t;
            libc::setsockopt(
                fd,
                libc::IPPROTO_TCP,
                libc::TCP_NODELAY,
                (&raw const on).cast(),
                size,
            )
        };
        add(epoll, fd, EPOLLIN | EPOLLRDHUP | EPOLLET)?;
    }
}

/// Echoes until the socket is empty; `false` when the client is done, or has not taken everything.
fn echo(fd: RawFd, hung_up: bool, buffer: &mut [u8; BUFFER]) -> bool {
    loop {
        // SAFETY: the pointer and the length are those of the buffer.
        let received = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), BUFFER, 0) };
        if received <= 0 {
            return received < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock;
        }
        // SAFETY: `recv` has written that many bytes to the buffer.
        let sent =
            unsafe { libc::send(fd, buffer.as_ptr().cast(), received as usize, MSG_NOSIGNAL) };
        if sent < received {
            return false;
        }
        if (received as usize) < BUFFER && !hung_up {
            return true;
        }
    }
}

fn add(epoll: RawFd, fd: RawFd, interest: i32) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events: interest as u32,
        u64: fd as u64,
    };
    // SAFETY: the kernel copies the event before the call returns.
    check(unsafe { libc::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &mut event) }).map(drop)
}

fn check(returned: libc::c_int) -> io::Result<libc::c_int> {
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned)
    }
}
