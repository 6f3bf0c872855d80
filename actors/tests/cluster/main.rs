//! Tests of engines in processes of their own, which are linked on loopback and use a real database. Any node
//! answers any request.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod child;
mod crowd;
mod doors;
mod fixture;
mod moves;
mod node;
mod slow;

use testkit::on_each_server;

/// Not a test, but a node of the tests. The tests run this program again to start a node.
#[test]
fn a_node() {
    testkit::worker::run(async |configuration| child::run(&configuration).await);
}

on_each_server! {
    given(crate::fixture::TestCluster::new) moves {
        any_node_answers_while_nodes_join_and_leave_and_no_request_fails
        no_answered_issuance_is_lost_when_a_node_is_killed
        an_ended_node_rejoins_and_is_linked_again
        a_node_that_is_stopped_hands_off_its_shards
        nodes_that_are_stopped_together_do_not_wait_for_each_other
        a_node_that_can_store_nothing_stops_within_its_limit
    }
    given(crate::fixture::TestCluster::with_binary_log) slow {
        shards_of_a_killed_node_have_owners_after_a_lease_and_ten_slow_commits
    }
    given(crate::fixture::TestCluster::behind_a_proxy) slow {
        shards_of_a_killed_node_have_owners_after_a_lease_and_ten_commits_far_away
    }
    given(crate::fixture::TestCluster::new) doors {
        every_door_learns_what_is_sold_out_and_no_door_refuses_after_a_widening
        a_change_does_not_wait_for_the_door_of_a_node_that_left
    }
}
