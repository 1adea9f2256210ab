//! The crowd against servers that are right, and servers that are not.

mod server;

use std::time::Duration;

use loadgen::pattern::Meaning;
use loadgen::{Close, Crowd, Error, Fault, Mismatch, Options};
use server::{EVERY, Flaw, Server};

/// One connection echoes `message` bytes a time until the flawed byte number 999,999 is among them.
fn first_mismatch(flaw: Flaw, message: u64) -> Mismatch {
    let server = Server::start(flaw);
    let mut crowd = Crowd::connect(server.address, 1, Options::default()).unwrap();
    for round in 0..300 {
        match crowd.echo(message) {
            Ok(_) => {}
            Err(Error::Mismatch(mismatch)) => return mismatch,
            Err(error) => panic!("round {round}: {error}"),
        }
    }
    panic!("{flaw:?} was not noticed in 1,200,000 bytes");
}

#[test]
fn every_one_of_1_500_connections_gets_every_byte_back() {
    let server = Server::start(Flaw::None);
    let mut crowd = Crowd::connect(server.address, 1_500, Options::default()).unwrap();
    assert_eq!(crowd.len(), 1_500);
    assert_eq!(crowd.echo(1_024).unwrap().bytes, 1_500 * 1_024);
    crowd.close(500);
    assert_eq!(crowd.len(), 1_000);
    assert_eq!(crowd.echo(100).unwrap().bytes, 1_000 * 100);
}

#[test]
fn megabytes_pass_through_small_buffers() {
    let server = Server::start(Flaw::None);
    let options = Options {
        receive_buffer: Some(4096),
        send_buffer: Some(4096),
        ..Options::default()
    };
    let mut crowd = Crowd::connect(server.address, 3, options).unwrap();
    assert_eq!(crowd.echo(1 << 20).unwrap().bytes, 3 << 20);
}

#[test]
fn connections_to_loopback_come_from_several_addresses() {
    let server = Server::start(Flaw::None);
    let options = Options {
        first: 3_999,
        ..Options::default()
    };
    let crowd = Crowd::connect(server.address, 2, options).unwrap();
    assert_eq!(crowd.local_addr(0).unwrap().ip().to_string(), "127.0.0.2");
    assert_eq!(crowd.local_addr(1).unwrap().ip().to_string(), "127.0.0.3");
}

#[test]
fn ipv6_works() {
    let server = Server::on("[::1]:0".parse().unwrap(), Flaw::None);
    let mut crowd = Crowd::connect(server.address, 100, Options::default()).unwrap();
    assert_eq!(crowd.echo(1_000).unwrap().bytes, 100_000);
}

#[test]
fn ports_do_not_run_out_run_after_run() {
    let server = Server::start(Flaw::None);
    for _ in 0..20 {
        let mut crowd = Crowd::connect(server.address, 1_500, Options::default()).unwrap();
        crowd.echo(1).unwrap();
    }
}

#[test]
fn names_the_changed_byte() {
    let mismatch = first_mismatch(Flaw::Corrupt, 4_096);
    assert_eq!(
        (mismatch.offset, mismatch.meaning),
        (EVERY - 1, Meaning::Changed(1))
    );
    assert_eq!(mismatch.expected, Some(mismatch.got ^ 0x20));
}

#[test]
fn names_the_first_of_two_swapped_bytes() {
    let mismatch = first_mismatch(Flaw::Reorder, 4_096);
    assert_eq!(
        (mismatch.offset, mismatch.meaning),
        (EVERY - 1, Meaning::Swapped(2))
    );
}

#[test]
fn names_the_place_of_the_lost_byte() {
    let mismatch = first_mismatch(Flaw::Drop, 4_096);
    assert_eq!(
        (mismatch.offset, mismatch.meaning),
        (EVERY - 1, Meaning::Missing(1))
    );
}

#[test]
fn names_the_repeated_byte() {
    let mismatch = first_mismatch(Flaw::Repeat, 4_096);
    assert_eq!(
        (mismatch.offset, mismatch.meaning),
        (EVERY, Meaning::Repeated(1))
    );
}

#[test]
fn names_the_byte_that_is_one_too_many() {
    let mismatch = first_mismatch(Flaw::Repeat, 4_000);
    assert_eq!((mismatch.offset, mismatch.expected), (EVERY, None));
}

#[test]
fn does_not_guess_from_the_last_byte_of_all() {
    let mismatch = first_mismatch(Flaw::Corrupt, 4_000);
    assert_eq!(
        (mismatch.offset, mismatch.meaning),
        (EVERY - 1, Meaning::Unclear)
    );
}

#[test]
fn a_lost_byte_is_missed_at_the_deadline() {
    let server = Server::start(Flaw::Drop);
    let options = Options {
        deadline: Duration::from_millis(300),
        ..Options::default()
    };
    let mut crowd = Crowd::connect(server.address, 1, options).unwrap();
    let error = (0..300).find_map(|_| crowd.echo(4000).err()).unwrap();
    let Error::Timeout {
        connection: 0,
        sent,
        received,
        waiting: 1,
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!((sent, received), (EVERY, EVERY - 1));
    assert!(error.to_string().contains("offset 999999"), "{error}");
}

#[test]
fn a_connection_that_the_server_closes_is_an_error() {
    let server = Server::start(Flaw::Close);
    let mut crowd = Crowd::connect(server.address, 1, Options::default()).unwrap();
    let error = (0..300).find_map(|_| crowd.echo(4000).err()).unwrap();
    let Error::Broken {
        connection: 0,
        received,
        fault,
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(received, EVERY - 4000);
    assert!(matches!(fault, Fault::Closed | Fault::Read(_)), "{fault:?}");
}

#[test]
fn a_refused_connection_is_explained() {
    let (_socket, address) = server::refusing();
    let error = Crowd::connect(address, 10, Options::default())
        .err()
        .unwrap();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(
        error.to_string().contains(&format!(
            "nothing listens on {address}: start the server first"
        )),
        "{error}"
    );
}

#[test]
fn more_than_the_hard_limit_allows_is_explained() {
    let server = Server::start(Flaw::None);
    let error = Crowd::connect(server.address, 2_000_000_000, Options::default())
        .err()
        .unwrap();
    assert!(
        matches!(
            error,
            Error::TooManyConnections {
                wanted: 2_000_000_000,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("hard limit"), "{error}");
}

#[test]
fn a_server_that_accepts_nobody_is_noticed() {
    let server = Server::start(Flaw::Deaf);
    let options = Options {
        deadline: Duration::from_millis(300),
        ..Options::default()
    };
    let mut crowd = Crowd::connect(server.address, 5, options).unwrap();
    let error = crowd.echo(64).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Timeout {
                received: 0,
                waiting: 5,
                of: 5,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("not accepted"), "{error:?}");
}

#[test]
fn a_fin_can_be_asked_for_instead_of_a_reset() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    for (close, expected) in [
        (Close::Fin, None),
        (Close::Reset, Some(std::io::ErrorKind::ConnectionReset)),
    ] {
        let crowd = Crowd::connect(
            target,
            1,
            Options {
                close,
                ..Options::default()
            },
        )
        .unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        drop(crowd);
        let ended = std::io::Read::read(&mut stream, &mut [0; 16]);
        assert_eq!(ended.err().map(|error| error.kind()), expected, "{close:?}");
    }
}
