//! Who is in the room, and who is told what.

use super::{Entered, Guest, Left, Room, Said, alice_and_bob, members, still_talk};
use crate::{
    Client, PATIENCE, Server, Trouble,
    explain::{Lesson, book},
    wait_until,
};

/// The longest name that is allowed.
const LONGEST_NAME: &str = "abcdefghijklmnopqrstuvwxyz012345";

/// What is no name: anything but 1 to 32 ASCII letters and digits.
const NO_NAMES: &[(&str, &[u8])] = &[
    ("nothing", b""),
    ("a blank", b" "),
    ("two words", b"two words"),
    ("a blank before", b" alice"),
    ("a blank after", b"alice "),
    ("an underscore", b"al_ice"),
    ("a hyphen", b"al-ice"),
    ("punctuation", b"alice!"),
    ("a bracket", b"alice]"),
    ("an asterisk", b"*"),
    ("a tab", b"ali\tce"),
    ("a zero byte", b"alice\0"),
    ("a bell", b"alice\x07"),
    ("an escape sequence", b"\x1b[31malice"),
    ("a carriage return inside", b"ali\rce"),
    ("a letter that is not ASCII", "żółw".as_bytes()),
    ("a digit that is not ASCII", "٣".as_bytes()),
    ("what is no UTF-8", b"alice\xff"),
    ("33 letters", b"abcdefghijklmnopqrstuvwxyz0123456"),
    ("1,000 letters", &[b'x'; 1000]),
];

/// Whoever connects is asked for a name, and hears nothing else.
#[track_caller]
pub fn asks_for_a_name(server: &Server) {
    Lesson {
        tried: "a client connects, and waits for a line before it has sent anything; then it gives \
                its name and hears who is in the room",
        usually: "the question is sent with the answer to the first bytes, or has no line end: \
                  send it when the client is accepted",
        read: book::M8_ROOM,
    }
    .expect(|| {
        let mut guest = Guest::connect(server)?;
        guest.introduce("alice")?;
        guest.hears(Room(&[]))
    });
}

/// A newcomer hears who is in the room, itself and those without a name left out.
#[track_caller]
pub fn tells_a_newcomer_who_is_there(server: &Server) {
    Lesson {
        tried: "bob joins the empty room; a client connects and gives no name; carol joins, and \
                then alice",
        usually: "the newcomer is put into the list before it is told the list; or connections are \
                  listed, and not names; or nothing is sent because nobody is there",
        read: book::M8_ROOM,
    }
    .expect(|| {
        let _bob = Guest::join(server, "bob", &[])?;
        let _nameless = Guest::connect(server)?;
        let _carol = Guest::join(server, "carol", &["bob"])?;
        Guest::join(server, "alice", &["bob", "carol"]).map(drop)
    });
}

/// Members hear who enters and who leaves; those without a name neither hear nor are heard of.
#[track_caller]
pub fn announces_who_enters_and_who_leaves(server: &Server) {
    Lesson {
        tried: "alice and bob are members, and two clients have given no name; carol enters and \
                leaves; one of the nameless leaves; then the other one gives its name. Everybody \
                hears what concerns members, and the nameless hear nothing before they join",
        usually: "notices go to every connection instead of every member, or to the one whom they \
                  are about; or a client that never joined is said to have left",
        read: book::M8_ROOM,
    }
    .expect(|| {
        let (mut alice, mut bob) = alice_and_bob(server)?;
        let mut eve = Guest::connect(server)?;
        let nameless = Guest::connect(server)?;

        let carol = Guest::join(server, "carol", &["alice", "bob"])?;
        alice.hears(Entered("carol"))?;
        bob.hears(Entered("carol"))?;
        drop(carol);
        alice.hears(Left("carol"))?;
        bob.hears(Left("carol"))?;

        let descriptors = server.open_descriptors();
        drop(nameless);
        wait_until(
            "the server closed the connection of one that left",
            PATIENCE,
            || server.open_descriptors() < descriptors,
        )?;
        // Had anything been said in between, somebody would hear it now.
        eve.introduce("eve")?;
        eve.hears(Room(&["alice", "bob"]))?;
        alice.hears(Entered("eve"))?;
        bob.hears(Entered("eve"))
    });
}

