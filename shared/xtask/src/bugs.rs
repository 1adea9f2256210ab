//! The bug museum: every bug that is kept in `tests/bugs` must be caught by its check, with words that teach.
//!
//! A bug is planted in a copy of its milestone, which is built, and the contract that stands in `tests/` is run
//! on it: the one check that the patch names must fail, with the words that it names. Programs are built one
//! after the other, and while the next is built the checks of those before are run, many at once: a failing check
//! mostly waits for what never comes.

mod diff;
mod memory;
mod message;
mod trial;
mod workshop;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::patch::Patch;
use crate::sources;
use memory::Memory;
use trial::{Trial, Verdict};
use workshop::Workshop;

/// Runs the bug museum: every bug must be caught by its check
#[derive(clap::Args)]
pub struct Arguments {
    /// Only these: a milestone (m5), or a bug by its name
    #[arg(value_name = "MILESTONE|BUG")]
    only: Vec<String>,
    /// Run also those that were caught before and have not changed since
    #[arg(long)]
    fresh: bool,
    /// Write what the checks say to book/generated/bugs
    #[arg(long)]
    record: bool,
}

/// Checks that run at once, for each core.
const CHECKS_PER_CORE: usize = 3;

/// How often a check is run to record what it says: numbers that are not the same each time are left out.
const RECORDED_RUNS: usize = 3;

/// What became of one bug.
enum Outcome {
    /// Caught: what the check said, now or when it last was run.
    Caught { message: String, is_new: bool },
    /// The check cannot judge here.
    Skipped(String),
    /// Anything else, in words.
    Escaped(String),
}

/// Does it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    let root = sources::root().canonicalize().context("the workspace")?;
    let patches = chosen(Patch::all(&root)?, &arguments.only)?;
    let museum = Museum {
        folder: root.join("target/museum"),
        recorded: root.join("book/generated/bugs"),
        memory: Memory::open(&root, &root.join("target/museum"))?,
        record: arguments.record,
        root,
    };
    let table = Mutex::new(Table::new(&patches));
    let mut open = Vec::new();
    for (index, patch) in patches.iter().enumerate() {
        let forget = arguments.fresh || arguments.record;
        match museum.memory.recall(patch)?.filter(|_| !forget) {
            Some(message) => {
                let outcome = museum.caught(patch, message, false);
                show(&table, index, outcome);
            }
            None => open.push((index, patch)),
        }
    }
    museum.run_all(&open, &table)?;
    let table = table
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    table.sum_up(started)
}

