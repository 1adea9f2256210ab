//! What a chat server does at its limits: of descriptors, of connections, of guests a turn, of
//! patience.
//!
//! The room makes these checks other than those of an echo server: nothing comes back to whoever
//! says something, so it takes two to see that the server still serves them.

use std::{
    collections::VecDeque,
    thread,
    time::{Duration, Instant},
};

use super::{
    Entered, Guest, Left, Room, Said, alice_and_bob, comes_to_rest, is_gone, joins_unheard,
    still_talk, text,
};
use crate::{
    ClientOptions, PATIENCE, Program, Server, Setup, Trouble,
    descriptors::{rests, says_so_once},
    explain::{Lesson, book, count},
    mechanism::{
        changes_epoll_for, is_turned_away, lower_to_one_more, set_soft_limit, settles_within,
    },
    proc_fs,
    pulse::{Pulse, unless_held_up},
    skipped,
    syscalls::{Call, Kind, listing},
    tracer::{Mark, Tracer},
    wait_until,
};

/// System calls that dealing with one client may cost at the limit.
const FEW_CALLS: usize = 40;

/// How long our servers wait for a name.
const NAME_TIMEOUT: Duration = Duration::from_secs(30);

/// How long our servers leave a member far behind: above a soft limit, below the hard one.
const SOFT_PATIENCE: Duration = Duration::from_secs(10);

/// How long our servers leave one whom they have sent away to read why.
const FAREWELL: Duration = Duration::from_secs(5);

/// More clients than 16 descriptors are enough for.
const TOO_MANY: usize = 40;

/// Clients that connect, and do not wait for the question.
fn arrive(server: &Server, n: usize) -> Result<VecDeque<Guest>, Trouble> {
    (0..n)
        .map(|_| Guest::arrive(server, ClientOptions::new()))
        .collect()
}

/// Started with so few descriptors, it serves as many clients as fit; the rest wait, and are served
/// when others leave.
#[track_caller]
pub fn serves_what_fits(program: &Program, setup: Setup) {
    if program.is_foreign() {
        return skipped("what a server says about its limits is judged on our own only");
    }
    let server = program.start_with(setup);
    Lesson {
        tried: "a server with 16 descriptors gets alice, bob and 40 clients more; those that fit \
                are asked for their names, and the rest are not; then those who are inside leave, \
                one after the other",
        usually: "accept gives EMFILE and the listener stays ready, so the loop spins; or it is \
                  not watched any more, and nobody watches it anew when a client has left",
        read: book::M6_DESCRIPTORS,
    }
    .expect(|| {
        let (mut alice, mut bob) = alice_and_bob(&server)?;
        let mut waiting = arrive(&server, TOO_MANY)?;
        let said = server.wait_for_stderr_line(program.name(), PATIENCE)?;
        // In each turn that this takes, the server has seen all who came before.
        (0..10).try_for_each(|_| still_talk(&mut alice, &mut bob))?;
        let fit = waiting
            .iter()
            .take_while(|guest| guest.client.has_received().is_some())
            .count();
        let late = waiting.split_off(fit);
        let (mut inside, mut waiting) = (waiting, late);
        if inside.is_empty()
            || waiting.is_empty()
            || waiting
                .iter()
                .any(|guest| guest.client.has_received().is_some())
        {
            return Err(Trouble::Server(format!(
                "of {TOO_MANY} clients {fit} were asked for their names before the first that was \
                 not"
            )));
        }
        inside
            .iter_mut()
            .try_for_each(|guest| guest.line().map(drop))?;
        rests(&server)?;
        while let Some(mut next) = waiting.pop_front() {
            drop(inside.pop_front());
            next.line()?;
            inside.push_back(next);
        }
        still_talk(&mut alice, &mut bob)?;
        says_so_once(&server, &said)
    });
}