/// What one says is heard by all other members, and by nobody else.
#[track_caller]
pub fn relays_a_line_to_all_others(server: &Server) {
    Lesson {
        tried: "alice, bob and carol are members, and eve has given no name. Each of the three \
                says something in turn, and then eve joins and says something",
        usually: "a line comes back to whoever said it; or goes to connections that have not \
                  joined; or only to the last one that joined",
        read: book::M8_ROOM,
    }
    .expect(|| {
        let names = ["alice", "bob", "carol"];
        let mut room = members(server, &names)?;
        let mut eve = Guest::connect(server)?;
        for (said, name) in names.iter().enumerate() {
            room[said].say(format!("I am {name}").as_bytes())?;
            // Each hears what the two others said, in order, and not what it said itself.
            for (index, guest) in room.iter_mut().enumerate() {
                if index != said {
                    guest.hears(Said(name, format!("I am {name}").as_bytes()))?;
                }
            }
        }
        eve.introduce("eve")?;
        eve.hears(Room(&names))?;
        eve.say(b"and I heard nothing of it")?;
        for guest in &mut room {
            guest.hears(Entered("eve"))?;
            guest.hears(Said("eve", b"and I heard nothing of it"))?;
        }
        still_talk(&mut room.pop().expect("carol"), &mut eve)
    });
}

/// A name is 1 to 32 ASCII letters and digits.
#[track_caller]
pub fn takes_names_of_letters_and_digits(server: &Server) {
    let lesson = Lesson {
        tried: "beside alice, others come and go: with names of 1 character, of 32, of digits \
                alone, in capitals, and one that ends its line with \\r\\n",
        usually: "the shortest or the longest name is refused, or one of digits alone; or the \\r \
                  is part of the name",
        read: book::M8_ROOM,
    };
    let mut alice = lesson.expect(|| Guest::join(server, "alice", &[]));
    for name in ["b", "7", LONGEST_NAME, "0123456789", "BOB", "Bob2"] {
        lesson.expect(|| {
            let mut guest = Guest::join(server, name, &["alice"])?;
            alice.hears(Entered(name))?;
            still_talk(&mut alice, &mut guest)?;
            drop(guest);
            alice.hears(Left(name))
        });
    }
    lesson.expect(|| {
        let mut bob = Guest::connect(server)?;
        bob.introduce("bob\r")?;
        "bob".clone_into(&mut bob.name);
        bob.hears(Room(&["alice"]))?;
        alice.hears(Entered("bob"))?;
        still_talk(&mut alice, &mut bob)
    });
}

/// Whoever gives what is no name is told so, and goes; nobody else hears of it.
#[track_caller]
pub fn refuses_other_names(server: &Server) {
    let lesson = Lesson {
        tried: "beside alice and bob, clients give names that are none: empty, too long, with \
                anything in it but ASCII letters and digits. Each is to hear one line and then the \
                end; alice and bob hear nothing",
        usually: "is_alphanumeric is asked, which knows letters of every script, instead of \
                  is_ascii_alphanumeric; the name is trimmed first; or the notice that it has left \
                  is sent although it never came",
        read: book::M8_ROOM,
    };
    let (mut alice, mut bob) = lesson.expect(|| alice_and_bob(server));
    for (what, name) in NO_NAMES {
        lesson.expect(|| {
            let mut guest = Guest::connect(server)?;
            guest.name = format!("a guest whose name is {what}");
            guest.say(name)?;
            guest.is_sent_away()?;
            still_talk(&mut alice, &mut bob)
        });
    }
}

/// Two members of one name could not be told apart.
#[track_caller]
pub fn refuses_a_name_in_use(server: &Server) {
    Lesson {
        tried: "beside alice and bob, another client gives the name alice; it is to hear one line \
                and then the end, and nobody else hears of it",
        usually: "the name's owner is thrown out, or is said to have left when the other one goes: \
                  the name was taken out of the table without a look at whose it is",
        read: book::M8_ROOM,
    }
    .expect(|| {
        let (mut alice, mut bob) = alice_and_bob(server)?;
        let mut other = Guest::connect(server)?;
        other.say(b"alice")?;
        other.is_sent_away()?;
        drop(other);
        still_talk(&mut alice, &mut bob)?;
        Guest::join(server, "carol", &["alice", "bob"]).map(drop)
    });
}

