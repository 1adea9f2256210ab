//! A terminal of a scene: what a reader types there, and what he sees.

use std::fs;
use std::io::{Read, Write, pipe};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// How long a condition may take.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// A terminal in which nothing has changed for this long shows what there was to show.
const QUIET: Duration = Duration::from_millis(60);
/// And is not waited for longer than this.
const RESTLESS: Duration = Duration::from_secs(2);

/// Run before every command: only the three standard descriptors are open, whatever the terminal that
/// started this had open, so that descriptors in traces are the reader's.
const PRELUDE: &str = r#"for fd in /proc/self/fd/*; do fd=${fd##*/}; if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi; done; exec bash -c "$1""#;

/// Waits until `look` gives something; `None` when the deadline has passed.
pub fn within<T>(
    deadline: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
}

/// What is shown, and since when nothing was added.
struct Screen {
    bytes: Vec<u8>,
    changed: Instant,
}

/// The screen is also the reader thread's.
#[derive(Clone)]
struct Shared(Arc<Mutex<Screen>>);

impl Shared {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Screen {
            bytes: Vec::new(),
            changed: Instant::now(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Screen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, bytes: &[u8]) {
        let mut screen = self.lock();
        screen.bytes.extend_from_slice(bytes);
        screen.changed = Instant::now();
    }
}

/// A command that runs.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
    output: JoinHandle<()>,
}

/// A terminal.
pub struct Terminal {
    /// Its name in the scene.
    pub name: String,
    screen: Shared,
    running: Option<Running>,
    /// The code of the last command that ended.
    ended: Option<i32>,
    /// Where the next `wait` begins to look.
    cursor: usize,
}

impl Terminal {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            screen: Shared::new(),
            running: None,
            ended: None,
            cursor: 0,
        }
    }

    /// Starts a command. `shown` is what the reader types, `real` what is run.
    pub fn run(&mut self, shown: &str, real: &str, cwd: &Path, temp: &Path) -> Result<()> {
        self.be_free()?;
        let shown = shown.trim().replace('\n', "\n> ");
        let start = if self
            .screen
            .lock()
            .bytes
            .last()
            .is_none_or(|last| *last == b'\n')
        {
            ""
        } else {
            "\n"
        };
        self.show(&format!("{start}$ {shown}\n"));
        let (mut reader, writer) = pipe().context("pipe")?;
        // A shell in the background hands down SIGINT ignored, and then no ctrl-c would be heard.
        let mut child = Command::new("env")
            .args(["--default-signal", "bash", "-c", PRELUDE, "bash", real])
            .current_dir(cwd)
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "dumb")
            .env("NO_COLOR", "1")
            .env("CARGO_TERM_COLOR", "never")
            .env("TMPDIR", temp)
            .env_remove("RUST_BACKTRACE")
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().context("pipe")?)
            .stderr(writer)
            .process_group(0)
            .spawn()
            .context("bash")?;
        let screen = self.screen.clone();
        let output = thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                screen.add(&buffer[..n]);
            }
        });
        self.ended = None;
        self.running = Some(Running {
            input: child.stdin.take(),
            child,
            output,
        });
        Ok(())
    }

    /// Types a line.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        self.settle();
        self.show(&format!("{line}\n"));
        let input = self.running.as_mut().and_then(|it| it.input.as_mut());
        let input =
            input.with_context(|| format!("nothing reads what is typed in {}", self.name))?;
        input
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| input.flush())
            .context("the command does not take its input")
    }

    /// ctrl-c.
    pub fn interrupt(&mut self) -> Result<()> {
        self.settle();
        self.show("^C\n");
        killpg(self.group()?, Signal::SIGINT).context("ctrl-c")
    }

    /// ctrl-d.
    pub fn end_input(&mut self) -> Result<()> {
        self.settle();
        self.cursor = self.screen.lock().bytes.len();
        let input = self.running.as_mut().and_then(|it| it.input.take());
        input.with_context(|| format!("no command reads its input in {}", self.name))?;
        Ok(())
    }

    /// Adds what the reader types; a `wait` looks behind it.
    fn show(&mut self, text: &str) {
        self.screen.add(text.as_bytes());
        self.cursor = self.screen.lock().bytes.len();
    }

    fn group(&self) -> Result<Pid> {
        let running = self.running.as_ref();
        let running = running.with_context(|| format!("no command runs in {}", self.name))?;
        Ok(Pid::from_raw(running.child.id().cast_signed()))
    }

    /// The process that is meant by "the server": of the command's processes the one that was built here,
    /// or else the last that is no shell.
    pub fn server(&self) -> Result<Pid> {
        let group = self.group()?;
        let target = std::env::current_exe().context("this program's own path")?;
        let target = target
            .parent()
            .and_then(Path::parent)
            .unwrap_or(Path::new("/"));
        let mut best = None;
        for (pid, exe) in processes_of(group)? {
            if exe.starts_with(target) {
                return Ok(pid);
            }
            let name = exe.file_name().unwrap_or_default();
            if name != "bash" && name != "env" {
                best = Some(pid);
            }
        }
        best.with_context(|| format!("no server runs in {}", self.name))
    }

    /// Waits for text.
    pub fn wait_for(&mut self, text: &str) -> Result<()> {
        let found = within(DEADLINE, || {
            if let Some(end) = self.find(text) {
                return Ok(Some(end));
            }
            if self.has_ended()? {
                // What came last may have come since the look.
                return match self.find(text) {
                    Some(end) => Ok(Some(end)),
                    None => bail!(
                        "{}: the command ended with code {} before `{text}` appeared",
                        self.name,
                        self.ended.unwrap_or(-1)
                    ),
                };
            }
            Ok(None)
        })?;
        self.cursor = found
            .with_context(|| format!("{}: `{text}` did not appear in {DEADLINE:?}", self.name))?;
        Ok(())
    }

    fn find(&self, text: &str) -> Option<usize> {
        let screen = self.screen.lock();
        let new = &screen.bytes[self.cursor..];
        let at = new
            .windows(text.len().max(1))
            .position(|part| part == text.as_bytes())?;
        Some(self.cursor + at + text.len())
    }

    /// Waits for the command's end.
    pub fn wait_for_exit(&mut self, code: i32) -> Result<()> {
        let ended = within(DEADLINE, || Ok(self.has_ended()?.then_some(())))?;
        ensure!(
            ended.is_some(),
            "{}: the command did not end in {DEADLINE:?}",
            self.name
        );
        let ended = self
            .ended
            .with_context(|| format!("no command has run in {}", self.name))?;
        ensure!(
            ended == code,
            "{}: the command ended with code {ended}, not {code}",
            self.name
        );
        Ok(())
    }

    /// Whether no command runs; takes in the end of one that has ended.
    fn has_ended(&mut self) -> Result<bool> {
        let Some(running) = &mut self.running else {
            return Ok(true);
        };
        let Some(status) = running.child.try_wait().context("waiting for a command")? else {
            return Ok(false);
        };
        // Its last words are in the pipe; only a child in the background would keep it open.
        within(RESTLESS, || Ok(running.output.is_finished().then_some(())))?;
        self.ended = Some(exit_code(status));
        self.running = None;
        Ok(true)
    }

    /// Waits until a new command can be started.
    fn be_free(&mut self) -> Result<()> {
        let ended = within(DEADLINE, || Ok(self.has_ended()?.then_some(())))?;
        ensure!(ended.is_some(), "{}: a command still runs", self.name);
        Ok(())
    }

    /// Waits until nothing has changed for a moment.
    pub fn settle(&self) {
        let _ = within(RESTLESS, || {
            let quiet = self.screen.lock().changed.elapsed() >= QUIET;
            Ok(quiet.then_some(()))
        });
    }

    /// All that is shown.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().bytes).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            // The group: a shell and all that it started.
            let _ = killpg(
                Pid::from_raw(running.child.id().cast_signed()),
                Signal::SIGKILL,
            );
            let _ = running.child.wait();
        }
    }
}

