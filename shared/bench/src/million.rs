//! What 1,000,000 connections would take: arithmetic on the measured figures.

use std::fmt::Write;
use std::fs;

use crate::figures::{Measure, Results};
use crate::number::{figure, thousands};

const CONNECTIONS: f64 = 1e6;

/// Ports of one client address to one server port, with the kernel's usual range 32768 to 60999.
const PORTS: f64 = 28_232.0;

/// The page, without a title; `None` when memory was not measured.
pub fn markdown(results: &Results) -> Option<String> {
    // The last milestone that was measured: statistics are on.
    let server = ["m7", "m6"].into_iter().find(|name| results.median(Measure::UserMemory, "", name).is_some())?;
    let user = results.median(Measure::UserMemory, "", server)?;
    let kernel = results.median(Measure::KernelMemory, "", server)?;
    let run = &results.run;

    let mut page = String::new();
    let _ = writeln!(
        page,
        "Nobody needs a second machine to find out what a million connections would take: the memory of one, measured \
         with ten thousand, times a million. ({}; {}; {}; `{}`.)\n",
        run.machine, run.kernel, run.date, run.command
    );

    page.push_str("### Memory\n\n");
    page.push_str("| what | per connection | 1,000,000 connections |\n| --- | ---: | ---: |\n");
    for (what, bytes) in [
        (format!("{server}, user space"), user),
        ("the kernel, for the server's end".to_owned(), kernel),
        ("together".to_owned(), user + kernel),
    ] {
        let _ = writeln!(page, "| {what} | {} bytes | {} |", thousands(bytes), size(bytes * CONNECTIONS));
    }
    let _ = writeln!(
        page,
        "\nThis machine has {}. That is for connections that are silent: each with bytes under way also has them in the \
         kernel's socket buffers, and each whose client does not read may have up to 68 KiB in its outbox. A million slow \
         readers would be {}; a server that expects them limits how many outboxes it keeps.\n",
        size(run.machine.memory as f64),
        size(CONNECTIONS * 68.0 * 1024.0),
    );

    let cpu = results.median(Measure::CpuPerMessage, crate::scenarios::load::THOUSAND.name, server);
    if let Some(cpu) = cpu {
        page.push_str("### Time\n\n");
        let per_second = 1e6 / cpu;
        let _ = writeln!(
            page,
            "A message costs {} µs with 1,000 connections (see the table of CPU per message), so one core echoes about {} \
             messages a second, however many connections are silent. Shared by a million connections, that is one message \
             from each every {} seconds.\n",
            figure(cpu),
            thousands((per_second / 1000.0).round() * 1000.0),
            figure(CONNECTIONS / per_second),
        );
    }

    page.push_str("### Limits to raise\n\n");
    page.push_str("| limit | here | needed | how |\n| --- | ---: | ---: | --- |\n");
    let descriptors = CONNECTIONS + 64.0;
    for (name, needed, how) in [
        ("fs.nr_open", thousands(descriptors), "`sysctl -w fs.nr_open=1100000`: no process may have more descriptors than that, root or not"),
        ("RLIMIT_NOFILE", thousands(descriptors), "`LimitNOFILE=1100000` (systemd), `ulimit -Hn 1100000` (root's shell); m6 raises its soft limit itself"),
        ("fs.file-max", thousands(descriptors), "open files of the whole system; usually far above already"),
        ("fs.epoll.max_user_watches", thousands(CONNECTIONS), "one for each registered descriptor; EPOLL_CTL_ADD fails with ENOSPC beyond"),
        ("net.core.somaxconn", "4,096 or more".to_owned(), "caps the listener's backlog in silence: clients that come faster than they are accepted wait there"),
        ("net.ipv4.tcp_max_syn_backlog", "4,096 or more".to_owned(), "the same for handshakes that are not finished"),
        ("net.ipv4.tcp_mem", pages(kernel), "pages that all TCP buffers may take together (the third number); beyond it, new data is dropped"),
        ("net.netfilter.nf_conntrack_max", thousands(CONNECTIONS), "only where connection tracking is loaded: beyond it, new connections are dropped"),
        ("net.ipv4.ip_local_port_range", format!("{} client addresses", thousands((CONNECTIONS / PORTS).ceil())), "of the clients, not of the server: one address has about 28,000 ports to one server port; the whole range of 64,511 makes it 16"),
    ] {
        let _ = writeln!(page, "| `{name}` | {} | {needed} | {how} |", current(name, results));
    }
    page.push_str(
        "\nOne epoll instance and one thread are enough for that many silent connections: what a wake-up costs depends on \
         the connections that are ready, and not on those that are registered. More cores are for more messages.\n",
    );
    Some(page)
}

/// Bytes in the unit in which memory is bought.
fn size(bytes: f64) -> String {
    if bytes < 1e9 { format!("{:.0} MB", bytes / 1e6) } else { format!("{:.1} GB", bytes / 1e9) }
}

/// What `net.ipv4.tcp_mem` counts: not the sockets themselves, but what is queued in them. A page for every tenth
/// connection is a guess; that it says so is better than a number without a reason.
fn pages(_kernel: f64) -> String {
    format!("{} pages for one in ten with data queued", thousands(CONNECTIONS / 10.0))
}

/// What the limit is on this machine.
fn current(name: &str, results: &Results) -> String {
    if name == "RLIMIT_NOFILE" {
        return thousands(results.run.machine.descriptors as f64);
    }
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let text = fs::read_to_string(path).unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        [] => "none".to_owned(),
        [one] => match one.parse::<u64>() {
            // "No limit", as the kernel writes it.
            Ok(value) if value > 1 << 62 => "no limit".to_owned(),
            Ok(value) => thousands(value as f64),
            Err(_) => one.to_owned(),
        },
        _ => words.join(" "),
    }
}
