//! Hostile clients, and the ninth milestone.

use assert_cmd::cargo::cargo_bin;
use support::{Program, Protocol};

#[macro_use]
#[path = "../contracts/hostile.rs"]
mod hostile_contract;

/// The milestone, or the program that the environment names in `SERVER`.
fn m9() -> Program {
    Program::under_test("epoll_echo_server", cargo_bin!("epoll_echo_server"))
}

/// HTTP clients are told from others by what they send.
fn http() -> Program {
    m9().speaking(Protocol::EchoOrHttp)
}

hostile_contract!(m9);
support::tests! { server of http:
    hostile::keeps_unfinished_requests_bounded();
}
