//! What happens to bytes that a client does not take.

use std::{os::fd::RawFd, thread};

use crate::{
    Client, ClientOptions, PATIENCE, Server, Trouble, client,
    explain::{Lesson, book, count},
    pattern, proc_fs,
    syscalls::{Call, Kind, listing},
    tracer::{Mark, Tracer},
    wait_until,
};

/// Bytes that may wait for one client before it is no longer read from.
const HIGH_WATERMARK: usize = 64 * 1024;

/// More than the buffers on the way ever take from a client that does not read.
const MORE_THAN_FITS: usize = 16 << 20;

/// Clients that send and never read.
const STALLED: usize = 100;

/// A server that cannot get rid of a client's bytes stops reading from it, and remembers where it was.
#[track_caller]
pub fn keeps_a_bounded_number_of_bytes(server: &Server) {
    Lesson {
        tried: "one client sends until the server takes no more, and reads nothing; then it reads everything. At every \
                moment the trace says how many bytes the server has read from it and not yet sent",
        usually: "the outbox has no limit, which is a memory leak that any client can start. At the high watermark, stop \
                  reading: the kernel's buffers fill, and TCP holds the client back. Below the low one, go on",
        read: book::M5_BACK_PRESSURE,
    }
    .expect(|| {
        let client = ClientOptions::small().connect(server)?;
        client.echo(b".")?;
        let fd = proc_fs::connection_of(server, &client)?;
        let tracer = Tracer::attach(server)?;
        let bytes = pattern(1, MORE_THAN_FITS);
        let taken = client.send_until_stuck(server, &bytes)?;
        if taken == bytes.len() {
            return Err(took_everything(taken));
        }
        client.expect(&bytes[..taken])?;
        let calls = tracer.since(Mark::default());
        owed_stays_bounded(&calls, fd)?;
        let registered_again = calls.iter().filter(|call| call.kind == Kind::EpollCtl && call.fd() == fd);
        match registered_again.count() {
            // Arming and disarming works as well, at a system call each time.
            0 => Ok(()),
            _ if server.program().is_foreign() => Ok(()),
            n => Err(Trouble::Server(format!(
                "it called epoll_ctl {n} times for a client that was registered already"
            ))),
        }
    });
}

/// Whether received minus sent never passes the high watermark and one read.
fn owed_stays_bounded(calls: &[Call], fd: RawFd) -> Result<(), Trouble> {
    let (mut owed, mut one_read) = (0_usize, 0);
    for (index, call) in calls.iter().enumerate().filter(|(_, call)| call.fd() == fd) {
        match call.kind {
            Kind::Receive => {
                owed += call.bytes();
                one_read = one_read.max(call.bytes());
            }
            Kind::Send => owed = owed.saturating_sub(call.bytes()),
            _ => {}
        }
        if owed > HIGH_WATERMARK + one_read {
            return Err(Trouble::Server(format!(
                "after system call {} it had read {} bytes more from the client than it had sent; the high watermark is {}, \
                 and one read took at most {}. What it did from there:{}",
                count(index + 1),
                count(owed),
                count(HIGH_WATERMARK),
                count(one_read),
                listing(&calls[index..])
            )));
        }
    }
    Ok(())
}

/// What a paused connection has not read lies in its socket, and no new edge will tell of it.
#[track_caller]
pub fn goes_on_reading_without_a_new_edge(server: &Server) {
    Lesson {
        tried: "one client sends, and reads nothing, until the server sleeps with bytes of its unread, all of them in \
                the server's own kernel; then the client reads, sending nothing more, and expects every byte",
        usually: "the server waits for an event after it has gone on sending, but an edge is reported only once, and was, \
                  while reading was paused. When the outbox falls below the low watermark, read again at once",
        read: book::M5_RESUMING,
    }
    .expect(|| {
        let client = ClientOptions::small().connect(server)?;
        let bytes = pattern(1, MORE_THAN_FITS);
        let sent = send_until_paused(server, &client, &bytes)?;
        client.expect(&bytes[..sent])?;
        client.echo(b"and it is not forgotten")
    });
}

