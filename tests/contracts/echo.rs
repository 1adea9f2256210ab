//! The contract of an echo server that has come as far as the seventh milestone: the ninth keeps it
//! with `--protocol echo`, and with `auto` as well.

/// The tests of the echo server that `$program()` gives.
macro_rules! echo_contract {
    ($program:path) => {
        // Behaviour: one client at a time
        support::tests! { server of $program:
            behaviour::echoes_one_line();
            behaviour::echoes_bytes_split_over_many_writes();
            behaviour::echoes_one_byte_at_a_time();
            behaviour::echoes_every_byte_value();
            behaviour::echoes_megabytes();
            behaviour::echoes_a_burst_to_the_last_byte();
            behaviour::echoes_what_arrived_before_the_half_close();
            behaviour::echoes_what_was_queued_together_with_the_half_close();
            behaviour::closes_a_client_that_sends_nothing();
            behaviour::gives_a_slow_reader_every_byte();
            behaviour::outlives_clients_that_only_connect();
            behaviour::outlives_a_reset_of_an_idle_client();
            behaviour::outlives_a_reset_with_data_in_flight();
            behaviour::outlives_clients_that_leave_before_they_are_accepted();
            behaviour::serves_everyone_in_a_burst_of_connections();
            behaviour::serves_hundreds_of_clients_in_turn();
            behaviour::closes_the_descriptor_of_every_client_that_left();
            behaviour::goes_on_after_being_stopped();
            behaviour::restarts_on_its_port_with_clients_connected();
        }

        // Behaviour: many clients at once
        support::tests! { server of $program:
            behaviour::serves_others_while_one_is_silent();
            behaviour::keeps_interleaved_clients_apart();
            behaviour::echoes_megabytes_of_several_clients_at_once();
            behaviour::serves_hundreds_of_clients_at_once();
            behaviour::keeps_others_when_one_resets();
        }

        // Behaviour: no client holds up another
        support::tests! { server of $program:
            behaviour::serves_others_while_one_does_not_read();
            behaviour::serves_one_beside_a_hundred_that_do_not_read();
            behaviour::sends_nothing_around_what_waits();
            behaviour::keeps_what_a_half_closed_client_has_not_read();
        }

        // Mechanism
        support::tests! { server of $program:
            mechanism::sockets_are_non_blocking();
            mechanism::runs_in_one_thread();
            mechanism::registers_clients(
                support::mechanism::Trigger::Edge,
                support::mechanism::EPOLLIN
                    | support::mechanism::EPOLLOUT
                    | support::mechanism::EPOLLRDHUP
            );
            mechanism::registers_the_listener(support::mechanism::Trigger::Level);
            mechanism::costs_per_echo(1, support::explain::book::M6_SHORT_READ);
            mechanism::outlives_calls_that_fail();
            mechanism::asks_a_socket_for_what_was_reported();
            mechanism::rests_after_load();
            mechanism::sends_the_rest_of_a_partial_send();
            mechanism::keeps_a_bounded_number_of_bytes();
            mechanism::keeps_memory_bounded();
            mechanism::keeps_no_memory_for_those_who_have_read();
            mechanism::goes_on_reading_without_a_new_edge();
            mechanism::sends_what_it_owes_after_the_end_of_input();
            mechanism::rests_beside_a_client_that_does_not_read();
            mechanism::takes_one_turn_a_round();
            mechanism::gives_others_a_turn();
            mechanism::accepts_in_bounded_turns(64);
            mechanism::sends_without_delay();
        }
        support::tests! { program $program:
            mechanism::turns_clients_away_without_descriptors();
            mechanism::holds_no_more_than_it_was_told();
            mechanism::warns_of_a_shorter_backlog();
            mechanism::closes_only_idle_clients();
            mechanism::closes_idle_clients_when_nothing_else_happens();
            mechanism::closes_idle_clients_although_it_is_interrupted();
            mechanism::holds_ten_thousand();
        }

        #[test]
        fn costs_no_more_with_an_idle_timeout() {
            if $program().can_be_started() {
                let setup = support::Setup::new().args(["--idle-timeout", "3600"]);
                let server = $program().start_with(setup);
                support::mechanism::costs_per_echo(&server, 1, support::explain::book::M6_IDLE);
            }
        }

        // When descriptors run out
        support::tests! { program $program:
            descriptors::raises_its_soft_limit();
            descriptors::holds_as_many_as_it_says();
            descriptors::serves_what_fits(
                // The timer has a descriptor kept for it.
                support::Setup::new()
                    .hard_descriptors(support::descriptors::FEW)
                    .arg("--stats"),
                support::descriptors::AtTheLimit::Rests
            );
        }

        // The command line
        support::tests! { program $program:
            command_line::helps(env!("CARGO_PKG_DESCRIPTION"));
            command_line::tells_its_version(env!("CARGO_PKG_VERSION"));
            command_line::announces_itself("epoll echo server on port {} (edge-triggered)");
            command_line::refuses_a_wrong_command_line();
            command_line::says_that_an_address_is_not_ours();
            command_line::says_that_a_port_is_in_use();
            command_line::says_that_a_port_is_privileged();
            command_line::serves_without_standard_output();
            command_line::serves_ipv6();
            command_line::listens_on_loopback_only_unless_asked();
            command_line::refuses_wrong_limits();
            command_line::says_which_limit_is_too_low();
            command_line::refuses_a_limit_that_fits_nobody();
        }

        // Statistics, and a good end
        support::tests! { program $program:
            command_line::prints_statistics_every_second();
            command_line::redraws_statistics_on_a_terminal();
            command_line::prints_statistics_when_asked();
            command_line::tells_bytes_in_from_bytes_out();
            command_line::serves_while_nobody_reads_its_statistics();
            command_line::ends_in_good_order();
            mechanism::ends_when_all_has_arrived();
            command_line::ends_at_once_at_the_second_signal();
            command_line::ends_without_a_client_that_never_reads();
        }

        // Walls of milestones before
        support::tests! { wall before $program:
            mechanism::a_hundred_clients_at_sigterm(LosesWhatItHadRead);
            walls::sigterm_with_bytes_unsent(LosesWhatItHadRead);
        }
    };
}
