//! Arguments, messages and exit codes: the checks about a milestone's command line. They judge our
//! own programs only; what a reader's program says about itself is its own affair.

use std::{
    env, fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{self, Stdio},
};

use assert_cmd::{Command, assert::Assert};
use nix::sys::signal::Signal;
use predicates::{
    prelude::*,
    str::{contains, is_empty, is_match, starts_with},
};

use crate::{
    Client, ClientOptions, PATIENCE, Program, Protocol, Server, Setup, StandardOutput, Trouble,
    chat,
    explain::{Lesson, book},
    http, pattern,
    server::free_port,
    skipped,
    syscalls::{Call, Outcome},
    tracer::{Mark, Tracer},
    wait_until,
};

/// An address that no machine has: RFC 5737 keeps it for documentation.
const NOBODYS_IPV4: &str = "192.0.2.1";

/// Its like (RFC 3849).
const NOBODYS_IPV6: &str = "2001:db8::1";

// What every milestone says and refuses

/// `--help` names everything that can be said, and what the program is.
#[track_caller]
pub fn helps(program: &Program, about: &str) {
    let Some(binary) = ours(program) else { return };
    for flag in ["--help", "-h"] {
        let help = run(binary, &[flag]).success().stderr(is_empty());
        help.stdout(starts_with(about))
            .stdout(contains(format!(
                "Usage: {} [OPTIONS] [PORT]",
                program.name()
            )))
            .stdout(contains("--bind <ADDR>").and(contains("127.0.0.1")))
            .stdout(contains("[default: 9000]"));
    }
}

/// `--version` is one line: the name and the version.
#[track_caller]
pub fn tells_its_version(program: &Program, version: &str) {
    let Some(binary) = ours(program) else { return };
    for flag in ["--version", "-V"] {
        let expected = format!("{} {version}\n", program.name());
        run(binary, &[flag])
            .success()
            .stdout(expected)
            .stderr(is_empty());
    }
}

/// The first line on standard output is the banner, with the real port, and it is there while the
/// server runs. `{}` in `banner` stands for the port.
#[track_caller]
pub fn announces_itself(program: &Program, banner: &str) {
    if ours(program).is_none() {
        return;
    }
    // A port of the kernel's choice, and one asked for.
    for setup in [Setup::new(), Setup::new().port(free_port())] {
        let server = program.start_with(setup);
        let expected = banner.replace("{}", &server.addr().port().to_string());
        assert_eq!(server.wait_for_stdout_line("", PATIENCE).unwrap(), expected);
        Client::connect(&server)
            .and_then(|client| client.be_served(&server))
            .unwrap();
        assert_eq!(server.stdout(), format!("{expected}\n"));
        assert_eq!(server.stderr(), "");
    }
}

/// A wrong command line: clap's message, and exit code 2.
#[track_caller]
pub fn refuses_a_wrong_command_line(program: &Program) {
    refuses(
        program,
        &[
            (&["65536"], "65536 is not in 0..=65535"),
            (&["-1"], "-1 is not in 0..=65535"),
            (&["abc"], "invalid digit found in string"),
            (&[""], "invalid value '' for '[PORT]'"),
            (&["9000", "9001"], "unexpected argument '9001' found"),
            (
                &["--frobnicate"],
                "unexpected argument '--frobnicate' found",
            ),
            (&["--bind"], "a value is required for '--bind <ADDR>'"),
            (&["--bind", "localhost"], "invalid IP address syntax"),
            (&["--bind", "127.0.0.256"], "invalid IP address syntax"),
            (&["--bind", ""], "invalid value '' for '--bind <ADDR>'"),
        ],
    );
}

/// The options that came with the sixth milestone take numbers from 1 on.
#[track_caller]
pub fn refuses_wrong_limits(program: &Program) {
    if ours(program).is_none() {
        return;
    }
    for option in ["--max-connections", "--idle-timeout", "--backlog"] {
        for value in ["0", "-1", "abc", "", "99999999999999999999999"] {
            let named = format!("invalid value '{value}' for '{option} <");
            refuses(program, &[(&[option, value], &named)]);
        }
    }
}

