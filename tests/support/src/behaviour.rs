//! What comes back: the checks about the bytes. Each takes a running server and knows nothing of
//! how it works, so each judges a program in any language.
//!
//! The first part asks for one client at a time, or for clients that leave; a server that serves
//! them in turn passes it. The second asks for many clients at once, the third that no client can
//! hold up another.

use std::{thread, time::Duration};

use nix::sys::signal::Signal;

use crate::{
    Client, ClientOptions, PATIENCE, Server, Setup, Trouble,
    client::send_until_stuck,
    explain::{End, Lesson, book},
    pattern,
    server::{explain_status, free_port},
    wait_until,
};

/// More than the buffers on the way ever take from a client that does not read.
const MORE_THAN_FITS: usize = 16 << 20;

/// How long a server is given to deal with a few bytes before this check goes on without: whether
/// it has is no verdict.
const SETTLES: Duration = Duration::from_millis(500);

// One client at a time

/// A line, and it comes back.
#[track_caller]
pub fn echoes_one_line(server: &Server) {
    Lesson {
        tried: "one client sends one line and waits for it to come back",
        usually: "the server does not send what it receives, or waits for more than has come: for \
                  the end of the input, or until its buffer is full",
        read: book::M1_CODE,
    }
    .expect(|| {
        let client = Client::connect(server)?;
        client.echo(b"hello\n")?;
        client.echo(b"and a second line on the same connection\n")
    });
}

/// One message in many writes is the same bytes as in one.
#[track_caller]
pub fn echoes_bytes_split_over_many_writes(server: &Server) {
    Lesson {
        tried: "one client sends 1,000 bytes in pieces of 1 to 44 bytes, each acknowledged before \
                the next, and only then receives",
        usually: "the server takes one read for one message; TCP keeps no borders between messages",
        read: book::M1_IDEA,
    }
    .expect(|| {
        let client = Client::connect(server)?;
        let bytes = pattern(1, 1000);
        let mut rest = &bytes[..];
        for size in 1.. {
            let (piece, next) = rest.split_at(rest.len().min(size));
            client.send(piece)?;
            client.wait_until_acknowledged()?;
            rest = next;
            if rest.is_empty() {
                break;
            }
        }
        client.expect(&bytes)
    });
}

/// Each byte comes back before the next one is sent.
#[track_caller]
pub fn echoes_one_byte_at_a_time(server: &Server) {
    Lesson {
        tried: "one client sends one byte, waits for it to come back, and sends the next, 300 \
                times",
        usually: "the server waits for a line or for a full buffer before it answers, or a \
                  buffered writer is not flushed. Or EAGAIN, by which a non-blocking socket says \
                  that nothing has come yet, is taken for the end of the connection",
        read: book::M1_CODE,
    }
    .expect(|| {
        let client = Client::connect(server)?;
        pattern(2, 300)
            .iter()
            .try_for_each(|&byte| client.echo(&[byte]))
    });
}

/// Bytes are bytes: zero, line ends and invalid UTF-8 among them.
#[track_caller]
pub fn echoes_every_byte_value(server: &Server) {
    Lesson {
        tried: "one client sends each of the 256 byte values, rising and then falling, in one \
                write",
        usually: "the server treats the bytes as text: it stops at a zero byte, trims line ends, \
                  or replaces what is not UTF-8",
        read: book::M1_CODE,
    }
    .expect(|| {
        let bytes: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        Client::connect(server)?.echo(&bytes)
    });
}

/// Four mebibytes, received while they are sent.
#[track_caller]
pub fn echoes_megabytes(server: &Server) {
    Lesson {
        tried: "one client sends 4 MiB and receives at the same time",
        usually: "a partial send is taken for a whole one, so its rest is lost; or what did not \
                  fit is sent after newer bytes; or bytes that the server has not read wait for an \
                  event that does not come",
        read: book::M4_CODE,
    }
    .expect(|| Client::connect(server)?.exchange(&pattern(3, 4 << 20)));
}

