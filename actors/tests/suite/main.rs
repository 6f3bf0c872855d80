//! The engine's tests over kinds: the contract of every store, for coupons and for tallies; what a database
//! server must keep in addition (locks, faults, start); the simulation; and the order of the library's
//! folders.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod changing;
mod cluster;
mod codes;
mod contract;
mod database;
mod faults;
mod fencing;
mod folders;
mod former;
mod holds;
mod issuing;
mod listing;
mod lock_failures;
mod locks;
mod migrating;
mod model;
mod moves;
mod opening;
mod plans;
mod reading;
mod simulation;
mod sqlite;
mod statistics;
mod subject;
mod support;
mod sweeping;
mod tallies;
mod tally;
mod tally_nodes;
mod user_steps;
mod using;

use actors::coupon::CouponKind;
use testkit::on_each_server;
use testkit::servers::ServerKind;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The entries of coupons in one statement.
pub type Batch = actors::store::batch::Batch<CouponKind>;

/// Tests share a server of each kind. Most tests run side by side. Tests that change the server as a whole,
/// or count what it does, run alone on the server.
static SERVERS: [RwLock<()>; 2] = [const { RwLock::const_new(()) }; 2];

/// Waits until no test runs alone on the server of this kind.
pub async fn beside(kind: ServerKind) -> RwLockReadGuard<'static, ()> {
    SERVERS[kind as usize].read().await
}

/// Waits until no other test uses the server of this kind.
pub async fn alone(kind: ServerKind) -> RwLockWriteGuard<'static, ()> {
    SERVERS[kind as usize].write().await
}

on_each_server! {
    holding(crate::alone) locks {
        a_waiting_batch_has_locked_the_rows_it_names_and_no_others
        a_waiting_batch_of_one_owner_has_locked_the_rows_it_names_and_no_others
        a_take_over_waits_for_a_batch_in_progress
        a_take_over_waits_for_a_batch_of_one_coupon_in_progress
        a_take_over_waits_for_a_change_in_progress
        a_hand_off_waits_for_a_batch_in_progress_and_locks_only_the_row_of_its_shard
        a_batch_waits_for_a_hand_off_in_progress_and_is_not_stored
    }
    holding(crate::alone) lock_failures {
        a_batch_that_waits_too_long_is_not_stored
        a_batch_that_loses_a_deadlock_is_not_stored
        a_batch_of_one_coupon_that_waits_too_long_or_loses_a_deadlock_is_not_stored
        a_statement_goes_on_without_its_client_and_a_retry_finds_its_rows
        ending_a_node_does_not_keep_others_from_beating
    }
    holding(crate::alone) plans {
        a_batch_of_many_coupons_is_read_back_in_few_statements
        no_read_of_clients_goes_through_a_whole_coupon
        nothing_goes_through_all_uses_of_a_coupon
        a_step_goes_through_few_rows
        steps_within_a_coupon_pass_over_the_issuances_of_others
        every_list_has_its_index
        batches_of_all_sizes_leave_no_prepared_statements
    }
    holding(crate::alone) moves {
        many_shards_are_claimed_handed_off_and_released_by_few_statements
        a_shard_that_stays_locked_does_not_hold_up_the_claims_of_others
        waiting_claims_have_locked_only_the_shards_that_they_name
    }
    holding(crate::beside) faults {
        nothing_is_stored_if_the_connection_is_cut_before_the_batch_is_sent
        all_or_nothing_is_stored_if_the_connection_is_cut_after_the_batch_is_sent
        the_batch_stays_stored_if_the_connection_is_cut_after_the_commit
        a_server_that_is_not_there_stores_nothing_and_is_used_when_it_returns
        a_silent_server_is_given_up_in_time
        connections_that_went_silent_while_unused_are_replaced_in_time
        connections_that_went_silent_fail_no_more_than_one_call
        a_connection_that_works_while_another_fails_its_test_is_kept
        reading_a_batch_back_is_given_up_in_time
        a_server_without_the_database_stores_nothing
        a_full_table_refuses_batches_until_there_is_room
        a_beat_that_went_back_is_returned_as_it_is
        a_batch_whose_caller_goes_away_is_stored_whole_or_not_at_all
        a_closed_store_refuses
        two_nodes_make_only_one_coupon_for_a_key
    }
    holding(crate::alone) faults {
        a_read_only_server_stores_nothing_and_is_used_when_it_takes_writes
        a_killed_server_keeps_what_was_confirmed_and_is_used_when_it_returns
    }
    holding(crate::beside) sweeping {
        rows_of_ended_nodes_are_removed_a_few_at_a_time_if_the_database_is_far_away
    }
    holding(crate::beside) opening {
        a_schema_is_accepted_one_version_ahead_and_refused_two_versions_ahead
        a_schema_of_another_program_is_refused
        a_database_with_a_table_of_another_program_is_left_as_it_is
        the_migrations_of_another_program_are_left_alone
        a_database_of_an_earlier_build_keeps_its_table_of_migrations
        a_database_of_an_earlier_build_takes_longer_user_ids_and_keys
        a_database_that_lost_a_table_is_refused
        a_migration_cut_short_is_run_again
        waiting_for_a_migration_in_progress_times_out
        nodes_that_start_together_make_one_schema
        secrets_of_codes_are_added_one_after_the_other
        secrets_of_codes_that_are_added_at_once_have_numbers_and_ages_of_their_own
        a_cluster_that_was_made_with_other_settings_is_unreadable
        a_database_that_is_not_there_is_refused
        invalid_rows_are_unreadable
        an_index_that_is_gone_makes_its_statements_unreadable
        secrets_are_not_shown
        passwords_are_sent_over_tls_if_the_server_has_it
    }
    holding(crate::beside) former {
        the_former_build_works_with_this_schema
    }
    holding(crate::beside) migrating {
        issuing_goes_on_during_the_migration_from_an_earlier_schema
    }
    holding(crate::alone) opening {
        a_packet_limit_too_small_for_a_batch_is_refused
        a_secret_of_codes_has_its_age_from_when_it_was_stored
    }
    given(crate::tally_nodes::TallyCluster::new) tally_nodes {
        tallies_are_exact_while_shards_are_handed_off_and_a_node_is_killed
    }
}
