//! The measuring engine against servers that are right, and servers that are not.

mod server;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use loadgen::{Error, Plan, Progress, Report};
use server::{EVERY, Flaw, Server};

/// A second of load from 20 connections; a flawed server ends it sooner.
fn plan(server: &Server) -> Plan {
    let mut plan = Plan::new(server.address);
    plan.connections = 20;
    plan.duration = Duration::from_secs(1);
    plan
}

fn run(plan: &Plan) -> Report {
    loadgen::run(plan, &AtomicBool::new(false), |_| ()).unwrap()
}

/// Runs against a flawed server until it is found out; what was said about it.
fn found_out(flaw: Flaw) -> (Report, String) {
    let server = Server::start(flaw);
    let mut plan = plan(&server);
    // Byte number 999,999 of all is then the first of a message, and others come after it.
    (plan.size, plan.depth) = (999, 8);
    plan.duration = Duration::from_secs(60);
    let report = run(&plan);
    assert_eq!(report.errors.mismatch, 1, "{report}");
    assert!(
        report.seconds < 60.0,
        "the run went on after the wrong byte"
    );
    let what = report.failure.clone().unwrap().what;
    (report, what)
}

#[test]
fn a_closed_loop_counts_what_came_back() {
    let server = Server::start(Flaw::None);
    let report = run(&plan(&server));
    assert_eq!(report.errors.total(), 0, "{report}");
    assert_eq!(report.failure, None);
    assert!(report.messages > 0);
    assert_eq!(report.bytes, report.messages * 64);
    assert_eq!(report.connecting.opened, 20);
    let latency = report.latency.unwrap();
    assert!(
        latency.p50_us <= latency.p90_us && latency.p90_us <= latency.p99_us,
        "{latency:?}"
    );
    assert!(
        latency.p99_us <= latency.p999_us && latency.p999_us <= latency.max_us,
        "{latency:?}"
    );
}

#[test]
fn an_open_loop_sends_what_is_due_and_no_more() {
    let server = Server::start(Flaw::None);
    let mut plan = plan(&server);
    plan.rate = Some(1_000.0);
    plan.threads = 3;
    let report = run(&plan);
    assert_eq!(report.failure, None);
    // Whatever was due in the second was answered in it, or is said to be outstanding; each of the
    // three threads may round by one.
    let due = report.messages + report.unanswered;
    assert!((997..=1_003).contains(&due), "{report}");
}

#[test]
fn depth_size_idle_and_several_threads_go_together() {
    let server = Server::start(Flaw::None);
    let mut plan = plan(&server);
    (plan.threads, plan.depth, plan.size, plan.idle) = (3, 7, 1_000, 50);
    plan.warmup = Duration::from_millis(100);
    let report = run(&plan);
    assert_eq!(report.failure, None);
    assert_eq!(report.connecting.opened, 70);
    assert_eq!(report.bytes, report.messages * 1_000);
}

#[test]
fn messages_larger_than_any_socket_buffer_pass() {
    let server = Server::start(Flaw::None);
    let mut plan = plan(&server);
    (plan.connections, plan.size) = (2, 3_000_000);
    plan.options.receive_buffer = Some(100_000);
    let report = run(&plan);
    assert_eq!(report.failure, None);
}

#[test]
fn stalled_clients_send_and_never_read() {
    let server = Server::start(Flaw::None);
    let mut plan = plan(&server);
    plan.stalled = 5;
    let report = run(&plan);
    assert_eq!(report.failure, None);
    assert!(
        report.stalled.bytes_sent > 5 * 100_000,
        "{:?}",
        report.stalled
    );
    assert_eq!(report.stalled.closed, 0);
}

#[test]
fn a_changed_byte_ends_the_run() {
    let (_, what) = found_out(Flaw::Corrupt);
    assert!(
        what.contains("offset ") && what.contains("expected 0x") && what.contains("got 0x"),
        "{what}"
    );
}

#[test]
fn a_lost_byte_ends_the_run() {
    let (_, what) = found_out(Flaw::Drop);
    assert!(what.contains("1 byte further on"), "{what}");
}

#[test]
fn two_swapped_bytes_end_the_run() {
    let (_, what) = found_out(Flaw::Reorder);
    assert!(
        what.contains("the next 2 bytes came in another order"),
        "{what}"
    );
}

#[test]
fn a_repeated_byte_ends_the_run() {
    let (_, what) = found_out(Flaw::Repeat);
    assert!(what.contains("1 byte further back"), "{what}");
}

#[test]
fn the_offset_of_the_wrong_byte_is_exact() {
    let server = Server::start(Flaw::Corrupt);
    let mut plan = plan(&server);
    // One connection, so that the server's byte number 999,999 is its byte number 999,999.
    (plan.connections, plan.depth, plan.duration) = (1, 8, Duration::from_secs(60));
    let what = run(&plan).failure.unwrap().what;
    assert!(what.starts_with("connection 0 (from 127.0.0.2:"), "{what}");
    assert!(what.contains(&format!("offset {}: ", EVERY - 1)), "{what}");
}

