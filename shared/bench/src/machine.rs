//! What the figures were taken on, and the cores that server and load are given.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// One run: where, when and how its figures were taken. Every table and plot carries it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Processor, cores and memory.
    pub machine: Machine,
    /// What `uname -sr` prints.
    pub kernel: String,
    /// The day, in UTC, as in RFC 3339.
    pub date: String,
    /// What was typed.
    pub command: String,
    /// The commit that was measured; `+` behind it when the work tree had changes.
    pub commit: String,
    /// What `rustc --version` prints.
    pub rustc: String,
    /// The load average over a minute before anything was started or built: what else was going on.
    pub load_before: f64,
    /// Seconds that the whole run took.
    pub took_s: f64,
}

/// The machine, without its name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Whether a hypervisor says that it is there.
    pub virtual_machine: bool,
    /// Main memory, in bytes.
    pub memory: u64,
    /// The hard RLIMIT_NOFILE.
    pub descriptors: u64,
}

impl Run {
    /// Looks at the machine, on which `command` was typed. What cannot be found out is said to be unknown.
    pub fn describe(command: String) -> Result<Self> {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Ok(Self {
            machine: Machine {
                // Not every architecture names its processor there.
                processor: field(&processor, "model name")
                    .unwrap_or(std::env::consts::ARCH)
                    .to_owned(),
                cores: Cores::allowed()?.len(),
                virtual_machine: field(&processor, "flags")
                    .is_some_and(|flags| flags.contains(" hypervisor")),
                memory: kibibytes(&memory, "MemTotal").unwrap_or(0),
                descriptors: hard,
            },
            kernel: first_line("uname", &["-sr"]),
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            command,
            commit: commit(),
            rustc: first_line("rustc", &["--version"]),
            load_before: load_average().unwrap_or(0.0),
            took_s: 0.0,
        })
    }
}

/// The first number of /proc/loadavg.
fn load_average() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = if self.cores == 1 { "core" } else { "cores" };
        let gigabytes = self.memory as f64 / 1e9;
        write!(
            f,
            "{}, {} {cores}, {gigabytes:.0} GB",
            self.processor, self.cores
        )?;
        if self.virtual_machine {
            f.write_str(", virtual machine")
        } else {
            Ok(())
        }
    }
}

/// The value behind `name` in a file of lines like `name : value`.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// Like [`field`], for a value in kB as /proc has them; the result is in bytes.
pub fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let value = field(text, name)?.strip_suffix("kB")?;
    Some(value.trim().parse::<u64>().ok()? * 1024)
}

fn commit() -> String {
    let commit = first_line("git", &["rev-parse", "--short", "HEAD"]);
    // The bench's own output is no change of what it measures.
    let changes = first_line(
        "git",
        &[
            "status",
            "--porcelain",
            "--",
            ":/",
            ":(exclude,top)book/generated",
        ],
    );
    if changes == UNKNOWN {
        commit
    } else {
        format!("{commit}+")
    }
}

const UNKNOWN: &str = "unknown";

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.lines().next().unwrap_or(UNKNOWN).to_owned()
}

/// Raises this process's soft descriptor limit to the hard one, and returns that.
pub fn raise_descriptor_limit() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the descriptor limit")?;
    Ok(hard)
}

/// The cores that this process may use: the first is the server's, the second is the load's.
///
/// Apart, neither takes the other's time or cache; one each, because a server with one thread cannot use
/// more, and a peer with many threads is not given more. Where there is one core, nothing is pinned.
#[derive(Clone, Debug)]
pub struct Cores {
    all: CpuSet,
    pair: Option<(usize, usize)>,
}

impl Cores {
    /// The cores this process may use now.
    pub fn get() -> Result<Self> {
        let allowed = Self::allowed()?;
        let mut all = CpuSet::new();
        for &core in &allowed {
            all.set(core)?;
        }
        let pair = allowed.get(..2).map(|two| (two[0], two[1]));
        Ok(Self { all, pair })
    }

    fn allowed() -> Result<Vec<usize>> {
        let set = sched_getaffinity(Pid::from_raw(0))?;
        Ok((0..CpuSet::count())
            .filter(|&core| set.is_set(core).unwrap_or(false))
            .collect())
    }

    /// Keeps this thread, and those it starts from now on, on the load's core.
    pub fn take_load_core(&self) -> Result<()> {
        self.pin(Pid::from_raw(0), self.pair.map(|(_, load)| load))
    }

    /// Keeps the process `pid`, which has one thread as yet, on the server's core.
    pub fn give_server_core(&self, pid: Pid) -> Result<()> {
        self.pin(pid, self.pair.map(|(server, _)| server))
    }

    /// Lets `pid` run on every core.
    pub fn give_all(&self, pid: Pid) -> Result<()> {
        self.pin(pid, None)
    }

    /// Runs `start` with every core allowed to it and to what it starts.
    pub fn with_all<T>(&self, start: impl FnOnce() -> T) -> Result<T> {
        self.give_all(Pid::from_raw(0))?;
        let result = start();
        self.take_load_core()?;
        Ok(result)
    }

    fn pin(&self, pid: Pid, core: Option<usize>) -> Result<()> {
        let set = match core {
            Some(core) => {
                let mut one = CpuSet::new();
                one.set(core)?;
                one
            }
            None => self.all,
        };
        sched_setaffinity(pid, &set).context("cannot choose a core")
    }
}
