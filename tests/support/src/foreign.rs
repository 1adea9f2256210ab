//! Contracts judge programs that are none of ours. So that this stays true, each of these runs a
//! contract, as it stands in its file, on a small server kept in `tests/foreign`.

use std::{
    env,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
};

use crate::{server::workspace_root, skipped};

/// What the names of the tests that call this module begin with: the contract they run leaves them
/// out.
const OURSELVES: &str = "judges_";

/// Runs the calling test's whole contract on the server in Python.
///
/// # Panics
///
/// When the contract fails, or does not say what it left out.
#[track_caller]
pub fn judge_python() {
    judge_script("echo_epoll.py");
}

/// The same, on the chat server in Python.
///
/// # Panics
///
/// The same.
#[track_caller]
pub fn judge_python_chat() {
    judge_script("chat_epoll.py");
}

/// Servers in Python that are wrong, each in one way; the check that has to find out; and words of its lesson.
const WRONG: [(&str, &str, &str); 4] = [
    (
        "no_drain.py",
        "echoes_a_burst_to_the_last_byte",
        "Read until EAGAIN",
    ),
    (
        "one_accept.py",
        "serves_everyone_in_a_burst_of_connections",
        "accept until EAGAIN",
    ),
    (
        "rdhup_is_the_end.py",
        "echoes_what_was_queued_together_with_the_half_close",
        "EPOLLRDHUP is taken for the end of the connection",
    ),
    (
        "blocking.py",
        "sockets_are_non_blocking",
        "accept gives a blocking socket whatever the listener is",
    ),
];

/// Runs the calling test's contract on servers that are wrong: each fails, at the check that is about its
/// mistake, with the words that are meant for it.
///
/// # Panics
///
/// When a wrong server passes, or fails for another reason.
#[track_caller]
pub fn judge_wrong_ones() {
    let Some(python) = python() else { return };
    let folder = workspace_root().join("tests/foreign/wrong");
    // They mostly wait for what does not come.
    let outcomes: Vec<_> = thread::scope(|scope| {
        let judging: Vec<_> = WRONG
            .iter()
            .map(|(name, check, _)| {
                let server = format!("'{python}' '{}'", folder.join(name).display());
                scope.spawn(move || run(&server, &["--exact", check]))
            })
            .collect();
        judging
            .into_iter()
            .map(|thread| thread.join().expect("running does not panic"))
            .collect()
    });
    for ((name, check, words), (failed, output)) in WRONG.iter().zip(outcomes) {
        assert!(failed, "{check} takes {name} for right:\n{output}");
        assert!(
            output.contains(words),
            "{check} does not tell the author of {name} that \"{words}\":\n{output}"
        );
    }
}

/// The interpreter, if there is one; if not, the reader is told.
fn python() -> Option<String> {
    if env::var_os("SERVER").is_some_and(|server| !server.is_empty()) {
        skipped("this run judges a program of the reader's already");
        return None;
    }
    // Its real path: what is called python3 may be a script that starts it, and takes longer than
    // all the rest.
    let ask = "import select, sys; select.epoll().close(); print(sys.executable)";
    let answer = Command::new("python3").args(["-c", ask]).output();
    let Some(answer) = answer.ok().filter(|answer| answer.status.success()) else {
        skipped("there is no python3 here, or it has no epoll");
        return None;
    };
    let python = String::from_utf8_lossy(&answer.stdout);
    Some(python.trim().to_owned())
}

#[track_caller]
fn judge_script(name: &str) {
    let Some(python) = python() else { return };
    let script = workspace_root().join("tests/foreign").join(name);
    judge(&format!("'{python}' '{}'", script.display()));
}

/// Runs the calling test's whole contract on the server in C, `level`- or `edge`-triggered,
/// compiled into `folder`.
///
/// # Panics
///
/// When it does not compile, when the contract fails, or does not say what it left out.
#[track_caller]
pub fn judge_c(mode: &str, folder: &str) {
    if !has(Command::new("cc").arg("--version")) {
        return skipped("there is no C compiler here (cc)");
    }
    let source = workspace_root().join("tests/foreign/echo_epoll.c");
    let program = Path::new(folder).join(format!("echo_epoll_{mode}"));
    let compiled = Command::new("cc")
        .args(["-std=c11", "-O2", "-Wall", "-Wextra", "-o"])
        .args([&program, &source])
        .output()
        .expect("cc answered a moment ago");
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    judge(&format!("'{}' {mode}", program.display()));
}

/// As many checks judge another's server, at the very least: each contract has more of them today.
const FEWEST_CHECKS: usize = 25;

/// Runs this very test program once more, with `SERVER` set as a reader would set it.
#[track_caller]
fn judge(server: &str) {
    if env::var_os("SERVER").is_some_and(|server| !server.is_empty()) {
        return skipped("this run judges a program of the reader's already");
    }
    let output = contract(server, &["--skip", OURSELVES]);
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "The contract fails on SERVER=\"{server}\":\n{stdout}\n{stderr}"
    );
    // Passing would mean nothing if everything had been left out, in silence or not.
    let tests = stdout
        .lines()
        .filter(|line| line.starts_with("test ") && line.ends_with(" ok"))
        .count();
    let left_out = stderr
        .lines()
        .filter(|line| line.starts_with("skipped: "))
        .count();
    assert!(
        left_out > 0,
        "it does not say what it leaves out:\n{stdout}\n{stderr}"
    );
    assert!(
        tests - left_out >= FEWEST_CHECKS,
        "of {tests} tests {left_out} left out:\n{stdout}\n{stderr}"
    );
}

/// Runs this very test program, with `SERVER` set. Gives whether it failed, and what it wrote.
fn run(server: &str, args: &[&str]) -> (bool, String) {
    let output = contract(server, args);
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    // A check of another name would not fail either.
    (!output.status.success(), text.concat())
}

fn contract(server: &str, args: &[&str]) -> Output {
    let contract = env::current_exe().expect("a running program has a file");
    Command::new(contract)
        .args(args)
        .env("SERVER", server)
        .stdin(Stdio::null())
        .output()
        .expect("what runs can be run again")
}

fn has(command: &mut Command) -> bool {
    let outcome = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    outcome.is_ok_and(|status| status.success())
}
