//! Standard output, standard error, and the JSON file.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::args::Args;

/// What goes to standard error when the run failed: one line, and a hint where one helps.
pub struct Problem {
    what: String,
    hint: Option<String>,
}

impl Problem {
    /// A failure, and what to do about it.
    pub fn new(what: &str, hint: Option<&str>) -> Self {
        Self {
            what: what.into(),
            hint: hint.map(Into::into),
        }
    }

    /// Prints it.
    pub fn print(&self) {
        let mut stderr = io::stderr().lock();
        // With standard error gone there is nobody left to tell.
        let _ = writeln!(stderr, "loadgen: {}", self.what);
        if let Some(hint) = &self.hint {
            let _ = writeln!(stderr, "hint: {hint}");
        }
    }
}

impl From<loadgen::Error> for Problem {
    fn from(error: loadgen::Error) -> Self {
        Self {
            what: error.to_string(),
            hint: error.hint(),
        }
    }
}

/// Prints to standard output at once. That it is closed is no reason to give up a measurement.
pub fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

/// Writes `result` where `--json` says.
pub fn write_json(args: &Args, result: &impl Serialize) -> Result<(), Problem> {
    let Some(path) = &args.json else {
        return Ok(());
    };
    let mut text = serde_json::to_string_pretty(result).expect("numbers and texts only");
    text.push('\n');
    if args.json_to_stdout() {
        say(&text);
        return Ok(());
    }
    std::fs::write(path, text).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &io::Error) -> Problem {
    Problem::new(&format!("cannot write {}: {error}", path.display()), None)
}