/// `--help` names these options and what they may be.
#[track_caller]
pub fn names_options(program: &Program, parts: &[&str]) {
    let Some(binary) = ours(program) else { return };
    for part in parts {
        run(binary, &["--help"]).success().stdout(contains(*part));
    }
}

/// The ninth milestone speaks what it says that it speaks, and nothing else.
#[track_caller]
pub fn refuses_unknown_protocols(program: &Program) {
    if ours(program).is_none() {
        return;
    }
    for value in ["smtp", "ECHO", "echo,chat"] {
        let named = format!("invalid value '{value}' for '--protocol <NAME>'");
        refuses(program, &[(&["--protocol", value], &named)]);
    }
    refuses(
        program,
        &[(
            &["--protocol"],
            "a value is required for '--protocol <NAME>'",
        )],
    );
}

#[track_caller]
fn refuses(program: &Program, wrong: &[(&[&str], &str)]) {
    let Some(binary) = ours(program) else { return };
    for (args, message) in wrong {
        run(binary, args).code(2).stdout(is_empty()).stderr(
            starts_with("error: ")
                .and(contains(*message))
                .and(no_panic()),
        );
    }
}

/// An address that no interface has.
#[track_caller]
pub fn says_that_an_address_is_not_ours(program: &Program) {
    if ours(program).is_none() {
        return;
    }
    if fs::read_to_string("/proc/sys/net/ipv4/ip_nonlocal_bind")
        .is_ok_and(|text| text.trim() != "0")
    {
        return skipped(
            "this machine may listen on addresses that it lacks (net.ipv4.ip_nonlocal_bind)",
        );
    }
    let reason = "Cannot assign requested address (EADDRNOTAVAIL)";
    cannot_listen(
        program,
        NOBODYS_IPV4,
        &format!("{NOBODYS_IPV4}:9000"),
        9000,
        reason,
    );
    if has_ipv6() {
        cannot_listen(
            program,
            NOBODYS_IPV6,
            &format!("[{NOBODYS_IPV6}]:9000"),
            9000,
            reason,
        );
    } else {
        skipped("the part about IPv6: this machine has none");
    }
}

/// A port on which somebody else listens.
#[track_caller]
pub fn says_that_a_port_is_in_use(program: &Program) {
    if ours(program).is_none() {
        return;
    }
    let reason = "Address already in use (EADDRINUSE)";
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = taken.local_addr().expect("its number").port();
    cannot_listen(
        program,
        "127.0.0.1",
        &format!("127.0.0.1:{port}"),
        port,
        reason,
    );
    if has_ipv6() {
        let taken = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("a port");
        let port = taken.local_addr().expect("its number").port();
        cannot_listen(program, "::1", &format!("[::1]:{port}"), port, reason);
    } else {
        skipped("the part about IPv6: this machine has none");
    }
}

/// A port below 1024, without the right to listen there.
#[track_caller]
pub fn says_that_a_port_is_privileged(program: &Program) {
    let Some(binary) = ours(program) else { return };
    const PORT: u16 = 1;
    let first_free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first_free.is_ok_and(|port| port.trim().parse().is_ok_and(|port: u16| port <= PORT)) {
        return skipped(
            "every port is free for everybody here (net.ipv4.ip_unprivileged_port_start)",
        );
    }
    let copy;
    let mut command = if may_bind_privileged_ports() {
        // Of nobody's: the folder that cargo builds in may be out of the reach of others.
        copy = match CopyForOthers::of(binary) {
            Ok(copy) => copy,
            Err(error) => {
                return skipped(&format!(
                    "cannot copy the server to where others may run it: {error}"
                ));
            }
        };
        let mut nobody = process::Command::new("setpriv");
        nobody.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
        ]);
        nobody.arg(&copy.binary);
        let mut trial = process::Command::new("setpriv");
        trial.args(nobody.get_args()).arg("--version");
        let works = trial
            .stdin(Stdio::null())
            .output()
            .is_ok_and(|output| output.status.success());
        if !works {
            return skipped(
                "we have every right, and `setpriv` cannot start a server that has less",
            );
        }
        Command::from_std(nobody)
    } else {
        Command::new(binary)
    };
    command.arg(PORT.to_string()).timeout(PATIENCE);
    let outcome = command.assert();
    failed(
        outcome,
        program,
        &format!("cannot listen on 127.0.0.1:{PORT}: Permission denied (EACCES)"),
    );
}

