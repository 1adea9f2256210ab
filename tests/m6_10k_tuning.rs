//! The contract of the sixth milestone: ten thousand connections, at a small cost each.
//!
//! It ends at its wall: SIGTERM loses what the server had already read.

use assert_cmd::cargo::cargo_bin;
use support::{
    Program, Setup, Wall, behaviour, command_line,
    descriptors::{self, AtTheLimit, FEW},
    explain::book,
    mechanism::{self, EPOLLIN, EPOLLOUT, EPOLLRDHUP, Trigger},
    walls,
};

/// Most clients that one turn may accept.
const ACCEPT_BUDGET: usize = 64;

/// The milestone, or the program that the environment names in `SERVER`.
fn m6() -> Program {
    Program::under_test(env!("CARGO_PKG_NAME"), cargo_bin!("m6-10k-tuning"))
}

// Behaviour: one client at a time

#[test]
fn echoes_one_line() {
    behaviour::echoes_one_line(&m6().start());
}

#[test]
fn echoes_bytes_split_over_many_writes() {
    behaviour::echoes_bytes_split_over_many_writes(&m6().start());
}

#[test]
fn echoes_one_byte_at_a_time() {
    behaviour::echoes_one_byte_at_a_time(&m6().start());
}

#[test]
fn echoes_every_byte_value() {
    behaviour::echoes_every_byte_value(&m6().start());
}

#[test]
fn echoes_megabytes() {
    behaviour::echoes_megabytes(&m6().start());
}

#[test]
fn echoes_a_burst_to_the_last_byte() {
    behaviour::echoes_a_burst_to_the_last_byte(&m6().start());
}

#[test]
fn echoes_what_arrived_before_the_half_close() {
    behaviour::echoes_what_arrived_before_the_half_close(&m6().start());
}

#[test]
fn echoes_what_was_queued_together_with_the_half_close() {
    behaviour::echoes_what_was_queued_together_with_the_half_close(&m6().start());
}

#[test]
fn closes_a_client_that_sends_nothing() {
    behaviour::closes_a_client_that_sends_nothing(&m6().start());
}

#[test]
fn gives_a_slow_reader_every_byte() {
    behaviour::gives_a_slow_reader_every_byte(&m6().start());
}

#[test]
fn outlives_clients_that_only_connect() {
    behaviour::outlives_clients_that_only_connect(&m6().start());
}

#[test]
fn outlives_a_reset_of_an_idle_client() {
    behaviour::outlives_a_reset_of_an_idle_client(&m6().start());
}

#[test]
fn outlives_a_reset_with_data_in_flight() {
    behaviour::outlives_a_reset_with_data_in_flight(&m6().start());
}

#[test]
fn outlives_clients_that_leave_before_they_are_accepted() {
    behaviour::outlives_clients_that_leave_before_they_are_accepted(&m6().start());
}

#[test]
fn serves_everyone_in_a_burst_of_connections() {
    behaviour::serves_everyone_in_a_burst_of_connections(&m6().start());
}

#[test]
fn serves_hundreds_of_clients_in_turn() {
    behaviour::serves_hundreds_of_clients_in_turn(&m6().start());
}

#[test]
fn closes_the_descriptor_of_every_client_that_left() {
    behaviour::closes_the_descriptor_of_every_client_that_left(&m6().start());
}

#[test]
fn goes_on_after_being_stopped() {
    behaviour::goes_on_after_being_stopped(&m6().start());
}

#[test]
fn restarts_on_its_port_with_clients_connected() {
    behaviour::restarts_on_its_port_with_clients_connected(&m6().start());
}

// Behaviour: many clients at once

#[test]
fn serves_others_while_one_is_silent() {
    behaviour::serves_others_while_one_is_silent(&m6().start());
}

#[test]
fn keeps_interleaved_clients_apart() {
    behaviour::keeps_interleaved_clients_apart(&m6().start());
}

