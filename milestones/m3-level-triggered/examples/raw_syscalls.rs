//! The three system calls of epoll as the kernel has them, through libc: what nix's `Epoll` wraps.
//!
//! It watches standard input and says what it is told: type a line, then end the input with Ctrl-D.
//!
//! ```text
//! cargo run -p m3-level-triggered --example raw_syscalls
//! ```

#![allow(
    unsafe_code,
    reason = "the lesson: what a raw system call asks of its caller"
)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Most events taken from the kernel by one wait.
const EVENTS_PER_WAIT: usize = 16;

fn main() -> io::Result<()> {
    let input = io::stdin().as_raw_fd();

    // ANCHOR: create
    // 1. An epoll instance: a descriptor behind which the kernel keeps what we are interested in.
    // SAFETY: takes a number and no pointer.
    let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: epoll_create1 has just opened this descriptor, and nobody else knows of it.
    let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
    // ANCHOR_END: create

    // ANCHOR: interest
    // 2. Interest: which descriptor, in what, and 64 bits of our own that come back with each event.
    let mut interest = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: input as u64,
    };
    // SAFETY: `interest` lives until the call returns, and the kernel only reads it.
    check(unsafe {
        libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, input, &mut interest)
    })?;
    // ANCHOR_END: interest

    // ANCHOR: wait
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT];
    loop {
        // 3. Readiness: the kernel fills in as many events as it has, and at most as many as fit.
        // SAFETY: `events` has room for EVENTS_PER_WAIT events and lives until the call returns.
        let ready = check(unsafe {
            libc::epoll_wait(
                epoll.as_raw_fd(),
                events.as_mut_ptr(),
                EVENTS_PER_WAIT as i32,
                -1,
            )
        })?;
        for event in &events[..ready as usize] {
            // Copied out: on x86-64 the struct is packed, and a reference into it would be unaligned.
            let (flags, token) = (event.events, event.u64);
            println!("descriptor {token} is ready: events {flags:#x}");
        }
        // ANCHOR_END: wait

        // Level-triggered: without this read, the next wait would report the same again, at once.
        let mut line = [0_u8; 256];
        // SAFETY: `line` has room for as many bytes as are asked for.
        let received = unsafe { libc::read(input, line.as_mut_ptr().cast(), line.len()) };
        match received {
            -1 => return Err(io::Error::last_os_error()),
            0 => return Ok(()),
            _ => println!("read {received} bytes"),
        }
    }
}

/// What a system call returns, as Rust has it: -1 means that `errno` says why.
fn check(returned: libc::c_int) -> io::Result<libc::c_int> {
    if returned == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned)
    }
}
