//! What a server does at its limits: of descriptors, of connections, of clients a turn, of patience.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, prlimit};

use super::{
    back_pressure::send_until_paused,
    rest::{is_quiet, settles_within},
    served_clients,
};
use crate::{
    Client, ClientOptions, PATIENCE, Program, Server, Setup, Trouble,
    explain::{Lesson, book, count},
    pattern, proc_fs,
    pulse::{Pulse, unless_held_up},
    skipped,
    syscalls::{Call, Kind, listing},
    tracer::{Mark, Tracer},
    wait_until,
};

/// System calls that dealing with one client may cost at the limit: there is no need for half as many.
const FEW_CALLS: usize = 40;

/// When no descriptor is left for another client, that client is told so by an end, and the server neither spins nor
/// forgets the listener.
#[track_caller]
pub fn turns_clients_away_without_descriptors(program: &Program) {
    if program.is_foreign() {
        return skipped("limits and options are judged on our own servers only");
    }
    Lesson {
        tried: "ten clients are served; then the server's limit of descriptors is lowered (prlimit) until one more fits. \
                That one is served; five others come and say something, each while the server is stopped (SIGSTOP), and \
                are to read an end when it goes on; then one leaves, and a new one is to be served; then the limit is \
                raised again",
        usually: "accept gives EMFILE, also when nobody is waiting (it takes the descriptor first). The listener stays \
                  ready, so the loop spins; or a loop that waits for EAGAIN never sees it. Keep a descriptor in reserve: \
                  close it, accept, close what was accepted, and open it again; if the queue was empty, leave the loop. \
                  A client that reads a reset had said something, and the server closed its socket unread",
        read: book::M6_DESCRIPTORS,
    }
    .expect(|| {
        let server = program.start();
        let mut clients = served_clients(&server, 10)?;
        let normal = lower_to_one_more(&server)?;
        let tracer = Tracer::attach(&server)?;
        clients[0].echo(b"attached")?;
        let asleep = tracer.wait_until_resting()?;

        // This one takes the last descriptor: the next accept fails, with nobody in the queue.
        let last = Client::connect(&server)?;
        let served = last.echo(b"I am the last");
        served.map_err(|trouble| trouble_while(trouble, &tracer.since(asleep)))?;
        settles_within(&tracer, asleep, FEW_CALLS)?;
        changes_epoll_for(1, &tracer.since(asleep))?;
        for _ in 0..5 {
            is_turned_away(&server, &tracer)?;
        }
        is_quiet(&server, &tracer)?;
        clients.iter().chain([&last]).try_for_each(|client| client.echo(b"still here"))?;

        // One out, one in.
        let descriptors = server.open_descriptors();
        drop(clients.pop());
        wait_until("the descriptor of a client that left was closed", PATIENCE, || {
            server.open_descriptors() < descriptors
        })?;
        let next = Client::connect(&server)?;
        next.echo(b"there is room for me")?;

        set_soft_limit(&server, normal)?;
        let more = served_clients(&server, 20)?;
        more.iter().chain([&last, &next]).try_for_each(|client| client.echo(b"all is well"))
    });
}

/// With no descriptor left, a client comes and says more than one receive takes in: it reads an end, and no reset.
pub(crate) fn is_turned_away(server: &Server, tracer: &Tracer) -> Result<(), Trouble> {
    let mark = tracer.wait_until_resting()?;
    // So that what it says is there when it is accepted.
    tracer.pause()?;
    let client = Client::connect(server)?;
    client.send(&pattern(4, 6_000))?;
    client.wait_until_acknowledged()?;
    tracer.resume()?;
    let end = client.expect_eof();
    end.map_err(|trouble| trouble_while(trouble, &tracer.since(mark)))?;
    settles_within(tracer, mark, FEW_CALLS)?;
    client.expect_no_reset()?;
    changes_epoll_for(0, &tracer.since(mark))
}