#[test]
fn echoes_megabytes_of_several_clients_at_once() {
    behaviour::echoes_megabytes_of_several_clients_at_once(&m6().start());
}

#[test]
fn serves_hundreds_of_clients_at_once() {
    behaviour::serves_hundreds_of_clients_at_once(&m6().start());
}

#[test]
fn keeps_others_when_one_resets() {
    behaviour::keeps_others_when_one_resets(&m6().start());
}

// Behaviour: no client holds up another

#[test]
fn serves_others_while_one_does_not_read() {
    behaviour::serves_others_while_one_does_not_read(&m6().start());
}

#[test]
fn serves_one_beside_a_hundred_that_do_not_read() {
    behaviour::serves_one_beside_a_hundred_that_do_not_read(&m6().start());
}

#[test]
fn sends_nothing_around_what_waits() {
    behaviour::sends_nothing_around_what_waits(&m6().start());
}

#[test]
fn keeps_what_a_half_closed_client_has_not_read() {
    behaviour::keeps_what_a_half_closed_client_has_not_read(&m6().start());
}

// Mechanism

#[test]
fn sockets_are_non_blocking() {
    mechanism::sockets_are_non_blocking(&m6().start());
}

#[test]
fn runs_in_one_thread() {
    mechanism::runs_in_one_thread(&m6().start());
}

#[test]
fn registers_clients_edge_triggered() {
    mechanism::registers_clients(
        &m6().start(),
        Trigger::Edge,
        EPOLLIN | EPOLLOUT | EPOLLRDHUP,
    );
}

#[test]
fn registers_the_listener_level_triggered() {
    mechanism::registers_the_listener(&m6().start(), Trigger::Level);
}

#[test]
fn costs_one_wake_up_and_one_send_per_echo() {
    mechanism::costs_per_echo(&m6().start(), 1, book::M6_SHORT_READ);
}

#[test]
fn rests_after_load() {
    mechanism::rests_after_load(&m6().start());
}

#[test]
fn outlives_calls_that_fail() {
    mechanism::outlives_calls_that_fail(&m6().start());
}

#[test]
fn asks_a_socket_for_what_was_reported() {
    mechanism::asks_a_socket_for_what_was_reported(&m6().start());
}

#[test]
fn sends_the_rest_of_a_partial_send() {
    mechanism::sends_the_rest_of_a_partial_send(&m6().start());
}

#[test]
fn keeps_a_bounded_number_of_bytes() {
    mechanism::keeps_a_bounded_number_of_bytes(&m6().start());
}

#[test]
fn keeps_memory_bounded() {
    mechanism::keeps_memory_bounded(&m6().start());
}

#[test]
fn keeps_no_memory_for_those_who_have_read() {
    mechanism::keeps_no_memory_for_those_who_have_read(&m6().start());
}

#[test]
fn goes_on_reading_without_a_new_edge() {
    mechanism::goes_on_reading_without_a_new_edge(&m6().start());
}

#[test]
fn sends_what_it_owes_after_the_end_of_input() {
    mechanism::sends_what_it_owes_after_the_end_of_input(&m6().start());
}

#[test]
fn rests_beside_a_client_that_does_not_read() {
    mechanism::rests_beside_a_client_that_does_not_read(&m6().start());
}

#[test]
fn takes_one_turn_a_round() {
    mechanism::takes_one_turn_a_round(&m6().start());
}

#[test]
fn gives_others_a_turn() {
    mechanism::gives_others_a_turn(&m6().start());
}

#[test]
fn turns_clients_away_without_descriptors() {
    mechanism::turns_clients_away_without_descriptors(&m6());
}

#[test]
fn holds_no_more_than_it_was_told() {
    mechanism::holds_no_more_than_it_was_told(&m6());
}

#[test]
fn accepts_in_bounded_turns() {
    mechanism::accepts_in_bounded_turns(&m6().start(), ACCEPT_BUDGET);
}

