//! What the system allows: how many descriptors, how long a queue of new connections.

use std::fs;

use cli::{Failure, OrFail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::PROGRAM;

/// Fewer connections than this are worth a word when nobody asked for a number: it is what this server
/// is for.
const ENOUGH: usize = 10_000;

/// Descriptors that are opened after [`max_connections`] has counted: the epoll instance.
const STILL_TO_OPEN: usize = 1;

// ANCHOR: raise-limit
/// Raises the soft limit on descriptors to the hard limit, which any program may, and returns it.
///
/// The soft limit is often 1,024, for the sake of old programs that use `select`.
pub fn raise_descriptor_limit() -> Result<usize, Failure> {
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).or_fail("read the limit on descriptors")?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).or_fail("raise the limit on descriptors")?;
    }
    Ok(usize::try_from(hard).unwrap_or(usize::MAX))
}
// ANCHOR_END: raise-limit

/// How many connections to hold at once, given how many were asked for and the `limit` on descriptors.
pub fn max_connections(asked: Option<usize>, limit: usize) -> Result<usize, Failure> {
    // ANCHOR: most
    let taken = open_descriptors().or_fail("count the open descriptors")? + STILL_TO_OPEN;
    let most = limit.saturating_sub(taken);
    // ANCHOR_END: most
    let advice = |connections: usize| {
        let needed = connections.saturating_add(taken);
        format!("`ulimit -n {needed}` raises it, as root; for a service, LimitNOFILE={needed}")
    };
    match asked {
        Some(asked) if asked > most => Err(Failure::refused(format!(
            "cannot hold {asked} connections: the hard limit of {limit} descriptors allows {most}"
        ))
        .hint(advice(asked))),
        Some(asked) => Ok(asked),
        None if most == 0 => Err(Failure::refused(format!(
            "cannot hold any connection: the hard limit of {limit} descriptors allows none"
        ))
        .hint(advice(ENOUGH))),
        None => {
            if most < ENOUGH {
                PROGRAM.warn(
                    format_args!(
                        "the hard limit of {limit} descriptors allows only {most} connections"
                    ),
                    Some(&advice(ENOUGH)),
                );
            }
            Ok(most)
        }
    }
}

/// Says so when the kernel will make the queue of new connections shorter than was asked for: `listen`
/// itself keeps silent about it.
pub fn check_backlog(asked: u32) {
    let Ok(text) = fs::read_to_string("/proc/sys/net/core/somaxconn") else {
        return;
    };
    if let Ok(most) = text.trim().parse::<u32>()
        && asked > most
    {
        PROGRAM.warn(
            format_args!("the backlog is {most}, not {asked}: net.core.somaxconn caps it"),
            Some(&format!(
                "`sysctl net.core.somaxconn={asked}` raises it, as root"
            )),
        );
    }
}

/// How many descriptors this process has, those included that it was started with.
fn open_descriptors() -> std::io::Result<usize> {
    // One of the entries is the directory itself, open while it is read.
    Ok(fs::read_dir("/proc/self/fd")?.count() - 1)
}
