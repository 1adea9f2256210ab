//! What figures were taken on.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::Result;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{Resource, getrlimit};
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
                cores: allowed_cores()?.len(),
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

    /// What it was taken on, for the foot of a plot.
    pub fn machine_line(&self) -> String {
        format!("{} · {}", self.machine, self.kernel)
    }

    /// When, and by which command, for the foot of a plot.
    pub fn command_line(&self) -> String {
        format!("{} · {}", self.date, self.command)
    }
}

/// The cores that this process may use.
pub fn allowed_cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count())
        .filter(|&core| set.is_set(core).unwrap_or(false))
        .collect())
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
