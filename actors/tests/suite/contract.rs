//! The contract of a store, in code: every database runs the same tests.
//!
//! To add a database, implement [`Database`](crate::support::Database) for it and name it under `contract!`.
//! To add a kind, implement [`Subject`](crate::subject::Subject) for a thing of that kind, and name the type
//! with each database under `kind_contract!`.

/// Makes a test of each function in the part of the contract that holds for every kind.
macro_rules! kind_contract {
    ($database:ty, $subject:ty) => {
        contract!($database, $subject: fencing {
            a_batch_is_stored_before_a_claim_and_not_after_the_claim
            epoch_and_owner_must_both_match
            a_fenced_shard_does_not_hold_up_the_others
            a_batch_that_is_sent_again_clashes_and_is_found_stored
            other_rows_in_the_same_places_clash_and_nothing_of_the_batch_is_stored
            rows_that_differ_in_one_field_are_different
            a_refusing_guard_does_not_hold_up_other_portions
            a_batch_of_many_portions_is_stored
            rows_loaded_ahead_are_completed
            loading_stops_at_rows_that_the_owner_refuses
            a_batch_is_stored_before_a_hand_off_and_not_after_the_hand_off
            opening_again_finds_everything
        });
    };
}

/// Makes a test of each function of the contract.
macro_rules! contract {
    ($database:ty) => {
        kind_contract!($database, crate::support::Owned);
        contract!($database: issuing {
            a_batch_is_stored_whole_and_to_the_microsecond
            ids_that_look_alike_are_different_users
            keys_of_any_visible_character_come_back_as_they_were
            users_of_any_visible_character_come_back_as_they_were
            a_portion_beyond_the_quantity_is_left_out_as_a_whole
            a_portion_beyond_the_limit_per_user_is_left_out_as_a_whole
            a_user_without_a_limit_has_any_number_of_issuances
            the_largest_batch_with_the_longest_ids_is_stored
            loading_begins_after_a_sequence_and_pages_are_joined
            a_coupon_that_does_not_exist_is_absent
        });
        contract!($database: changing {
            a_coupon_comes_back_as_it_was_made
            the_same_key_gives_the_first_coupon_even_after_a_change
            keys_that_look_alike_make_different_coupons
            concurrent_requests_with_one_key_make_one_coupon
            a_change_is_stored_whole
            a_change_needs_the_version_before_it
            the_keys_of_changes_are_stored_with_them_and_loaded
            a_fenced_change_is_not_stored
            a_change_and_its_record_are_stored_together_and_once
            a_quantity_below_what_is_stored_or_decided_is_not_stored
            raising_the_quantity_is_stored_and_allows_more_issuances
            opening_again_finds_the_coupon
        });
        contract!($database: using {
            uses_are_stored_whole_and_read_by_issuance
            uses_are_stored_only_under_their_fence_and_all_or_none
            what_was_given_back_is_issued_beyond_the_quantity
            uses_that_were_loaded_ahead_are_completed
            uses_of_different_kinds_are_stored_by_one_statement
        });
        contract!($database: holds {
            exactly_the_holds_that_have_not_lapsed_are_counted
            each_of_several_coupons_counts_its_own_holds
        });
        contract!($database: codes {
            nodes_that_start_together_make_one_secret_of_codes
        });
        contract!($database: listing {
            coupons_come_newest_first_with_their_issued_counts
            coupons_are_found_by_phase
            coupons_are_found_by_a_part_of_their_title
            a_users_issuances_come_newest_first_across_coupons
            a_user_with_ten_thousand_issuances_is_listed_page_by_page
            a_coupons_issuances_come_by_sequence_and_by_user
            what_is_not_stored_is_not_found
        });
        contract!($database: reading {
            all_reads_in_a_snapshot_show_its_moment
            a_page_and_its_coupons_are_of_one_moment
            a_snapshot_that_is_dropped_at_any_moment_leaves_nothing_behind
            issuances_are_found_by_state_as_it_is_defined
            an_issuance_is_read_with_its_coupon
            issuances_are_read_by_their_ids
            a_snapshot_shows_the_issuances_that_were_used_meanwhile
            a_page_has_the_coupons_of_its_issuances
        });
        contract!($database: user_steps {
            steps_through_a_users_issuances_find_the_newest_of_them
            a_user_with_twenty_thousand_issuances_is_listed_in_short_steps
        });
        contract!($database: statistics {
            statistics_count_every_row_once_by_time
            statistics_count_what_was_stored_at_the_moment_of_their_snapshot
            statistics_are_bounded
        });
        contract!($database: cluster {
            checking_again_changes_nothing
            each_shard_goes_to_one_of_two_claimants
            claims_are_answered_in_order_and_independently
            a_shard_is_released_only_under_its_fence
            a_shard_is_handed_off_only_under_its_fence
            many_shards_are_moved_independently
            a_row_names_the_linked_peers_of_its_node
            a_node_replaces_only_the_incarnation_that_it_saw
            beats_count_until_the_row_is_replaced_or_ended
            a_node_is_ended_only_by_a_live_node_and_only_if_it_has_not_beaten
            only_rows_of_ended_nodes_beyond_a_maximum_are_removed
        });

        #[test]
        fn random_batches_store_what_the_model_says() {
            if !<$database as crate::support::Database>::is_available() {
                return;
            }
            crate::model::random_batches_store_what_the_model_says::<$database>();
        }
    };
    ($database:ty: $module:ident { $($test:ident)* }) => {
        $(
            #[tokio::test]
            async fn $test() {
                if !<$database as crate::support::Database>::is_available() {
                    return;
                }
                let mut database = <$database as crate::support::Database>::new().await;
                crate::$module::$test(&mut database).await;
            }
        )*
    };
    ($database:ty, $subject:ty: $module:ident { $($test:ident)* }) => {
        $(
            #[tokio::test]
            async fn $test() {
                if !<$database as crate::support::Database>::is_available() {
                    return;
                }
                let mut database = <$database as crate::support::Database>::new().await;
                crate::$module::$test::<$database, $subject>(&mut database).await;
            }
        )*
    };
}

mod on_sqlite {
    mod tallies {
        use crate::tally::contract::{ClaimedTally, SqliteTallies};

        kind_contract!(SqliteTallies, ClaimedTally);
    }

    contract!(crate::sqlite::SqliteFile);
}

mod on_mysql {
    mod tallies {
        use crate::tally::contract::{ClaimedTally, MySql, ServerTallies};

        kind_contract!(ServerTallies<MySql>, ClaimedTally);
    }

    contract!(crate::database::MySql);
}

mod on_mariadb {
    mod tallies {
        use crate::tally::contract::{ClaimedTally, MariaDb, ServerTallies};

        kind_contract!(ServerTallies<MariaDb>, ClaimedTally);
    }

    contract!(crate::database::MariaDb);
}
