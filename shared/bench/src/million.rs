//! What 1,000,000 connections would take: arithmetic on the measured figures.

use std::fmt::Write;
use std::fs;

use m6_structures::MOST_OWED;

use crate::figures::{Measure, Results};
use crate::number::{figure, thousands};
use crate::scenarios::load::THOUSAND;

const CONNECTIONS: f64 = 1e6;

/// One for each connection, and some for the server itself.
const DESCRIPTORS: f64 = CONNECTIONS + 64.0;

/// Name, least value where there is one, and what it is.
const LIMITS: [(&str, Option<f64>, &str); 9] = [
    (
        "RLIMIT_NOFILE",
        Some(DESCRIPTORS),
        "descriptors of a process: the hard limit, which root raises (`LimitNOFILE=` of systemd, `ulimit -Hn`); m6 raises \
         the soft one itself",
    ),
    (
        "fs.nr_open",
        Some(DESCRIPTORS),
        "what nobody can raise RLIMIT_NOFILE beyond: `sysctl -w fs.nr_open=`",
    ),
    (
        "fs.file-max",
        Some(DESCRIPTORS),
        "open files of the whole system",
    ),
    (
        "fs.epoll.max_user_watches",
        Some(CONNECTIONS),
        "descriptors registered with epoll by one user; beyond, `EPOLL_CTL_ADD` fails with ENOSPC",
    ),
    (
        "net.core.somaxconn",
        Some(4096.0),
        "caps the listener's backlog in silence: clients that come faster than they are accepted wait there",
    ),
    (
        "net.ipv4.tcp_max_syn_backlog",
        Some(4096.0),
        "the same for handshakes that are not finished",
    ),
    (
        "net.ipv4.tcp_mem",
        None,
        "pages that the data queued in all TCP sockets may take; beyond the third number, sockets lose what they queue",
    ),
    (
        "net.netfilter.nf_conntrack_max",
        Some(CONNECTIONS),
        "only where connections are tracked; beyond, new ones are dropped",
    ),
    (
        "net.ipv4.ip_local_port_range",
        None,
        "a limit of the clients, not of the server: one client address has one port for each connection to a server's \
         port. With the usual 28,232 ports, a million connections come from at least 36 addresses",
    ),
];

/// The page, without a title; `None` when memory was not measured.
pub fn markdown(results: &Results) -> Option<String> {
    // The last milestone that was measured: statistics are on.
    let server = ["m7", "m6"]
        .into_iter()
        .find(|name| results.median(Measure::UserMemory, "", name).is_some())?;
    let user = results.median(Measure::UserMemory, "", server)?;
    let kernel = results.median(Measure::KernelMemory, "", server)?;
    let run = &results.run;

    let mut page = String::new();
    let _ = writeln!(
        page,
        "This machine allows a process {} descriptors, so a million connections cannot be tried here. What they would take \
         is arithmetic: what one of ten thousand takes, measured, times a million. ({}; {}; {}; `{}`.)\n",
        thousands(run.machine.descriptors as f64),
        run.machine,
        run.kernel,
        run.date,
        run.command
    );

    page.push_str("### Memory\n\n");
    page.push_str("| what | per connection | 1,000,000 connections |\n| --- | ---: | ---: |\n");
    for (what, bytes) in [
        (format!("{server}, user space"), user),
        ("the kernel, for the server's end".to_owned(), kernel),
        ("together".to_owned(), user + kernel),
    ] {
        let _ = writeln!(
            page,
            "| {what} | {} bytes | {} |",
            thousands(bytes),
            size(bytes * CONNECTIONS)
        );
    }
    let _ = writeln!(
        page,
        "\nThis machine has {}. That is for connections that are silent: each with bytes under way also has them in the \
         kernel's socket buffers, and each whose client does not read may have up to {} KiB in its outbox. A million slow \
         readers would be {}: a server that has to expect them needs a bound for all outboxes together, which m6 has not.\n",
        size(run.machine.memory as f64),
        MOST_OWED / 1024,
        size(CONNECTIONS * MOST_OWED as f64),
    );

    let cpu = results.median(Measure::CpuPerMessage, THOUSAND.name, server);
    if let Some(cpu) = cpu {
        page.push_str("### Time\n\n");
        let per_second = 1e6 / cpu;
        let _ = writeln!(
            page,
            "A message costs {} µs with 1,000 connections (see the table of CPU per message), so one core echoes about {} \
             messages a second, however many others are silent. Shared by a million connections, that is one message from \
             each every {} seconds.\n",
            figure(cpu),
            thousands((per_second / 1000.0).round() * 1000.0),
            figure(CONNECTIONS / per_second),
        );
    }

    page.push_str("### Limits to raise\n\n");
    page.push_str("| limit | needed | here | what it is, and how to raise it |\n| --- | ---: | ---: | --- |\n");
    for (name, needed, about) in LIMITS {
        let here = current(name, results);
        let (needed, verdict) = match needed {
            Some(needed) if here.value.is_some_and(|here| here < needed) => {
                (thousands(needed), " (too low)")
            }
            Some(needed) => (thousands(needed), ""),
            None => ("by load".to_owned(), ""),
        };
        let _ = writeln!(
            page,
            "| `{name}` | {needed} | {}{verdict} | {about} |",
            here.text
        );
    }
    page.push_str(
        "\nOne epoll instance and one thread are enough for that many silent connections: what a wake-up costs depends on \
         the connections that are ready, and not on those that are registered. More cores are for more messages.\n",
    );
    Some(page)
}

/// Bytes in the unit in which memory is bought.
fn size(bytes: f64) -> String {
    if bytes < 1e9 {
        format!("{:.0} MB", bytes / 1e6)
    } else {
        format!("{:.1} GB", bytes / 1e9)
    }
}

/// A limit of this machine: as it is written, and as a number where it is one.
struct Limit {
    text: String,
    value: Option<f64>,
}

fn current(name: &str, results: &Results) -> Limit {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let text = match name {
        "RLIMIT_NOFILE" => results.run.machine.descriptors.to_string(),
        _ => fs::read_to_string(path).unwrap_or_default(),
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    match (&words[..], text.trim().parse::<u64>()) {
        ([], _) => Limit {
            text: "none".to_owned(),
            value: None,
        },
        // How the kernel writes that there is none.
        (_, Ok(value)) if value > 1 << 62 => Limit {
            text: "no limit".to_owned(),
            value: None,
        },
        (_, Ok(value)) => Limit {
            text: thousands(value as f64),
            value: Some(value as f64),
        },
        _ => Limit {
            text: words.join(" "),
            value: None,
        },
    }
}