/// Those that were asked for; all, if none was.
fn chosen(patches: Vec<Patch>, only: &[String]) -> Result<Vec<Patch>> {
    let is_meant = |patch: &Patch, word: &str| {
        let rest = patch.name.strip_prefix(word);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    for word in only {
        ensure!(
            patches.iter().any(|patch| is_meant(patch, word)),
            "no bug in tests/bugs is named {word}, or begins with {word}-"
        );
    }
    let wanted = |patch: &Patch| only.is_empty() || only.iter().any(|word| is_meant(patch, word));
    Ok(patches.into_iter().filter(wanted).collect())
}

fn show(table: &Mutex<Table<'_>>, index: usize, outcome: Outcome) {
    // Nobody panics while he holds it.
    let mut table = table
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    table.show(index, outcome);
}

struct Museum {
    root: PathBuf,
    /// Where bugs are planted, built and remembered.
    folder: PathBuf,
    /// Where the book's copies of the messages are.
    recorded: PathBuf,
    memory: Memory,
    record: bool,
}

impl Museum {
    /// Plants, builds and runs these bugs, and shows what became of each.
    fn run_all(&self, bugs: &[(usize, &Patch)], table: &Mutex<Table<'_>>) -> Result<()> {
        if bugs.is_empty() {
            return Ok(());
        }
        let workshop = Workshop::open(&self.root, &self.folder)?;
        let milestones: BTreeSet<&str> = bugs
            .iter()
            .filter(|(_, patch)| !is_unit_test(patch))
            .map(|(_, patch)| &*patch.milestone)
            .collect();
        let contracts: BTreeMap<_, _> = workshop::contracts(&self.root, &milestones)?
            .into_iter()
            .collect();
        let cores = thread::available_parallelism().map_or(2, usize::from);
        let (to_checkers, built) = mpsc::channel();
        let built = Mutex::new(built);
        thread::scope(|scope| {
            for _ in 0..cores * CHECKS_PER_CORE {
                scope.spawn(|| {
                    loop {
                        let next = built.lock().ok().and_then(|built| built.recv().ok());
                        let Some((index, patch, trial)) = next else {
                            return;
                        };
                        let outcome = self.judge(patch, &trial);
                        let outcome =
                            outcome.unwrap_or_else(|error| Outcome::Escaped(format!("{error:#}")));
                        show(table, index, outcome);
                    }
                });
            }
            for &(index, patch) in bugs {
                match self.prepare(&workshop, patch, &contracts) {
                    // Checkers go on as long as there is a way to send to them.
                    Ok(trial) => drop(to_checkers.send((index, patch, trial))),
                    Err(error) => show(table, index, Outcome::Escaped(format!("{error:#}"))),
                }
            }
            drop(to_checkers);
        });
        Ok(())
    }

    /// Everything that the check needs.
    fn prepare(
        &self,
        workshop: &Workshop,
        patch: &Patch,
        contracts: &BTreeMap<String, PathBuf>,
    ) -> Result<Trial> {
        let folder = self.folder.join("bugs").join(&patch.name);
        let is_unit_test = is_unit_test(patch);
        let binary = workshop.build(patch, is_unit_test, &folder)?;
        let (tests, milestone) = match is_unit_test {
            true => (binary, None),
            false => {
                let contract = contracts.get(&workshop::contract_of(&patch.milestone));
                (
                    contract.context("it has no contract")?.clone(),
                    Some(binary),
                )
            }
        };
        Ok(Trial {
            tests,
            milestone,
            check: patch.check.clone(),
            folder,
        })
    }

    fn judge(&self, patch: &Patch, trial: &Trial) -> Result<Outcome> {
        let message = match trial.run()? {
            Verdict::Fails(message) => message,
            Verdict::Passes => return Ok(Outcome::Escaped("ESCAPES: the check passes".to_owned())),
            Verdict::Skipped(reason) => return Ok(Outcome::Skipped(reason)),
            Verdict::Other(reason) => return Ok(Outcome::Escaped(reason)),
        };
        if !message::contains(&message, &patch.message) {
            return Ok(Outcome::Escaped(format!(
                "fails for another reason: \"{}\" is not in its message:\n{message}",
                patch.message
            )));
        }
        if self.record {
            self.record(patch, message.clone(), trial)?;
        }
        self.memory.keep(patch, &message)?;
        Ok(self.caught(patch, message, true))
    }

    /// A bug that its check has caught, if the book shows what the check says.
    fn caught(&self, patch: &Patch, message: String, is_new: bool) -> Outcome {
        let path = self.recorded.join(format!("{}.txt", patch.name));
        let name = &patch.name;
        match fs::read_to_string(path) {
            // Names of system calls are another architecture's own.
            Ok(recorded)
                if cfg!(target_arch = "x86_64")
                    && !message::is_as_recorded(&message, &recorded) =>
            {
                Outcome::Escaped(format!(
                    "is caught, but book/generated/bugs/{name}.txt says something else; `cargo xtask bugs --record \
                     {name}` writes it anew. The message:\n{message}"
                ))
            }
            Ok(_) => Outcome::Caught { message, is_new },
            Err(_) => Outcome::Escaped(format!(
                "is caught, but not recorded: `cargo xtask bugs --record {name}` writes book/generated/bugs/{name}.txt. \
                 The message:\n{message}"
            )),
        }
    }

    /// Writes what the check says for the book, unless that is what stands there.
    fn record(&self, patch: &Patch, first: String, trial: &Trial) -> Result<()> {
        let mut message = first;
        for _ in 1..RECORDED_RUNS {
            let Verdict::Fails(again) = trial.run()? else {
                bail!("ESCAPES: the check passes when it is run again");
            };
            message = message::merged(&message, &again).with_context(|| {
                format!("run again, it says something else:\n{message}\nand then:\n{again}")
            })?;
        }
        let path = self.recorded.join(format!("{}.txt", patch.name));
        if let Ok(recorded) = fs::read_to_string(&path)
            && message::merged(&message, &recorded).as_ref() == Some(&recorded)
        {
            return Ok(());
        }
        fs::create_dir_all(&self.recorded)?;
        fs::write(&path, message).with_context(|| path.display().to_string())
    }
}

/// Whether the check is one of the milestone's own unit tests: some bugs cannot be seen from outside.
fn is_unit_test(patch: &Patch) -> bool {
    patch.check.contains("::tests::") || patch.check.starts_with("tests::")
}

/// What became of the bugs, in their order, shown as far as it is known.
struct Table<'a> {
    patches: &'a [Patch],
    outcomes: Vec<Option<Outcome>>,
    shown: usize,
}