/// More bytes than any server reads at once, all of them there before it looks.
#[track_caller]
pub fn echoes_a_burst_to_the_last_byte(server: &Server) {
    Lesson {
        tried: "with the server stopped (SIGSTOP), one client sends 100,000 bytes and nothing \
                after them; when the server goes on (SIGCONT), it finds all of them at once, and \
                should send every one of them back",
        usually: "the server reads once for each event and waits for another, which never comes: \
                  an edge-triggered event tells only of what is new. Read until EAGAIN; whoever \
                  stops earlier, so that others have their turn, has to remember it and go on \
                  without an event",
        read: book::M4_DRAIN,
    }
    .expect(|| {
        let client = Client::connect(server)?;
        client.echo(b"connected\n")?;
        let bytes = pattern(13, 100_000);
        // Back in its wait, so that the burst is reported by the next one: a server that is stopped while
        // it still reads the line would find the burst there, with the event still to come.
        let _ = wait_until("", SETTLES, || server.is_asleep());
        server.pause();
        client.send(&bytes)?;
        client.wait_until_acknowledged()?;
        server.resume();
        client.expect(&bytes)
    });
}

/// A client may say that it has no more to send, and still wants all of its bytes.
#[track_caller]
pub fn echoes_what_arrived_before_the_half_close(server: &Server) {
    Lesson {
        tried: "one client sends 256 KiB and then shutdown(SHUT_WR), receiving at the same time, \
                and expects its bytes and then the end",
        usually: "the server closes the connection when it sees the end of the input (read gives \
                  0, or EPOLLRDHUP) although bytes are still to be sent; or it never closes it",
        read: book::M5_HALF_CLOSE,
    }
    .expect(|| {
        let client = Client::connect(server)?;
        let bytes = pattern(4, 256 << 10);
        thread::scope(|scope| {
            let sending = scope.spawn(|| client.send(&bytes).and_then(|()| client.half_close()));
            client.expect(&bytes)?;
            sending.join().expect("sending does not panic")
        })?;
        client.expect_eof()
    });
}

/// Bytes and the end of the input that arrive together, in one event.
#[track_caller]
pub fn echoes_what_was_queued_together_with_the_half_close(server: &Server) {
    let lesson = Lesson {
        tried: "with the server stopped (SIGSTOP), one client sends bytes and then \
                shutdown(SHUT_WR), so that the server finds both at once when it goes on; it \
                should send the bytes back and then close",
        usually: "the server reads once and waits for another event, which never comes: the end of \
                  the input was already there. Read until 0 or EAGAIN; a short read ends the drain \
                  only if no EPOLLRDHUP came with it. Or EPOLLRDHUP is taken for the end of the \
                  connection: it says that the client has no more to send, and what it has sent is \
                  still to be read and answered",
        read: book::M6_SHORT_READ,
    };
    // Less than a server reads at once, exactly as much as some do, and more.
    for size in [100, 4096, 40_000] {
        lesson.expect(|| {
            let client = Client::connect(server)?;
            client.echo(b"connected\n")?;
            let bytes = pattern(5, size);
            server.pause();
            client.send(&bytes)?;
            client.half_close()?;
            client.wait_until_acknowledged()?;
            server.resume();
            client
                .expect(&bytes)
                .and_then(|()| client.expect_eof())
                .map_err(|trouble| trouble.of(&format!("{size} bytes and the end at once")))
        });
    }
    // And the whole conversation before the server has accepted the client.
    lesson.expect(|| {
        server.pause();
        let client = Client::connect(server)?;
        let bytes = pattern(6, 5000);
        client.send(&bytes)?;
        client.half_close()?;
        server.resume();
        client.expect(&bytes)?;
        client.expect_eof()
    });
}

/// A client that ends its input without having sent anything.
#[track_caller]
pub fn closes_a_client_that_sends_nothing(server: &Server) {
    Lesson {
        tried: "one client connects, sends nothing, and does shutdown(SHUT_WR); the server should \
                close too",
        usually: "read giving 0 is taken for \"nothing there\" and not for the end of the input: \
                  the connection stays open for ever, or the server asks again and again",
        read: book::M1_CODE,
    }
    .expect(|| {
        let client = Client::connect(server)?;
        client.half_close()?;
        client.expect_eof()
    });
}

