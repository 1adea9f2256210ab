//! Who takes part: the milestones, in order, and their peers; how each is built and what it cannot do.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// A server that is measured.
#[derive(Clone, Debug)]
pub struct Contender {
    /// What tables and plots call it: `m4`, `tokio`.
    pub name: &'static str,
    /// What it is, in a few words, with its version where it has one.
    pub about: String,
    /// A step of the course, or something else to compare with.
    pub kind: Kind,
    /// What the figures do not have from it, and why.
    pub limits: Limits,
    /// It takes `--idle-timeout`.
    pub has_idle_timeout: bool,
    /// It takes `--stats`.
    pub has_stats: bool,
    /// The executable, or why there is none.
    pub program: Result<PathBuf, String>,
}

/// On which side a contender stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A step of the course.
    Milestone,
    /// Something else to compare with.
    Peer,
}

/// What a contender is known to be unable to do, so that nobody waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// Nothing.
    None,
    /// It serves one client at a time.
    OneClient,
    /// It asks every socket over and over: it never waits in the kernel, so it has no wake-ups, and its
    /// system calls and instructions per message depend on time and not on messages.
    Scans,
    /// It blocks in one thread for each client: no epoll, so no wake-ups.
    Threads,
}

impl Contender {
    fn peer(
        name: &'static str,
        about: String,
        limits: Limits,
        program: Result<PathBuf, String>,
    ) -> Self {
        Self {
            name,
            about,
            kind: Kind::Peer,
            limits,
            has_idle_timeout: false,
            has_stats: false,
            program,
        }
    }
}

struct Milestone {
    name: &'static str,
    package: &'static str,
    binary: &'static str,
    about: &'static str,
    limits: Limits,
}

const MILESTONES: &[Milestone] = &[
    Milestone::new("m1", "m1-blocking-echo", "blocking, one client at a time")
        .limited(Limits::OneClient),
    Milestone::new("m2", "m2-nonblocking", "scans every socket").limited(Limits::Scans),
    Milestone::new("m3", "m3-level-triggered", "epoll, level-triggered"),
    Milestone::new("m4", "m4-edge-triggered", "epoll, edge-triggered"),
    Milestone::new(
        "m5",
        "m5-connection-contexts",
        "a context per connection, back-pressure",
    ),
    Milestone::new("m6", "m6-10k-tuning", "tuned for 10,000 connections"),
    Milestone::new("m7", "m7-stats", "statistics, graceful shutdown"),
    // m8 is a chat: it does not echo, so it has no place here.
    Milestone {
        binary: "epoll_echo_server",
        ..Milestone::new("m9", "m9-protocols", "echo, chat and HTTP in one")
    },
];

impl Milestone {
    const fn new(name: &'static str, package: &'static str, about: &'static str) -> Self {
        Self {
            name,
            package,
            binary: package,
            about,
            limits: Limits::None,
        }
    }

    const fn limited(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }
}

/// The top folder of the repository.
pub fn workspace() -> &'static Path {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    bench
        .ancestors()
        .nth(2)
        .expect("this crate lies in shared/bench")
}