/// When no descriptor is left for another client, that client is told so by an end, and the server
/// neither spins nor forgets the listener.
#[track_caller]
pub fn turns_guests_away_without_descriptors(program: &Program) {
    if program.is_foreign() {
        return skipped("limits and options are judged on our own servers only");
    }
    Lesson {
        tried: "alice and bob talk; the server's limit of descriptors is lowered (prlimit) until \
                one more fits. One more client is asked for its name, five others say something \
                and are turned away with an end; then that one leaves and a new one is served, \
                and then the limit is raised again",
        usually: "accept gives EMFILE, and the listener stays ready: keep a descriptor in reserve \
                  to accept the client with and close it; and when the queue was empty, leave the \
                  loop",
        read: book::M6_DESCRIPTORS,
    }
    .expect(|| {
        let server = program.start();
        let (mut alice, mut bob) = alice_and_bob(&server)?;
        let normal = lower_to_one_more(&server)?;
        let tracer = Tracer::attach(&server)?;
        still_talk(&mut alice, &mut bob)?;
        let asleep = tracer.wait_until_resting()?;
        let last = Guest::connect(&server)?;
        settles_within(&tracer, asleep, FEW_CALLS)?;
        changes_epoll_for(1, &tracer.since(asleep))?;
        for _ in 0..5 {
            is_turned_away(&server, &tracer)?;
        }
        comes_to_rest(&server, &tracer)?;
        still_talk(&mut alice, &mut bob)?;

        // One out, one in.
        let descriptors = server.open_descriptors();
        drop(last);
        wait_until(
            "the descriptor of a client that left was closed",
            PATIENCE,
            || server.open_descriptors() < descriptors,
        )?;
        let mut next = Guest::connect(&server)?;
        set_soft_limit(&server, normal)?;
        let more = (0..20)
            .map(|_| Guest::connect(&server))
            .collect::<Result<Vec<_>, _>>()?;
        next.introduce("carol")?;
        next.hears(Room(&["alice", "bob"]))?;
        alice.hears(Entered("carol"))?;
        bob.hears(Entered("carol"))?;
        drop(more);
        still_talk(&mut alice, &mut next)
    });
}

/// Told to hold four connections, it holds four. Others wait in the kernel's queue, and are served
/// when somebody leaves.
#[track_caller]
pub fn holds_no_more_than_it_was_told(program: &Program) {
    if program.is_foreign() {
        return skipped("limits and options are judged on our own servers only");
    }
    Lesson {
        tried: "a server with `--max-connections 4` has alice, bob and two clients without a name, \
                and three more connect; then the two leave, one after the other, and alice",
        usually: "a level-triggered listener stays ready while somebody waits, so the loop spins: \
                  take it out of epoll at the limit, and put it back when a connection closes. Or \
                  it is never put back",
        read: book::M6_DESCRIPTORS,
    }
    .expect(|| {
        let server = program.start_with(Setup::new().args(["--max-connections", "4"]));
        let (mut alice, mut bob) = alice_and_bob(&server)?;
        let (third, fourth) = (Guest::connect(&server)?, Guest::connect(&server)?);
        let tracer = Tracer::attach(&server)?;
        still_talk(&mut alice, &mut bob)?;
        let asleep = tracer.wait_until_resting()?;
        let mut waiting = arrive(&server, 3)?;
        still_talk(&mut alice, &mut bob)?;
        settles_within(&tracer, asleep, FEW_CALLS)?;
        comes_to_rest(&server, &tracer)?;
        if waiting
            .iter()
            .any(|guest| guest.client.has_received().is_some())
        {
            return Err(Trouble::Server(
                "a fifth client was asked for its name".to_owned(),
            ));
        }
        drop(third);
        waiting[0].line()?;
        drop(fourth);
        waiting[1].line()?;
        drop(alice);
        waiting[2].line()?;
        bob.hears(Left("alice"))?;
        waiting[2].introduce("carol")?;
        waiting[2].hears(Room(&["bob"]))?;
        bob.hears(Entered("carol"))
    });
}

