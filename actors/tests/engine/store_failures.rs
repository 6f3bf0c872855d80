//! A store that loses answers, refuses writes, is full or busy, or has rows that cannot be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actors::coupon::change::ChangeOutcome;
use actors::coupon::ids::Sequence;
use actors::coupon::issue::IssueOutcome;
use actors::coupon::rows::{CouponQuery, CouponRows};
use actors::engine::NotReady;
use actors::owning::request::Setback;
use actors::trace::Span;
use testkit::poll::{eventually, within};

use super::faults::Fault;
use super::fixture::{DEADLINE, LONG, TestEngine, key, user};

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_is_resolved_before_its_caller_is_answered() {
    for fault in [Fault::LostAfterCommit, Fault::LostBeforeCommit, Fault::NotStored] {
        let (fixture, coupon) = TestEngine::with_coupon(Some(10)).await;
        fixture.faults.next_writes([fault, fault]);
        let issuance = fixture.must_issue(coupon, 1).await;
        assert_eq!(issuance.id.sequence, Sequence::new(1), "{fault:?}");
        assert_eq!(fixture.issuances(coupon).await.len(), 1, "{fault:?}");
        assert!(fixture.faults.are_used_up());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_decided_while_the_store_refuses_writes_and_earlier_decisions_are_stored_afterwards() {
    let (fixture, coupon) = TestEngine::with_coupon(Some(10)).await;
    fixture.faults.refuse_writes(true);
    // Decided before the node knows that the store refuses writes.
    let held = fixture.spawn_issue(coupon, 1, 1, DEADLINE);
    fixture.store_fails().await;
    assert_eq!(fixture.issue(coupon, 2, 2).await, Err(Setback::StoreUnavailable));
    assert!(fixture.issuances(coupon).await.is_empty());
    fixture.faults.refuse_writes(false);
    assert!(matches!(held.await.unwrap(), Ok(IssueOutcome::Issued(_))));
    eventually("the store accepts writes again", async || {
        fixture.engine.not_ready().is_empty()
    })
    .await;
    fixture.must_issue(coupon, 2).await;
    assert_eq!(fixture.issuances(coupon).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_is_not_known_by_the_deadline_is_unknown_and_a_retry_finds_it() {
    let (fixture, coupon) = TestEngine::with_coupon(Some(10)).await;
    fixture.faults.refuse_writes(true);
    // Long enough to load the coupon and decide.
    let short = Duration::from_secs(1);
    assert_eq!(
        fixture
            .coupons
            .issue(coupon, user(1), key(1), short, &Span::default())
            .await,
        Err(Setback::Unknown)
    );
    fixture.faults.refuse_writes(false);
    assert!(matches!(
        fixture.issue(coupon, 1, 1).await,
        Ok(IssueOutcome::Replayed(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_and_issuing_goes_on_once_there_is_room() {
    let (fixture, coupon) = TestEngine::with_coupon(None).await;
    // The quota cannot fall below the present size, so the disk is full now.
    fixture.store.set_page_count_max(1).await.unwrap();
    let (mut issued, mut held) = (Vec::new(), Vec::new());
    for number in 0..2_000 {
        held.push((number, fixture.spawn_issue(coupon, number, number, LONG)));
        if fixture.engine.not_ready() == [NotReady::NoStore] {
            break;
        }
        tokio::task::yield_now().await;
    }
    fixture.store_fails().await;
    assert_eq!(
        fixture.issue(coupon, 1_000_000, 1).await,
        Err(Setback::StoreUnavailable)
    );
    fixture.store.set_page_count_max(1 << 20).await.unwrap();
    for (number, answer) in held {
        match answer.await.unwrap() {
            Ok(IssueOutcome::Issued(issuance)) => issued.push(issuance),
            // Nothing was decided for this request, so a retry with its key issues the coupon.
            Err(Setback::StoreUnavailable) => {
                fixture.must_issue(coupon, number).await;
            }
            other => panic!("{other:?}"),
        }
    }
    let stored = fixture.issuances(coupon).await;
    assert!(!issued.is_empty() && issued.iter().all(|issuance| stored.contains(issuance)));
    assert!(fixture.engine.not_ready().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_with_a_gap_in_its_stored_sequences_is_not_served() {
    let (mut fixture, coupon) = TestEngine::with_coupon(Some(10)).await;
    for number in 1..=2 {
        fixture.must_issue(coupon, number).await;
    }
    fixture
        .run_sql("UPDATE issuances SET sequence = 1000 WHERE sequence = 1")
        .await;
    fixture.restart().await;
    assert_eq!(fixture.issue(coupon, 3, 3).await, Err(Setback::StoreUnavailable));
    fixture
        .run_sql("UPDATE issuances SET sequence = 1 WHERE sequence = 1000")
        .await;
    fixture.must_issue(coupon, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_coupon_does_not_keep_others_from_being_issued() {
    let fixture = TestEngine::new().await;
    let (front, spoilt, sound) = (
        fixture.coupon(None, 1).await,
        fixture.coupon(None, 1).await,
        fixture.coupon(None, 1).await,
    );
    for coupon in [front, spoilt, sound] {
        fixture.must_issue(coupon, 1).await;
    }
    // The portions of the other two coupons reach the lane while it waits for the first portion, so they go
    // in one batch.
    fixture.faults.hold_writes(true);
    let ask = |coupon| fixture.spawn_issue(coupon, 2, 2, DEADLINE);
    let first = ask(front);
    eventually("a batch is out", async || fixture.faults.writes_waiting() > 0).await;
    let (lost, other) = (ask(spoilt), ask(sound));
    eventually("all requests are admitted", async || {
        fixture.engine.admitted() == 3
    })
    .await;
    fixture.faults.spoil(Some(spoilt));
    fixture.faults.hold_writes(false);
    for asked in [first, other] {
        assert!(matches!(asked.await.unwrap(), Ok(IssueOutcome::Issued(_))));
    }
    // The lane goes on.
    fixture.must_issue(sound, 4).await;
    assert_eq!(
        lost.await.unwrap(),
        Err(Setback::Unknown),
        "the outcome cannot be read back"
    );
    assert_eq!(fixture.issue(spoilt, 3, 3).await, Err(Setback::StoreUnavailable));
    assert!(fixture.engine.not_ready().is_empty());
    // Once its rows are readable again, the coupon goes on from what is stored.
    fixture.faults.spoil(None);
    let issuance = fixture.must_issue(spoilt, 2).await;
    assert_eq!(issuance.id.sequence, Sequence::new(2));
}

/// A call to the store that takes longer is given up, and the batch is sent again.
const LESS_THAN_A_CALL: Duration = Duration::from_secs(4);

/// A held batch stands for one that takes long.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_takes_long_does_not_hold_up_other_coupons() {
    let fixture = TestEngine::with_lanes(3).await;
    fixture.faults.hold_writes(true);
    let mut asked = Vec::new();
    for held in 0..3 {
        // Portions wait for a batch while it is young, so coupons are requested until one does not wait.
        within(LESS_THAN_A_CALL, "another batch is under way", async || {
            let coupon = fixture.coupon(None, 1).await;
            asked.push(fixture.spawn_issue(coupon, 1, 1, LONG));
            fixture.faults.writes_waiting() > held
        })
        .await;
    }
    fixture.faults.hold_writes(false);
    for asked in asked {
        assert!(matches!(asked.await.unwrap(), Ok(IssueOutcome::Issued(_))));
    }
}

/// Changes share no batch, and those of these two coupons take the same lane.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_a_batch_that_hangs_is_moved_to_another_lane() {
    let fixture = TestEngine::with_lanes(2).await;
    let first = fixture.coupon(None, 1).await;
    let mut other = first;
    while other == first || other.shard().get() % 2 != first.shard().get() % 2 {
        other = fixture.coupon(None, 1).await;
    }
    fixture.faults.hold_writes(true);
    let front = fixture.spawn_pause(first, LONG);
    eventually("a batch is out", async || fixture.faults.writes_waiting() == 1).await;
    let behind = fixture.spawn_pause(other, LONG);
    within(LESS_THAN_A_CALL, "another batch is under way", async || {
        fixture.faults.writes_waiting() == 2
    })
    .await;
    fixture.faults.hold_writes(false);
    for asked in [front, behind] {
        assert!(matches!(asked.await.unwrap(), Ok(ChangeOutcome::Done(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_reads_of_lists_do_not_starve_owners() {
    let fixture = TestEngine::new().await;
    // There are so many coupons and readers that an owner could not load in time if it shared a connection
    // with the readers.
    for _ in 0..2_000 {
        fixture.coupon(None, 1).await;
    }
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2_000)
        .map(|_| {
            let (store, over) = (Arc::clone(&fixture.store), Arc::clone(&over));
            tokio::spawn(async move {
                let query = CouponQuery::all(None, 2_000);
                while !over.load(Ordering::Relaxed) {
                    let _ = store.coupons(&query).await;
                }
            })
        })
        .collect();
    let coupon = fixture.coupon(None, 1).await;
    // Each time the node must read the rows of nodes and shards to get the shard back.
    for number in 0..5 {
        fixture.take_shard_away(coupon).await;
        fixture.must_issue(coupon, number).await;
    }
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
}