/// A client that does not read for a while, and then reads slowly, misses nothing.
#[track_caller]
pub fn gives_a_slow_reader_every_byte(server: &Server) {
    Lesson {
        tried: "one client with small buffers sends without receiving until the server takes no \
                more; then it receives in pieces of 1,000 bytes and sends on in between",
        usually: "send took only a part, or gave EAGAIN, and the rest was dropped; or newer bytes \
                  were sent before it, because the socket had room again; or the server stopped \
                  reading and never began again",
        read: book::M5_OUTBOX,
    }
    .expect(|| {
        let client = ClientOptions::small().connect(server)?;
        let bytes = pattern(7, MORE_THAN_FITS);
        let mut sent = client.send_until_stuck(server, &bytes)?;
        // As much again, so that the server's buffers are full, and have a little room, many times.
        let last = bytes.len().min(2 * sent);
        let mut received = 0;
        while received < sent {
            let piece = &bytes[received..sent.min(received + 1000)];
            client.expect(piece)?;
            received += piece.len();
            sent += client.send_what_fits(&bytes[sent..last])?;
        }
        Ok(())
    });
}

/// Clients that come and go at once.
#[track_caller]
pub fn outlives_clients_that_only_connect(server: &Server) {
    Lesson {
        tried: "50 clients connect and close at once, then one sends a line",
        usually: "the end of a connection on which nothing was ever sent is not handled: the \
                  server ends, spins, or keeps the connection",
        read: book::M1_CODE,
    }
    .expect(|| {
        for _ in 0..50 {
            Client::connect(server)?;
        }
        is_well(server)
    });
}

/// A reset on a connection that was silent.
#[track_caller]
pub fn outlives_a_reset_of_an_idle_client(server: &Server) {
    Lesson {
        tried: "one client echoes a line and then resets the connection (SO_LINGER 0); another \
                sends a line",
        usually: "ECONNRESET from read is taken for a reason to end. It is one client's affair: \
                  close this connection and go on",
        read: book::M2_CODE,
    }
    .expect(|| {
        let client = Client::connect(server)?;
        client.be_served(server)?;
        client.reset();
        is_well(server)
    });
}

/// A reset while the server is sending.
#[track_caller]
pub fn outlives_a_reset_with_data_in_flight(server: &Server) {
    Lesson {
        tried: "one client sends until the server takes no more, reading nothing, and then resets \
                the connection; 20 more close with their echo unread. Then another client sends a \
                line",
        usually: "EPIPE or ECONNRESET from send ends the server, or SIGPIPE kills it: pass \
                  MSG_NOSIGNAL to every send, and close only this connection",
        read: book::M2_CODE,
    }
    .expect(|| {
        let client = ClientOptions::small().connect(server)?;
        client.send_until_stuck(server, &pattern(8, MORE_THAN_FITS))?;
        client.reset();
        is_well(server)?;
        for connection in 0..20 {
            let client = Client::connect(server)?;
            // Closing with bytes unread sends a reset, and more of the echo is still to come.
            client.send(&pattern(connection, 50_000))?;
        }
        is_well(server)
    });
}

/// Clients that have gone before the server came to accept them.
#[track_caller]
pub fn outlives_clients_that_leave_before_they_are_accepted(server: &Server) {
    Lesson {
        tried: "with the server stopped (SIGSTOP), clients connect and leave again, some with a \
                reset, some with a line unread; when it goes on, another client sends a line",
        usually: "an error of accept, or the first read's ECONNRESET, ends the loop or the server. \
                  On Linux such a client is accepted all the same, and the error comes from read",
        read: book::M2_CODE,
    }
    .expect(|| {
        server.pause();
        for round in 0..5 {
            let reset = Client::connect(server)?;
            let reset_with_data = Client::connect(server)?;
            let closed_with_data = Client::connect(server)?;
            let _closed = Client::connect(server)?;
            reset_with_data.send(&pattern(round, 100))?;
            closed_with_data.send(&pattern(round, 100))?;
            reset.reset();
            reset_with_data.reset();
        }
        server.resume();
        is_well(server)
    });
}

