//! The programs that scenes run: built once, then started without cargo, whose own output nobody wants
//! to read in a transcript.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// What a `cargo run` names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    package: String,
    release: bool,
    /// A binary's name, where the package has more than one.
    binary: Option<String>,
    example: Option<String>,
}

/// A `cargo run` in a command line.
#[derive(Debug, PartialEq, Eq)]
struct CargoRun {
    /// Where it begins and where the program's own arguments do.
    span: std::ops::Range<usize>,
    target: Target,
}

/// The programs' paths.
pub struct Built(BTreeMap<Target, String>);

impl Built {
    /// Builds what these command lines run.
    pub fn for_commands<'a>(root: &Path, commands: impl Iterator<Item = &'a str>) -> Result<Self> {
        let mut targets = BTreeSet::new();
        let mut tested = BTreeSet::new();
        let mut named = BTreeSet::new();
        for command in commands {
            targets.extend(cargo_runs(command)?.into_iter().map(|run| run.target));
            tested.extend(cargo_tests(command));
            named.extend(named_by_path(command));
        }
        for (binary, release) in named {
            let package = package_of(root, &binary)?;
            // The others that are built here need not be told apart by it.
            if !targets
                .iter()
                .any(|it| it.package == package && it.release == release)
            {
                targets.insert(Target {
                    package,
                    release,
                    binary: Some(binary),
                    example: None,
                });
            }
        }
        for package in tested {
            let status = cargo(root)
                .args(["test", "--quiet", "--no-run", "--package", &package])
                .stdout(Stdio::null())
                .status()
                .context("cargo")?;
            ensure!(status.success(), "the tests of {package} do not build");
        }
        let mut built = BTreeMap::new();
        for release in [false, true] {
            let these = || targets.iter().filter(|target| target.release == release);
            for examples in [false, true] {
                let these: Vec<&Target> = these()
                    .filter(|target| target.example.is_some() == examples)
                    .collect();
                if !these.is_empty() {
                    build(root, &these, &mut built)?;
                }
            }
        }
        Ok(Self(built))
    }

    /// The command line as it is really run.
    pub fn without_cargo(&self, command: &str) -> Result<String> {
        let mut real = command.to_owned();
        for run in cargo_runs(command)?.into_iter().rev() {
            let path = self.0.get(&run.target).context("it was not built")?;
            ensure!(
                !path.contains([' ', '\'', '"']),
                "a path that needs quotes: {path}"
            );
            real.replace_range(run.span, &format!("{path} "));
        }
        Ok(real)
    }
}

fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(root).stdin(Stdio::null());
    cargo
}

/// One of cargo's messages: a program that is built.
#[derive(Deserialize)]
struct Artifact {
    package_id: String,
    target: ArtifactTarget,
    executable: Option<String>,
}

#[derive(Deserialize)]
struct ArtifactTarget {
    name: String,
    kind: Vec<String>,
}

/// What `cargo metadata` says, as far as it is needed here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    targets: Vec<ArtifactTarget>,
}

/// The package that has this binary.
fn package_of(root: &Path, binary: &str) -> Result<String> {
    let output = cargo(root)
        .args(["metadata", "--no-deps", "--format-version=1"])
        .output()
        .context("cargo metadata")?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let has = |package: &Package| {
        let mut targets = package.targets.iter();
        targets.any(|it| it.name == binary && it.kind.iter().any(|kind| kind == "bin"))
    };
    let package = metadata.packages.into_iter().find(has);
    let package = package.with_context(|| format!("no package has a binary {binary}"))?;
    Ok(package.name)
}

/// Builds targets of one profile, all of them examples or none.
fn build(root: &Path, targets: &[&Target], built: &mut BTreeMap<Target, String>) -> Result<()> {
    let mut command = cargo(root);
    command.args([
        "build",
        "--quiet",
        "--message-format=json-render-diagnostics",
    ]);
    let packages: BTreeSet<&str> = targets.iter().map(|t| t.package.as_str()).collect();
    for package in packages {
        command.args(["--package", package]);
    }
    if targets.iter().any(|target| target.release) {
        command.arg("--release");
    }
    if targets.iter().any(|target| target.example.is_some()) {
        command.arg("--examples");
    }
    let output = command.stderr(Stdio::inherit()).output().context("cargo")?;
    ensure!(
        output.status.success(),
        "the programs of the scenes do not build"
    );
    let stdout = String::from_utf8_lossy(&output.stdout);
    let artifacts: Vec<Artifact> = stdout
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    for target in targets {
        let kind = if target.example.is_some() {
            "example"
        } else {
            "bin"
        };
        let name = target.example.as_ref().or(target.binary.as_ref());
        let mut paths = artifacts
            .iter()
            .filter(|artifact| is_package(&artifact.package_id, &target.package))
            .filter(|artifact| artifact.target.kind.iter().any(|k| k == kind))
            .filter(|artifact| name.is_none_or(|name| *name == artifact.target.name))
            .filter_map(|artifact| artifact.executable.clone());
        match (paths.next(), paths.next()) {
            (Some(path), None) => built.insert((*target).clone(), path),
            (None, _) => bail!("{} has no such program", target.package),
            (Some(_), Some(_)) => bail!("{} has several programs: say --bin", target.package),
        };
    }
    Ok(())
}

