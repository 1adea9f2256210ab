//! Other programs, none of which may keep us waiting for ever.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs `command` and returns what it wrote to standard output; it is killed when it takes longer than `within`.
pub fn output_within(command: &mut Command, within: Duration) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut stderr = child.stderr.take().expect("it is piped");
    // In threads, so that neither pipe fills up while the other is read.
    let output = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let errors = thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let deadline = Instant::now() + within;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("{name} did not end within {within:?}");
        }
        thread::sleep(Duration::from_millis(10));
    };
    let output = output.join().expect("it does not panic")?;
    if !status.success() {
        let errors = errors.join().expect("it does not panic");
        bail!(
            "{name} failed: {}",
            errors.lines().next().unwrap_or("it did not say why")
        );
    }
    Ok(output)
}
