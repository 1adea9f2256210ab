//! The program: its command line, its output, its exit codes.

mod server;

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use assert_cmd::assert::Assert;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty, is_match, starts_with};
use server::{Flaw, Server};

/// On a busy machine a message may well take longer than the two seconds after which it counts as late.
const PATIENT: &str = "--timeout=30s";

fn loadgen(arguments: &[&str]) -> Assert {
    assert_cmd::cargo::cargo_bin_cmd!("loadgen")
        .args(arguments)
        .timeout(Duration::from_secs(60))
        .assert()
}

#[test]
fn prints_the_table_of_wrk() {
    let server = Server::start(Flaw::None);
    let target = server.address.to_string();
    loadgen(&["-t2", "-c20", "-d500ms", PATIENT, &target])
        .code(0)
        .stdout(starts_with(format!(
            "Running 500ms test @ {target}\n  2 threads and 20 connections\n"
        )))
        .stdout(contains(
            "\n  Thread Stats   Avg      Stdev     Max   +/- Stdev\n",
        ))
        .stdout(is_match(r"\n +99\.9% +[0-9.]+(us|ms|s)\n").unwrap())
        .stdout(is_match(r"\n  [0-9]+ messages in 500\.00ms, [0-9.]+[KMG]?B read\n").unwrap())
        .stdout(contains(
            "\n  Socket errors: connect 0, read 0, write 0, timeout 0, mismatch 0\n",
        ))
        .stdout(is_match(r"\nMessages/sec: +[0-9.]+\nTransfer/sec: +[0-9.]+[KMG]?B\n$").unwrap())
        .stderr(is_empty());
}

#[test]
fn json_goes_to_standard_output_alone() {
    let server = Server::start(Flaw::None);
    let run = loadgen(&[
        "-c5",
        "-d200ms",
        PATIENT,
        "--json",
        "-",
        &server.address.to_string(),
    ])
    .code(0);
    let report: loadgen::Report = serde_json::from_slice(&run.get_output().stdout).unwrap();
    assert_eq!(report.load.connections, 5);
    assert_eq!(report.errors.total(), 0);
}

#[test]
fn json_goes_to_a_file_beside_the_table() {
    let server = Server::start(Flaw::None);
    let file = std::env::temp_dir().join(format!("loadgen-{}.json", std::process::id()));
    let run = loadgen(&[
        // Long enough for a message, or there is no latency.
        "-d1s",
        PATIENT,
        "--json",
        file.to_str().unwrap(),
        &server.address.to_string(),
    ]);
    run.code(0).stdout(contains("Messages/sec:"));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(value["latency"]["p999_us"].is_number(), "{text}");
}

#[test]
fn a_json_file_that_cannot_be_written_is_a_failure() {
    let server = Server::start(Flaw::None);
    loadgen(&[
        "-d100ms",
        "--json",
        "/nonexistent/file",
        &server.address.to_string(),
    ])
    .code(1)
    .stderr(contains("loadgen: cannot write /nonexistent/file: "));
}

#[test]
fn a_flawed_server_is_exit_code_1_and_the_offset() {
    for (flaw, says) in [
        (Flaw::Corrupt, "one byte was changed"),
        (Flaw::Drop, "belongs 1 byte further on"),
        (Flaw::Reorder, "the next 2 bytes came in another order"),
        (Flaw::Repeat, "belongs 1 byte further back"),
    ] {
        let server = Server::start(flaw);
        loadgen(&[
            "-c1",
            "--size",
            "4096",
            "--depth",
            "3",
            "-d30s",
            &server.address.to_string(),
        ])
        .code(1)
        .stdout(contains("mismatch 1\n"))
        .stderr(starts_with("loadgen: connection 0 (from 127.0.0.2:"))
        .stderr(is_match("offset (999999|1000000): expected 0x").unwrap())
        .stderr(contains(says))
        .stderr(contains("\nhint: "));
    }
}