/// Standard output closed, full, or a pipe whose reader has gone: no reason not to serve.
#[track_caller]
pub fn serves_without_standard_output(program: &Program) {
    if ours(program).is_none() {
        return;
    }
    for stdout in [
        StandardOutput::Closed,
        StandardOutput::Full,
        StandardOutput::ReaderLeft,
    ] {
        let server = program.start_with(Setup::new().stdout(stdout));
        for _ in 0..2 {
            let served = Client::connect(&server).and_then(|client| client.be_served(&server));
            served.unwrap_or_else(|trouble| panic!("with standard output {stdout:?}: {trouble}"));
        }
        // It may say so; it may not panic.
        let stderr = server.stderr();
        let prefix = format!("{}: cannot write to standard output: ", program.name());
        let fine = stderr.is_empty() || stderr.lines().count() == 1 && stderr.starts_with(&prefix);
        assert!(
            fine,
            "with standard output {stdout:?} it wrote to standard error:\n{stderr}"
        );
    }
}

/// `--bind ::1` listens on IPv6, `--bind ::` on both, and says so nowhere: the banner names the
/// port alone.
#[track_caller]
pub fn serves_ipv6(program: &Program) {
    if ours(program).is_none() {
        return;
    }
    if !has_ipv6() {
        return skipped("this machine has no IPv6");
    }
    let only = program.start_with(Setup::new().bind("::1"));
    Client::connect(&only)
        .and_then(|client| client.be_served(&only))
        .unwrap();
    let both = program.start_with(Setup::new().bind("::"));
    let port = both.addr().port();
    for addr in [
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
    ] {
        let client = ClientOptions::new().connect_to(addr);
        let served = client.and_then(|client| client.be_served(&both));
        served.unwrap_or_else(|trouble| panic!("with --bind :: a client of {addr}: {trouble}"));
    }
}

/// Without `--bind` nobody outside this machine can connect.
#[track_caller]
pub fn listens_on_loopback_only_unless_asked(program: &Program) {
    if ours(program).is_none() {
        return;
    }
    let server = program.start();
    let ip = crate::server::listening_at(server.addr().port());
    assert_eq!(
        ip,
        Some(Ipv4Addr::LOCALHOST.into()),
        "an echo server has no authentication"
    );
    // 127.0.0.2 is this machine too, but not the address asked for.
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], server.addr().port()));
    assert!(ClientOptions::new().connect_to(elsewhere).is_err());
    drop(server);
    let everywhere = program.start_with(Setup::new().bind("0.0.0.0"));
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], everywhere.addr().port()));
    let client = ClientOptions::new().connect_to(elsewhere);
    client
        .and_then(|client| client.be_served(&everywhere))
        .unwrap();
}

// From the sixth milestone on

/// More connections than the hard limit on descriptors allows.
#[track_caller]
pub fn says_which_limit_is_too_low(program: &Program) {
    let Some(binary) = ours(program) else { return };
    const HARD: usize = 64;
    let outcome = run_limited(binary, HARD, &["--max-connections", "1000", "0"]);
    let message = is_match(format!(
        "^{}: cannot hold 1000 connections: the hard limit of {HARD} descriptors allows [0-9]+\n\
         hint: `ulimit -n [0-9]+` ",
        program.name()
    ));
    outcome
        .code(1)
        .stdout(is_empty())
        .stderr(message.unwrap().and(no_panic()));
}

