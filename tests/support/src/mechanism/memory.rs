//! What ten thousand connections cost.

use std::time::Duration;

use loadgen::{Crowd, Options};
use nix::sys::resource::{Resource, getrlimit};

use crate::{
    ClientOptions, Program, Server, Setup, Trouble, Verdict, Wall, alone_with_many_descriptors,
    client,
    explain::{Lesson, book, count},
    pattern, proc_fs, skipped,
};

/// Connections.
const MANY: usize = 10_000;

/// Descriptors that a server needs for them, with some to spare.
const ENOUGH_DESCRIPTORS: u64 = MANY as u64 + 100;

/// Bytes of its memory that a server may spend on a connection that is owed nothing.
const SLIM: usize = 64;

/// From here on, in bytes, a connection costs kilobytes.
const KILOBYTE: usize = 1024;

/// Started with the soft limit of 1,024 descriptors that most systems set, it holds 10,000 connections in one thread,
/// each of which echoes 1 KiB and then costs next to nothing.
#[track_caller]
pub fn holds_ten_thousand(program: &Program) {
    if program.is_foreign() {
        return skipped("how little a connection may cost is judged on our own servers only");
    }
    let _alone = alone_with_many_descriptors();
    if !allows_ten_thousand() {
        return;
    }
    Lesson {
        tried: "10,000 connections to a server that was started with a soft limit of 1,024 descriptors; each echoes \
                1 KiB. Then `Anonymous` in /proc/PID/smaps_rollup is compared with what it was before",
        usually: "a buffer for each connection, in use or not: let one serve all for reading, and give a connection an \
                  outbox only while it is owed bytes",
        read: book::M6_MEMORY,
    }
    .expect(|| {
        let server = program.start_with(Setup::new().soft_descriptors(1024));
        let each = bytes_per_idle_connection(&server)?;
        println!("{program}: {each} bytes of memory for each of {} idle connections", count(MANY));
        let threads = proc_fs::threads(server.pid())?.len();
        if threads != 1 {
            return Err(Trouble::Server(format!("it has {threads} threads")));
        }
        match each {
            0..=SLIM => Ok(()),
            _ => Err(Trouble::Server(format!(
                "each of {} idle connections costs {} bytes of memory; allowed are {SLIM}",
                count(MANY),
                count(each)
            ))),
        }
    });
}

/// What a client needed while it was owed bytes serves others when it has read them: its memory is given back.
#[track_caller]
pub fn keeps_no_memory_for_those_who_have_read(server: &Server) {
    Lesson {
        tried: "100 clients send until the server takes no more, and read nothing; then they read everything, and stay. \
                Then another 100 do the same, and another. `Anonymous` in /proc/PID/smaps_rollup is read at the \
                beginning, when the first 100 are owed their bytes, and when the third 100 are",
        usually: "a connection keeps the memory of its outbox after the outbox is empty, so that in the end every \
                  connection has the memory that the slowest reader once needed. Give it back when the last byte was \
                  sent, and ask for it again when it is needed",
        read: book::M6_MEMORY,
    }
    .expect(|| {
        const STALLED: usize = 100;
        let bytes = pattern(1, 16 << 20);
        let before = proc_fs::anonymous_memory(server.pid())?;
        let mut all = Vec::new();
        let mut grown = [0; 3];
        for grown in &mut grown {
            let clients = (0..STALLED).map(|_| ClientOptions::small().connect(server)).collect::<Result<Vec<_>, _>>()?;
            let taken = client::send_until_stuck(server, &clients, &bytes)?;
            *grown = proc_fs::anonymous_memory(server.pid())?.saturating_sub(before);
            for (client, &taken) in clients.iter().zip(&taken) {
                client.expect(&bytes[..taken])?;
            }
            all.push(clients);
        }
        // Whoever gives nothing back needs three times as much. What is owed to each of them is not always the same, and
        // an allocator has its own ways, but together they do not double it.
        let [first, _, third] = grown;
        match third > 2 * first {
            false => Ok(()),
            true => Err(Trouble::Server(format!(
                "its memory grew by {} bytes for the first {STALLED}, and had grown by {} when the third were owed theirs, \
                 although all others were owed nothing any more",
                count(first),
                count(third)
            ))),
        }
    });
}

/// Wall 5, its second half: given all the descriptors it needs, what does an idle connection cost it in memory?
///
/// Held at 64 bytes or less; [`Wall::IdleCostsKilobytes`] from 1,024 on. Anything between is neither.
///
/// # Errors
///
/// Whatever is neither.
pub fn ten_thousand_idle_clients(program: &Program) -> Result<Verdict, Trouble> {
    let _alone = alone_with_many_descriptors();
    let server = program.start_with(Setup::new().soft_descriptors(ENOUGH_DESCRIPTORS));
    let each = bytes_per_idle_connection(&server)?;
    println!(
        "{program}: {} bytes of memory for each of {} idle connections",
        count(each),
        count(MANY)
    );
    match each {
        0..=SLIM => Ok(Verdict::Held),
        KILOBYTE.. => Ok(Verdict::Hit(Wall::IdleCostsKilobytes)),
        _ => Err(Trouble::Server(format!(
            "an idle connection costs {each} bytes"
        ))),
    }
}

/// Whether this process and a server may have 10,000 connections each; says so, when they may not.
pub fn allows_ten_thousand() -> bool {
    let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard);
    if hard < ENOUGH_DESCRIPTORS {
        skipped(&format!(
            "the hard limit is {hard} descriptors, and 10,000 connections need {ENOUGH_DESCRIPTORS} on each side"
        ));
    }
    hard >= ENOUGH_DESCRIPTORS
}

/// (`Anonymous` with 10,000 idle connections − `Anonymous` with none) ÷ 10,000, in bytes, after each has echoed 1 KiB.
fn bytes_per_idle_connection(server: &Server) -> Result<usize, Trouble> {
    // Ten seconds would do, on a machine that does nothing else.
    let options = Options {
        deadline: Duration::from_secs(60),
        ..Options::default()
    };
    let trouble = |error: loadgen::Error| {
        Trouble::Server(format!("with {} connections: {error}", count(MANY)))
    };
    let without = proc_fs::anonymous_memory(server.pid())?;
    let mut crowd = Crowd::connect(server.addr(), MANY, options).map_err(trouble)?;
    crowd.echo(1024).map_err(trouble)?;
    let with = proc_fs::anonymous_memory(server.pid())?;
    Ok(with.saturating_sub(without) / MANY)
}