/// Many clients in the queue at once, all of them served.
#[track_caller]
pub fn serves_everyone_in_a_burst_of_connections(server: &Server) {
    Lesson {
        tried: "with the server stopped (SIGSTOP), 100 clients connect; when it goes on, each \
                sends a line and shutdown(SHUT_WR), and expects its line and the end",
        usually: "the server accepts one client for each event. An edge-triggered listener is \
                  reported once for all that have come: accept until EAGAIN",
        read: book::M4_ACCEPT,
    }
    .expect(|| {
        server.pause();
        let begun: Vec<_> = (0..100)
            .map(|_| ClientOptions::new().begin(server))
            .collect::<Result<_, _>>()?;
        server.resume();
        let clients: Vec<_> = begun
            .into_iter()
            .map(|client| client.finish())
            .collect::<Result<_, _>>()?;
        for (connection, client) in (0..).zip(&clients) {
            client.send(&pattern(connection, 30))?;
            client.half_close()?;
        }
        for (connection, client) in (0..).zip(&clients) {
            client
                .expect(&pattern(connection, 30))
                .and_then(|()| client.expect_eof())
                .map_err(|trouble| trouble.of(&format!("client {} of 100", connection + 1)))?;
        }
        Ok(())
    });
}

/// Three hundred clients, one after the other, as fast as they can.
#[track_caller]
pub fn serves_hundreds_of_clients_in_turn(server: &Server) {
    Lesson {
        tried: "300 clients, one after the other: connect, echo a line, close",
        usually: "something is left behind by every connection: a descriptor, a table's entry, a \
                  thread",
        read: book::M2_CODE,
    }
    .expect(|| {
        for connection in 0..300 {
            Client::connect(server)?.echo(&pattern(connection, 60))?;
        }
        Ok(())
    });
}

/// What a client leaves behind is nothing.
#[track_caller]
pub fn closes_the_descriptor_of_every_client_that_left(server: &Server) {
    let lesson = Lesson {
        tried: "60 clients come and leave: a third closes, a third resets, a third half-closes \
                with a line still unanswered and then closes. Then the server should have no \
                descriptor more than before",
        usually: "the end of a connection was not seen. An edge-triggered server is told of it \
                  once: if bytes and the end came together, it must read on to the end",
        read: book::M6_SHORT_READ,
    };
    lesson.expect(|| {
        // Only now has a server that opens something for its first client done so; and of that
        // client, once its end has come, nothing is left.
        let first = Client::connect(server)?;
        first.half_close()?;
        first.expect_eof()?;
        let before = server.open_descriptors();
        for connection in 0..20 {
            let closing = Client::connect(server)?;
            closing.echo(b"hello\n")?;
            drop(closing);
            let resetting = Client::connect(server)?;
            resetting.echo(b"hello\n")?;
            resetting.reset();
            let half_closing = Client::connect(server)?;
            half_closing.send(&pattern(connection, 60))?;
            half_closing.half_close()?;
            half_closing.expect(&pattern(connection, 60))?;
        }
        let mut now = 0;
        wait_until("as few open descriptors as before", PATIENCE, || {
            now = server.open_descriptors();
            now <= before
        })
        .map_err(|_| {
            Trouble::Server(format!(
                "the server had {before} descriptors open before and has {now} now; `ls -l \
                 /proc/{}/fd` shows such a list",
                server.pid()
            ))
        })
    });
}

/// A server that was stopped for a while goes on where it was.
#[track_caller]
pub fn goes_on_after_being_stopped(server: &Server) {
    Lesson {
        tried: "one client echoes a line, the server is stopped (SIGSTOP) and goes on (SIGCONT), \
                three times; what was sent meanwhile should come back",
        usually: "a call that a signal interrupted (EINTR) is taken for a failure: call it again",
        read: book::M3_CODE,
    }
    .expect(|| {
        let client = Client::connect(server)?;
        client.echo(b"before\n")?;
        let converse = || {
            // Once while it rests, once while it has work.
            server.pause();
            server.resume();
            client.echo(b"between\n")?;
            server.pause();
            client.send(b"meanwhile\n")?;
            server.resume();
            client.expect(b"meanwhile\n")
        };
        (0..3).try_for_each(|_| converse().map_err(|trouble| end_of(server, trouble)))
    });
}

