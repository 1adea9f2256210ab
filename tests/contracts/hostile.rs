//! What no client can do to a server: the contract of the sixth milestone and of those that keep what it has.

/// The tests of the echo server that `$program()` gives.
macro_rules! hostile_contract {
    ($program:path) => {
        support::tests! { server of $program:
            hostile::outlives_thousands_that_reset_at_once();
            hostile::spends_nothing_on_a_thousand_that_say_nothing();
            hostile::spends_little_on_a_byte_now_and_then();
            hostile::stays_well_beside_clients_that_never_read();
            hostile::gives_slow_readers_all_after_their_half_close();
            hostile::goes_on_when_stopped_under_load();
            hostile::survives_random_clients();
        }
        support::tests! { program $program:
            hostile::serves_bursts_beyond_its_backlog();
            hostile::holds_the_line_at_its_most_connections();
            hostile::frees_the_places_of_clients_that_are_stuck();
            hostile::serves_everyone_in_turn_without_descriptors();
            hostile::recovers_when_descriptors_are_free_again();
        }
    };
}
