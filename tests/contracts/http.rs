//! The contract of an HTTP server, which the ninth milestone keeps with `--protocol http`, and with
//! `auto` as well.

/// The tests of the HTTP server that `$program()` gives.
macro_rules! http_contract {
    ($program:path) => {
        support::tests! { server of $program:
            http::answers_with_the_request();
            http::answers_head_without_a_body();
            http::takes_requests_however_they_are_split();
            http::takes_bodies_up_to_the_limit();
            http::refuses_what_is_malformed();
            http::refuses_what_is_too_large();
            http::answers_pipelined_requests_in_order();
            http::closes_when_it_was_told_to();
            http::stays_when_it_was_told_to();
            http::asks_for_a_body_that_waits_to_be_asked_for();
            http::answers_what_arrived_before_the_half_close();
            http::keeps_unread_answers_bounded();
            http::costs_one_receive_and_one_send();
            http::survives_random_requests(10_000);
        }
        support::tests! { program $program:
            http::refuses_a_request_that_takes_too_long();
        }
    };
}