/// So few descriptors that not one connection fits.
#[track_caller]
pub fn refuses_a_limit_that_fits_nobody(program: &Program) {
    let Some(binary) = ours(program) else { return };
    for hard in [4, 5, 6] {
        let outcome = run_limited(binary, hard, &["0"]);
        failed(outcome, program, "cannot ");
    }
}

// The seventh milestone

/// What `--stats` prints every second, and SIGUSR1 once.
const STATISTICS: &str = r"Connections: (\d{1,3}(?:,\d{3})*) active
Bytes in: \d{1,3}(?:,\d{3})* (?:B|kB|MB|GB)/s
Bytes out: \d{1,3}(?:,\d{3})* (?:B|kB|MB|GB)/s
Events/sec: \d{1,3}(?:,\d{3})*
";

/// `--stats` prints a block every second; on a pipe one below the other, with nothing that moves a
/// cursor.
#[track_caller]
pub fn prints_statistics_every_second(program: &Program) {
    if ours(program).is_none() {
        return;
    }
    let server = program.start_with(Setup::new().arg("--stats"));
    let clients: Vec<_> = (0..3).map(|_| Client::connect(&server).unwrap()).collect();
    for client in &clients {
        client.be_served(&server).unwrap();
    }
    // A second in which bytes moved, and one in which nothing did.
    wait_until(
        "a block with three connections, and bytes in both directions",
        PATIENCE,
        || {
            match program.protocol() {
                Protocol::Echo | Protocol::EchoOrHttp => clients
                    .iter()
                    .try_for_each(|client| client.echo(&pattern(1, 500))),
                Protocol::Http => clients
                    .iter()
                    .try_for_each(|client| client.be_served(&server)),
                // The others need not read it to be sent it.
                Protocol::Chat => clients[0].send(b"what everybody has been waiting for\n"),
            }
            .unwrap();
            let stdout = server.stdout();
            stdout.contains("Connections: 3 active\n")
                && !stdout.trim_end().ends_with("Events/sec: 0")
                && stdout.contains("Events/sec: ")
        },
    )
    .unwrap();
    drop(clients);
    wait_until(
        "a block with no connection, and no events",
        PATIENCE,
        || {
            server.stdout().ends_with(
                "Connections: 0 active\nBytes in: 0 B/s\nBytes out: 0 B/s\nEvents/sec: 0\n",
            )
        },
    )
    .unwrap();
    let stdout = server.stdout();
    let blocks = is_match(format!("^[^\\n]+\\n(?:{STATISTICS})+$")).unwrap();
    assert!(
        blocks.eval(&stdout),
        "expected the banner, and then blocks of this form, one below the other:\n\n\
         Connections: 1,000 active\n\
         Bytes in: 45 MB/s\n\
         Bytes out: 45 MB/s\n\
         Events/sec: 250,000\n\n\
         Standard output was:\n{stdout:?}"
    );
    assert_eq!(server.stderr(), "");
}

/// What was received and what was sent are two numbers: they part when a client does not read.
#[track_caller]
pub fn tells_bytes_in_from_bytes_out(program: &Program) {
    if ours(program).is_none() {
        return;
    }
    let server = program.start();
    Lesson {
        tried: "one client with small buffers sends until the server takes no more, and reads \
                nothing; SIGUSR1 asks for a report. Then the client reads everything, and SIGUSR1 \
                asks again. The first report is to tell of more bytes in than out, because some \
                wait in the outbox; the second, of more out than in",
        usually: "the bytes received are counted as sent as well, or those that were put into the \
                  outbox: count what send returned, there and where the outbox is emptied",
        read: book::M7_CODE,
    }
    .expect(|| {
        let client = ClientOptions::small().connect(&server)?;
        let bytes = pattern(1, 16 << 20);
        let taken = client.send_until_stuck(&server, &bytes)?;
        let (bytes_in, bytes_out) = reported_rates(&server, 1)?;
        if bytes_out >= bytes_in {
            return Err(Trouble::Server(format!(
                "with bytes waiting in the outbox it reports\n{}",
                indented(&server.stderr())
            )));
        }
        client.expect(&bytes[..taken])?;
        let (bytes_in, bytes_out) = reported_rates(&server, 2)?;
        match bytes_out > bytes_in {
            true => Ok(()),
            false => Err(Trouble::Server(format!(
                "the first report was made with bytes waiting in the outbox, the second when they \
                 had been sent:\n{}",
                indented(&server.stderr())
            ))),
        }
    });
}

