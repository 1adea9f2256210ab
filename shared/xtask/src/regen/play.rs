//! Plays a scene.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::Files;
use super::build::Built;
use super::normalise::{Normaliser, SHOWN_PORT, with_port};
use super::scenes::{Scene, Step};
use super::terminal::{
    DEADLINE, Terminal, is_stopped, signal, tracer_of, wait_until_asleep, within,
};

/// Plays a scene; gives its transcripts and traces by the names of their files.
pub fn play(
    root: &Path,
    built: &Built,
    scene: &Scene,
    mut normaliser: Normaliser,
) -> Result<Files> {
    let mut stage = Stage {
        root,
        built,
        port: free_port()?,
        temp: tempfile::tempdir().context("a temporary folder")?,
        terminals: Vec::new(),
        traces: Vec::new(),
    };
    for (number, step) in (1..).zip(&scene.step) {
        if let Err(error) = stage.play(step) {
            bail!("step {number}: {error:#}\n{}", stage.screens());
        }
    }
    for terminal in &stage.terminals {
        terminal.settle();
    }
    normaliser.stage(stage.port, stage.temp.path());
    let mut files = Files::new();
    for terminal in &stage.terminals {
        let text = normaliser.transcript(&terminal.text())?;
        ensure!(
            files
                .insert(format!("{}.txt", terminal.name), text)
                .is_none(),
            "two terminals called {}",
            terminal.name
        );
    }
    for trace in &stage.traces {
        ensure!(
            trace.strace.is_none(),
            "trace {} is never detached: a step `untrace` is missing",
            trace.name
        );
        let text = fs::read_to_string(&trace.file).context("a trace")?;
        let text = normaliser.trace(&text, trace.from.as_deref(), trace.limit)?;
        ensure!(
            files
                .insert(format!("{}.strace", trace.name), text)
                .is_none(),
            "two traces called {}",
            trace.name
        );
    }
    Ok(files)
}

/// Where a scene is played.
struct Stage<'a> {
    root: &'a Path,
    built: &'a Built,
    port: u16,
    temp: TempDir,
    terminals: Vec<Terminal>,
    traces: Vec<Trace>,
}

/// An strace.
struct Trace {
    name: String,
    file: PathBuf,
    /// Until it is detached.
    strace: Option<Child>,
    from: Option<String>,
    limit: Option<usize>,
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Some(strace) = &mut self.strace {
            let _ = strace.kill();
            let _ = strace.wait();
        }
    }
}

impl Stage<'_> {
    fn play(&mut self, step: &Step) -> Result<()> {
        let (root, built, port) = (self.root, self.built, self.port);
        let temp = self.temp.path().to_owned();
        let there = self
            .terminals
            .iter()
            .position(|it| it.name == step.terminal);
        let index = there.unwrap_or_else(|| {
            self.terminals.push(Terminal::new(&step.terminal));
            self.terminals.len() - 1
        });
        let terminal = &mut self.terminals[index];
        let real = |text: &str| with_port(text, port);

        if let Some(command) = &step.run {
            let really = real(&built.without_cargo(command)?);
            terminal.run(command, &really, root, &temp)?;
        }
        if let Some(line) = &step.r#type {
            terminal.type_line(&real(line))?;
        }
        match step.key.as_deref() {
            Some("ctrl-c") => terminal.interrupt()?,
            Some("ctrl-d") => terminal.end_input()?,
            _ => {}
        }
        if let Some(name) = &step.signal {
            signal(terminal.server()?, name)?;
        }
        if let Some(name) = &step.trace {
            let file = temp.join(format!("{name}.strace"));
            let strace = attach(terminal.server()?, &file, step.calls.as_deref())?;
            self.traces.push(Trace {
                name: name.clone(),
                file,
                strace: Some(strace),
                from: step.from.clone(),
                limit: step.limit,
            });
        }
        if let Some(name) = &step.untrace {
            let trace = self.traces.iter_mut().find(|trace| trace.name == *name);
            let strace = trace.and_then(|trace| trace.strace.take());
            detach(strace.with_context(|| format!("no trace {name} is attached"))?)?;
        }

        let terminal = &mut self.terminals[index];
        if let Some(text) = &step.wait {
            terminal.wait_for(&real(text))?;
        }
        if let Some(code) = step.exit {
            terminal.wait_for_exit(code)?;
        }
        if step.asleep {
            wait_until_asleep(terminal.server()?)?;
        }
        Ok(())
    }

    /// What is shown everywhere, for a message about a scene that failed.
    fn screens(&self) -> String {
        let screen = |terminal: &Terminal| {
            let text = terminal.text();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n    ");
            format!("  {}:\n    {last}\n", terminal.name)
        };
        let screens: String = self.terminals.iter().map(screen).collect();
        format!("(port {SHOWN_PORT} is {} here)\n{screens}", self.port)
    }
}

/// A port that nobody listens on, of four figures like the one that is shown: a length that the kernel or
/// HTTP counts is then the reader's.
fn free_port() -> Result<u16> {
    const FIRST: u32 = 9001;
    const COUNT: u32 = 998;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Others may play at the same time: begin elsewhere than they do.
    let begin = std::process::id().wrapping_mul(7);
    for _ in 0..COUNT {
        let next = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + next % COUNT).context("a port")?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {FIRST} on")
}

/// Attaches strace, and returns when it sees the next system call.
fn attach(pid: Pid, file: &Path, calls: Option<&str>) -> Result<Child> {
    let mut command = Command::new("strace");
    command.args(["-f", "-p", &pid.to_string(), "-o"]).arg(file);
    if let Some(calls) = calls {
        command.args(["-e", &format!("trace={calls}")]);
    }
    let mut strace = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("strace cannot be started (is it installed?)")?;
    let attached = within(DEADLINE, || {
        if strace.try_wait()?.is_some() {
            let output = strace.stderr.take().map(std::io::read_to_string);
            bail!("strace: {}", output.transpose()?.unwrap_or_default().trim());
        }
        Ok((tracer_of(pid)? != 0).then_some(()))
    });
    if !matches!(attached, Ok(Some(()))) {
        let _ = strace.kill();
        let _ = strace.wait();
    }
    ensure!(attached?.is_some(), "strace did not attach in {DEADLINE:?}");
    // Attaching stops the server for a moment; it is let go when strace has looked at it.
    thread::sleep(Duration::from_millis(20));
    within(Duration::from_secs(1), || {
        Ok((!is_stopped(pid)?).then_some(()))
    })?;
    Ok(strace)
}

/// Detaches strace, which then writes what it still has.
fn detach(mut strace: Child) -> Result<()> {
    let pid = Pid::from_raw(strace.id().cast_signed());
    kill(pid, Signal::SIGINT).context("strace")?;
    let ended = within(DEADLINE, || Ok(strace.try_wait()?))?;
    if ended.is_none() {
        let _ = strace.kill();
        let _ = strace.wait();
        bail!("strace did not detach in {DEADLINE:?}");
    }
    Ok(())
}