/// With a descriptor in reserve there is no need to take the listener out of epoll: so many clients were added in these
/// calls, and nothing else was changed.
pub(crate) fn changes_epoll_for(clients: usize, calls: &[Call]) -> Result<(), Trouble> {
    let changes = calls.iter().filter(|call| call.kind == Kind::EpollCtl);
    match changes.count() {
        changes if changes == clients => Ok(()),
        changes => Err(Trouble::Server(format!(
            "{changes} calls of epoll_ctl, where {clients} would do{}",
            beginning_of(calls)
        ))),
    }
}

/// A client's trouble, and what the server did since the client came.
fn trouble_while(trouble: Trouble, calls: &[Call]) -> Trouble {
    let doing = match calls.len() {
        // The wait, the accept that fails, and the next wait.
        ..=FEW_CALLS => "and since the client came the server has made these system calls",
        _ => "and since the client came the server has never slept",
    };
    Trouble::Server(format!("{trouble}\n  {doing}:{}", beginning_of(calls)))
}

/// Enough of a trace to see how it goes on.
fn beginning_of(calls: &[Call]) -> String {
    const SHOWN: usize = 8;
    let more = match calls.len() {
        ..=SHOWN => "",
        _ => "\n    … and so on",
    };
    listing(&calls[..calls.len().min(SHOWN)]) + more
}

/// Lowers the server's limit until one more descriptor fits. Gives the one it had.
pub(crate) fn lower_to_one_more(server: &Server) -> Result<u64, Trouble> {
    let open = proc_fs::descriptors(server.pid())?;
    // The limit is about the numbers, and the lowest free one is given out first. Above it there may be more, inherited
    // from whoever started the tests.
    let lowest_free = (0..).zip(&open).find(|&(number, &(fd, _))| number != fd);
    let lowest_free = lowest_free.map_or(open.len() as u64, |(number, _)| number as u64);
    set_soft_limit(server, lowest_free + 1)
}

/// Sets the server's soft limit of descriptors, and gives the one it had.
pub(crate) fn set_soft_limit(server: &Server, soft: u64) -> Result<u64, Trouble> {
    let (before, hard) = proc_fs::descriptor_limits(server.pid())?;
    let pid = rustix::process::Pid::from_raw(server.pid().as_raw());
    let limit = Rlimit {
        current: Some(soft),
        maximum: Some(hard),
    };
    match prlimit(pid, Resource::Nofile, limit) {
        Ok(_) => Ok(before),
        Err(error) => Err(Trouble::Server(format!(
            "cannot change the server's limit of descriptors: {error}"
        ))),
    }
}

/// Told to hold four connections, it holds four. Others wait in the kernel's queue, for whose sake it does not spin, and
/// are served when somebody leaves.
#[track_caller]
pub fn holds_no_more_than_it_was_told(program: &Program) {
    if program.is_foreign() {
        return skipped("limits and options are judged on our own servers only");
    }
    Lesson {
        tried: "a server with `--max-connections 4` gets seven clients, each of which sends a line; then the first four \
                leave, one after the other",
        usually: "a level-triggered listener stays ready while somebody waits, so the loop spins: take it out of epoll \
                  at the limit, and put it back when a connection closes. Or it is never put back",
        read: book::M6_DESCRIPTORS,
    }
    .expect(|| {
        let server = program.start_with(Setup::new().args(["--max-connections", "4"]));
        let mut inside = served_clients(&server, 4)?;
        let tracer = Tracer::attach(&server)?;
        inside[0].echo(b"attached")?;
        let asleep = tracer.wait_until_resting()?;
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let client = Client::connect(&server)?;
            client.send(b"let me in")?;
            client.wait_until_acknowledged()?;
            waiting.push(client);
        }
        inside[0].echo(b"still here")?;
        settles_within(&tracer, asleep, FEW_CALLS)?;
        is_quiet(&server, &tracer)?;
        let taken_in = proc_fs::connections(&server)?;
        if waiting.iter().any(|client| client.has_received().is_some() || taken_in.contains_key(&client.port())) {
            return Err(Trouble::Server("a fifth client was taken in".to_owned()));
        }
        for client in waiting {
            drop(inside.remove(0));
            client.expect(b"let me in")?;
            inside.push(client);
        }
        inside.iter().try_for_each(|client| client.echo(b"and we are four again"))
    });
}

