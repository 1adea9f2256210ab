//! What the server costs, read from /proc (proc(5)).

use std::fs;
use std::io;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// Processor time and threads of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Processor time so far, of all threads, user and system together; counted by the kernel in
    /// steps of a clock tick, usually 10 ms.
    pub cpu: Duration,
    /// Threads now.
    pub threads: u64,
}

/// Memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes resident, shared libraries and the program's own code included.
    pub resident: u64,
    /// Bytes of them that belong to no file: heap and stacks.
    pub anonymous: u64,
}

/// Reads utime, stime and the number of threads from `/proc/PID/stat`.
///
/// # Errors
///
/// When there is no such process.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks_per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    parse_stat(&stat, ticks_per_second as u64).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Reads `/proc/PID/smaps_rollup`: exact, where the VmRSS of `/proc/PID/status` is not.
///
/// # Errors
///
/// When there is no such process, or it belongs to somebody else.
pub fn memory(pid: u32) -> io::Result<Memory> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    parse_rollup(&rollup).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_stat(stat: &str, ticks_per_second: u64) -> Option<Usage> {
    // The name stands in parentheses and may hold spaces and parentheses itself.
    let (_, after_name) = stat.rsplit_once(')')?;
    // The first field here is number 3 of proc(5); utime is number 14.
    let field = |number: usize| {
        after_name
            .split_ascii_whitespace()
            .nth(number - 3)?
            .parse::<u64>()
            .ok()
    };
    let ticks = field(14)? + field(15)?;
    Some(Usage {
        cpu: Duration::from_nanos(ticks * 1_000_000_000 / ticks_per_second),
        threads: field(20)?,
    })
}

fn parse_rollup(rollup: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    };
    Some(Memory {
        resident: bytes("Rss:")?,
        anonymous: bytes("Anonymous:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_name_with_spaces_and_parentheses() {
        let stat = "4242 (a (very) odd name) S 1 4242 4242 0 -1 4194560 123 0 0 0 250 150 0 0 20 0 3 0 12345 1 2";
        let usage = parse_stat(stat, 100).unwrap();
        assert_eq!(
            usage,
            Usage {
                cpu: Duration::from_secs(4),
                threads: 3
            }
        );
    }

    #[test]
    fn reads_the_memory() {
        let rollup = "5581-7fff ---p 00000000 00:00 0 [rollup]\nRss:  2048 kB\nPss: 1 kB\nAnonymous:   96 kB\nAnonHugePages: 0 kB\n";
        assert_eq!(
            parse_rollup(rollup).unwrap(),
            Memory {
                resident: 2048 * 1024,
                anonymous: 96 * 1024
            }
        );
    }

    #[test]
    fn finds_this_very_process() {
        let pid = std::process::id();
        assert!(usage(pid).unwrap().threads >= 1);
        assert!(memory(pid).unwrap().resident > 0);
    }
}
