//! One server process: started, pinned, watched, and ended when it is dropped.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::contender::Contender;
use crate::machine::{Cores, kibibytes};

/// How long a server may take from its start to its banner. Under valgrind it takes seconds.
const START_WITHIN: Duration = Duration::from_secs(20);

/// How to start a server, where the defaults will not do.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The soft RLIMIT_NOFILE that it starts with. Default: the hard limit.
    pub soft_limit: Option<u64>,
    /// A program that runs it, with arguments, like `valgrind --tool=callgrind`.
    pub under: Vec<String>,
    /// The arguments before the port.
    pub arguments: Vec<String>,
    /// Let it run on every core, as it does when wrk is pointed at it by hand.
    pub all_cores: bool,
}

/// The servers that run now: who ends us early must not leave one behind that spins.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Ends the servers and this process when it is told to end, by Ctrl-C or otherwise.
pub fn end_with_us() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            for &pid in RUNNING.lock().expect("nobody panics with the lock").iter() {
                let _ = kill(pid, Signal::SIGKILL);
            }
            process::exit(128 + signal);
        }
    });
    Ok(())
}

/// A running server, killed when dropped: nothing is asked of a server that may spin or stall.
pub struct Server {
    child: Child,
    pid: Pid,
    addr: SocketAddr,
    stderr: Arc<Mutex<String>>,
}

impl Server {
    /// Starts `contender` on a port that the kernel chooses; it listens when this returns.
    pub fn start(contender: &Contender, cores: &Cores, setup: &Setup) -> Result<Self> {
        let program = contender
            .program
            .as_ref()
            .map_err(|reason| anyhow::anyhow!("{reason}"))?;
        let mut command = command_for(program, setup);
        let spawned = match setup.soft_limit {
            None => command.spawn(),
            // Inherited like everything else, so it is ours for the moment of the spawn.
            Some(limit) => {
                let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
                setrlimit(Resource::RLIMIT_NOFILE, limit.min(hard), hard)?;
                let spawned = command.spawn();
                setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
                spawned
            }
        };
        let mut child = spawned.with_context(|| format!("cannot start {}", contender.name))?;
        let pid = Pid::from_raw(child.id() as i32);
        let stderr = collect(child.stderr.take().expect("it is piped"));
        let stdout = child.stdout.take().expect("it is piped");
        RUNNING
            .lock()
            .expect("nobody panics with the lock")
            .push(pid);
        // From here on, dropping the server ends it.
        let mut server = Self {
            child,
            pid,
            addr: (Ipv4Addr::LOCALHOST, 0).into(),
            stderr,
        };
        if setup.all_cores {
            cores.give_all(pid)?;
        } else {
            cores.give_server_core(pid)?;
        }
        let banner = first_line(stdout);
        match banner.recv_timeout(START_WITHIN) {
            Ok(line) => server.addr.set_port(port_in(&line)?),
            Err(RecvTimeoutError::Timeout) => {
                bail!("{} said nothing within {START_WITHIN:?}", contender.name)
            }
            Err(RecvTimeoutError::Disconnected) => bail!("{}", server.obituary(contender.name)),
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The time that its threads have run, in user space and in the kernel: what /proc/PID/stat has as utime +
    /// stime, in nanoseconds and not in hundredths of a second.
    pub fn cpu_time(&self) -> Result<Duration> {
        let clock: ClockId = clock_getcpuclockid(self.pid)?;
        Ok(clock.now()?.into())
    }

    /// `Anonymous` of /proc/PID/smaps_rollup, in bytes: the memory that is its own, exact where VmRSS is not (proc(5)).
    pub fn anonymous(&self) -> Result<u64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid))?;
        kibibytes(&rollup, "Anonymous").context("smaps_rollup has no line Anonymous")
    }

    /// Whether the process is no more.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// When the server is no more, that explains any error; else the error stands.
    pub fn explain(&mut self, error: anyhow::Error, name: &str) -> anyhow::Error {
        if self.has_ended() {
            anyhow::anyhow!("{}", self.obituary(name))
        } else {
            error
        }
    }

    /// Says how the server ended.
    fn obituary(&mut self, name: &str) -> String {
        // Its pipes are closed a moment before it can be waited for.
        let deadline = Instant::now() + Duration::from_secs(1);
        while !self.has_ended() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let how = match self.child.try_wait() {
            Ok(Some(status)) => match status.signal() {
                Some(signal) => format!("was ended by signal {signal}"),
                None => format!("ended with exit code {}", status.code().unwrap_or(-1)),
            },
            _ => "has closed its standard output".to_owned(),
        };
        let stderr = self.stderr.lock().expect("nobody panics with the lock");
        // What a panic says stands in its second line.
        let tells = |line: &&str| !line.trim().is_empty() && !line.contains("panicked at");
        match stderr.lines().find(tells) {
            Some(said) => format!("{name} {how}: {said}"),
            None => format!("{name} {how}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL, because m1 to m5 know no other end and a server that spins may not get to another.
        let _ = self.child.kill();
        let mut running = RUNNING.lock().expect("nobody panics with the lock");
        running.retain(|&pid| pid != self.pid);
        let _ = self.child.wait();
    }
}

fn command_for(program: &Path, setup: &Setup) -> Command {
    let mut words = setup
        .under
        .iter()
        .map(PathBuf::from)
        .chain([program.to_owned()]);
    let mut command = Command::new(words.next().expect("there is at least the program"));
    command.args(words).args(&setup.arguments).arg("0");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Reads all, so that the server never waits for us to read; gives the first line as soon as it is there.
fn first_line(output: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        if let Some(line) = lines.next() {
            // Nobody waits any more: the deadline has passed.
            let _ = sender.send(line);
        }
        drop(sender);
        lines.for_each(drop);
    });
    receiver
}

/// Reads all, and keeps the beginning.
fn collect(output: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    const KEPT: usize = 4096;
    let kept = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&kept);
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let mut text = shared.lock().expect("nobody panics with the lock");
            if text.len() < KEPT {
                text.push_str(&line);
                text.push('\n');
            }
        }
    });
    kept
}

/// The number after "on port" in a banner.
fn port_in(banner: &str) -> Result<u16> {
    let after = banner
        .split_once("on port ")
        .with_context(|| format!("no banner: {banner}"))?
        .1;
    let digits: &str = after
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap_or_default();
    digits
        .parse()
        .with_context(|| format!("no port in the banner: {banner}"))
}
