//! The contract of the fifth milestone: no client waits for another, whatever the other does.
//!
//! It ends at its walls: the soft limit on descriptors, and kilobytes for every idle connection.

use assert_cmd::cargo::cargo_bin;
use support::{
    Program, Setup, Wall, behaviour, command_line,
    descriptors::{self, AtTheLimit, FEW},
    explain::book,
    foreign,
    mechanism::{self, EPOLLIN, EPOLLOUT, Trigger},
    skipped, walls,
};

/// The milestone, or the program that the environment names in `SERVER`.
fn m5() -> Program {
    Program::under_test(env!("CARGO_PKG_NAME"), cargo_bin!("m5-connection-contexts"))
}

// Behaviour: one client at a time

#[test]
fn echoes_one_line() {
    behaviour::echoes_one_line(&m5().start());
}

#[test]
fn echoes_bytes_split_over_many_writes() {
    behaviour::echoes_bytes_split_over_many_writes(&m5().start());
}

#[test]
fn echoes_one_byte_at_a_time() {
    behaviour::echoes_one_byte_at_a_time(&m5().start());
}

#[test]
fn echoes_every_byte_value() {
    behaviour::echoes_every_byte_value(&m5().start());
}

#[test]
fn echoes_megabytes() {
    behaviour::echoes_megabytes(&m5().start());
}

#[test]
fn echoes_a_burst_to_the_last_byte() {
    behaviour::echoes_a_burst_to_the_last_byte(&m5().start());
}

#[test]
fn echoes_what_arrived_before_the_half_close() {
    behaviour::echoes_what_arrived_before_the_half_close(&m5().start());
}

#[test]
fn echoes_what_was_queued_together_with_the_half_close() {
    behaviour::echoes_what_was_queued_together_with_the_half_close(&m5().start());
}

#[test]
fn closes_a_client_that_sends_nothing() {
    behaviour::closes_a_client_that_sends_nothing(&m5().start());
}

#[test]
fn gives_a_slow_reader_every_byte() {
    behaviour::gives_a_slow_reader_every_byte(&m5().start());
}

#[test]
fn outlives_clients_that_only_connect() {
    behaviour::outlives_clients_that_only_connect(&m5().start());
}

#[test]
fn outlives_a_reset_of_an_idle_client() {
    behaviour::outlives_a_reset_of_an_idle_client(&m5().start());
}

#[test]
fn outlives_a_reset_with_data_in_flight() {
    behaviour::outlives_a_reset_with_data_in_flight(&m5().start());
}

#[test]
fn outlives_clients_that_leave_before_they_are_accepted() {
    behaviour::outlives_clients_that_leave_before_they_are_accepted(&m5().start());
}

#[test]
fn serves_everyone_in_a_burst_of_connections() {
    behaviour::serves_everyone_in_a_burst_of_connections(&m5().start());
}

#[test]
fn serves_hundreds_of_clients_in_turn() {
    behaviour::serves_hundreds_of_clients_in_turn(&m5().start());
}

#[test]
fn closes_the_descriptor_of_every_client_that_left() {
    behaviour::closes_the_descriptor_of_every_client_that_left(&m5().start());
}

#[test]
fn goes_on_after_being_stopped() {
    behaviour::goes_on_after_being_stopped(&m5().start());
}

#[test]
fn restarts_on_its_port_with_clients_connected() {
    behaviour::restarts_on_its_port_with_clients_connected(&m5().start());
}

// Behaviour: many clients at once

#[test]
fn serves_others_while_one_is_silent() {
    behaviour::serves_others_while_one_is_silent(&m5().start());
}

#[test]
fn keeps_interleaved_clients_apart() {
    behaviour::keeps_interleaved_clients_apart(&m5().start());
}

#[test]
fn echoes_megabytes_of_several_clients_at_once() {
    behaviour::echoes_megabytes_of_several_clients_at_once(&m5().start());
}

#[test]
fn serves_hundreds_of_clients_at_once() {
    behaviour::serves_hundreds_of_clients_at_once(&m5().start());
}

#[test]
fn keeps_others_when_one_resets() {
    behaviour::keeps_others_when_one_resets(&m5().start());
}

// Behaviour: no client holds up another

#[test]
fn serves_others_while_one_does_not_read() {
    behaviour::serves_others_while_one_does_not_read(&m5().start());
}

#[test]
fn serves_one_beside_a_hundred_that_do_not_read() {
    behaviour::serves_one_beside_a_hundred_that_do_not_read(&m5().start());
}

#[test]
fn sends_nothing_around_what_waits() {
    behaviour::sends_nothing_around_what_waits(&m5().start());
}

#[test]
fn keeps_what_a_half_closed_client_has_not_read() {
    behaviour::keeps_what_a_half_closed_client_has_not_read(&m5().start());
}