/// However many clients come at once, those who are there have their turn in between: at most `budget` are accepted from
/// one wait to the next.
#[track_caller]
pub fn accepts_in_bounded_turns(server: &Server, budget: usize) {
    Lesson {
        tried: "with the server stopped (SIGSTOP), 120 clients connect and one that was there before sends a line; then \
                the server goes on (SIGCONT), and the accepts between two waits are counted",
        usually: "accept is called until EAGAIN, and every connection waits as long as new ones come. With a level-\
                  triggered listener, stop after a budget: the next wait reports it again",
        read: book::M6_LISTENER,
    }
    .expect(|| {
        const CROWD: usize = 120;
        let tracer = Tracer::attach(server)?;
        let old = &served_clients(server, 1)?[0];
        tracer.wait_until_resting()?;
        tracer.pause()?;
        let connecting: Vec<Client> = (0..CROWD).map(|_| Client::connect(server)).collect::<Result<_, _>>()?;
        old.send(b"my turn")?;
        old.wait_until_acknowledged()?;
        let mark = tracer.mark();
        tracer.resume()?;
        old.expect(b"my turn")?;
        connecting.iter().try_for_each(|client| client.echo(b"hello"))?;

        let calls = tracer.since(mark);
        let accepted = calls.split(|call| call.kind == Kind::Wait).map(|turn| {
            turn.iter().filter(|call| call.kind == Kind::Accept && call.returned().is_some()).count()
        });
        match accepted.max().unwrap_or(0) {
            most if most <= budget => Ok(()),
            most => Err(Trouble::Server(format!(
                "it accepted {most} clients between two waits; its budget is {budget}{}",
                listing(&calls)
            ))),
        }
    });
}

/// A backlog that the kernel cuts short is worth a line; `listen` itself keeps silent.
#[track_caller]
pub fn warns_of_a_shorter_backlog(program: &Program) {
    if program.is_foreign() {
        return skipped("limits and options are judged on our own servers only");
    }
    Lesson {
        tried: "the server is started with a `--backlog` above net.core.somaxconn, and with one that is not above it",
        usually: "listen(2) caps the backlog at net.core.somaxconn and says nothing: compare before",
        read: book::M6_BACKLOG,
    }
    .expect(|| {
        let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn")
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
            .ok_or_else(|| Trouble::Server("/proc/sys/net/core/somaxconn holds no number".to_owned()))?;
        let start = |backlog: u64| {
            let server = program.start_with(Setup::new().args(["--backlog".to_owned(), backlog.to_string()]));
            Client::connect(&server)?.be_served(&server)?;
            Ok::<_, Trouble>(server)
        };
        let capped = start(somaxconn + 1)?;
        capped.wait_for_stderr_line("net.core.somaxconn", PATIENCE)?;
        let stderr = start(somaxconn)?.stderr();
        match stderr.contains("somaxconn") {
            false => Ok(()),
            true => Err(Trouble::Server(format!(
                "a backlog of {somaxconn} is what net.core.somaxconn allows, and it complains:\n{stderr}"
            ))),
        }
    });
}

/// A client on whose connection nothing moves for too long is closed, whether it is silent or stuck, and no other.
#[track_caller]
pub fn closes_only_idle_clients(program: &Program) {
    if program.is_foreign() {
        return skipped("limits and options are judged on our own servers only");
    }
    Lesson {
        tried: "a server with `--idle-timeout 2` (longer where the machine is busy) has three clients: one is silent, one has sent until the server stopped \
                reading from it, goes on sending a byte now and then, and reads nothing, and one sends lines and reads \
                them. The first two are to be closed, the third is not",
        usually: "the timeout counts from the beginning, or is renewed by events instead of by bytes that move: bytes that \
                  arrive and are not read make events, too",
        read: book::M6_IDLE,
    }
    .expect(|| {
        unless_held_up(|timeout, pulse| idle_clients_leave_busy_ones_stay(program, timeout, pulse))
    });
}

