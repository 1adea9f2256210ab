//! What the figures are taken on, and the cores that server and load are given.

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use plot::machine::allowed_cores;

pub use plot::machine::{Run, kibibytes};

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
        let allowed = allowed_cores()?;
        let mut all = CpuSet::new();
        for &core in &allowed {
            all.set(core)?;
        }
        let pair = allowed.get(..2).map(|two| (two[0], two[1]));
        Ok(Self { all, pair })
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