/// However many clients come at once, those who are there have their turn in between.
#[track_caller]
pub fn accepts_in_bounded_turns(server: &Server, budget: usize) {
    if server.program().is_foreign() {
        return skipped("how many clients a turn may accept is another server's own affair");
    }
    Lesson {
        tried: "with the server stopped (SIGSTOP), 120 clients connect and alice says something to \
                bob; then the server goes on (SIGCONT), and the accepts between two waits are \
                counted",
        usually: "accept is called until EAGAIN, and every connection waits as long as new ones \
                  come. With a level-triggered listener, stop after a budget: the next wait \
                  reports it again",
        read: book::M6_LISTENER,
    }
    .expect(|| {
        let (mut alice, mut bob) = alice_and_bob(server)?;
        let tracer = Tracer::attach(server)?;
        still_talk(&mut alice, &mut bob)?;
        tracer.wait_until_resting()?;
        tracer.pause()?;
        let mut crowd = arrive(server, 120)?;
        alice.say(b"my turn")?;
        alice.client.wait_until_acknowledged()?;
        let mark = tracer.mark();
        tracer.resume()?;
        bob.hears(Said("alice", b"my turn"))?;
        crowd
            .iter_mut()
            .try_for_each(|guest| guest.line().map(drop))?;

        let calls = tracer.since(mark);
        let accepted = calls.split(|call| call.kind == Kind::Wait).map(|turn| {
            turn.iter()
                .filter(|call| call.kind == Kind::Accept && call.returned().is_some())
                .count()
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

/// A guest on whose connection nothing moves for too long is closed, and no other.
#[track_caller]
pub fn closes_only_idle_guests(program: &Program) {
    if program.is_foreign() {
        return skipped("limits and options are judged on our own servers only");
    }
    Lesson {
        tried: "a server with `--idle-timeout 2` (longer where the machine is busy) has alice, who goes on talking, bob, who only \
                listens, a member who reads nothing and whose socket is full, and a client that \
                gives no name. The last two are to be closed, and the first two are not",
        usually: "only what a client sends counts as activity, so listeners are thrown out; or \
                  events count, and not bytes that move, so one that does not read is kept as long \
                  as others talk",
        read: book::M6_IDLE,
    }
    .expect(|| {
        unless_held_up(|timeout, pulse| idle_guests_leave_busy_ones_stay(program, timeout, pulse))
    });
}

fn idle_guests_leave_busy_ones_stay(
    program: &Program,
    timeout: u64,
    pulse: &mut Pulse,
) -> Result<(), Trouble> {
    let patience = Duration::from_secs(timeout) + PATIENCE;
    let server = program.start_with(Setup::new().args(["--idle-timeout", &timeout.to_string()]));
    let (sleepy, mut alice, mut bob) = super::a_member_that_does_not_read(&server, 100)?;
    let mut silent = Guest::connect(&server)?;

    let mut number = 0;
    let mut trouble = Ok(());
    let mut has_left = false;
    wait_until("the silent and the stuck guest closed", patience, || {
        number += 1;
        pulse.beat();
        trouble = alice.say(&text(number, 80)).and_then(|()| {
            let line = bob.line()?;
            if Left("sleepy").is(&line, true) {
                has_left = true;
                return bob.hears(Said("alice", &text(number, 80)));
            }
            match Said("alice", &text(number, 80)).is(&line, true) {
                true => Ok(()),
                false => Err(bob.missed("alice", &format!("heard \"{}\"", super::excerpt(&line)))),
            }
        });
        trouble.is_err() || has_left && silent.client.has_received().is_some()
    })?;
    trouble?;
    silent.hears_the_end()?;
    is_gone(&server, &sleepy, patience)?;
    alice.hears(Left("sleepy"))?;
    still_talk(&mut alice, &mut bob)
}

/// With nobody but idle guests, their timeout is what ends the server's sleep.
#[track_caller]
pub fn closes_idle_guests_when_nothing_else_happens(program: &Program) {
    if program.is_foreign() {
        return skipped("limits and options are judged on our own servers only");
    }
    Lesson {
        tried: "a server with `--idle-timeout 1` has 200 clients that give no name; all are to be \
                closed, long before the 30 seconds for a name are over, and then it sleeps",
        usually: "epoll_wait is given the time to the wrong deadline: of several, the nearest one \
                  counts; or the loop goes round while it waits for the moment to come",
        read: book::M6_IDLE,
    }
    .expect(|| {
        let server = program.start_with(Setup::new().args(["--idle-timeout", "1"]));
        let mut guests = (0..200)
            .map(|_| Guest::connect(&server))
            .collect::<Result<Vec<_>, _>>()?;
        let tracer = Tracer::attach(&server)?;
        guests.iter_mut().try_for_each(Guest::hears_the_end)?;
        let calls = tracer.since(Mark::default());
        // Each close, and each wait before it, at the very most.
        if calls.len() > 3 * guests.len() {
            return Err(Trouble::Server(format!(
                "it made {} system calls to close {} clients:{}",
                count(calls.len()),
                guests.len(),
                listing(&calls)
            )));
        }
        Guest::connect(&server)?.hears_the_end()
    });
}

/// The time to the deadline for a name is what the server sleeps at most, it begins when the client
/// connects, and it is not begun again by bytes that do not make a name.
///
/// That this takes no 30 seconds is bought with a look at the timeouts that the server hands to
/// `epoll_wait`: they say when it will wake up, not what it will do then. What it does then is seen
/// in [`closes_everybody_whose_time_is_up`].
#[track_caller]
pub fn waits_so_long_for_a_name(program: &Program) {
    if program.is_foreign() {
        return skipped("how long a server waits is its own affair");
    }
    /// Between two events, on our clock and so, at least, on the server's.
    const PAUSE: Duration = Duration::from_millis(50);
    Lesson {
        tried: "the timeouts that the server gives to epoll_wait are read from the trace: with \
                nobody there, with a client that is asked for its name, after a byte of the name, \
                and after the whole of it",
        usually: "no timeout: a client that never gives a name keeps its descriptor for ever; or a \
                  new timeout with every byte, which lets it do the same with one byte in 29 \
                  seconds; or a timeout that stays when all have given their names, so that the \
                  server wakes up for nobody",
        read: book::M8_ROOM,
    }
    .expect(|| {
        let server = program.start();
        let tracer = Tracer::attach(&server)?;
        // Attaching has interrupted the wait; somebody who comes and goes makes sure that the next
        // one is seen.
        drop(Guest::connect(&server)?);
        let tell = |what: &str, calls: &[Call]| {
            Trouble::Server(format!("{what}; its last system calls:{}", listing(calls)))
        };
        let next_timeout = |mark: Mark| {
            let calls = tracer.wait_for("the server sleeps again", mark, |calls| {
                calls.len() > 1 && calls.last().is_some_and(Call::is_resting)
            })?;
            let wait = calls.last().expect("it was waited for");
            // The fourth argument of epoll_wait and epoll_pwait, in milliseconds; less than 0 is
            // for ever.
            Ok::<_, Trouble>((wait.args[3] as i32, calls))
        };
        wait_until("a sleep without end", PATIENCE, || {
            let calls = tracer.since(Mark::default());
            calls
                .last()
                .is_some_and(|call| call.is_resting() && (call.args[3] as i32) < 0)
        })
        .map_err(|_| {
            tell(
                "with nobody there it sleeps for a time",
                &tracer.since(Mark::default()),
            )
        })?;

        let mark = tracer.wait_until_resting()?;
        let mut guest = Guest::connect(&server)?;
        let (first, calls) = next_timeout(mark)?;
        let all = NAME_TIMEOUT.as_millis() as i32;
        if !(all / 2..=all).contains(&first) {
            return Err(tell(
                &format!("a client that was asked for its name has {first} ms for it"),
                &calls,
            ));
        }

        // What is measured is time, so some has to pass; more of it does no harm.
        thread::sleep(PAUSE);
        let mark = tracer.wait_until_resting()?;
        guest.client.send(b"a")?;
        let (second, calls) = next_timeout(mark)?;
        if second < 0 || second > first - PAUSE.as_millis() as i32 {
            return Err(tell(
                &format!(
                    "at first it had {first} ms, and {PAUSE:?} later, with one byte of its \
                          name, {second} ms"
                ),
                &calls,
            ));
        }
        let mark = tracer.wait_until_resting()?;
        guest.client.send(b"lice\n")?;
        guest.hears(Room(&[]))?;
        match next_timeout(mark)? {
            (..0, _) => Ok(()),
            (third, calls) => Err(tell(
                &format!("with its name given, the server still sleeps {third} ms only"),
                &calls,
            )),
        }
    });
}

/// Whoever gives no name, is far behind, or was sent away, does not stay for ever.
///
/// The server's clock is turned on, so this takes moments, and not the 30 seconds that a name may
/// take. That a server whose clock nobody touches wakes up by itself is seen in
/// [`closes_idle_guests_when_nothing_else_happens`].
#[track_caller]
pub fn closes_everybody_whose_time_is_up(program: &Program) {
    if program.is_foreign() {
        return skipped("how long a server waits is its own affair");
    }
    let lesson = Lesson {
        tried: "a member who reads nothing is owed 2 MB, which is less than the hard limit; a \
                client is sent away for its name and does not go; one gives no name, and one sends \
                it a byte at a time. The server's clock is turned on. Each is to lose its \
                connection within 10, 5 and 30 seconds, and not sooner. One who says nothing all \
                this time does not, although it was 2 MB behind before it read them",
        usually: "the deadlines are kept, and nobody looks at them when nothing else happens; or \
                  one of the lists of those who have one is never looked at; or one who has caught \
                  up, or given its name, stays on the list",
        read: book::M8_SLOW,
    };
    const SECOND: Duration = Duration::from_secs(1);
    let is_there = |server: &Server, guest: &Guest| {
        // The kernel's table may miss a row at one look.
        (0..3).any(|_| {
            proc_fs::connections(server).is_ok_and(|known| known.contains_key(&guest.client.port()))
        })
    };
    let too_soon = |name: &str, time: Duration| {
        Trouble::Server(format!("{name} was sent away in less than {time:?}"))
    };
    lesson.expect(|| {
        let server = program.start_with(Setup::new().with_a_clock_to_turn());
        let began = Instant::now();
        let mut nameless = Guest::connect(&server)?;
        let mut dribbling = Guest::connect(&server)?;
        let (mut alice, mut bob) = alice_and_bob(&server)?;
        let sleepy = joins_unheard(&server, "sleepy", [&mut alice, &mut bob])?;
        let mut dozy = joins_unheard(&server, "dozy", [&mut alice, &mut bob])?;
        super::everybody_is_owed(500, &alice, &mut bob)?;
        dozy.line()?;
        dozy.hears(Room(&["alice", "bob", "sleepy"]))?;
        for number in 0..500 {
            dozy.hears(Said("alice", &text(number, 4000)))?;
        }
        let mut refused = Guest::connect(&server)?;
        refused.say(b"no name")?;
        refused.is_sent_away()?;

        // What was turned by, and what passed meanwhile: nobody's time began before.
        let mut turned = Duration::ZERO;
        for (guest, time) in [(&refused, FAREWELL), (&sleepy, SOFT_PATIENCE)] {
            server.turn_clock(time - SECOND - turned)?;
            turned = time - SECOND;
            if !is_there(&server, guest) && turned + began.elapsed() < time {
                return Err(too_soon(&guest.name, time));
            }
            server.turn_clock(SECOND)?;
            turned = time;
            is_gone(&server, guest, 2 * SECOND)?;
        }
        for witness in [&mut alice, &mut bob, &mut dozy] {
            witness.hears(Left("sleepy"))?;
        }

        while turned < NAME_TIMEOUT {
            let has_to_go = nameless.client.has_received().is_some();
            if has_to_go && turned + began.elapsed() < NAME_TIMEOUT {
                return Err(too_soon(&nameless.name, NAME_TIMEOUT));
            }
            // A byte now and then: 5,000 of them would be a line too long. When it has been sent
            // away, they are dropped, or refused. What is heard after it says that it was read.
            let _ = dribbling.client.send_what_fits(b"x");
            still_talk(&mut alice, &mut bob)?;
            dozy.hears(Said("alice", b"are you there?"))?;
            dozy.hears(Said("bob", b"I am"))?;
            server.turn_clock(SECOND)?;
            turned += SECOND;
        }
        wait_until("those without a name sent away", 2 * SECOND, || {
            let both = [&nameless, &dribbling];
            both.iter()
                .all(|guest| guest.client.has_received().is_some())
        })?;
        nameless.is_sent_away()?;
        dribbling.is_sent_away()?;
        // The others are all there.
        Guest::join(&server, "carol", &["alice", "bob", "dozy"])?;
        for witness in [&mut alice, &mut bob, &mut dozy] {
            witness.hears(Entered("carol"))?;
            witness.hears(Left("carol"))?;
        }
        still_talk(&mut alice, &mut bob)
    });
}
