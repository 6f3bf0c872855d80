//! Whole engines in processes of their own, linked on loopback, on a real database: whichever is asked, they
//! answer like one.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod child;
mod crowd;
mod doors;
mod house;
mod moves;
mod node;

use testkit::on_each_server;

/// Not a test, but the nodes of the tests: they run this program again.
#[test]
fn a_node() {
    testkit::worker::run(async |configuration| child::run(&configuration).await);
}

on_each_server! {
    given(crate::house::House::new) moves {
        whoever_is_asked_answers_while_nodes_join_and_leave_and_nothing_fails
        a_node_that_is_killed_takes_nothing_with_it_that_was_told
        an_ended_node_joins_anew_and_is_linked_again
        a_node_that_is_stopped_hands_over_what_it_has
        nodes_that_are_all_stopped_wait_for_nobody
        a_node_that_can_store_nothing_stops_within_its_limit
    }
    given(crate::house::House::new) doors {
        every_door_learns_what_is_sold_out_and_none_refuses_once_that_was_widened
    }
}
