//! What a server did to get there: the checks about its sockets, its system calls and its memory, as `/proc` and a tracer
//! see them. Each takes a running server.
//!
//! Never judged is the particular call: a socket is non-blocking or not, whether `accept4`, `fcntl` or `ioctl` made it
//! so, and `recv` counts like `read`. A count is exact because nothing else happens meanwhile: the next message leaves
//! when the tracer has seen the server asleep again.

mod back_pressure;
mod burst;
mod drain;
mod failures;
mod fairness;
mod limits;
mod lock_step;
mod memory;
mod readiness;
mod rest;
mod sockets;

pub use back_pressure::{
    goes_on_reading_without_a_new_edge, keeps_a_bounded_number_of_bytes, keeps_memory_bounded,
    sends_the_rest_of_a_partial_send, sends_what_it_owes_after_the_end_of_input,
};
pub use burst::one_burst;
pub(crate) use drain::ended_well;
pub use drain::{a_hundred_clients_at_sigterm, ends_when_all_has_arrived};
pub use failures::outlives_calls_that_fail;
pub use fairness::{gives_others_a_turn, takes_one_turn_a_round};
pub use limits::{
    accepts_in_bounded_turns, closes_idle_clients_although_it_is_interrupted,
    closes_idle_clients_when_nothing_else_happens, closes_only_idle_clients,
    holds_no_more_than_it_was_told, turns_clients_away_without_descriptors,
    warns_of_a_shorter_backlog,
};
pub(crate) use limits::{changes_epoll_for, is_turned_away, lower_to_one_more, set_soft_limit};
pub use lock_step::costs_per_echo;
pub(crate) use lock_step::echoes_in_lock_step;
pub use memory::{
    allows_ten_thousand, holds_ten_thousand, keeps_no_memory_for_those_who_have_read,
    ten_thousand_idle_clients,
};
pub use readiness::{asks_a_guest_for_what_was_reported, asks_a_socket_for_what_was_reported};
pub use rest::{fifty_silent_clients, rests_after_load, rests_beside_a_client_that_does_not_read};
pub(crate) use rest::{is_quiet, settles_within};
pub use sockets::{
    Trigger, registers_clients, registers_the_listener, runs_in_one_thread, sends_without_delay,
    sockets_are_non_blocking,
};

pub use libc::{EPOLLIN, EPOLLOUT, EPOLLRDHUP};

use crate::{Client, Server, Trouble};

/// Clients that are connected and have each been served once, so that nothing about their arrival is still to be done.
fn served_clients(server: &Server, n: usize) -> Result<Vec<Client>, Trouble> {
    (0..n)
        .map(|_| {
            let client = Client::connect(server)?;
            client.be_served(server)?;
            Ok(client)
        })
        .collect()
}