/// Asks for the `n`th report, and gives the rates in it: bytes in and bytes out, a second.
fn reported_rates(server: &Server, n: usize) -> Result<(f64, f64), Trouble> {
    server.signal(Signal::SIGUSR1);
    wait_until("a whole block on standard error", PATIENCE, || {
        server.stderr().matches("Events/sec: ").count() == n && server.stderr().ends_with('\n')
    })?;
    let stderr = server.stderr();
    let rate = |label: &str| {
        let line = stderr
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix(label));
        let (number, unit) = line?.split_once(' ')?;
        let factor = match unit {
            "B/s" => 1.0,
            "kB/s" => 1e3,
            "MB/s" => 1e6,
            "GB/s" => 1e9,
            _ => return None,
        };
        Some(number.replace(',', "").parse::<f64>().ok()? * factor)
    };
    rate("Bytes in: ")
        .zip(rate("Bytes out: "))
        .ok_or_else(|| Trouble::Server(format!("it reports no rates:\n{stderr}")))
}

/// Whoever asked for statistics and does not read them holds up nobody.
#[track_caller]
pub fn serves_while_nobody_reads_its_statistics(program: &Program) {
    if ours(program).is_none() {
        return;
    }
    let setup = Setup::new()
        .arg("--stats")
        .stdout(StandardOutput::ReaderStopped);
    let server = program.start_with(setup);
    Lesson {
        tried: "a server with `--stats` writes to a pipe that is full after the banner and that nobody \
                reads, as with `| less`, which reads no further than its screen; when a second is over \
                and the statistics are due, a client is to be served",
        usually: "standard output is written to as if that could not block. A pipe without room \
                  makes write wait, and the whole server waits with it: ask poll first, with \
                  timeout 0, and leave the block out",
        read: book::M7_CODE,
    }
    .expect(|| {
        let tracer = Tracer::attach(&server)?;
        // Of the timer: no socket is read, for nobody has come yet.
        let is_tick = |call: &Call| call.name() == "read" && call.returned() == Some(8);
        let is_stuck = |calls: &[Call]| {
            let last = calls.last();
            last.is_some_and(|call| call.name() == "write" && call.outcome == Outcome::InProgress)
        };
        let due = "the timer was read, or a write was begun that does not return";
        tracer.wait_for(due, Mark::default(), |calls| {
            calls.iter().any(is_tick) || is_stuck(calls)
        })?;
        if let Err(trouble) = tracer.wait_until_resting() {
            return Err(match is_stuck(&tracer.since(Mark::default())) {
                true => Trouble::Server(format!(
                    "when its statistics were due it called write, which has not returned for {PATIENCE:?}"
                )),
                false => trouble,
            });
        }
        drop(tracer);
        Client::connect(&server)?.be_served(&server)
    });
}

/// On a terminal, a block is drawn over the one before.
#[track_caller]
pub fn redraws_statistics_on_a_terminal(program: &Program) {
    if ours(program).is_none() {
        return;
    }
    let setup = Setup::new().arg("--stats");
    let server = program.start_with(setup.stdout(StandardOutput::Terminal));
    // To the beginning of the block before, and to the end of each line what was there is cleared. The terminal itself puts
    // the `\\r`.
    let block = STATISTICS.replace('\n', "\\x1b\\[K\\r\n");
    let expected = format!("^[^\\n]*\\n{block}(?:\\x1b\\[4A{block}){{2}}");
    let expected = is_match(expected).unwrap();
    wait_until("three blocks, each over the one before", PATIENCE, || {
        expected.eval(&server.stdout())
    })
    .unwrap_or_else(|trouble| panic!("{trouble}\nThe terminal got: {:?}", server.stdout()));
}

