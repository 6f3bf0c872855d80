//! A store that loses answers, refuses writes, is full or busy, or has rows that cannot be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actors::coupon::issue::IssueOutcome;
use actors::coupon::rows::{CouponQuery, CouponRows};
use actors::engine::NotReady;
use actors::ids::Sequence;
use actors::owning::request::Setback;
use testkit::poll::eventually;

use super::faults::Fault;
use super::house::{DEADLINE, House, LONG, key, user};

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_is_resolved_before_its_caller_is_answered() {
    for fault in [Fault::LostAfterCommit, Fault::LostBeforeCommit, Fault::NotStored] {
        let (house, coupon) = House::with_coupon(Some(10)).await;
        house.faults.next_writes([fault, fault]);
        let issuance = house.must_issue(coupon, 1).await;
        assert_eq!(issuance.id.sequence, Sequence::new(1), "{fault:?}");
        assert_eq!(house.issuances(coupon).await.len(), 1, "{fault:?}");
        assert!(house.faults.are_used_up());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_decided_while_the_store_refuses_writes_and_earlier_decisions_are_stored_afterwards() {
    let (house, coupon) = House::with_coupon(Some(10)).await;
    house.faults.refuse_writes(true);
    // Decided before the node knows that the store refuses writes.
    let held = house.spawn_issue(coupon, 1, 1, DEADLINE);
    house.store_fails().await;
    assert_eq!(house.issue(coupon, 2, 2).await, Err(Setback::StoreUnavailable));
    assert!(house.issuances(coupon).await.is_empty());
    house.faults.refuse_writes(false);
    assert!(matches!(held.await.unwrap(), Ok(IssueOutcome::Issued(_))));
    eventually("the store accepts writes again", async || {
        house.engine.not_ready().is_empty()
    })
    .await;
    house.must_issue(coupon, 2).await;
    assert_eq!(house.issuances(coupon).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_is_not_known_by_the_deadline_is_unknown_and_a_retry_finds_it() {
    let (house, coupon) = House::with_coupon(Some(10)).await;
    house.faults.refuse_writes(true);
    // Long enough to load the coupon and decide.
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
async fn a_full_disk_loses_nothing_and_issuing_goes_on_once_there_is_room() {
    let (house, coupon) = House::with_coupon(None).await;
    // The quota cannot fall below the present size, so the disk is full now.
    house.store.set_page_count_max(1).await.unwrap();
    let (mut issued, mut held) = (Vec::new(), Vec::new());
    for number in 0..2_000 {
        held.push((number, house.spawn_issue(coupon, number, number, LONG)));
        if house.engine.not_ready() == [NotReady::NoStore] {
            break;
        }
        tokio::task::yield_now().await;
    }
    house.store_fails().await;
    assert_eq!(
        house.issue(coupon, 1_000_000, 1).await,
        Err(Setback::StoreUnavailable)
    );
    house.store.set_page_count_max(1 << 20).await.unwrap();
    for (number, answer) in held {
        match answer.await.unwrap() {
            Ok(IssueOutcome::Issued(issuance)) => issued.push(issuance),
            // Nothing was decided for this request, so a retry with its key issues the coupon.
            Err(Setback::StoreUnavailable) => {
                house.must_issue(coupon, number).await;
            }
            other => panic!("{other:?}"),
        }
    }
    let stored = house.issuances(coupon).await;
    assert!(!issued.is_empty() && issued.iter().all(|issuance| stored.contains(issuance)));
    assert!(house.engine.not_ready().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_with_a_gap_in_its_stored_sequences_is_not_served() {
    let (mut house, coupon) = House::with_coupon(Some(10)).await;
    for number in 1..=2 {
        house.must_issue(coupon, number).await;
    }
    house
        .run_sql("UPDATE issuances SET sequence = 1000 WHERE sequence = 1")
        .await;
    house.restart().await;
    assert_eq!(house.issue(coupon, 3, 3).await, Err(Setback::StoreUnavailable));
    house
        .run_sql("UPDATE issuances SET sequence = 1 WHERE sequence = 1000")
        .await;
    house.must_issue(coupon, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_coupon_does_not_keep_others_from_being_issued() {
    let house = House::new().await;
    let (front, spoilt, sound) = (
        house.coupon(None, 1).await,
        house.coupon(None, 1).await,
        house.coupon(None, 1).await,
    );
    for coupon in [front, spoilt, sound] {
        house.must_issue(coupon, 1).await;
    }
    // The portions of the other two coupons reach the lane while it waits for the first portion, so they go
    // in one batch.
    house.faults.hold_writes(true);
    let ask = |coupon| house.spawn_issue(coupon, 2, 2, DEADLINE);
    let first = ask(front);
    eventually("a batch is out", async || house.faults.writes_waiting() > 0).await;
    let (lost, other) = (ask(spoilt), ask(sound));
    eventually("all requests are admitted", async || house.engine.admitted() == 3).await;
    house.faults.spoil(Some(spoilt));
    house.faults.hold_writes(false);
    for asked in [first, other] {
        assert!(matches!(asked.await.unwrap(), Ok(IssueOutcome::Issued(_))));
    }
    // The lane goes on.
    house.must_issue(sound, 4).await;
    assert_eq!(
        lost.await.unwrap(),
        Err(Setback::Unknown),
        "the outcome cannot be read back"
    );
    assert_eq!(house.issue(spoilt, 3, 3).await, Err(Setback::StoreUnavailable));
    assert!(house.engine.not_ready().is_empty());
    // Once its rows are readable again, the coupon goes on from what is stored.
    house.faults.spoil(None);
    let issuance = house.must_issue(spoilt, 2).await;
    assert_eq!(issuance.id.sequence, Sequence::new(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_reads_of_lists_do_not_starve_owners() {
    let house = House::new().await;
    // With so many coupons and so many readers of all of them, an owner that shared a connection with the
    // readers would get its turn too late or never.
    for _ in 0..2_000 {
        house.coupon(None, 1).await;
    }
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2_000)
        .map(|_| {
            let (store, over) = (Arc::clone(&house.store), Arc::clone(&over));
            tokio::spawn(async move {
                let query = CouponQuery::all(None, 2_000);
                while !over.load(Ordering::Relaxed) {
                    let _ = store.coupons(&query).await;
                }
            })
        })
        .collect();
    let coupon = house.coupon(None, 1).await;
    // To get the shard back each time, the node must read the rows of nodes and shards.
    for number in 0..5 {
        house.take_shard_away(coupon).await;
        house.must_issue(coupon, number).await;
    }
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
}