#[test]
fn a_byte_that_never_comes_back_is_an_error_though_nothing_wrong_came() {
    let server = Server::start(Flaw::Drop);
    let mut plan = plan(&server);
    (plan.connections, plan.size, plan.timeout) = (1, 100_000, Duration::from_millis(200));
    let report = run(&plan);
    // The tenth message lacks a byte, so the eleventh is never sent.
    assert_eq!(
        (
            report.messages,
            report.errors.timeout,
            report.errors.mismatch
        ),
        (9, 1, 0),
        "{report}"
    );
}

#[test]
fn a_closed_connection_is_counted_and_the_others_go_on() {
    let server = Server::start(Flaw::Close);
    let mut plan = plan(&server);
    plan.size = 4_096;
    let report = run(&plan);
    assert!(report.errors.read >= 1, "{report}");
    assert_eq!(report.errors.mismatch, 0);
    let failure = report.failure.unwrap();
    assert!(
        failure.what.contains("closed by the server") || failure.what.contains("ECONNRESET"),
        "{failure:?}"
    );
}

#[test]
fn a_run_without_connections_left_is_over() {
    let server = Server::start(Flaw::Close);
    let mut plan = plan(&server);
    (plan.connections, plan.depth, plan.duration) = (1, 8, Duration::from_secs(60));
    let report = run(&plan);
    assert_eq!(report.errors.read, 1);
    assert!(report.seconds < 60.0);
}

#[test]
fn a_server_that_answers_nobody_is_reported() {
    let server = Server::start(Flaw::Deaf);
    let mut plan = plan(&server);
    (plan.duration, plan.timeout) = (Duration::from_millis(100), Duration::from_millis(200));
    plan.threads = 3;
    let report = run(&plan);
    assert_eq!(
        (report.messages, report.errors.timeout, report.latency),
        (0, 20, None)
    );
    assert!(
        report
            .failure
            .unwrap()
            .what
            .contains("20 of 20 connections wait")
    );
}

#[test]
fn a_greeting_is_a_mismatch_even_on_an_idle_connection() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut plan = Plan::new(listener.local_addr().unwrap());
    (plan.connections, plan.idle, plan.duration) = (0, 1, Duration::from_secs(60));
    let greeter = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"welcome").unwrap();
        stream
    });
    let report = run(&plan);
    drop(greeter.join().unwrap());
    let failure = report.failure.unwrap();
    assert!(
        failure
            .what
            .contains("offset 0: expected nothing more, 0 bytes were sent, got 0x77"),
        "{failure:?}"
    );
}

#[test]
fn a_refused_connection_is_an_error_at_once() {
    let server = Server::start(Flaw::None);
    let mut plan = plan(&server);
    let (_socket, address) = server::refusing();
    plan.target = address;
    let error = loadgen::run(&plan, &AtomicBool::new(false), |_| ()).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
}

#[test]
fn the_stop_flag_ends_it_with_what_was_measured() {
    let server = Server::start(Flaw::None);
    let mut plan = plan(&server);
    plan.duration = Duration::from_secs(60);
    let stop = AtomicBool::new(false);
    let report = loadgen::run(&plan, &stop, |progress| {
        if matches!(progress, Progress::Running { messages: 1.., .. }) {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let report = report.unwrap();
    assert!(report.interrupted);
    assert!(report.messages > 0 && report.seconds < 60.0, "{report}");
    assert_eq!(report.failure, None);
}

#[test]
fn the_costs_of_the_server_process_are_read() {
    let server = Server::start(Flaw::None);
    let mut plan = plan(&server);
    // The server is a thread of this very process.
    plan.server_pid = Some(std::process::id());
    let used = run(&plan).server.unwrap();
    assert!(used.threads >= 2);
    assert!(used.resident_bytes.unwrap() > used.anonymous_bytes.unwrap());
    assert!(used.cpu_us_per_message > 0.0);
}

#[test]
fn impossible_plans_are_refused() {
    let server = Server::start(Flaw::None);
    let change: [fn(&mut Plan); 9] = [
        |plan| plan.threads = 0,
        |plan| plan.threads = 21,
        |plan| plan.connections = 0,
        |plan| plan.size = 0,
        |plan| plan.depth = 0,
        |plan| plan.depth = usize::MAX,
        |plan| plan.duration = Duration::ZERO,
        |plan| plan.rate = Some(0.0),
        |plan| plan.rate = Some(f64::NAN),
    ];
    for (number, change) in change.into_iter().enumerate() {
        let mut plan = plan(&server);
        change(&mut plan);
        let error = loadgen::run(&plan, &AtomicBool::new(false), |_| ()).unwrap_err();
        assert!(matches!(error, Error::Plan(_)), "plan {number}: {error:?}");
    }
}