/// Whether cargo's id of a package, `path+file:///…/m4-edge-triggered#0.1.0` or `…#name@0.1.0`, is of this one.
fn is_package(id: &str, package: &str) -> bool {
    let (path, fragment) = id.split_once('#').unwrap_or((id, ""));
    match fragment.split_once('@') {
        Some((name, _)) => name == package,
        None => path.rsplit('/').next() == Some(package),
    }
}

/// A word of a command line and where it stands.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split([' ', '\t', '\n'])
        .map(|word| (word.as_ptr().addr() - text.as_ptr().addr(), word))
        .filter(|(_, word)| !word.is_empty())
}

/// Every `cargo run` of a command line.
fn cargo_runs(command: &str) -> Result<Vec<CargoRun>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = command[from..].find("cargo run ") {
        let start = from + at;
        let arguments = start + "cargo run ".len();
        let mut target = Target::default();
        let mut rest = words(&command[arguments..]);
        let end = loop {
            let Some((at, word)) = rest.next() else {
                break command.len();
            };
            let mut value = || {
                let (_, value) = rest
                    .next()
                    .with_context(|| format!("{word} has no value"))?;
                anyhow::Ok(value.to_owned())
            };
            match word {
                "--release" | "-r" => target.release = true,
                "--quiet" | "-q" => {}
                "--package" | "-p" => target.package = value()?,
                "--bin" => target.binary = Some(value()?),
                "--example" => target.example = Some(value()?),
                "--" => break arguments + at + word.len(),
                // The program's own, or the shell's.
                _ => break arguments + at,
            }
        };
        ensure!(
            !target.package.is_empty(),
            "cargo run without -p PACKAGE: {command}"
        );
        let end = end + command[end..].len() - command[end..].trim_start_matches(' ').len();
        found.push(CargoRun {
            span: start..end,
            target,
        });
        from = end;
    }
    Ok(found)
}

/// The binaries that a command line names as `target/debug/NAME` or `target/release/NAME`, and whether in release.
fn named_by_path(command: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for (folder, release) in [("target/debug/", false), ("target/release/", true)] {
        for (at, _) in command.match_indices(folder) {
            let rest = &command[at + folder.len()..];
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            found.push((rest[..end].to_owned(), release));
        }
    }
    found
}

/// The packages whose tests a command line runs.
fn cargo_tests(command: &str) -> Vec<String> {
    let Some(at) = command.find("cargo test ") else {
        return Vec::new();
    };
    let mut rest = words(&command[at..]);
    let mut found = Vec::new();
    while let Some((_, word)) = rest.next() {
        if matches!(word, "-p" | "--package") {
            found.extend(rest.next().map(|(_, package)| package.to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_gives_way_to_the_program_and_nothing_else_changes() {
        let m4 = Target {
            package: "m4-edge-triggered".to_owned(),
            ..Target::default()
        };
        let raw = Target {
            package: "m3-level-triggered".to_owned(),
            release: true,
            example: Some("raw_syscalls".to_owned()),
            ..Target::default()
        };
        let built = Built([(m4, "/t/m4".to_owned()), (raw, "/t/raw".to_owned())].into());
        let real = |command: &str| built.without_cargo(command).unwrap();
        assert_eq!(
            real("(ulimit -n 99; cargo run -q -p m4-edge-triggered -- 9000 --backlog 5) | cat"),
            "(ulimit -n 99; /t/m4 9000 --backlog 5) | cat"
        );
        assert_eq!(
            real("cargo run --release -p m3-level-triggered --example raw_syscalls"),
            "/t/raw "
        );
        assert_eq!(
            real("cargo run -p m4-edge-triggered | head"),
            "/t/m4 | head"
        );
        assert_eq!(real("echo cargo"), "echo cargo");
        assert!(built.without_cargo("cargo run 9000").is_err());
    }

    #[test]
    fn packages_under_test_are_found() {
        assert_eq!(
            cargo_tests("SERVER=./x cargo test -p m4-edge-triggered -- --exact a"),
            ["m4-edge-triggered"]
        );
    }

    #[test]
    fn binaries_named_by_path_are_found() {
        assert_eq!(
            named_by_path("strace target/debug/m1-x 9000; ./target/release/epoll_echo_server"),
            [
                ("m1-x".to_owned(), false),
                ("epoll_echo_server".to_owned(), true)
            ]
        );
    }

    #[test]
    fn ids_of_packages() {
        assert!(is_package("path+file:///w/milestones/m4-x#0.1.0", "m4-x"));
        assert!(is_package(
            "path+file:///w/milestones/m4#m4-x@0.1.0",
            "m4-x"
        ));
        assert!(!is_package("path+file:///w/milestones/m4-x#0.1.0", "x"));
    }
}