/// SIGUSR1 prints one block to standard error, with `--stats` and without.
#[track_caller]
pub fn prints_statistics_when_asked(program: &Program) {
    if ours(program).is_none() {
        return;
    }
    for args in [&[][..], &["--stats"]] {
        let server = program.start_with(Setup::new().args(args));
        let client = Client::connect(&server).unwrap();
        client.be_served(&server).unwrap();
        for blocks in 1..=3 {
            server.signal(Signal::SIGUSR1);
            let expected = is_match(format!("^(?:{STATISTICS}){{{blocks}}}$")).unwrap();
            wait_until("a whole block on standard error", PATIENCE, || {
                expected.eval(&server.stderr())
            })
            .unwrap_or_else(|trouble| {
                panic!("{trouble}\nStandard error was:\n{}", server.stderr())
            });
            assert!(
                server.stderr().contains("Connections: 1 active\n"),
                "{}",
                server.stderr()
            );
        }
        // It goes on serving.
        Client::connect(&server)
            .and_then(|client| client.be_served(&server))
            .unwrap();
        if args.is_empty() {
            assert_eq!(
                server.stdout().lines().count(),
                1,
                "no statistics were asked for"
            );
        }
    }
}

/// SIGINT and SIGTERM end it in good order: exit code 0, nothing on standard error, and connected
/// clients see the end.
#[track_caller]
pub fn ends_in_good_order(program: &Program) {
    if ours(program).is_none() {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // Nobody connected.
        let server = program.start();
        server.signal(signal);
        ended_well(&server);
        // A client that says nothing is not waited for.
        let server = program.start();
        let client = Client::connect(&server).unwrap();
        client.be_served(&server).unwrap();
        server.signal(signal);
        client.expect_eof().unwrap();
        ended_well(&server);
    }
}

/// While it waits for a client to take its bytes it accepts nobody; a second signal ends it at
/// once.
#[track_caller]
pub fn ends_at_once_at_the_second_signal(program: &Program) {
    if ours(program).is_none() {
        return;
    }
    let server = program.start();
    let _stalled = a_client_that_is_owed_bytes(&server).unwrap();
    server.signal(Signal::SIGTERM);
    wait_until("no listener any more", PATIENCE, || {
        crate::server::listening_at(server.addr().port()).is_none()
    })
    .unwrap();
    match Client::connect(&server) {
        Err(Trouble::Connect { error, .. })
            if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
        other => panic!("a new client should be refused while the server ends; instead: {other:?}"),
    }
    assert!(
        !server.has_ended(),
        "it did not wait for the client that is owed bytes"
    );
    server.signal(Signal::SIGTERM);
    ended_with_bytes_unsent(&server);
}

/// A client that never takes its bytes cannot keep the server from ending.
#[track_caller]
pub fn ends_without_a_client_that_never_reads(program: &Program) {
    if ours(program).is_none() {
        return;
    }
    let server = program.start();
    let _stalled = a_client_that_is_owed_bytes(&server).unwrap();
    server.signal(Signal::SIGINT);
    ended_with_bytes_unsent(&server);
}

/// One that reads nothing, and for whom the server keeps more than the kernel takes.
fn a_client_that_is_owed_bytes(server: &Server) -> Result<Client, Trouble> {
    match server.program().protocol() {
        Protocol::Echo | Protocol::EchoOrHttp => {
            let client = ClientOptions::small().connect(server)?;
            client.send_until_stuck(server, &pattern(1, 16 << 20))?;
            Ok(client)
        }
        Protocol::Http => http::a_client_that_is_owed_answers(server),
        Protocol::Chat => chat::a_member_that_is_owed_lines(server),
    }
}

