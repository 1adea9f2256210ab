//! One check, run on one milestone with a bug in it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::message;
use super::workshop::no_forks;

/// How long a check may take before it is taken for one that hangs. Those that wait in vain do so for ten
/// seconds, and hardly more than three times.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It fails, and says this.
    Fails(String),
    /// It passes.
    Passes,
    /// It does not judge here, and says why.
    Skipped(String),
    /// Something else.
    Other(String),
}

/// How to run a check.
pub struct Trial {
    /// The test program: the milestone's contract, or its unit tests.
    pub tests: PathBuf,
    /// The milestone that a contract judges.
    pub milestone: Option<PathBuf>,
    /// The name of the check.
    pub check: String,
    /// Where what it writes is kept.
    pub folder: PathBuf,
}

impl Trial {
    /// Runs the check.
    pub fn run(&self) -> Result<Verdict> {
        fs::create_dir_all(&self.folder)?;
        let path = self.folder.join("output.txt");
        // A file and no pipe: whatever the check leaves running cannot keep us waiting.
        let output = File::create(&path)?;
        let mut command = Command::new(&self.tests);
        command
            .args(["--exact", &self.check, "--nocapture"])
            .env_remove("SERVER")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        if let Some(milestone) = &self.milestone {
            command.env("MILESTONE_BINARY", milestone);
        }
        let child = {
            let _no_copies = no_forks();
            command.spawn()
        };
        let child = child.with_context(|| self.tests.display().to_string())?;
        let status = wait(child)?;
        let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        Ok(verdict(status, &text, &path))
    }
}

fn verdict(status: Option<ExitStatus>, output: &str, path: &Path) -> Verdict {
    let Some(status) = status else {
        return Verdict::Other(format!("the check did not end within {TIME_LIMIT:?}"));
    };
    if !output.contains("\nrunning 1 test\n") {
        return Verdict::Other("there is no check of this name".to_owned());
    }
    if status.success() {
        let skipped = output
            .lines()
            .find_map(|line| line.strip_prefix("skipped: "));
        return match skipped {
            Some(reason) => Verdict::Skipped(reason.to_owned()),
            None => Verdict::Passes,
        };
    }
    match message::of_output(output) {
        Some(message) => Verdict::Fails(message),
        None => Verdict::Other(format!(
            "the check fails without a message; see {}",
            path.display()
        )),
    }
}

/// How it ended; `None` when it had to be ended.
fn wait(mut child: Child) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + TIME_LIMIT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            // The servers that it has started would go on without it.
            let servers = children(child.id());
            child.kill()?;
            child.wait()?;
            for server in servers {
                let pid = server.to_string();
                let _ = Command::new("kill").args(["-KILL", &pid]).status();
            }
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The processes that a process has started and that are still there.
fn children(pid: u32) -> Vec<u32> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn judged(code: i32, output: &str) -> Verdict {
        verdict(
            Some(ExitStatus::from_raw(code << 8)),
            output,
            Path::new("o"),
        )
    }

    #[test]
    fn only_a_failure_with_a_message_counts() {
        let ran = "\nrunning 1 test\n";
        assert_eq!(judged(0, &format!("{ran}test x ... ok\n")), Verdict::Passes);
        let skipped = format!("{ran}skipped: x: no python\n");
        assert_eq!(
            judged(0, &skipped),
            Verdict::Skipped("x: no python".to_owned())
        );
        let fails = format!("{ran}thread 'x' (1) panicked at a.rs:1:1:\nit broke\n");
        assert_eq!(judged(101, &fails), Verdict::Fails("it broke\n".to_owned()));
        assert!(matches!(judged(101, ran), Verdict::Other(_)));
        assert!(matches!(
            judged(0, "\nrunning 0 tests\n"),
            Verdict::Other(_)
        ));
        assert!(matches!(
            verdict(None, ran, Path::new("o")),
            Verdict::Other(_)
        ));
    }
}
