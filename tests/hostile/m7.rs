//! Hostile clients, and the seventh milestone.

use assert_cmd::cargo::cargo_bin;
use support::Program;

#[macro_use]
#[path = "../contracts/hostile.rs"]
mod hostile_contract;

/// The milestone, or the program that the environment names in `SERVER`.
fn m7() -> Program {
    Program::under_test(env!("CARGO_PKG_NAME"), cargo_bin!("m7-stats"))
}

hostile_contract!(m7);
