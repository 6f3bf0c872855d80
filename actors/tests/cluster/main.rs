//! Whole engines in processes of their own, linked on loopback, on a real database: whichever is asked, they
//! answer like one.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod child;
mod crowd;
mod doors;
mod house;
mod moves;
mod node;

/// Not a test, but the nodes of the others: it is this program again, told so by its environment.
#[test]
fn a_node() {
    if let Ok(configuration) = std::env::var(child::CONFIGURATION) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(child::run(&configuration));
        // Standard input is read by a thread that would wait for it for ever.
        std::process::exit(0);
    }
}

/// On each kind of server, in modules of their own. A server that is not there is passed over, unless it is
/// required.
macro_rules! on_both {
    ($($module:ident { $($test:ident)* })*) => {
        on_both!(MariaDb on_mariadb $($module { $($test)* })*);
        on_both!(MySql on_mysql $($module { $($test)* })*);
    };
    ($kind:ident $on:ident $($module:ident { $($test:ident)* })*) => {
        mod $on {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    if let Some(house) = crate::house::House::new(testkit::servers::Kind::$kind).await {
                        crate::$module::$test(house).await;
                    }
                }
            )*)*
        }
    };
}

on_both! {
    moves {
        whoever_is_asked_answers_while_nodes_join_and_leave_and_nothing_fails
        a_node_that_is_killed_takes_nothing_with_it_that_was_told
        an_ended_node_joins_anew_and_is_linked_again
        a_node_that_is_stopped_hands_over_what_it_has
        nodes_that_are_all_stopped_wait_for_nobody
        a_node_that_can_store_nothing_stops_within_its_limit
    }
    doors {
        every_door_learns_what_is_sold_out_and_none_refuses_once_that_was_widened
    }
}