/// It was asked to end, so this is no failure; that a client did not get its bytes deserves a line.
#[track_caller]
fn ended_with_bytes_unsent(server: &Server) {
    let status = server.wait_exit(PATIENCE).unwrap();
    assert_eq!(
        status.code(),
        Some(0),
        "{}",
        crate::server::explain_status(status)
    );
    let stderr = server.stderr();
    let said = is_match(format!(
        r"\A{}: [^\n]*\b1 connection\b[^\n]*\n\z",
        server.program().name()
    ))
    .unwrap();
    assert!(
        said.eval(&stderr),
        "expected one line about 1 connection; standard error was:\n{stderr}"
    );
}

#[track_caller]
fn ended_well(server: &Server) {
    let status = server.wait_exit(PATIENCE).unwrap();
    assert_eq!(
        status.code(),
        Some(0),
        "{}",
        crate::server::explain_status(status)
    );
    assert_eq!(server.stderr(), "");
}

// How these checks are made

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("    {line}")).collect();
    lines.join("\n")
}

/// The milestone's executable; for a reader's program nothing, and the reader is told.
#[track_caller]
fn ours(program: &Program) -> Option<&Path> {
    let binary = program.binary();
    if binary.is_none() {
        skipped("the command line is judged on our own programs only");
    }
    binary
}

#[track_caller]
fn run(binary: &Path, args: &[&str]) -> Assert {
    Command::new(binary).args(args).timeout(PATIENCE).assert()
}

/// Under this hard limit on descriptors, with none but the first three, whatever the tests were started with.
#[track_caller]
fn run_limited(binary: &Path, hard: usize, args: &[&str]) -> Assert {
    Command::new("sh")
        .args([
            "-c",
            &format!(
                "exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-
                ulimit -Sn {hard} && ulimit -Hn {hard} && exec \"$0\" \"$@\""
            ),
        ])
        .arg(binary)
        .args(args)
        .timeout(PATIENCE)
        .assert()
}

#[track_caller]
fn cannot_listen(program: &Program, bind: &str, addr: &str, port: u16, reason: &str) {
    let Some(binary) = ours(program) else { return };
    let outcome = run(binary, &["--bind", bind, &port.to_string()]);
    failed(
        outcome,
        program,
        &format!("cannot listen on {addr}: {reason}\n"),
    );
}

/// Exit code 1; on standard error one line that begins with the program's name and `message`, and
/// at most one hint.
#[track_caller]
fn failed(outcome: Assert, program: &Program, message: &str) {
    let one_line_and_a_hint = is_match(r"\A[^\n]+\n(?:hint: [^\n]+\n)?\z").unwrap();
    outcome
        .code(1)
        .stdout(is_empty())
        .stderr(starts_with(format!("{}: {message}", program.name())))
        .stderr(one_line_and_a_hint.and(no_panic()));
}

fn no_panic() -> impl Predicate<str> {
    contains("panicked").not()
}

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Whether we have CAP_NET_BIND_SERVICE (capabilities(7)), which root usually has.
fn may_bind_privileged_ports() -> bool {
    const CAP_NET_BIND_SERVICE: u64 = 10;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    // Where nobody says, giving it up does no harm.
    bits.is_none_or(|bits| bits & (1 << CAP_NET_BIND_SERVICE) != 0)
}

/// A copy of a binary that every user of this machine may run.
struct CopyForOthers {
    folder: PathBuf,
    binary: PathBuf,
}

impl CopyForOthers {
    fn of(binary: &Path) -> std::io::Result<CopyForOthers> {
        let folder = env::temp_dir().join(format!("contract-{}", process::id()));
        // Of an earlier process of this number that was killed.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder)?;
        let copy = CopyForOthers {
            binary: folder.join(binary.file_name().unwrap_or_default()),
            folder,
        };
        fs::copy(binary, &copy.binary)?;
        for path in [&copy.folder, &copy.binary] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(copy)
    }
}

impl Drop for CopyForOthers {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
