//! Echo or HTTP: the first read of a connection decides.

use super::{Browser, GET, LAST};
use crate::{
    Client, Server,
    explain::{Lesson, book},
    pattern,
};

/// A whole request line in the first read makes a connection HTTP; everything else is echoed for
/// good.
#[track_caller]
pub fn decides_on_the_first_read(server: &Server) {
    let lesson = Lesson {
        tried: "connections whose first bytes are a whole request line and more, or just the line; \
                half a request line, and the rest of it when that has come back; other words, and \
                a request after them. The first kind is to be answered, all else to be echoed",
        usually: "the server waits for the rest of what might become a request line, so that an \
                  echo client that sends \"GET\" and waits never gets it back; or looks for \
                  requests in later reads as well, and then cuts them out of a file that holds one",
        read: book::M9_FIRST_READ,
    };
    // HTTP: the rest may come when it likes.
    let line = GET.find('\n').map_or(0, |end| end + 1);
    for at in [line, line + 1, GET.len()] {
        lesson.expect(|| {
            let mut browser = Browser::connect(server)?;
            let (first, rest) = GET.split_at(at);
            browser.send(first)?;
            browser.client.wait_until_acknowledged()?;
            browser.send(rest)?;
            browser.gets_it_back(GET)?;
            browser.send(LAST)?;
            browser.gets_it_back(LAST)?;
            browser.ends()
        });
    }
    // Echo: the first part, whatever it is, comes back before the second is sent, so no read can
    // hold both.
    let parts = |at: usize| [GET[..at].to_owned(), GET[at..].to_owned()];
    let others = [
        ["\r\n".to_owned(), GET.to_owned()],
        ["hello\n".to_owned(), GET.to_owned()],
        [format!("see:\n{GET}"), GET.to_owned()],
        [format!(" {GET}"), GET.to_owned()],
        ["GET /\r\n".to_owned(), GET.to_owned()],
        ["get http/1.1\r\n".to_owned(), GET.to_owned()],
        ["\0".to_owned(), GET.to_owned()],
    ];
    for [first, second] in (1..line).map(parts).chain(others) {
        lesson.expect(|| {
            let client = Client::connect(server)?;
            client.echo(first.as_bytes())?;
            client.echo(second.as_bytes())?;
            client.echo(GET.as_bytes())?;
            client.half_close()?;
            client.expect_eof()
        });
    }
}

/// A stream that is not HTTP in its first read comes back unchanged, whatever is in it.
#[track_caller]
pub fn echoes_a_file_with_a_request_in_its_middle(server: &Server) {
    Lesson {
        tried: "a file of 2 MiB with \"GET / HTTP/1.1\" in its middle is sent and received: at odd \
                places, at every place where a buffer is likely to begin, and at the very end",
        usually: "requests are looked for in later reads as well: decide once, and remember it",
        read: book::M9_FIRST_READ,
    }
    .expect(|| {
        let mut file = pattern(1, 2 << 20);
        // Random bytes do not begin with a request line, and this says so to the reader.
        file[..6].copy_from_slice(b"a file");
        let mut put = |at: usize| file[at..at + GET.len()].copy_from_slice(GET.as_bytes());
        (1..500).map(|number| number * 4096).for_each(&mut put);
        [1001, 1 << 20, (1 << 20) + 77, (2 << 20) - GET.len()]
            .into_iter()
            .for_each(&mut put);
        let client = Client::connect(server)?;
        client.exchange(&file)?;
        client.half_close()?;
        client.expect_eof()?;
        // And so that every read begins with one.
        let client = Client::connect(server)?;
        client.echo(b"a file, line by line:\n")?;
        (0..100).try_for_each(|_| client.echo(GET.as_bytes()))
    });
}

/// Many connections of both kinds at once.
#[track_caller]
pub fn serves_echo_and_http_side_by_side(server: &Server) {
    Lesson {
        tried: "100 clients, every second of which speaks HTTP and the others do not, hold 20 \
                exchanges each, all at once",
        usually: "what was decided is kept for the descriptor, or for everybody, instead of the \
                  connection",
        read: book::M9_FIRST_READ,
    }
    .expect(|| {
        for _ in 0..2 {
            let mut clients = (0..100)
                .map(|_| Browser::connect(server))
                .collect::<Result<Vec<_>, _>>()?;
            for round in 0..20 {
                for (number, browser) in clients.iter().enumerate() {
                    match number % 2 {
                        0 => browser.send(GET)?,
                        _ => browser.send(pattern(round + number as u64, 100))?,
                    }
                }
                for (number, browser) in clients.iter_mut().enumerate().rev() {
                    match number % 2 {
                        0 => drop(browser.gets_it_back(GET)?),
                        _ => browser
                            .client
                            .expect(&pattern(round + number as u64, 100))?,
                    }
                }
            }
        }
        Ok(())
    });
}