impl<'a> Table<'a> {
    fn new(patches: &'a [Patch]) -> Self {
        Self {
            patches,
            outcomes: patches.iter().map(|_| None).collect(),
            shown: 0,
        }
    }

    fn show(&mut self, index: usize, outcome: Outcome) {
        self.outcomes[index] = Some(outcome);
        while let Some(Some(outcome)) = self.outcomes.get(self.shown) {
            println!("{}", self.row(&self.patches[self.shown], outcome));
            self.shown += 1;
        }
    }

    fn row(&self, patch: &Patch, outcome: &Outcome) -> String {
        let width = |text: fn(&Patch) -> &str| {
            let widths = self.patches.iter().map(|patch| text(patch).chars().count());
            widths.max().unwrap_or(0)
        };
        let (names, checks) = (width(|patch| &patch.name), width(|patch| &patch.check));
        let said = match outcome {
            Outcome::Caught { message, .. } => message::what_happened(message).to_owned(),
            Outcome::Skipped(reason) => format!("skipped: {reason}"),
            Outcome::Escaped(reason) => format!("*** {reason}"),
        };
        format!("{:names$}  {:checks$}  {said}", patch.name, patch.check)
    }

    fn sum_up(&self, started: Instant) -> Result<()> {
        let count = |is_counted: fn(&Outcome) -> bool| {
            let outcomes = self.outcomes.iter().flatten();
            outcomes.filter(|&outcome| is_counted(outcome)).count()
        };
        let caught = count(|outcome| matches!(outcome, Outcome::Caught { .. }));
        let before = count(|outcome| matches!(outcome, Outcome::Caught { is_new: false, .. }));
        let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
        println!(
            "\n{} bugs: {caught} caught ({before} of them before, and nothing has changed since), {skipped} skipped, \
             {} not; {:.0} s",
            self.patches.len(),
            self.patches.len() - caught - skipped,
            started.elapsed().as_secs_f64()
        );
        let others: Vec<&str> = self
            .patches
            .iter()
            .zip(&self.outcomes)
            .filter(|(_, outcome)| {
                !matches!(outcome, Some(Outcome::Caught { .. } | Outcome::Skipped(_)))
            })
            .map(|(patch, _)| &*patch.name)
            .collect();
        ensure!(
            others.is_empty(),
            "not as it should be: {}",
            others.join(", ")
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<Patch> {
        let text = "Bug: b\nMilestone: m\nCheck: c\nMessage: w\nTrap: 1\n\nWhy.\n\n--- a/milestones/m/f\n+++ b/milestones/m/f\n@@ -1 +1 @@\n-a\n+b\n";
        names
            .iter()
            .map(|name| Patch::parse(name, text).unwrap())
            .collect()
    }

    #[test]
    fn a_milestone_or_a_name_chooses() {
        let choose = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            let chosen = chosen(named(&["m4-a", "m4-b", "m5-a"]), &words)?;
            Ok::<_, anyhow::Error>(
                chosen
                    .into_iter()
                    .map(|patch| patch.name)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(choose(&[]).unwrap().len(), 3);
        assert_eq!(choose(&["m4"]).unwrap(), ["m4-a", "m4-b"]);
        assert_eq!(choose(&["m5", "m4-b"]).unwrap(), ["m4-b", "m5-a"]);
        let error = choose(&["m"]).unwrap_err().to_string();
        assert!(error.contains("begins with m-"), "{error}");
    }

    #[test]
    fn rows_come_in_order_and_tell_what_happened() {
        let patches = named(&["m4-a", "m4-longer"]);
        let mut table = Table::new(&patches);
        let caught = || Outcome::Caught {
            message: "What was tried: x\nWhat happened: it hangs\n".to_owned(),
            is_new: true,
        };
        assert_eq!(table.row(&patches[0], &caught()), "m4-a       c  it hangs");
        table.show(1, caught());
        assert_eq!(table.shown, 0);
        table.show(0, Outcome::Escaped("no".to_owned()));
        assert_eq!(table.shown, 2);
        let error = table.sum_up(Instant::now()).unwrap_err().to_string();
        assert_eq!(error, "not as it should be: m4-a");
    }
}