/// When its owner has gone, a name is free.
#[track_caller]
pub fn lets_a_name_be_used_again(server: &Server) {
    Lesson {
        tried: "bob leaves, and as soon as alice hears of it another client gives the name bob; \
                twenty times",
        usually: "the name is taken out of the table when the connection is closed, which is later \
                  than the notice that he has left; or is never taken out",
        read: book::M8_ROOM,
    }
    .expect(|| {
        let mut alice = Guest::join(server, "alice", &[])?;
        for round in 0..20 {
            let bob = Guest::join(server, "bob", &["alice"])?;
            alice.hears(Entered("bob"))?;
            match round % 3 {
                0 => drop(bob),
                1 => bob.client.reset(),
                _ => {
                    // He has left, and is still connected.
                    bob.client.half_close()?;
                    alice.hears(Left("bob"))?;
                    continue;
                }
            }
            alice.hears(Left("bob"))?;
        }
        Ok(())
    });
}

/// What a client has said beyond its bad name must not cost it the explanation.
#[track_caller]
pub fn explains_to_one_who_has_said_more(server: &Server) {
    let lesson = Lesson {
        tried: "a client sends a bad name and, without waiting, more lines; it is to hear one line \
                and then the end, and not a reset",
        usually: "the connection is closed with bytes unread, and the kernel then sends a reset, \
                  which throws away what the client has not read: shutdown(SHUT_WR), read and drop \
                  what still comes, and close after that",
        read: book::M8_ROOM,
    };
    let (mut alice, mut bob) = lesson.expect(|| alice_and_bob(server));
    for lines in [1, 100, 20_000] {
        lesson.expect(|| {
            let mut guest = Guest::connect(server)?;
            let more = "and that is not all\n".repeat(lines);
            guest.client.send(format!("no name\n{more}").as_bytes())?;
            guest.client.wait_until_acknowledged()?;
            guest.is_sent_away()?;
            still_talk(&mut alice, &mut bob)
        });
    }
    // The same when all of it, and the end of it, is there before the server looks.
    lesson.expect(|| {
        server.pause();
        let mut guest = Guest::new(server, Client::connect(server)?);
        guest.client.send(b"no name\nbut a lot to say\n")?;
        guest.client.half_close()?;
        server.resume();
        guest.line()?;
        guest.is_sent_away()?;
        still_talk(&mut alice, &mut bob)
    });
}

/// Name, lines and end may arrive together.
#[track_caller]
pub fn takes_a_whole_visit_in_one_segment(server: &Server) {
    Lesson {
        tried: "with the server stopped (SIGSTOP), a client connects, sends its name and two lines \
                at once, and does shutdown(SHUT_WR); when the server goes on, alice is to hear all \
                of it, and the client who is there, and then the end",
        usually: "the rest of the read is dropped when the name has been taken from it; or the end \
                  of input is handled before the lines that came with it; or the list is not sent \
                  to one who has no more to say",
        read: book::M8_LINES,
    }
    .expect(|| {
        let mut alice = Guest::join(server, "alice", &[])?;
        server.pause();
        let mut bob = Guest::new(server, Client::connect(server)?);
        bob.client.send(b"bob\nhello\nand goodbye\n")?;
        bob.client.half_close()?;
        server.resume();
        alice.hears(Entered("bob"))?;
        alice.hears(Said("bob", b"hello"))?;
        alice.hears(Said("bob", b"and goodbye"))?;
        alice.hears(Left("bob"))?;
        bob.line()?;
        bob.hears(Room(&["alice"]))?;
        bob.hears_the_end()
    });
}

/// A client that has no more to say still gets what was said before it left.
#[track_caller]
pub fn gives_a_half_closed_guest_what_it_was_owed(server: &Server) {
    Lesson {
        tried: "a client with small buffers joins and reads nothing while alice says 250 lines of \
                4,000 bytes; then it does shutdown(SHUT_WR), the others hear that it has left, and \
                alice says one line more. Only now does it read: everything up to its leaving, and \
                then the end",
        usually: "the end of input closes the connection although the outbox is not empty; or what \
                  is said after it has left is still sent",
        read: book::M5_HALF_CLOSE,
    }
    .expect(|| {
        let (mut sleepy, alice, mut bob) = super::a_member_that_does_not_read(server, 250)?;
        sleepy.client.half_close()?;
        bob.hears(Left("sleepy"))?;
        alice.say(b"too late for you")?;
        bob.hears(Said("alice", b"too late for you"))?;
        sleepy.line()?;
        sleepy.hears(Room(&["alice", "bob"]))?;
        for number in 0..250 {
            sleepy.hears(Said("alice", &super::text(number, 4000)))?;
        }
        sleepy.hears_the_end()
    });
}