/// As a shell says it.
fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1)
}

/// The processes of a group and their programs, in the order of their ids.
fn processes_of(group: Pid) -> Result<Vec<(Pid, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let folder = Path::new("/proc").join(&name);
        // proc(5): the state, the parent and the group stand behind the name, which is in brackets.
        let stat = fs::read_to_string(folder.join("stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        if fields.split(' ').nth(2) == Some(&group.to_string()) {
            let exe = fs::read_link(folder.join("exe")).unwrap_or_default();
            found.push((Pid::from_raw(pid), exe));
        }
    }
    found.sort();
    Ok(found)
}

/// Waits until a process sleeps, and has not woken between two looks.
pub fn wait_until_asleep(pid: Pid) -> Result<()> {
    let mut last = None;
    let asleep = within(DEADLINE, || {
        let look = sleep(pid)?;
        let same = look.is_some() && look == last;
        last = look;
        if !same {
            // A process that spins is caught asleep once, but not twice in the same sleep.
            thread::sleep(Duration::from_millis(15));
        }
        Ok(same.then_some(()))
    })?;
    ensure!(
        asleep.is_some(),
        "the server did not go to sleep in {DEADLINE:?}"
    );
    Ok(())
}

/// How often a process has been put to sleep, if it sleeps now.
fn sleep(pid: Pid) -> Result<Option<u64>> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map_or("", str::trim)
    };
    let sleeps = field("State:").starts_with('S');
    Ok(sleeps.then(|| field("voluntary_ctxt_switches:").parse().unwrap_or(0)))
}

/// Which process traces this one: 0 when none does.
pub fn tracer_of(pid: Pid) -> Result<i32> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let tracer = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"));
    Ok(tracer.and_then(|pid| pid.trim().parse().ok()).unwrap_or(0))
}

/// Whether a process is stopped, by a signal or by its tracer.
pub fn is_stopped(pid: Pid) -> Result<bool> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    Ok(state.is_some_and(|state| state.trim().starts_with(['T', 't'])))
}

/// Sends a signal by its name.
pub fn signal(pid: Pid, name: &str) -> Result<()> {
    let signal: Signal = name
        .parse()
        .ok()
        .with_context(|| format!("no such signal: {name}"))?;
    kill(pid, signal).with_context(|| format!("{name} to the server"))
}
