//! The contract of the eighth milestone: what one says reaches all others, and nobody holds them
//! up.
//!
//! It ends at its wall: an HTTP client gets no HTTP answer.
//!
//! The list of its checks is in `contracts/chat.rs`: the ninth milestone keeps them as well.

use assert_cmd::cargo::cargo_bin;
use support::{Program, Protocol, Wall, foreign, walls};

#[macro_use]
#[path = "contracts/chat.rs"]
mod contract;

/// The milestone, or the program that the environment names in `SERVER`.
fn m8() -> Program {
    Program::under_test(env!("CARGO_PKG_NAME"), cargo_bin!("m8-chat")).speaking(Protocol::Chat)
}

chat_contract!(m8);

// Walls

#[test]
fn lets_a_line_reach_another_client() {
    walls::must_hold(&m8(), Wall::ClientsAreAlone, walls::a_line_for_another);
}

#[test]
fn gives_an_http_client_no_http() {
    walls::must_hit(&m8(), Wall::SpeaksNoHttp, walls::an_http_client);
}

// Other people's servers

#[test]
fn judges_a_server_in_python() {
    foreign::judge_python_chat();
}