/// Everybody whose name is in `wanted` (everybody when that is empty), built in release mode.
///
/// # Errors
///
/// When one of ours cannot be built. What a peer in C needs may be missing: then it is left out.
pub fn build(wanted: &[String]) -> Result<Vec<Contender>> {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|one| one == name);
    let versions = locked_versions();
    let version = |package: &str| versions.get(package).map_or("", String::as_str);
    let mut contenders = Vec::new();

    let milestones: Vec<&Milestone> = MILESTONES
        .iter()
        .filter(|one| is_wanted(one.name))
        .filter(|one| workspace().join("milestones").join(one.package).is_dir())
        .collect();
    // One build for each: together, they would be compiled with the union of the features they ask for.
    for milestone in milestones {
        let built = cargo_build(milestone.package, &[milestone.binary])?;
        contenders.push(Contender {
            name: milestone.name,
            about: milestone.about.to_owned(),
            kind: Kind::Milestone,
            limits: milestone.limits,
            // The rungs are named by their number, so that they sort.
            has_idle_timeout: milestone.name >= "m6",
            has_stats: milestone.name >= "m7",
            program: Ok(executable(&built, milestone.binary)?),
        });
    }

    let peers = [
        (
            "floor",
            "peer-floor",
            "the least possible epoll echo, no contexts, no bounds".to_owned(),
            Limits::None,
        ),
        (
            "mio",
            "peer-mio",
            format!("mio {}", version("mio")),
            Limits::None,
        ),
        (
            "tokio",
            "peer-tokio",
            format!("tokio {}, current-thread runtime", version("tokio")),
            Limits::None,
        ),
        (
            "threads",
            "peer-threads",
            "std, one thread per connection".to_owned(),
            Limits::Threads,
        ),
    ];
    let binaries: Vec<&str> = peers
        .iter()
        .filter(|peer| is_wanted(peer.0))
        .map(|peer| peer.1)
        .collect();
    if !binaries.is_empty() {
        let built = cargo_build("bench", &binaries)?;
        for (name, binary, about, limits) in peers {
            if is_wanted(name) {
                let program = Ok(executable(&built, binary)?);
                contenders.push(Contender::peer(name, about, limits, program));
            }
        }
    }
    for (name, way, flags) in [
        ("libuv", "as its guide teaches", &[][..]),
        (
            "libuv-try",
            "uv_try_write first, one buffer for reading",
            &["-DTRY_WRITE"][..],
        ),
    ] {
        if is_wanted(name) {
            let about = format!("libuv{} in C, {way}", libuv_version());
            let program = compile_libuv(name, flags).map_err(|error| format!("{error:#}"));
            contenders.push(Contender::peer(name, about, Limits::None, program));
        }
    }
    if let Some(unknown) = wanted
        .iter()
        .find(|name| !contenders.iter().any(|one| one.name == **name))
    {
        bail!(
            "no server is called {unknown}: there are m1 to m7, floor, mio, tokio, threads, libuv and libuv-try"
        );
    }
    Ok(contenders)
}

/// Builds binaries of one package in release mode and returns where they are, by name.
fn cargo_build(package: &str, binaries: &[&str]) -> Result<HashMap<String, PathBuf>> {
    // The cargo that started us, where there is one.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(workspace())
        .args(["build", "--release", "--package", package]);
    for binary in binaries {
        command.args(["--bin", binary]);
    }
    // It says where it put them, whatever CARGO_TARGET_DIR and the configuration are.
    command.arg("--message-format=json-render-diagnostics");
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cannot build {package}");
    }
    let mut built = HashMap::new();
    for line in output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let message: serde_json::Value = serde_json::from_slice(line)?;
        if let (Some(name), Some(path)) = (
            message["target"]["name"].as_str(),
            message["executable"].as_str(),
        ) {
            built.insert(name.to_owned(), path.into());
        }
    }
    Ok(built)
}

fn executable(built: &HashMap<String, PathBuf>, binary: &str) -> Result<PathBuf> {
    built
        .get(binary)
        .cloned()
        .with_context(|| format!("cargo built no executable called {binary}"))
}

/// The versions that Cargo.lock holds, by package.
fn locked_versions() -> HashMap<String, String> {
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).unwrap_or_default();
    let value = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches('"').to_owned());
    let mut name = String::new();
    let mut versions = HashMap::new();
    for line in lock.lines() {
        if let Some(found) = value(line, "name = ") {
            name = found;
        } else if let Some(version) = value(line, "version = ") {
            versions.insert(name.clone(), version);
        }
    }
    versions
}

fn libuv_version() -> String {
    let output = Command::new("pkg-config")
        .args(["--modversion", "libuv"])
        .output();
    match output {
        Ok(output) if output.status.success() => {
            format!(" {}", String::from_utf8_lossy(&output.stdout).trim())
        }
        _ => String::new(),
    }
}

/// Compiles the peer in C beside our own executable.
fn compile_libuv(name: &str, flags: &[&str]) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/libuv.c");
    let program = std::env::current_exe()?.with_file_name(format!("peer-{name}"));
    let compiled = Command::new("cc")
        .args(["-O2", "-o"])
        .arg(&program)
        .args(flags)
        .arg(source)
        .arg("-luv")
        .output()
        .context("cc cannot be run")?;
    if !compiled.status.success() {
        let said = String::from_utf8_lossy(&compiled.stderr);
        let first = said
            .lines()
            .find(|line| line.contains("error"))
            .unwrap_or("it failed");
        bail!("cc cannot compile it; is libuv1-dev installed? ({first})");
    }
    Ok(program)
}
