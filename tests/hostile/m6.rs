//! Hostile clients, and the sixth milestone.

use assert_cmd::cargo::cargo_bin;
use support::Program;

#[macro_use]
#[path = "../contracts/hostile.rs"]
mod hostile_contract;

/// The milestone, or the program that the environment names in `SERVER`.
fn m6() -> Program {
    Program::under_test(env!("CARGO_PKG_NAME"), cargo_bin!("m6-10k-tuning"))
}

hostile_contract!(m6);
