//! The whole engine in one process, over a real SQLite file, with a store around it that fails on demand.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod bounds;
mod faults;
mod gathering;
mod house;
mod membership;
mod views;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actors::coupon::change::{Change, ChangeOutcome};
use actors::coupon::issue::{IssueOutcome, Refusal};
use actors::coupon::offer::OfferPatch;
use actors::coupon::rows::{CouponQuery, CouponRows};
use actors::engine::NotReady;
use actors::ids::{Incarnation, Sequence};
use actors::owning::request::Setback;
use actors::store::{Claim, ClusterStore};
use faults::Fault;
use house::{DEADLINE, House, LONG, key, user};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use testkit::poll::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_gets_exactly_what_there_is_in_order_and_one_each() {
    let house = House::new().await;
    let coupon = house.coupon(Some(500), 1).await;
    let asked: Vec<_> = (0..3_000_u32)
        .map(|number| {
            let coupons = house.coupons.clone();
            // Every user asks twice, with two keys.
            tokio::spawn(async move {
                coupons
                    .issue(coupon, user(number / 2), key(number), DEADLINE)
                    .await
                    .unwrap()
            })
        })
        .collect();
    let (mut winners, mut sold_out, mut already) = (HashSet::new(), 0, 0);
    for answer in asked {
        match answer.await.unwrap() {
            IssueOutcome::Issued(issuance) => assert!(winners.insert(issuance.user)),
            IssueOutcome::Refused(Refusal::SoldOut { total_quantity: 500 }) => sold_out += 1,
            IssueOutcome::Refused(Refusal::AlreadyIssued(_)) => already += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((winners.len(), sold_out + already), (500, 2_500));
    let stored = house.issuances(coupon).await;
    assert!(
        stored
            .iter()
            .enumerate()
            .all(|(place, row)| row.id.sequence == Sequence::new(place as u64 + 1))
    );
    assert_eq!(
        stored.into_iter().map(|row| row.user).collect::<HashSet<_>>(),
        winners
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_gives_the_first_issuance_also_after_a_restart() {
    let mut house = House::new().await;
    let coupon = house.coupon(Some(2), 1).await;
    let first = house.issue(coupon, 1, 1).await.unwrap();
    let IssueOutcome::Issued(issuance) = first else {
        panic!("{first:?}")
    };
    assert_eq!(
        house.issue(coupon, 1, 1).await,
        Ok(IssueOutcome::Replayed(issuance.clone()))
    );
    house.restart().await;
    assert_eq!(
        house.issue(coupon, 1, 1).await,
        Ok(IssueOutcome::Replayed(issuance.clone()))
    );
    assert_eq!(
        house.issue(coupon, 1, 2).await,
        Ok(IssueOutcome::Refused(Refusal::AlreadyIssued(Box::new(issuance))))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_told_as_what_it_was() {
    for fault in [Fault::LostAfterCommit, Fault::LostBeforeCommit, Fault::NotStored] {
        let house = House::new().await;
        let coupon = house.coupon(Some(10), 1).await;
        house.faults.next_writes([fault, fault]);
        let answer = house.issue(coupon, 1, 1).await;
        assert!(
            matches!(&answer, Ok(IssueOutcome::Issued(issuance)) if issuance.id.sequence == Sequence::new(1)),
            "{fault:?}: {answer:?}"
        );
        assert_eq!(house.issuances(coupon).await.len(), 1, "{fault:?}");
        assert!(house.faults.are_used_up());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_takes_nothing_nothing_is_decided_and_afterwards_all_that_was_is_stored() {
    let house = House::new().await;
    let coupon = house.coupon(Some(10), 1).await;
    house.faults.refuse_writes(true);
    let coupons = house.coupons.clone();
    let held = tokio::spawn(async move { coupons.issue(coupon, user(1), key(1), DEADLINE).await });
    eventually("the store is noticed to take nothing", async || {
        house.engine.not_ready() == [NotReady::NoStore]
    })
    .await;
    // Decided before that was known, and kept; decided after: nothing.
    assert_eq!(house.issue(coupon, 2, 2).await, Err(Setback::StoreUnavailable));
    assert!(house.issuances(coupon).await.is_empty());
    house.faults.refuse_writes(false);
    assert!(matches!(held.await.unwrap(), Ok(IssueOutcome::Issued(_))));
    eventually("the store takes writes again", async || {
        house.engine.not_ready().is_empty()
    })
    .await;
    assert!(matches!(
        house.issue(coupon, 2, 2).await,
        Ok(IssueOutcome::Issued(_))
    ));
    assert_eq!(house.issuances(coupon).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_known_in_time_is_unknown_and_asking_again_finds_it() {
    let house = House::new().await;
    let coupon = house.coupon(Some(10), 1).await;
    house.faults.refuse_writes(true);
    // Long enough to read the coupon and decide.
    let short = Duration::from_secs(1);
    assert_eq!(
        house.coupons.issue(coupon, user(1), key(1), short).await,
        Err(Setback::Unknown)
    );
    house.faults.refuse_writes(false);
    assert!(matches!(
        house.issue(coupon, 1, 1).await,
        Ok(IssueOutcome::Replayed(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_whose_shard_was_taken_is_fenced_and_its_callers_are_answered_by_the_next() {
    let house = House::new().await;
    let coupon = house.coupon(Some(10), 1).await;
    assert!(matches!(
        house.issue(coupon, 1, 1).await,
        Ok(IssueOutcome::Issued(_))
    ));
    // Somebody else claims the shard, and is gone: nobody with this incarnation lives.
    let seen = house.shard(coupon).await;
    let thief = Incarnation::random();
    house
        .store
        .claim(&[Claim {
            seen,
            claimant: thief,
        }])
        .await
        .unwrap();
    let answer = house.issue(coupon, 2, 2).await;
    assert!(
        matches!(&answer, Ok(IssueOutcome::Issued(issuance)) if issuance.id.sequence == Sequence::new(2)),
        "{answer:?}"
    );
    let row = house.shard(coupon).await;
    assert!(
        row.epoch > seen.epoch.next() && row.owner != Some(thief),
        "{row:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_is_not_read_before_its_shard_is_claimed() {
    let house = House::new().await;
    let coupon = house.coupon(Some(10), 1).await;
    assert!(matches!(
        house.issue(coupon, 1, 1).await,
        Ok(IssueOutcome::Issued(_))
    ));
    house.faults.hold_claims(true);
    let seen = house.shard(coupon).await;
    house
        .store
        .claim(&[Claim {
            seen,
            claimant: Incarnation::random(),
        }])
        .await
        .unwrap();
    let coupons = house.coupons.clone();
    let asked = tokio::spawn(async move { coupons.issue(coupon, user(2), key(2), LONG).await });
    eventually("the shard is to be claimed", async || {
        house.faults.claims_waiting() > 0 && house.engine.owners_active() == 0
    })
    .await;
    // Whoever asks is back within a tenth of a second, again and again; none of it may read the coupon.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(400) {
        assert_eq!(house.faults.loads(), 1, "read although another may still write");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    house.faults.hold_claims(false);
    assert!(matches!(asked.await.unwrap(), Ok(IssueOutcome::Issued(_))));
    assert_eq!(house.faults.loads(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_lease_nothing_is_decided_and_with_it_again_everything_is_as_it_was() {
    let house = House::with_lease(Duration::from_millis(1_500)).await;
    let coupon = house.coupon(Some(10), 1).await;
    assert!(matches!(
        house.issue(coupon, 1, 1).await,
        Ok(IssueOutcome::Issued(_))
    ));
    let epoch = house.shard(coupon).await.epoch;
    house.faults.refuse_beats(true);
    eventually("the lease is over", async || {
        house.engine.not_ready().contains(&NotReady::NoLease)
    })
    .await;
    assert_eq!(house.issue(coupon, 2, 2).await, Err(Setback::StoreUnavailable));
    eventually("owners stop with their lease", async || {
        house.engine.owners_active() == 0
    })
    .await;
    house.faults.refuse_beats(false);
    eventually("the lease is back", async || house.engine.not_ready().is_empty()).await;
    assert!(matches!(
        house.issue(coupon, 1, 1).await,
        Ok(IssueOutcome::Replayed(_))
    ));
    assert!(matches!(
        house.issue(coupon, 2, 2).await,
        Ok(IssueOutcome::Issued(_))
    ));
    assert!(
        house.shard(coupon).await.epoch > epoch,
        "claimed before it was read"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_ended_makes_the_node_join_anew() {
    let house = House::new().await;
    let coupon = house.coupon(Some(10), 1).await;
    assert!(matches!(
        house.issue(coupon, 1, 1).await,
        Ok(IssueOutcome::Issued(_))
    ));
    let before = house.store.nodes().await.unwrap().remove(0);
    house
        .store
        .beat(
            &before.id,
            before.incarnation,
            actors::store::NodeState::Ended,
            &[],
        )
        .await
        .unwrap();
    eventually("a fresh incarnation serves", async || {
        let row = house.store.nodes().await.unwrap().remove(0);
        row.incarnation != before.incarnation && house.engine.not_ready().is_empty()
    })
    .await;
    let answer = house.issue(coupon, 2, 2).await;
    assert!(
        matches!(&answer, Ok(IssueOutcome::Issued(issuance)) if issuance.id.sequence == Sequence::new(2)),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_incarnation_left_out_is_not_tried_under_the_lease_of_the_next() {
    let house = House::new().await;
    let coupon = house.coupon(Some(10), 1).await;
    house.faults.refuse_writes(true);
    let told = house
        .coupons
        .issue(coupon, user(1), key(1), Duration::from_secs(1))
        .await;
    assert_eq!(told, Err(Setback::Unknown));
    eventually("it is out", async || {
        house.engine.not_ready().contains(&NotReady::NoStore)
    })
    .await;
    let before = house.store.nodes().await.unwrap().remove(0);
    house
        .store
        .beat(
            &before.id,
            before.incarnation,
            actors::store::NodeState::Ended,
            &[],
        )
        .await
        .unwrap();
    // The store takes nothing all the while: only who gives up is free for what comes next.
    eventually("a fresh incarnation has nothing out", async || {
        let row = house.store.nodes().await.unwrap().remove(0);
        row.incarnation != before.incarnation && house.engine.not_ready().is_empty()
    })
    .await;
    house.faults.refuse_writes(false);
    assert!(
        matches!(house.issue(coupon, 1, 1).await, Ok(IssueOutcome::Issued(issuance)) if issuance.id.sequence == Sequence::new(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_database_from_before_it_joined_a_node_tells_nothing_of_what_is_gone() {
    let house = House::new().await;
    let coupon = house.coupon(Some(1), 1).await;
    assert!(matches!(
        house.issue(coupon, 0, 0).await,
        Ok(IssueOutcome::Issued(_))
    ));
    eventually("the door knows", async || house.engine.door_notices() == 1).await;
    let before = house.store.nodes().await.unwrap().remove(0);
    house.faults.refuse_beats(true);
    let mut shell = SqliteConnectOptions::new()
        .filename(house.store.path())
        .connect()
        .await
        .unwrap();
    let restore = "BEGIN IMMEDIATE; DELETE FROM nodes; UPDATE shards SET epoch = 0, owner = NULL; DELETE FROM issuances; DELETE FROM coupons; COMMIT";
    sqlx::raw_sql(restore).execute(&mut shell).await.unwrap();
    house.faults.refuse_beats(false);
    eventually("a fresh incarnation serves", async || {
        let row = house.store.nodes().await.unwrap().pop();
        row.is_some_and(|row| row.incarnation != before.incarnation) && house.engine.not_ready().is_empty()
    })
    .await;
    assert_eq!(
        house.issue(coupon, 7, 7).await,
        Ok(IssueOutcome::Refused(Refusal::UnknownCoupon))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_owner_is_unloaded_and_comes_back_as_it_was() {
    let house = House::with_idle(Duration::from_millis(50)).await;
    let coupon = house.coupon(Some(3), 1).await;
    for number in 1..=3_u32 {
        let answer = house.issue(coupon, number, number).await;
        assert!(
            matches!(&answer, Ok(IssueOutcome::Issued(issuance)) if issuance.id.sequence.get() == u64::from(number)),
            "{answer:?}"
        );
        assert_eq!(
            house.faults.loads(),
            number as usize,
            "it was unloaded before, and loaded for this"
        );
        eventually("it is unloaded", async || house.engine.owners_active() == 0).await;
    }
    assert_eq!(
        house.issue(coupon, 4, 4).await,
        Ok(IssueOutcome::Refused(Refusal::SoldOut { total_quantity: 3 }))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_after_a_raise_was_answered_is_not_told_that_it_is_sold_out() {
    let house = House::new().await;
    let coupon = house.coupon(Some(1), 1).await;
    assert!(matches!(
        house.issue(coupon, 0, 0).await,
        Ok(IssueOutcome::Issued(_))
    ));
    for round in 1..30_u32 {
        let refused = house.issue(coupon, 1_000 + round, round).await;
        assert_eq!(
            refused,
            Ok(IssueOutcome::Refused(Refusal::SoldOut {
                total_quantity: u64::from(round)
            }))
        );
        let patch = OfferPatch {
            total_quantity: Some(Some(u64::from(round) + 1)),
            ..OfferPatch::default()
        };
        let changed = house
            .coupons
            .change(coupon, Change::Patch(Box::new(patch)), None, DEADLINE)
            .await;
        assert!(matches!(changed, Ok(ChangeOutcome::Done(_))), "{changed:?}");
        let answer = house.issue(coupon, round, round).await;
        assert!(
            matches!(answer, Ok(IssueOutcome::Issued(_))),
            "round {round}: {answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_answers_for_a_sold_out_coupon_without_its_owner() {
    // Less by far than what a door heard counts.
    let house = House::with_lease(Duration::from_millis(800)).await;
    let coupon = house.coupon(Some(1), 1).await;
    assert!(matches!(
        house.issue(coupon, 0, 0).await,
        Ok(IssueOutcome::Issued(_))
    ));
    eventually("the door knows", async || house.engine.door_notices() == 1).await;
    house.faults.refuse_beats(true);
    let refused = Ok(IssueOutcome::Refused(Refusal::SoldOut { total_quantity: 1 }));
    // Even once its owner may not decide any more: what the door heard counts for its time, and then no more.
    eventually("the lease is over", async || {
        house.engine.not_ready().contains(&NotReady::NoLease)
    })
    .await;
    assert_eq!(house.issue(coupon, 7, 7).await, refused);
    eventually("the door forgets", async || {
        house.issue(coupon, 7, 7).await == Err(Setback::StoreUnavailable)
    })
    .await;
    house.faults.refuse_beats(false);
    eventually("the lease is back", async || house.engine.not_ready().is_empty()).await;
    assert_eq!(house.issue(coupon, 7, 7).await, refused);
    assert!(
        matches!(
            house.issue(coupon, 0, 1).await,
            Ok(IssueOutcome::Refused(Refusal::AlreadyIssued(_)))
        ),
        "a winner goes to the owner"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_stores_and_answers_everything_that_was_admitted() {
    let house = House::new().await;
    let coupon = house.coupon(None, 1).await;
    let asked: Vec<_> = (0..2_000_u32)
        .map(|number| {
            let coupons = house.coupons.clone();
            tokio::spawn(async move { coupons.issue(coupon, user(number), key(number), DEADLINE).await })
        })
        .collect();
    eventually("some are issued", async || {
        !house.issuances(coupon).await.is_empty()
    })
    .await;
    assert!(house.engine.stop(Duration::from_secs(10)).await);
    let stored: HashSet<_> = house
        .issuances(coupon)
        .await
        .into_iter()
        .map(|row| row.user)
        .collect();
    let mut told = 0;
    for (number, answer) in asked.into_iter().enumerate() {
        match answer.await.unwrap() {
            Ok(IssueOutcome::Issued(issuance)) => {
                told += 1;
                assert!(stored.contains(&issuance.user));
            }
            Err(Setback::Moved | Setback::StoreUnavailable) => {
                assert!(
                    !stored.contains(&user(number as u32)),
                    "told that nothing was decided"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, stored.len());
    let shards = house.store.shards().await.unwrap();
    assert!(
        shards.iter().all(|row| row.owner.is_none()),
        "all shards were given up"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_made_after_it_was_asked_for_is_found() {
    let house = House::new().await;
    let next = actors::ids::CouponId::new(1).unwrap();
    assert_eq!(
        house.issue(next, 1, 1).await,
        Ok(IssueOutcome::Refused(Refusal::UnknownCoupon))
    );
    assert_eq!(house.coupon(Some(1), 1).await, next);
    assert!(matches!(
        house.issue(next, 1, 1).await,
        Ok(IssueOutcome::Issued(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_what_is_stored_is_not_served() {
    let mut house = House::new().await;
    let coupon = house.coupon(Some(10), 1).await;
    for number in 1..=2 {
        assert!(matches!(
            house.issue(coupon, number, number).await,
            Ok(IssueOutcome::Issued(_))
        ));
    }
    let mut shell = SqliteConnectOptions::new()
        .filename(house.store.path())
        .connect()
        .await
        .unwrap();
    let hide = "UPDATE issuances SET sequence = 1000 WHERE sequence = 1";
    sqlx::raw_sql(hide).execute(&mut shell).await.unwrap();
    house.restart().await;
    assert_eq!(house.issue(coupon, 3, 3).await, Err(Setback::StoreUnavailable));
    let put_back = "UPDATE issuances SET sequence = 1 WHERE sequence = 1000";
    sqlx::raw_sql(put_back).execute(&mut shell).await.unwrap();
    assert!(matches!(
        house.issue(coupon, 3, 3).await,
        Ok(IssueOutcome::Issued(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_that_makes_no_sense_keeps_no_other_from_being_issued() {
    let house = House::new().await;
    let (front, spoilt, sound) = (
        house.coupon(None, 1).await,
        house.coupon(None, 1).await,
        house.coupon(None, 1).await,
    );
    for coupon in [front, spoilt, sound] {
        assert!(matches!(
            house.issue(coupon, 1, 1).await,
            Ok(IssueOutcome::Issued(_))
        ));
    }
    // The others come to the lane while it waits for the first, and so go in one batch.
    house.faults.hold_writes(true);
    let ask = |coupon| {
        let coupons = house.coupons.clone();
        tokio::spawn(async move { coupons.issue(coupon, user(2), key(2), DEADLINE).await })
    };
    let first = ask(front);
    eventually("a batch is out", async || house.faults.writes_waiting() > 0).await;
    let (lost, other) = (ask(spoilt), ask(sound));
    eventually("all are admitted", async || house.engine.admitted() == 3).await;
    house.faults.spoil(Some(spoilt));
    house.faults.hold_writes(false);
    for asked in [first, other] {
        assert!(matches!(asked.await.unwrap(), Ok(IssueOutcome::Issued(_))));
    }
    assert!(
        matches!(house.issue(sound, 4, 4).await, Ok(IssueOutcome::Issued(_))),
        "the lane goes on"
    );
    assert_eq!(
        lost.await.unwrap(),
        Err(Setback::Unknown),
        "what became of it cannot be told"
    );
    assert_eq!(house.issue(spoilt, 3, 3).await, Err(Setback::StoreUnavailable));
    assert!(house.engine.not_ready().is_empty());
    // Mended, it goes on from what is stored.
    house.faults.spoil(None);
    let answer = house.issue(spoilt, 2, 2).await;
    assert!(
        matches!(&answer, Ok(IssueOutcome::Issued(issuance)) if issuance.id.sequence == Sequence::new(2)),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_although_what_is_out_comes_back_fenced() {
    let house = House::new().await;
    let coupon = house.coupon(None, 1).await;
    house.faults.hold_writes(true);
    let coupons = house.coupons.clone();
    let asked = tokio::spawn(async move { coupons.issue(coupon, user(1), key(1), DEADLINE).await });
    eventually("it is admitted", async || house.engine.admitted() == 1).await;
    house.faults.refuse_beats(true);
    let seen = house.shard(coupon).await;
    house
        .store
        .claim(&[Claim {
            seen,
            claimant: Incarnation::random(),
        }])
        .await
        .unwrap();
    let engine = house.engine.clone();
    let stopped = tokio::spawn(async move { engine.stop(LONG).await });
    eventually("it is stopping", async || {
        house.engine.not_ready().contains(&NotReady::Draining)
    })
    .await;
    house.faults.hold_writes(false);
    assert!(
        tokio::time::timeout(DEADLINE, stopped)
            .await
            .expect("it ends")
            .unwrap()
    );
    assert!(matches!(
        asked.await.unwrap(),
        Err(Setback::Unknown | Setback::Moved | Setback::StoreUnavailable)
    ));
    assert!(house.issuances(coupon).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_lists_takes_nothing_from_those_who_own() {
    let house = House::new().await;
    // So many coupons, and so many who read them all, that a reader's turn comes too late, or never.
    for _ in 0..2_000 {
        house.coupon(None, 1).await;
    }
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2_000)
        .map(|_| {
            let (store, over) = (Arc::clone(&house.store), Arc::clone(&over));
            tokio::spawn(async move {
                let query = CouponQuery {
                    before: None,
                    limit: 2_000,
                };
                while !over.load(Ordering::Relaxed) {
                    let _ = store.coupons(&query).await;
                }
            })
        })
        .collect();
    let coupon = house.coupon(None, 1).await;
    // Every time the shard is taken away, and comes back: for that the rows of nodes and shards must be read.
    for number in 0..5 {
        let seen = house.shard(coupon).await;
        house
            .store
            .claim(&[Claim {
                seen,
                claimant: Incarnation::random(),
            }])
            .await
            .unwrap();
        let answer = house.issue(coupon, number, number).await;
        assert!(matches!(answer, Ok(IssueOutcome::Issued(_))), "{answer:?}");
    }
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_and_is_got_over() {
    let house = House::new().await;
    let coupon = house.coupon(None, 1).await;
    // Never below what there is: so it is full now.
    house.store.set_page_count_max(1).await.unwrap();
    let (mut told, mut held) = (Vec::new(), Vec::new());
    for number in 0..2_000 {
        let coupons = house.coupons.clone();
        held.push(tokio::spawn(async move {
            (
                number,
                coupons.issue(coupon, user(number), key(number), LONG).await,
            )
        }));
        if house.engine.not_ready() == [NotReady::NoStore] {
            break;
        }
        tokio::task::yield_now().await;
    }
    eventually("the disk is full", async || {
        house.engine.not_ready() == [NotReady::NoStore]
    })
    .await;
    assert_eq!(
        house.issue(coupon, 1_000_000, 1).await,
        Err(Setback::StoreUnavailable)
    );
    house.store.set_page_count_max(1 << 20).await.unwrap();
    for answer in held {
        match answer.await.unwrap() {
            (_, Ok(IssueOutcome::Issued(issuance))) => told.push(issuance),
            (number, Err(Setback::StoreUnavailable)) => {
                assert!(
                    matches!(
                        house.issue(coupon, number, number).await,
                        Ok(IssueOutcome::Issued(_))
                    ),
                    "nothing was decided"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    let stored = house.issuances(coupon).await;
    assert!(!told.is_empty() && told.iter().all(|issuance| stored.contains(issuance)));
    assert!(house.engine.not_ready().is_empty());
}