fn idle_clients_leave_busy_ones_stay(
    program: &Program,
    timeout: u64,
    pulse: &mut Pulse,
) -> Result<(), Trouble> {
    const NOW_AND_THEN: Duration = Duration::from_millis(250);
    let patience = Duration::from_secs(timeout) + PATIENCE;
    let server = program.start_with(Setup::new().args(["--idle-timeout", &timeout.to_string()]));
    let stuck = ClientOptions::small().connect(&server)?;
    send_until_paused(&server, &stuck, &pattern(1, 16 << 20))?;
    // Before the silent one: if what it sends did not count, it would be closed first.
    let busy = Client::connect(&server)?;
    busy.echo(b"and I am busy")?;
    let silent = Client::connect(&server)?;
    silent.echo(b"and now I am silent")?;

    let mut lines = 0;
    let mut last_byte = Instant::now();
    let mut trouble = Ok(false);
    wait_until("the silent and the stuck client closed", patience, || {
        if last_byte.elapsed() > NOW_AND_THEN {
            // Fails once the server has closed it.
            let _ = stuck.send_what_fits(b".");
            last_byte = Instant::now();
        }
        trouble = busy.echo(&pattern(lines, 80)).and_then(|()| {
            lines += 1;
            pulse.beat();
            let stuck_is_open = proc_fs::connections(&server)?.contains_key(&stuck.port());
            Ok(silent.has_received().is_some() && !stuck_is_open)
        });
        !matches!(trouble, Ok(false))
    })?;
    trouble?;
    silent.expect_eof()?;
    busy.echo(b"I was never silent")
}

/// With nobody but idle clients, their timeout is what ends the server's sleep.
#[track_caller]
pub fn closes_idle_clients_when_nothing_else_happens(program: &Program) {
    if program.is_foreign() {
        return skipped("limits and options are judged on our own servers only");
    }
    Lesson {
        tried: "a server with `--idle-timeout 1` has 200 clients, all silent; all are to be closed, and then it sleeps",
        usually: "epoll_wait is given no timeout, so that nobody looks when nothing else happens; or the loop goes round \
                  while it waits for the moment to come",
        read: book::M6_IDLE,
    }
    .expect(|| {
        let server = program.start_with(Setup::new().args(["--idle-timeout", "1"]));
        let clients = served_clients(&server, 200)?;
        let tracer = Tracer::attach(&server)?;
        clients.iter().try_for_each(Client::expect_eof)?;
        let calls = tracer.since(Mark::default());
        // Each close, and each wait before it, at the very most.
        if calls.len() > 3 * clients.len() {
            return Err(Trouble::Server(format!(
                "it made {} system calls to close {} clients:{}",
                count(calls.len()),
                clients.len(),
                listing(&calls)
            )));
        }
        let last = Client::connect(&server)?;
        last.echo(b"and this one is served")?;
        last.expect_eof()
    });
}

/// A wait that is interrupted goes on where it was, and does not begin an idle client's time anew.
#[track_caller]
pub fn closes_idle_clients_although_it_is_interrupted(program: &Program) {
    if program.is_foreign() {
        return skipped("limits and options are judged on our own servers only");
    }
    Lesson {
        tried: "a server with `--idle-timeout 1` has one client, which is silent; the server is stopped and continued \
                (SIGSTOP, SIGCONT) three times a second, and each time epoll_wait gives EINTR. The client is to be closed",
        usually: "after EINTR the wait begins anew, with the timeout that it had before: compute it anew, by a clock that \
                  has been read since",
        read: book::M6_IDLE,
    }
    .expect(|| {
        const INTERVAL: Duration = Duration::from_millis(330);
        let server = program.start_with(Setup::new().args(["--idle-timeout", "1"]));
        let silent = &served_clients(&server, 1)?[0];
        let mut interrupted = Instant::now();
        wait_until("the silent client closed", PATIENCE, || {
            if interrupted.elapsed() > INTERVAL {
                server.pause();
                server.resume();
                interrupted = Instant::now();
            }
            silent.has_received().is_some()
        })?;
        silent.expect_eof()
    });
}