/// Has the client send, and receive nothing, until the server leaves its bytes unread, all of them in the server's own
/// kernel. Gives how many.
pub(super) fn send_until_paused(
    server: &Server,
    client: &Client,
    bytes: &[u8],
) -> Result<usize, Trouble> {
    const STEP: usize = 4096;
    let mut sent = 0;
    // In small steps, so that none waits on this side, to arrive later and be a new edge.
    while sent < bytes.len() {
        client.send(&bytes[sent..sent + STEP])?;
        sent += STEP;
        if leaves_unread(server, client)? {
            client.wait_until_acknowledged()?;
            return Ok(sent);
        }
    }
    Err(took_everything(sent))
}

/// Whether the server sleeps although it has not read all that the client sent. (Taken for a pause too early, a check
/// asks for less than it could, and no more.)
fn leaves_unread(server: &Server, client: &Client) -> Result<bool, Trouble> {
    let mut looks = 0;
    wait_until(
        "the server slept, or read what it was sent",
        PATIENCE,
        || {
            looks = if server.is_asleep() { looks + 1 } else { 0 };
            looks >= 5 || client.unread_by(server) == 0
        },
    )?;
    Ok(looks >= 5 && client.unread_by(server) > 0)
}

/// A client that has no more to say still has to get what waits for it in the outbox.
#[track_caller]
pub fn sends_what_it_owes_after_the_end_of_input(server: &Server) {
    Lesson {
        tried: "one client with small buffers sends, a little at a time, and reads nothing, until the trace shows a send \
                to it that was cut short. Then, with the server stopped (SIGSTOP), it sends 56 KiB more, which is more \
                than the kernel still takes and less than the high watermark, and does shutdown(SHUT_WR); when the \
                server goes on (SIGCONT), it is owed bytes when the end of its input is read. When another has been \
                served, it reads: all of its bytes, and then the end",
        usually: "read giving 0 closes the connection, or EPOLLRDHUP does, although the outbox still holds bytes. Remember \
                  the end of the input, send what is owed, and close then",
        read: book::M5_HALF_CLOSE,
    }
    .expect(|| {
        const STEP: usize = 2048;
        const MORE: usize = 56 * 1024;
        let client = ClientOptions::small().connect(server)?;
        client.echo(b".")?;
        let fd = proc_fs::connection_of(server, &client)?;
        let tracer = Tracer::attach(server)?;
        let bytes = pattern(1, MORE_THAN_FITS);
        let mut sent = 0;
        let mut is_full = false;
        while !is_full {
            if sent + STEP + MORE > bytes.len() {
                return Err(took_everything(sent));
            }
            client.send(&bytes[sent..sent + STEP])?;
            sent += STEP;
            tracer.wait_for("it was read, or a send was cut short", Mark::default(), |calls| {
                let about_it = calls.iter().filter(|call| call.fd() == fd);
                let read = about_it.clone().filter(|call| call.kind == Kind::Receive).map(Call::bytes);
                let mut sends = about_it.filter(|call| call.kind == Kind::Send);
                is_full = sends.any(is_cut_short);
                is_full || read.sum::<usize>() == sent
            })?;
        }
        tracer.pause()?;
        client.send(&bytes[sent..sent + MORE])?;
        client.half_close()?;
        client.wait_until_acknowledged()?;
        tracer.resume()?;
        // Served after it, so the server has seen its end.
        Client::connect(server)?.be_served(server)?;
        drop(tracer);
        client.expect(&bytes[..sent + MORE])?;
        client.expect_eof()
    });
}

