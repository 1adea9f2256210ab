//! The scenes of `book/scenes/CHAPTER.toml`: what to play, and what becomes of it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::build::Built;
use super::normalise::Normaliser;
use super::play::play;
use super::{Files, Filter};
use crate::sources::files_below;

/// A chapter's scenes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chapter {
    #[serde(default)]
    scene: Vec<Scene>,
}

/// What is played from its first step to its last, with one port and one set of terminals.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scene {
    /// Names its folder.
    pub name: String,
    /// In order.
    pub step: Vec<Step>,
    /// What else varies from one run to the next.
    #[serde(default)]
    pub normalise: Vec<Replacement>,
}

/// A regular expression, and what is shown instead of what it finds (`$1` is its first group).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replacement {
    /// The regular expression.
    pub pattern: String,
    /// What is shown.
    pub with: String,
}

/// At most one action in a terminal, and then what to wait for.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Where.
    pub terminal: String,

    /// A command line for bash.
    pub run: Option<String>,
    /// A line for the running command's input.
    pub r#type: Option<String>,
    /// `ctrl-c` or `ctrl-d`.
    pub key: Option<String>,
    /// A signal's name, for the terminal's server.
    pub signal: Option<String>,
    /// Attach strace to the terminal's server; the trace's name.
    pub trace: Option<String>,
    /// Detach that strace.
    pub untrace: Option<String>,

    /// Text that must appear in this terminal.
    pub wait: Option<String>,
    /// The command must end with this code.
    pub exit: Option<i32>,
    /// The terminal's server must sleep in a system call.
    #[serde(default)]
    pub asleep: bool,

    /// With `trace`: the system calls, as strace's `-e` takes them.
    pub calls: Option<String>,
    /// With `trace`: nothing before the first line that contains this.
    pub from: Option<String>,
    /// With `trace`: at most this many lines.
    pub limit: Option<usize>,
}

impl Step {
    /// The step's action in a word, if it has one.
    pub fn action(&self) -> Option<&'static str> {
        self.actions().next()
    }

    fn actions(&self) -> impl Iterator<Item = &'static str> {
        [
            ("run", self.run.is_some()),
            ("type", self.r#type.is_some()),
            ("key", self.key.is_some()),
            ("signal", self.signal.is_some()),
            ("trace", self.trace.is_some()),
            ("untrace", self.untrace.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_there)| is_there.then_some(name))
    }

    fn check(&self) -> Result<()> {
        ensure!(is_name(&self.terminal), "a terminal's name is a word");
        ensure!(self.actions().count() <= 1, "more than one action");
        let waits = self.wait.is_some() || self.exit.is_some() || self.asleep;
        ensure!(
            waits || self.action().is_some(),
            "neither an action nor a condition"
        );
        let traces = self.calls.is_some() || self.from.is_some() || self.limit.is_some();
        ensure!(
            self.trace.is_some() || !traces,
            "calls, from and limit go with trace"
        );
        for name in [&self.trace, &self.untrace].into_iter().flatten() {
            ensure!(is_name(name), "a trace's name is a word");
        }
        match self.key.as_deref() {
            None | Some("ctrl-c" | "ctrl-d") => Ok(()),
            Some(key) => bail!("an unknown key, {key}: ctrl-c and ctrl-d are there"),
        }
    }
}

/// Whether this can be the name of a file everywhere.
fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    !text.is_empty() && text.chars().all(good)
}

impl Chapter {
    fn parse(text: &str) -> Result<Self> {
        let chapter: Self = toml::from_str(text)?;
        for scene in &chapter.scene {
            ensure!(is_name(&scene.name), "a scene's name is a word");
            for (number, step) in (1..).zip(&scene.step) {
                step.check()
                    .with_context(|| format!("scene {}, step {number}", scene.name))?;
            }
        }
        Ok(chapter)
    }
}

/// Plays every scene that the filter takes. A scene that fails is told in `failures`, and its folder in
/// `unknown`: what is there of it may still be right.
pub fn play_all(
    root: &Path,
    filter: &Filter,
    failures: &mut Vec<String>,
    unknown: &mut Vec<String>,
) -> Result<Files> {
    let folder = root.join("book/scenes");
    let mut wanted = Vec::new();
    for file in files_below(&folder)? {
        let Some(chapter) = file.strip_suffix(".toml") else {
            continue;
        };
        let path = folder.join(&file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        match Chapter::parse(&text) {
            Ok(scenes) => {
                for scene in scenes.scene {
                    let out = format!("scenes/{chapter}/{}", scene.name);
                    if filter.takes(&out) {
                        wanted.push((out, file.clone(), scene));
                    }
                }
            }
            Err(error) => {
                if !filter.takes(&format!("scenes/{chapter}")) {
                    continue;
                }
                failures.push(format!("book/scenes/{file}: {error:#}"));
                unknown.push(format!("scenes/{chapter}/"));
            }
        }
    }
    let commands = wanted
        .iter()
        .flat_map(|(_, _, scene)| &scene.step)
        .filter_map(|step| step.run.as_deref());
    let built = Built::for_commands(root, commands)?;
    let mut files = Files::new();
    for (out, file, scene) in &wanted {
        match Normaliser::new(root, &scene.normalise)
            .and_then(|normaliser| play(root, &built, scene, normaliser))
        {
            Ok(shown) => {
                files.extend(
                    shown
                        .into_iter()
                        .map(|(name, text)| (format!("{out}/{name}"), text)),
                );
            }
            Err(error) => {
                failures.push(format!(
                    "book/scenes/{file}: scene {}: {error:#}",
                    scene.name
                ));
                unknown.push(format!("{out}/"));
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(step: &str) -> String {
        let text = format!("[[scene]]\nname = \"a\"\n[[scene.step]]\n{step}");
        match Chapter::parse(&text) {
            Ok(_) => String::new(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn steps_are_checked_before_anything_is_played() {
        assert_eq!(fails("terminal = \"s\"\nrun = \"x\"\nexit = 0"), "");
        assert_eq!(fails("terminal = \"s\"\nwait = \"x\""), "");
        assert!(fails("terminal = \"s\"").contains("neither"));
        assert!(fails("terminal = \"s\"\nrun = \"x\"\ntype = \"y\"").contains("more than one"));
        assert!(fails("terminal = \"s\"\nrun = \"x\"\nlimit = 3").contains("with trace"));
        assert!(fails("terminal = \"s\"\nkey = \"f1\"").contains("ctrl-c"));
        assert!(fails("terminal = \"../s\"\nrun = \"x\"").contains("a word"));
        assert!(fails("terminal = \"s\"\nruns = \"x\"").contains("runs"));
    }
}