// Mechanism

#[test]
fn sockets_are_non_blocking() {
    mechanism::sockets_are_non_blocking(&m5().start());
}

#[test]
fn runs_in_one_thread() {
    mechanism::runs_in_one_thread(&m5().start());
}

#[test]
fn registers_clients_edge_triggered() {
    mechanism::registers_clients(&m5().start(), Trigger::Edge, EPOLLIN | EPOLLOUT);
}

#[test]
fn registers_the_listener_edge_triggered() {
    // A right server may keep its listener level-triggered; many do, and the sixth milestone will.
    if m5().is_foreign() {
        return skipped("edge- or level-triggered, a listener may be either");
    }
    mechanism::registers_the_listener(&m5().start(), Trigger::Edge);
}

#[test]
fn costs_one_wake_up_and_one_send_per_echo() {
    mechanism::costs_per_echo(&m5().start(), 2, book::M4_DRAIN);
}

#[test]
fn rests_after_load() {
    mechanism::rests_after_load(&m5().start());
}

#[test]
fn outlives_calls_that_fail() {
    mechanism::outlives_calls_that_fail(&m5().start());
}

#[test]
fn asks_a_socket_for_what_was_reported() {
    mechanism::asks_a_socket_for_what_was_reported(&m5().start());
}

#[test]
fn sends_the_rest_of_a_partial_send() {
    mechanism::sends_the_rest_of_a_partial_send(&m5().start());
}

#[test]
fn keeps_a_bounded_number_of_bytes() {
    mechanism::keeps_a_bounded_number_of_bytes(&m5().start());
}

#[test]
fn keeps_memory_bounded() {
    mechanism::keeps_memory_bounded(&m5().start());
}

#[test]
fn goes_on_reading_without_a_new_edge() {
    mechanism::goes_on_reading_without_a_new_edge(&m5().start());
}

#[test]
fn sends_what_it_owes_after_the_end_of_input() {
    mechanism::sends_what_it_owes_after_the_end_of_input(&m5().start());
}

#[test]
fn rests_beside_a_client_that_does_not_read() {
    mechanism::rests_beside_a_client_that_does_not_read(&m5().start());
}

#[test]
fn takes_one_turn_a_round() {
    mechanism::takes_one_turn_a_round(&m5().start());
}

#[test]
fn gives_others_a_turn() {
    mechanism::gives_others_a_turn(&m5().start());
}

// When descriptors run out

#[test]
fn serves_what_fits_into_16_descriptors() {
    descriptors::serves_what_fits(&m5(), Setup::new().soft_descriptors(FEW), AtTheLimit::Rests);
}

#[test]
fn waits_when_nobody_fits() {
    descriptors::waits_when_nobody_fits(&m5(), 5, AtTheLimit::Rests);
}

// The command line

#[test]
fn helps() {
    command_line::helps(&m5(), env!("CARGO_PKG_DESCRIPTION"));
}

#[test]
fn tells_its_version() {
    command_line::tells_its_version(&m5(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn announces_itself() {
    command_line::announces_itself(&m5(), "epoll echo server on port {} (edge-triggered)");
}

#[test]
fn refuses_a_wrong_command_line() {
    command_line::refuses_a_wrong_command_line(&m5());
}

#[test]
fn says_that_an_address_is_not_ours() {
    command_line::says_that_an_address_is_not_ours(&m5());
}

#[test]
fn says_that_a_port_is_in_use() {
    command_line::says_that_a_port_is_in_use(&m5());
}

#[test]
fn says_that_a_port_is_privileged() {
    command_line::says_that_a_port_is_privileged(&m5());
}

#[test]
fn serves_without_standard_output() {
    command_line::serves_without_standard_output(&m5());
}

#[test]
fn serves_ipv6() {
    command_line::serves_ipv6(&m5());
}

#[test]
fn listens_on_loopback_only_unless_asked() {
    command_line::listens_on_loopback_only_unless_asked(&m5());
}

// Walls

#[test]
fn is_not_stalled_by_a_client_that_does_not_read() {
    walls::must_hold(
        &m5(),
        Wall::StalledByOne,
        walls::a_client_that_does_not_read,
    );
}

#[test]
fn stops_at_the_soft_limit() {
    walls::must_hit(
        &m5(),
        Wall::StopsAtTheSoftLimit,
        walls::ten_thousand_connections,
    );
}

#[test]
fn spends_kilobytes_on_an_idle_connection() {
    if mechanism::allows_ten_thousand() {
        walls::must_hit(
            &m5(),
            Wall::IdleCostsKilobytes,
            mechanism::ten_thousand_idle_clients,
        );
    }
}

// Other people's servers

#[test]
fn judges_a_server_in_python() {
    foreign::judge_python();
}
