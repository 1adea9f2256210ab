//! The contract of the ninth milestone: one loop, and three protocols over it.
//!
//! It keeps the contracts of the milestones before, each as it stands in `contracts/`, and that of
//! an HTTP server. A program named in `SERVER` is started without options, so it is judged by what
//! it does without any: as `auto`.

use assert_cmd::cargo::cargo_bin;
use support::{Program, Protocol, Wall, walls};

#[macro_use]
#[path = "contracts/chat.rs"]
mod chat_contract;
#[macro_use]
#[path = "contracts/echo.rs"]
mod echo_contract;
#[macro_use]
#[path = "contracts/http.rs"]
mod http_contract;

/// The milestone, or the program that the environment names in `SERVER`.
fn m9() -> Program {
    Program::under_test("epoll_echo_server", cargo_bin!("epoll_echo_server"))
}

/// The milestone, told to speak this.
fn m9_speaking(name: &str, protocol: Protocol) -> Program {
    m9().with_options(["--protocol", name]).speaking(protocol)
}

mod auto {
    use super::{Program, Protocol, m9};

    /// HTTP clients are told from others by what they send.
    fn http() -> Program {
        m9().speaking(Protocol::EchoOrHttp)
    }

    echo_contract!(m9);
    http_contract!(http);
    support::tests! { server of http:
        http::decides_on_the_first_read();
        http::echoes_a_file_with_a_request_in_its_middle();
        http::serves_echo_and_http_side_by_side();
    }
}

mod echo {
    use super::{Program, Protocol, m9_speaking};

    fn program() -> Program {
        m9_speaking("echo", Protocol::Echo)
    }

    echo_contract!(program);
}

mod chat {
    use super::{Program, Protocol, m9_speaking};

    fn program() -> Program {
        m9_speaking("chat", Protocol::Chat)
    }

    chat_contract!(program);
    support::tests! { wall before program:
        walls::a_line_for_another(ClientsAreAlone);
    }
}

mod http {
    use super::{Program, Protocol, m9_speaking};

    fn program() -> Program {
        m9_speaking("http", Protocol::Http)
    }

    http_contract!(program);
    support::tests! { server of program:
        http::takes_requests_split_anywhere();
        http::refuses_what_begins_with_no_request();
    }
    support::tests! { program program:
        command_line::announces_itself("epoll echo server on port {} (edge-triggered)");
        command_line::prints_statistics_every_second();
        command_line::ends_in_good_order();
        command_line::ends_at_once_at_the_second_signal();
    }
}

// The command line

#[test]
fn helps_with_protocols() {
    support::command_line::names_options(
        &m9(),
        &["--protocol <NAME>", "auto", "echo", "chat", "http"],
    );
}

#[test]
fn refuses_a_protocol_that_it_does_not_speak() {
    support::command_line::refuses_unknown_protocols(&m9());
}

// Walls

#[test]
fn gives_an_http_client_http() {
    walls::must_hold(&m9(), Wall::SpeaksNoHttp, walls::an_http_client);
}

/// What the seventh milestone keeps, the ninth keeps: a check that is added there has to be added
/// to the list that is kept here.
#[test]
fn keeps_every_check_of_the_seventh_milestone() {
    /// Of m7's own wall it keeps the other side.
    const ITS_WALL: &str = "walls::a_line_for_another";
    let theirs = include_str!("m7_stats.rs");
    let kept = include_str!("contracts/echo.rs");
    for module in [
        "behaviour::",
        "mechanism::",
        "descriptors::",
        "command_line::",
        "walls::",
    ] {
        for (at, _) in theirs.match_indices(module) {
            let name = &theirs[at + module.len()..];
            let end = name
                .find(|c: char| !c.is_ascii_lowercase() && c != '_')
                .unwrap_or(0);
            let check = format!("{module}{}", &name[..end]);
            let is_check = end > 0 && !check.starts_with("walls::must_") && check != ITS_WALL;
            assert!(
                !is_check || kept.contains(&check),
                "contracts/echo.rs lacks {check}"
            );
        }
    }
}
