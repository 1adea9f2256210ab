//! The contract of a chat server, which the eighth milestone keeps, and the ninth with `--protocol
//! chat`.

/// The tests of the chat server that `$program()` gives.
macro_rules! chat_contract {
    ($program:path) => {
        // Behaviour: the room
        support::tests! { server of $program:
            chat::asks_for_a_name();
            chat::tells_a_newcomer_who_is_there();
            chat::announces_who_enters_and_who_leaves();
            chat::relays_a_line_to_all_others();
            chat::takes_names_of_letters_and_digits();
            chat::refuses_other_names();
            chat::refuses_a_name_in_use();
            chat::lets_a_name_be_used_again();
            chat::explains_to_one_who_has_said_more();
            chat::takes_a_whole_visit_in_one_segment();
            chat::gives_a_half_closed_guest_what_it_was_owed();
            chat::says_that_one_who_resets_has_left();
            chat::serves_hundreds_of_guests_in_turn();
        }

        // Behaviour: lines
        support::tests! { server of $program:
            chat::ends_a_line_with_or_without_a_carriage_return();
            chat::takes_lines_however_they_are_split();
            chat::relays_lines_as_long_as_the_limit();
            chat::refuses_longer_lines();
            chat::drops_control_characters();
            chat::relays_every_other_byte();
        }

        // Behaviour: clients that come and go
        support::tests! { server of $program:
            behaviour::outlives_clients_that_only_connect();
            behaviour::outlives_a_reset_of_an_idle_client();
            behaviour::outlives_clients_that_leave_before_they_are_accepted();
            behaviour::restarts_on_its_port_with_clients_connected();
            chat::closes_the_descriptor_of_every_guest_that_left();
        }

        // Fan-out
        support::tests! { server of $program:
            chat::sends_a_message_once_to_each();
            chat::sends_many_lines_by_one_call();
            // How many members are offered what they are owed in one turn.
            chat::offers_a_message_in_bounded_turns(256);
            // How many lines of one guest are taken in one turn.
            chat::takes_lines_in_bounded_turns(1024);
            chat::tells_everybody_everything_in_one_order();
            chat::keeps_one_copy_of_a_message();
            chat::rests_after_a_conversation();
        }

        // Slow consumers, and what one member's line does to another in the same batch
        support::tests! { server of $program:
            chat::drops_only_those_who_do_not_read();
            chat::makes_one_who_floods_the_room_wait();
            chat::rests_beside_a_guest_that_does_not_read();
        }
        support::tests! { program $program:
            chat::knows_a_stale_event();
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
            mechanism::outlives_calls_that_fail();
            mechanism::takes_one_turn_a_round();
            mechanism::asks_a_guest_for_what_was_reported();
            mechanism::sends_without_delay();
        }

        // Limits: of clients a turn, of connections, of descriptors, of patience
        support::tests! { server of $program:
            chat::accepts_in_bounded_turns(64);
        }
        support::tests! { program $program:
            chat::holds_no_more_than_it_was_told();
            chat::turns_guests_away_without_descriptors();
            chat::serves_what_fits(
                support::Setup::new().hard_descriptors(support::descriptors::FEW)
            );
            descriptors::raises_its_soft_limit();
            mechanism::warns_of_a_shorter_backlog();
            chat::closes_only_idle_guests();
            chat::closes_idle_guests_when_nothing_else_happens();
            chat::waits_so_long_for_a_name();
            chat::closes_everybody_whose_time_is_up();
        }

        // The command line
        support::tests! { program $program:
            command_line::helps(env!("CARGO_PKG_DESCRIPTION"));
            command_line::tells_its_version(env!("CARGO_PKG_VERSION"));
            command_line::announces_itself("epoll chat server on port {} (edge-triggered)");
            command_line::refuses_a_wrong_command_line();
            command_line::refuses_wrong_limits();
            command_line::says_that_an_address_is_not_ours();
            command_line::says_that_a_port_is_in_use();
            command_line::says_that_a_port_is_privileged();
            command_line::says_which_limit_is_too_low();
            command_line::refuses_a_limit_that_fits_nobody();
            command_line::serves_without_standard_output();
            command_line::serves_ipv6();
            command_line::listens_on_loopback_only_unless_asked();
        }

        // Statistics, and a good end
        support::tests! { program $program:
            command_line::prints_statistics_every_second();
            command_line::redraws_statistics_on_a_terminal();
            command_line::prints_statistics_when_asked();
            command_line::serves_while_nobody_reads_its_statistics();
            command_line::ends_in_good_order();
            command_line::ends_at_once_at_the_second_signal();
            command_line::ends_without_a_client_that_never_reads();
            chat::loses_no_owed_line_at_sigterm();
            chat::ends_when_all_has_arrived();
        }
    };
}