/// Ended and started again on the same port, with clients connected.
#[track_caller]
pub fn restarts_on_its_port_with_clients_connected(server: &Server) {
    let lesson = Lesson {
        tried: "the server is ended while clients are connected, and started again on the same \
                port, five times",
        usually: "SO_REUSEADDR is not set before bind: connections of the run before are in \
                  FIN_WAIT or TIME_WAIT for a minute, and bind fails with EADDRINUSE",
        read: book::M2_LISTENER,
    };
    // Not the port that it has: the kernel, which chose it, may give it to a client in between.
    let setup = Setup::new().port(free_port());
    let mut clients = Vec::new();
    let mut visit = |server: &Server| {
        for _ in 0..3 {
            let client = Client::connect(server)?;
            client.be_served(server)?;
            client.half_close()?;
            clients.push(client);
        }
        // The last one is in the middle of its conversation, and the first of the run before have
        // gone.
        let client = Client::connect(server)?;
        client.be_served(server)?;
        clients.push(client);
        clients.drain(..clients.len().saturating_sub(5));
        Ok(())
    };
    server.kill();
    for round in 0..6 {
        let server = lesson.expect(|| server.program().try_start_with(setup.clone()));
        lesson.expect(|| visit(&server));
        if round % 2 == 1 {
            // As a person ends it; from the seventh milestone on it leaves in good order.
            server.signal(Signal::SIGINT);
            lesson.expect(|| server.wait_exit(PATIENCE));
        }
    }
}

// Many clients at once

/// A client that says nothing does not keep others waiting.
#[track_caller]
pub fn serves_others_while_one_is_silent(server: &Server) {
    Lesson {
        tried: "one client connects and says nothing; another one echoes a line and is silent from \
                then on; a third one sends a line. The silent one is still connected then",
        usually: "the server blocks in a read for the silent client: its socket is not \
                  non-blocking, or it was read without being ready. Or EAGAIN, by which a \
                  non-blocking socket says that nothing has come yet, is taken for the end of the \
                  connection",
        read: book::M1_WALL,
    }
    .expect(|| {
        let silent = Client::connect(server)?;
        let others = || {
            let quiet_now = Client::connect(server)?;
            let echoed = quiet_now.echo(b"hello\n");
            echoed.map_err(|trouble| trouble.of("the second client"))?;
            is_well(server).map_err(|trouble| trouble.of("the third client"))
        };
        let others = others();
        // Whoever closes this one may close the others before they are served, or not.
        match silent.has_received() {
            None => others,
            Some(end) => Err(Trouble::Server(end.to_string())
                .of("the first client, which has said nothing, got")),
        }
    });
}

/// Fifty conversations at once, each with its own bytes.
#[track_caller]
pub fn keeps_interleaved_clients_apart(server: &Server) {
    Lesson {
        tried: "50 clients hold a conversation each, all at once: in every round each sends its \
                own bytes, and they receive in another order",
        usually: "bytes went to the wrong connection: a buffer shared by two of them, or a \
                  descriptor's number that was used again",
        read: book::M3_CODE,
    }
    .expect(|| {
        let clients: Vec<_> = (0..50)
            .map(|_| Client::connect(server))
            .collect::<Result<_, _>>()?;
        for round in 0..20 {
            let message =
                |connection: usize| pattern((round * 50 + connection) as u64, 1 + connection * 7);
            for (connection, client) in clients.iter().enumerate() {
                client.send(&message(connection))?;
            }
            for (connection, client) in clients.iter().enumerate().rev() {
                client.expect(&message(connection))?;
            }
        }
        Ok(())
    });
}

/// Several large transfers at once.
#[track_caller]
pub fn echoes_megabytes_of_several_clients_at_once(server: &Server) {
    Lesson {
        tried: "8 clients send 1 MiB each and receive at the same time",
        usually: "the rest of a partial send was lost, or went to another connection",
        read: book::M4_CODE,
    }
    .expect(|| {
        thread::scope(|scope| {
            let transfers: Vec<_> = (0..8)
                .map(|connection| {
                    scope.spawn(move || {
                        Client::connect(server)?.exchange(&pattern(connection, 1 << 20))
                    })
                })
                .collect();
            transfers
                .into_iter()
                .try_for_each(|transfer| transfer.join().expect("a transfer does not panic"))
        })
    });
}