/// A hundred clients that send and never read cost a bounded amount of memory.
#[track_caller]
pub fn keeps_memory_bounded(server: &Server) {
    Lesson {
        tried: "100 clients send until the server takes no more, and read nothing; then `Anonymous` in \
                /proc/PID/smaps_rollup is compared with what it was before",
        usually: "outboxes grow without a limit, or double their capacity when they grow, or keep what they once needed",
        read: book::M5_BACK_PRESSURE,
    }
    .expect(|| {
        let bytes = pattern(1, MORE_THAN_FITS);
        // Bytes that one read takes at most.
        let one_read = {
            let tracer = Tracer::attach(server)?;
            let client = ClientOptions::small().connect(server)?;
            let taken = client.send_until_stuck(server, &bytes)?;
            client.expect(&bytes[..taken])?;
            let calls = tracer.since(Mark::default());
            calls.iter().filter(|call| call.kind == Kind::Receive).map(Call::bytes).max().unwrap_or(0)
        };
        let before = proc_fs::anonymous_memory(server.pid())?;
        let stalled = (0..STALLED).map(|_| ClientOptions::small().connect(server)).collect::<Result<Vec<_>, _>>()?;
        client::send_until_stuck(server, &stalled, &bytes)?;
        let other = Client::connect(server)?;
        (0..100).try_for_each(|message| other.echo(&pattern(message, 80)))?;
        let grown = proc_fs::anonymous_memory(server.pid())?.saturating_sub(before);
        let allowed = STALLED * (HIGH_WATERMARK + one_read) * 2;
        println!(
            "{STALLED} clients that never read: {} bytes of memory each",
            count(grown / STALLED)
        );
        if grown > allowed {
            return Err(Trouble::Server(format!(
                "its memory grew by {} bytes, {} for each of them; allowed is twice the high watermark ({}) and one read \
                 ({}) for each",
                count(grown),
                count(grown / STALLED),
                count(HIGH_WATERMARK),
                count(one_read)
            )));
        }
        Ok(())
    });
}

/// A send may take only a part. The rest goes out later, in order, and before anything newer.
#[track_caller]
pub fn sends_the_rest_of_a_partial_send(server: &Server) {
    Lesson {
        tried: "one client with small buffers sends until the server takes no more, and goes on sending 256 KiB while it \
                reads everything in pieces of 1,000 bytes; the trace shows that the server's sends were cut short",
        usually: "the return value of send is not looked at: what it did not take is lost, or is sent after newer bytes",
        read: book::M5_OUTBOX,
    }
    .expect(|| {
        let client = ClientOptions::small().connect(server)?;
        client.echo(b".")?;
        let fd = proc_fs::connection_of(server, &client)?;
        let tracer = Tracer::attach(server)?;
        let bytes = pattern(1, MORE_THAN_FITS);
        let taken = client.send_until_stuck(server, &bytes)?;
        let Some(all) = bytes.get(..taken + (256 << 10)) else {
            return Err(took_everything(taken));
        };
        // What is sent from here on arrives while older bytes are still owed.
        thread::scope(|scope| {
            let sending = scope.spawn(|| client.send(&all[taken..]));
            all.chunks(1000).try_for_each(|piece| client.expect(piece))?;
            sending.join().expect("sending does not panic")
        })?;
        let calls = tracer.since(Mark::default());
        let cut_short = calls.iter().filter(|call| call.kind == Kind::Send && call.fd() == fd && is_cut_short(call));
        match cut_short.count() {
            // Of sendmsg and writev the trace does not tell what was offered.
            0 if server.program().is_foreign() => Ok(()),
            0 => Err(Trouble::Server(format!(
                "no send was ever cut short, so this check has seen nothing{}",
                listing(&calls)
            ))),
            _ => Ok(()),
        }
    });
}

/// No buffer on the way is that large: the server keeps everything, or throws it away.
pub(super) fn took_everything(bytes: usize) -> Trouble {
    Trouble::Server(format!(
        "it took all of {} bytes from a client that reads nothing",
        count(bytes)
    ))
}

/// Whether a send took less than it was offered.
fn is_cut_short(call: &Call) -> bool {
    use crate::syscalls::Outcome;
    match call.outcome {
        Outcome::Failed(errno) => errno == nix::errno::Errno::EAGAIN,
        // Of sendmsg and writev the third argument is no length; they show it by EAGAIN in the end.
        Outcome::Returned(sent) if matches!(call.number, libc::SYS_sendto | libc::SYS_write) => {
            u64::try_from(sent).is_ok_and(|sent| sent < call.args[2])
        }
        _ => false,
    }
}