/// However somebody goes, it has left.
#[track_caller]
pub fn says_that_one_who_resets_has_left(server: &Server) {
    Lesson {
        tried: "beside alice and bob, members come and leave with a reset (SO_LINGER 0): silent, \
                with a line unread by the server, and with lines unread by themselves",
        usually: "ECONNRESET from recv, or EPIPE from send, closes the connection on another path \
                  than the end of input does, and that path does not tell the others",
        read: book::M8_ROOM,
    }
    .expect(|| {
        let (mut alice, mut bob) = alice_and_bob(server)?;
        for round in 0..12 {
            let carol = Guest::join(server, "carol", &["alice", "bob"])?;
            alice.hears(Entered("carol"))?;
            bob.hears(Entered("carol"))?;
            let said = match round % 3 {
                0 => None,
                1 => {
                    server.pause();
                    carol.say(b"a reset may overtake this")?;
                    carol.client.wait_until_acknowledged()?;
                    Some(("carol", &b"a reset may overtake this"[..]))
                }
                _ => {
                    alice.say(b"carol does not read this")?;
                    bob.hears(Said("alice", b"carol does not read this"))?;
                    None
                }
            };
            carol.client.reset();
            if said.is_some() {
                server.resume();
            }
            // The reset throws away what the server had not read (tcp(7)): her line is heard or
            // not.
            for witness in [&mut alice, &mut bob] {
                let line = witness.line()?;
                let overtaken = said.is_some_and(|(name, text)| Said(name, text).is(&line, true));
                let line = if overtaken { witness.line()? } else { line };
                if !Left("carol").is(&line, witness.is_ours) {
                    return Err(witness.missed(
                        &Left("carol").to_string(),
                        &format!("heard \"{}\"", super::excerpt(&line)),
                    ));
                }
            }
        }
        still_talk(&mut alice, &mut bob)
    });
}

/// What a guest leaves behind is nothing.
#[track_caller]
pub fn closes_the_descriptor_of_every_guest_that_left(server: &Server) {
    Lesson {
        tried: "alice stays, and 80 clients come and leave: with a name and without, by closing, \
                by a reset, by shutdown(SHUT_WR), and by being sent away. Then the server should \
                have no descriptor more than before",
        usually: "the end of a connection was not seen; or one that was sent away is kept until \
                  its client goes, whose end of input was dropped with the rest of what it said",
        read: book::M8_ROOM,
    }
    .expect(|| {
        let mut alice = Guest::join(server, "alice", &[])?;
        let before = server.open_descriptors();
        for _ in 0..20 {
            let bob = Guest::join(server, "bob", &["alice"])?;
            alice.hears(Entered("bob"))?;
            drop(bob);
            alice.hears(Left("bob"))?;
            Guest::connect(server)?.client.reset();
            let mut carol = Guest::join(server, "carol", &["alice"])?;
            alice.hears(Entered("carol"))?;
            carol.say(b"bye")?;
            carol.client.half_close()?;
            alice.hears(Said("carol", b"bye"))?;
            alice.hears(Left("carol"))?;
            carol.hears_the_end()?;
            let mut eve = Guest::connect(server)?;
            eve.say(b"no name")?;
            eve.is_sent_away()?;
        }
        let mut now = 0;
        wait_until("as few open descriptors as before", PATIENCE, || {
            now = server.open_descriptors();
            now <= before
        })
        .map_err(|_| {
            Trouble::Server(format!(
                "the server had {before} descriptors open before and has {now} \
                                     now"
            ))
        })
    });
}

/// Three hundred guests, one after the other, as fast as they can.
#[track_caller]
pub fn serves_hundreds_of_guests_in_turn(server: &Server) {
    Lesson {
        tried: "300 clients, one after the other: connect, join, say something, close; alice hears \
                all of it",
        usually: "something is left behind by every connection: a descriptor, a table's entry, a \
                  name",
        read: book::M8_ROOM,
    }
    .expect(|| {
        let mut alice = Guest::join(server, "alice", &[])?;
        for round in 0..300 {
            let name = format!("guest{round}");
            let guest = Guest::join(server, &name, &["alice"])?;
            guest.say(name.as_bytes())?;
            alice.hears(Entered(&name))?;
            alice.hears(Said(&name, name.as_bytes()))?;
            drop(guest);
            alice.hears(Left(&name))?;
        }
        Ok(())
    });
}