/// Three hundred connections open at the same time.
#[track_caller]
pub fn serves_hundreds_of_clients_at_once(server: &Server) {
    Lesson {
        tried: "300 clients connect and stay; each sends a line, then each receives, twice",
        usually: "the server has room for fewer connections (a table of fixed size, select's \
                  1,024), or lost the event of one while it handled another",
        read: book::M3_CODE,
    }
    .expect(|| {
        let mut clients = Vec::new();
        for number in 0..300 {
            let client = Client::connect(server)?;
            // Now and then the server catches up: what does not fit into its backlog is sent again
            // after a second.
            if number % 50 == 49 {
                client.echo(b"am I in?\n")?;
            }
            clients.push(client);
        }
        for _ in 0..2 {
            for (connection, client) in (0..).zip(&clients) {
                client.send(&pattern(connection, 64))?;
            }
            for (connection, client) in (0..).zip(&clients) {
                client.expect(&pattern(connection, 64))?;
            }
        }
        Ok(())
    });
}

/// A reset of one client is not felt by the others.
#[track_caller]
pub fn keeps_others_when_one_resets(server: &Server) {
    Lesson {
        tried: "20 clients are in conversation; every second one resets its connection with bytes \
                unread; the others go on, and new ones come",
        usually: "the error of one connection ended the handling of the whole batch of events, or \
                  the next client got the closed one's state with its descriptor's number",
        read: book::M3_CODE,
    }
    .expect(|| {
        let mut clients = Vec::new();
        for connection in 0..20 {
            let client = Client::connect(server)?;
            client.echo(&pattern(connection, 64))?;
            clients.push(client);
        }
        server.pause();
        for client in &clients {
            client.send(b"sent while the server was stopped\n")?;
        }
        let (leaving, staying): (Vec<_>, Vec<_>) = clients
            .into_iter()
            .enumerate()
            .partition(|(index, _)| index % 2 == 0);
        for (_, client) in leaving {
            client.reset();
        }
        server.resume();
        for (_, client) in &staying {
            client.expect(b"sent while the server was stopped\n")?;
        }
        for connection in 0..10 {
            Client::connect(server)?.echo(&pattern(connection, 64))?;
        }
        for (_, client) in &staying {
            client.echo(b"still here\n")?;
        }
        Ok(())
    });
}

// No client holds up another

/// One client that sends and does not read, and others that do not notice.
#[track_caller]
pub fn serves_others_while_one_does_not_read(server: &Server) {
    Lesson {
        tried: "one client sends until the server takes no more, and reads nothing; another one \
                echoes 100 lines. Then the first one reads, and everything it sent is there",
        usually: "the server waits until the first client takes its bytes. Keep what cannot be \
                  sent in that connection's outbox, and go on with the others",
        read: book::M4_WALL,
    }
    .expect(|| {
        let stalled = ClientOptions::small().connect(server)?;
        let bytes = pattern(9, MORE_THAN_FITS);
        let taken = stalled.send_until_stuck(server, &bytes)?;
        let other = Client::connect(server)?;
        for line in 0..100 {
            other.echo(&pattern(line, 80))?;
        }
        stalled.expect(&bytes[..taken])?;
        stalled.echo(b"and still here\n")
    });
}