#[test]
fn warns_of_a_shorter_backlog() {
    mechanism::warns_of_a_shorter_backlog(&m6());
}

#[test]
fn closes_only_idle_clients() {
    mechanism::closes_only_idle_clients(&m6());
}

#[test]
fn closes_idle_clients_when_nothing_else_happens() {
    mechanism::closes_idle_clients_when_nothing_else_happens(&m6());
}

#[test]
fn closes_idle_clients_although_it_is_interrupted() {
    mechanism::closes_idle_clients_although_it_is_interrupted(&m6());
}

#[test]
fn costs_no_more_with_an_idle_timeout() {
    let server = Setup::new().args(["--idle-timeout", "3600"]);
    mechanism::costs_per_echo(&m6().start_with(server), 1, book::M6_IDLE);
}

#[test]
fn sends_without_delay() {
    mechanism::sends_without_delay(&m6().start());
}

#[test]
fn holds_ten_thousand_at_64_bytes_each() {
    mechanism::holds_ten_thousand(&m6());
}

// When descriptors run out

#[test]
fn raises_its_soft_limit() {
    descriptors::raises_its_soft_limit(&m6());
}

#[test]
fn holds_as_many_as_it_says() {
    descriptors::holds_as_many_as_it_says(&m6());
}

#[test]
fn serves_what_fits_into_16_descriptors() {
    descriptors::serves_what_fits(&m6(), Setup::new().hard_descriptors(FEW), AtTheLimit::Rests);
}

// The command line

#[test]
fn helps() {
    command_line::helps(&m6(), env!("CARGO_PKG_DESCRIPTION"));
}

#[test]
fn tells_its_version() {
    command_line::tells_its_version(&m6(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn announces_itself() {
    command_line::announces_itself(&m6(), "epoll echo server on port {} (edge-triggered)");
}

#[test]
fn refuses_a_wrong_command_line() {
    command_line::refuses_a_wrong_command_line(&m6());
}

#[test]
fn says_that_an_address_is_not_ours() {
    command_line::says_that_an_address_is_not_ours(&m6());
}

#[test]
fn says_that_a_port_is_in_use() {
    command_line::says_that_a_port_is_in_use(&m6());
}

#[test]
fn says_that_a_port_is_privileged() {
    command_line::says_that_a_port_is_privileged(&m6());
}

#[test]
fn serves_without_standard_output() {
    command_line::serves_without_standard_output(&m6());
}

#[test]
fn serves_ipv6() {
    command_line::serves_ipv6(&m6());
}

#[test]
fn listens_on_loopback_only_unless_asked() {
    command_line::listens_on_loopback_only_unless_asked(&m6());
}

#[test]
fn refuses_wrong_limits() {
    command_line::refuses_wrong_limits(&m6());
}

#[test]
fn says_which_limit_is_too_low() {
    command_line::says_which_limit_is_too_low(&m6());
}

#[test]
fn refuses_a_limit_that_fits_nobody() {
    command_line::refuses_a_limit_that_fits_nobody(&m6());
}

// Walls

#[test]
fn spends_next_to_nothing_on_an_idle_connection() {
    if mechanism::allows_ten_thousand() {
        walls::must_hold(
            &m6(),
            Wall::IdleCostsKilobytes,
            mechanism::ten_thousand_idle_clients,
        );
    }
}

#[test]
fn holds_ten_thousand_connections() {
    walls::must_hold(
        &m6(),
        Wall::StopsAtTheSoftLimit,
        walls::ten_thousand_connections,
    );
}

#[test]
fn loses_what_it_had_read_at_sigterm() {
    walls::must_hit(
        &m6(),
        Wall::LosesWhatItHadRead,
        walls::sigterm_with_bytes_unsent,
    );
}

#[test]
fn loses_what_a_hundred_clients_have_not_read_at_sigterm() {
    walls::must_hit(
        &m6(),
        Wall::LosesWhatItHadRead,
        mechanism::a_hundred_clients_at_sigterm,
    );
}
