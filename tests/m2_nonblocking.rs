//! The contract of the second milestone: many clients at once on one thread.
//!
//! A silent client no longer keeps anybody waiting. It ends at its wall: the server never rests.

use assert_cmd::cargo::cargo_bin;
use support::{
    Program, Setup, Wall, behaviour, command_line,
    descriptors::{self, AtTheLimit, FEW},
    mechanism, walls,
};

/// The milestone, or the program that the environment names in `SERVER`.
fn m2() -> Program {
    Program::under_test(env!("CARGO_PKG_NAME"), cargo_bin!("m2-nonblocking"))
}

// Behaviour: one client at a time

#[test]
fn echoes_one_line() {
    behaviour::echoes_one_line(&m2().start());
}

#[test]
fn echoes_bytes_split_over_many_writes() {
    behaviour::echoes_bytes_split_over_many_writes(&m2().start());
}

#[test]
fn echoes_one_byte_at_a_time() {
    behaviour::echoes_one_byte_at_a_time(&m2().start());
}

#[test]
fn echoes_every_byte_value() {
    behaviour::echoes_every_byte_value(&m2().start());
}

#[test]
fn echoes_megabytes() {
    behaviour::echoes_megabytes(&m2().start());
}

#[test]
fn echoes_a_burst_to_the_last_byte() {
    behaviour::echoes_a_burst_to_the_last_byte(&m2().start());
}

#[test]
fn echoes_what_arrived_before_the_half_close() {
    behaviour::echoes_what_arrived_before_the_half_close(&m2().start());
}

#[test]
fn echoes_what_was_queued_together_with_the_half_close() {
    behaviour::echoes_what_was_queued_together_with_the_half_close(&m2().start());
}

#[test]
fn closes_a_client_that_sends_nothing() {
    behaviour::closes_a_client_that_sends_nothing(&m2().start());
}

#[test]
fn gives_a_slow_reader_every_byte() {
    behaviour::gives_a_slow_reader_every_byte(&m2().start());
}

#[test]
fn outlives_clients_that_only_connect() {
    behaviour::outlives_clients_that_only_connect(&m2().start());
}

#[test]
fn outlives_a_reset_of_an_idle_client() {
    behaviour::outlives_a_reset_of_an_idle_client(&m2().start());
}

#[test]
fn outlives_a_reset_with_data_in_flight() {
    behaviour::outlives_a_reset_with_data_in_flight(&m2().start());
}

#[test]
fn outlives_clients_that_leave_before_they_are_accepted() {
    behaviour::outlives_clients_that_leave_before_they_are_accepted(&m2().start());
}

#[test]
fn serves_everyone_in_a_burst_of_connections() {
    behaviour::serves_everyone_in_a_burst_of_connections(&m2().start());
}

#[test]
fn serves_hundreds_of_clients_in_turn() {
    behaviour::serves_hundreds_of_clients_in_turn(&m2().start());
}

#[test]
fn closes_the_descriptor_of_every_client_that_left() {
    behaviour::closes_the_descriptor_of_every_client_that_left(&m2().start());
}

#[test]
fn goes_on_after_being_stopped() {
    behaviour::goes_on_after_being_stopped(&m2().start());
}

#[test]
fn restarts_on_its_port_with_clients_connected() {
    behaviour::restarts_on_its_port_with_clients_connected(&m2().start());
}

// Behaviour: many clients at once

#[test]
fn serves_others_while_one_is_silent() {
    behaviour::serves_others_while_one_is_silent(&m2().start());
}

#[test]
fn keeps_interleaved_clients_apart() {
    behaviour::keeps_interleaved_clients_apart(&m2().start());
}

#[test]
fn echoes_megabytes_of_several_clients_at_once() {
    behaviour::echoes_megabytes_of_several_clients_at_once(&m2().start());
}

#[test]
fn serves_hundreds_of_clients_at_once() {
    behaviour::serves_hundreds_of_clients_at_once(&m2().start());
}

#[test]
fn keeps_others_when_one_resets() {
    behaviour::keeps_others_when_one_resets(&m2().start());
}

// Mechanism

#[test]
fn sockets_are_non_blocking() {
    mechanism::sockets_are_non_blocking(&m2().start());
}

#[test]
fn runs_in_one_thread() {
    mechanism::runs_in_one_thread(&m2().start());
}

#[test]
fn sends_the_rest_of_a_partial_send() {
    mechanism::sends_the_rest_of_a_partial_send(&m2().start());
}

// When descriptors run out

#[test]
fn serves_what_fits_into_16_descriptors() {
    descriptors::serves_what_fits(
        &m2(),
        Setup::new().soft_descriptors(FEW),
        AtTheLimit::NeverRests,
    );
}

#[test]
fn waits_when_nobody_fits() {
    descriptors::waits_when_nobody_fits(&m2(), 4, AtTheLimit::NeverRests);
}

// The command line

#[test]
fn helps() {
    command_line::helps(&m2(), env!("CARGO_PKG_DESCRIPTION"));
}

#[test]
fn tells_its_version() {
    command_line::tells_its_version(&m2(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn announces_itself() {
    command_line::announces_itself(&m2(), "non-blocking echo server on port {}");
}

#[test]
fn refuses_a_wrong_command_line() {
    command_line::refuses_a_wrong_command_line(&m2());
}

#[test]
fn says_that_an_address_is_not_ours() {
    command_line::says_that_an_address_is_not_ours(&m2());
}

#[test]
fn says_that_a_port_is_in_use() {
    command_line::says_that_a_port_is_in_use(&m2());
}

#[test]
fn says_that_a_port_is_privileged() {
    command_line::says_that_a_port_is_privileged(&m2());
}

#[test]
fn serves_without_standard_output() {
    command_line::serves_without_standard_output(&m2());
}

#[test]
fn serves_ipv6() {
    command_line::serves_ipv6(&m2());
}

#[test]
fn listens_on_loopback_only_unless_asked() {
    command_line::listens_on_loopback_only_unless_asked(&m2());
}

// Walls

#[test]
fn serves_a_second_client_while_the_first_is_silent() {
    walls::must_hold(&m2(), Wall::ServesOneAtATime, walls::a_silent_client);
}

// ANCHOR: wall
#[test]
fn never_rests() {
    walls::must_hit(&m2(), Wall::NeverRests, mechanism::fifty_silent_clients);
}
// ANCHOR_END: wall