/// A hundred clients that send and do not read, beside one that does.
#[track_caller]
pub fn serves_one_beside_a_hundred_that_do_not_read(server: &Server) {
    Lesson {
        tried: "100 clients send until the server takes no more, and read nothing; one more echoes \
                100 lines. Then some of the hundred read, some reset, and another 100 lines come \
                back",
        usually: "the server spends its turns on connections that cannot move, or waits for one of \
                  them",
        read: book::M5_BACK_PRESSURE,
    }
    .expect(|| {
        let bytes = pattern(10, MORE_THAN_FITS);
        let stalled: Vec<_> = (0..100)
            .map(|_| ClientOptions::small().connect(server))
            .collect::<Result<_, _>>()?;
        let taken = send_until_stuck(server, &stalled, &bytes)?;
        let other = Client::connect(server)?;
        for line in 0..100 {
            other.echo(&pattern(line, 80))?;
        }
        for (index, client) in stalled.into_iter().enumerate() {
            if index % 10 == 0 {
                client.expect(&bytes[..taken[index]])?;
            } else {
                client.reset();
            }
        }
        for line in 0..100 {
            other.echo(&pattern(line, 80))?;
        }
        Ok(())
    });
}

/// Bytes that wait are sent before newer ones, also when the socket has room again before they are.
#[track_caller]
pub fn sends_nothing_around_what_waits(server: &Server) {
    Lesson {
        tried: "one client with small buffers sends 8,000 bytes and receives 800, again and again, \
                until the server takes no more; then it receives the rest",
        usually: "new bytes were sent although older ones wait in the outbox: the socket had a \
                  little room again, too little for EPOLLOUT. If the outbox is not empty, append \
                  to it",
        read: book::M5_OUTBOX,
    }
    .expect(|| {
        let client = ClientOptions::small().send_buffer(16_000).connect(server)?;
        let bytes = pattern(12, MORE_THAN_FITS);
        let (mut sent, mut received) = (0, Vec::new());
        loop {
            let step = client.send_what_fits(&bytes[sent..sent + 8000])?;
            sent += step;
            let has_settled = || client.unacknowledged() == 0 && server.is_asleep();
            let settled = step == 8000 && wait_until("", SETTLES, has_settled).is_ok();
            if !settled || sent + 8000 > bytes.len() {
                break;
            }
            received.extend(client.receive_up_to(800).0);
        }
        let (rest, end) = client.receive_up_to(sent - received.len());
        received.extend(rest);
        // All of it together shows where those bytes were sent that came too early.
        Trouble::compare(&bytes[..received.len()], &received)?;
        match end {
            End::Enough => Ok(()),
            end => Err(Trouble::Short {
                expected: bytes[..sent].to_vec(),
                received,
                end,
            }),
        }
    });
}

/// A half-close of a client that has not read yet: its bytes wait for it.
#[track_caller]
pub fn keeps_what_a_half_closed_client_has_not_read(server: &Server) {
    Lesson {
        tried: "one client sends until the server takes no more, does shutdown(SHUT_WR), waits \
                until another has been served, and only then reads: all of its bytes, and then the \
                end",
        usually: "EPOLLRDHUP, or read giving 0, closes the connection although the outbox still \
                  holds bytes; or the reading was paused and the end of the input is never looked \
                  at",
        read: book::M5_HALF_CLOSE,
    }
    .expect(|| {
        let client = ClientOptions::small().connect(server)?;
        let bytes = pattern(11, MORE_THAN_FITS);
        let taken = client.send_until_stuck(server, &bytes)?;
        client.half_close()?;
        is_well(server)?;
        client.expect(&bytes[..taken])?;
        client.expect_eof()
    });
}

/// Whether a new client is served: how a check that troubled the server asks whether it took harm.
fn is_well(server: &Server) -> Result<(), Trouble> {
    let served = Client::connect(server).and_then(|client| client.be_served(server));
    served.map_err(|trouble| end_of(server, trouble))
}

/// What to say of a client's trouble: if the server has ended, that, whatever the client saw of it.
fn end_of(server: &Server, trouble: Trouble) -> Trouble {
    // Its sockets close a moment before it has ended.
    match server.wait_exit(SETTLES) {
        Err(_) => trouble,
        Ok(status) => {
            let end = explain_status(status);
            let mut text = format!("the server has ended: {end}; it wrote to standard error:");
            let stderr = server.stderr();
            // What Rust says of backtraces is about another setting.
            let is_telling = |line: &&str| !line.is_empty() && !line.starts_with("note: ");
            for line in stderr.lines().filter(is_telling) {
                text += &format!("\n    {line}");
            }
            Trouble::Server(text)
        }
    }
}
