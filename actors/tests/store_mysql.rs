//! What a database that is a server has to keep besides the contract: its locks, its faults, its start. On
//! MySQL and on MariaDB.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "the crate is a test")]

#[allow(dead_code, reason = "each test program uses its part")]
#[path = "store_mysql/database.rs"]
mod database;
#[path = "store_mysql/faults.rs"]
mod faults;
#[path = "store_mysql/locks.rs"]
mod locks;
#[path = "store_mysql/opening.rs"]
mod opening;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "store_contract/support.rs"]
mod support;

use std::time::{Duration, Instant};

/// Tests share a server. Most let each other be (`beside`); those that change it as a whole, or count what it
/// does, have it `alone`.
static SERVERS: [tokio::sync::RwLock<()>; 2] = [const { tokio::sync::RwLock::const_new(()) }; 2];

/// Makes a test on each server of each function.
macro_rules! on_both {
    ($($module:ident $with:ident { $($test:ident)* })*) => {
        mod on_mysql {
            $($(on_both!(MySql $module $with $test);)*)*
        }

        mod on_mariadb {
            $($(on_both!(MariaDb $module $with $test);)*)*
        }
    };
    ($kind:ident $module:ident beside $test:ident) => {
        on_both!($kind read $module $test);
    };
    ($kind:ident $module:ident alone $test:ident) => {
        on_both!($kind write $module $test);
    };
    ($kind:ident $turn:ident $module:ident $test:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let kind = testkit::servers::Kind::$kind;
            if testkit::servers::Server::shared(kind).is_none() {
                return;
            }
            let _turn = crate::SERVERS[kind as usize].$turn().await;
            crate::$module::$test(kind).await;
        }
    };
}

on_both! {
    locks alone {
        a_waiting_batch_has_locked_the_rows_it_names_and_no_others
        a_waiting_batch_of_one_owner_has_locked_the_rows_it_names_and_no_others
        a_take_over_waits_for_a_batch_in_progress
        a_take_over_waits_for_a_batch_of_one_coupon_in_progress
        a_take_over_waits_for_a_change_in_progress
        a_hand_over_waits_for_a_batch_in_progress_and_locks_its_row_alone
        a_batch_waits_for_a_hand_over_in_progress_and_is_not_stored
        a_batch_that_waits_too_long_is_not_stored
        a_batch_that_loses_a_deadlock_is_not_stored
        a_batch_of_one_coupon_that_waits_too_long_or_loses_a_deadlock_is_not_stored
        a_statement_goes_on_without_its_client_and_the_same_again_finds_it
        a_batch_of_many_coupons_is_read_back_in_few_statements
        ending_a_node_keeps_no_other_from_beating
        nothing_that_people_read_goes_through_a_whole_coupon
        every_list_has_its_index
        batches_of_all_sizes_leave_no_prepared_statements
    }
    faults beside {
        a_connection_cut_before_the_batch_is_sent_stores_nothing
        a_connection_cut_after_the_batch_is_sent_leaves_it_whole_or_absent
        a_connection_cut_after_the_commit_leaves_it_stored
        a_server_that_is_not_there_stores_nothing_and_is_used_when_it_returns
        a_silent_server_is_given_up_in_time
        reading_a_batch_back_is_given_up_in_time
        a_server_without_the_database_stores_nothing
        a_full_table_refuses_and_recovers
        a_beat_that_went_back_shows
        a_caller_that_goes_away_leaves_a_batch_whole_or_not_at_all
        a_closed_store_refuses
        two_nodes_make_one_coupon_of_one_key
    }
    faults alone {
        a_read_only_server_stores_nothing_and_is_used_when_it_takes_writes
        a_killed_server_keeps_what_was_told_and_is_used_when_it_returns
    }
    opening beside {
        a_schema_newer_by_one_is_taken_and_by_two_refused
        a_schema_that_is_not_ours_is_refused
        a_migration_cut_short_is_run_again
        a_migration_under_way_is_not_waited_for_without_end
        nodes_that_start_together_make_one_schema
        a_cluster_made_otherwise_is_unreadable
        a_database_that_is_not_there_is_refused
        rows_that_make_no_sense_are_unreadable
        secrets_are_not_shown
        passwords_go_by_tls_where_the_server_has_it
    }
    opening alone {
        a_packet_that_no_batch_fits_into_is_refused
    }
}

/// Waits for something to become so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "{what} does not happen"
        );
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}