#[test]
fn a_refused_connection_is_explained() {
    let (_socket, address) = server::refusing();
    let target = address.to_string();
    loadgen(&[&target])
        .code(1)
        .stdout(is_empty())
        .stderr(starts_with(format!(
            "loadgen: nothing listens on {target}: start the server first"
        )));
}

#[test]
fn more_connections_than_the_hard_limit_allows_are_explained() {
    let server = Server::start(Flaw::None);
    loadgen(&["-c", "2000M", &server.address.to_string()])
        .code(1)
        .stderr(starts_with(
            "loadgen: 2000000000 connections need more descriptors than the hard limit of ",
        ))
        .stderr(contains("hint: ask for fewer"));
}

#[test]
fn an_unknown_server_process_is_a_failure() {
    let server = Server::start(Flaw::None);
    loadgen(&["--server-pid", "4294967295", &server.address.to_string()])
        .code(1)
        .stderr(contains("there is no process 4294967295"));
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    for arguments in [
        &[][..],
        &["127.0.0.1:0"],
        &["127.0.0.1:65536"],
        &["127.0.0.1"],
        &["http://127.0.0.1:9000/"],
        &["127.0.0.1:9000", "127.0.0.1:9001"],
        &["--nonsense", "127.0.0.1:9000"],
        &["-d", "soon", "127.0.0.1:9000"],
        &["-d", "0s", "127.0.0.1:9000"],
        &["-c", "-1", "127.0.0.1:9000"],
        &["-c", "0", "127.0.0.1:9000"],
        &["-t", "11", "127.0.0.1:9000"],
        &["-t", "0", "127.0.0.1:9000"],
        &["--size", "0", "127.0.0.1:9000"],
        &["--rate", "0", "127.0.0.1:9000"],
        &["--rate", "10", "--depth", "2", "127.0.0.1:9000"],
        &["--connect-rate", "0", "127.0.0.1:9000"],
        &["--hold", "--idle", "5", "127.0.0.1:9000"],
        &["--hold", "-c", "0", "127.0.0.1:9000"],
    ] {
        loadgen(arguments)
            .code(2)
            .stdout(is_empty())
            .stderr(starts_with("error: "));
    }
}

#[test]
fn help_and_version_are_exit_code_0() {
    loadgen(&["--help"])
        .code(0)
        .stdout(contains("HOST:PORT").and(contains("Exit code: 0")));
    loadgen(&["--version"])
        .code(0)
        .stdout(starts_with("loadgen "));
}

#[test]
fn a_closed_standard_output_is_no_failure() {
    let server = Server::start(Flaw::None);
    let mut program = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["-d100ms", &server.address.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(program.stdout.take());
    let output = program.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// Starts the program, sends it SIGINT once the server has received `bytes`, and returns how it ended.
fn interrupted(server: &Server, bytes: u64, arguments: &[&str]) -> std::process::Output {
    let program = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(arguments)
        .arg(server.address.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while server.received.load(Ordering::Relaxed) < bytes {
        assert!(
            Instant::now() < deadline,
            "the load has not begun after 30 s"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(program.id() as i32), Signal::SIGINT).unwrap();
    program.wait_with_output().unwrap()
}

#[test]
fn ctrl_c_ends_early_with_what_was_measured() {
    let server = Server::start(Flaw::None);
    let output = interrupted(&server, 10_000, &["-c", "20", "-d", "1h"]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(stdout.starts_with("Running 1h test @"), "{stdout}");
    assert!(
        stdout.contains(" messages in ") && stdout.contains("Messages/sec:"),
        "{stdout}"
    );
}

#[test]
fn hold_keeps_the_connections_until_ctrl_c() {
    let server = Server::start(Flaw::None);
    let output = interrupted(&server, 200 * 64, &["--hold", "-c", "200"]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        stdout.starts_with("Holding 200 connections to "),
        "{stdout}"
    );
    assert!(
        stdout.contains("each has echoed 64 bytes again, none lost"),
        "{stdout}"
    );
}
