//! The contract of the first milestone: one client at a time, every byte, and no client can end the
//! server.
//!
//! It ends at its wall: a second client waits while the first one is silent.

use assert_cmd::cargo::cargo_bin;
use support::{
    Program, Wall, behaviour, command_line,
    descriptors::{self, AtTheLimit},
    mechanism, walls,
};

/// The milestone, or the program that the environment names in `SERVER`.
fn m1() -> Program {
    Program::under_test(env!("CARGO_PKG_NAME"), cargo_bin!("m1-blocking-echo"))
}

// Behaviour: one client at a time

#[test]
fn echoes_one_line() {
    behaviour::echoes_one_line(&m1().start());
}

#[test]
fn echoes_bytes_split_over_many_writes() {
    behaviour::echoes_bytes_split_over_many_writes(&m1().start());
}

#[test]
fn echoes_one_byte_at_a_time() {
    behaviour::echoes_one_byte_at_a_time(&m1().start());
}

#[test]
fn echoes_every_byte_value() {
    behaviour::echoes_every_byte_value(&m1().start());
}

#[test]
fn echoes_megabytes() {
    behaviour::echoes_megabytes(&m1().start());
}

#[test]
fn echoes_a_burst_to_the_last_byte() {
    behaviour::echoes_a_burst_to_the_last_byte(&m1().start());
}

#[test]
fn echoes_what_arrived_before_the_half_close() {
    behaviour::echoes_what_arrived_before_the_half_close(&m1().start());
}

#[test]
fn echoes_what_was_queued_together_with_the_half_close() {
    behaviour::echoes_what_was_queued_together_with_the_half_close(&m1().start());
}

#[test]
fn closes_a_client_that_sends_nothing() {
    behaviour::closes_a_client_that_sends_nothing(&m1().start());
}

#[test]
fn gives_a_slow_reader_every_byte() {
    behaviour::gives_a_slow_reader_every_byte(&m1().start());
}

#[test]
fn outlives_clients_that_only_connect() {
    behaviour::outlives_clients_that_only_connect(&m1().start());
}

#[test]
fn outlives_a_reset_of_an_idle_client() {
    behaviour::outlives_a_reset_of_an_idle_client(&m1().start());
}

#[test]
fn outlives_a_reset_with_data_in_flight() {
    behaviour::outlives_a_reset_with_data_in_flight(&m1().start());
}

#[test]
fn outlives_clients_that_leave_before_they_are_accepted() {
    behaviour::outlives_clients_that_leave_before_they_are_accepted(&m1().start());
}

#[test]
fn serves_everyone_in_a_burst_of_connections() {
    behaviour::serves_everyone_in_a_burst_of_connections(&m1().start());
}

#[test]
fn serves_hundreds_of_clients_in_turn() {
    behaviour::serves_hundreds_of_clients_in_turn(&m1().start());
}

#[test]
fn closes_the_descriptor_of_every_client_that_left() {
    behaviour::closes_the_descriptor_of_every_client_that_left(&m1().start());
}

#[test]
fn goes_on_after_being_stopped() {
    behaviour::goes_on_after_being_stopped(&m1().start());
}

#[test]
fn restarts_on_its_port_with_clients_connected() {
    behaviour::restarts_on_its_port_with_clients_connected(&m1().start());
}

// Mechanism

#[test]
fn runs_in_one_thread() {
    mechanism::runs_in_one_thread(&m1().start());
}

// When descriptors run out

#[test]
fn waits_when_nobody_fits() {
    descriptors::waits_when_nobody_fits(&m1(), 4, AtTheLimit::Rests);
}

#[test]
fn serves_in_turn_with_few_descriptors() {
    descriptors::serves_in_turn(&m1());
}

// The command line

#[test]
fn helps() {
    command_line::helps(&m1(), env!("CARGO_PKG_DESCRIPTION"));
}

#[test]
fn tells_its_version() {
    command_line::tells_its_version(&m1(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn announces_itself() {
    command_line::announces_itself(&m1(), "blocking echo server on port {}");
}

#[test]
fn refuses_a_wrong_command_line() {
    command_line::refuses_a_wrong_command_line(&m1());
}

#[test]
fn says_that_an_address_is_not_ours() {
    command_line::says_that_an_address_is_not_ours(&m1());
}

#[test]
fn says_that_a_port_is_in_use() {
    command_line::says_that_a_port_is_in_use(&m1());
}

#[test]
fn says_that_a_port_is_privileged() {
    command_line::says_that_a_port_is_privileged(&m1());
}

#[test]
fn serves_without_standard_output() {
    command_line::serves_without_standard_output(&m1());
}

#[test]
fn serves_ipv6() {
    command_line::serves_ipv6(&m1());
}

#[test]
fn listens_on_loopback_only_unless_asked() {
    command_line::listens_on_loopback_only_unless_asked(&m1());
}

// Walls

// ANCHOR: wall
#[test]
fn a_second_client_waits_while_the_first_is_silent() {
    walls::must_hit(&m1(), Wall::ServesOneAtATime, walls::a_silent_client);
}
// ANCHOR_END: wall
