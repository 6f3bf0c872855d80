//! Tests of when an owner gathers, and of how it stops. Decisions are tested with the ledger, and everything
//! together by the simulation.

use super::*;
use crate::admission::Admission;
use crate::coupon::change::{Change, ChangeRequest};
use crate::coupon::ids::CouponId;
use crate::coupon::issue::IssueRequest;
use crate::coupon::issued::Issued;
use crate::coupon::ledger::Ledger;
use crate::coupon::offer::{Coupon, Offer, Status};
use crate::coupon::{CouponAsk, CouponKind};
use crate::ids::{RequestKey, UserId};
use crate::time::Timestamp;

type Owner = super::Owner<CouponKind>;
type Effect = super::Effect<CouponKind>;
type OwnerCommand = super::OwnerCommand<CouponKind>;

fn now() -> Now {
    Now {
        moment: Moment::ORIGIN,
        timestamp: Timestamp::from_micros(0).unwrap(),
    }
}

fn fence() -> Fence {
    Fence {
        epoch: Epoch::new(1),
        owner: Incarnation::new(1).unwrap(),
    }
}

/// Makes an owner that gathers portions of up to three entries.
fn owner(total_quantity: Option<u64>) -> Owner {
    let (id, at) = (CouponId::new(1).unwrap(), Timestamp::from_micros(0).unwrap());
    let coupon = Coupon {
        id,
        offer: Offer {
            total_quantity,
            ..Offer::titled("test")
        },
        status: Status::Open,
        version: 1,
        created_at: at,
        updated_at: at,
    };
    let ledger = Ledger::new(coupon.into(), Issued::new(id));
    Owner::new(ledger, fence(), Duration::ZERO, 4, Moment::ORIGIN)
}

fn decide(owner: &mut Owner, ask: CouponAsk) -> Vec<Effect> {
    let (reply, _answer) = Reply::new(Admission::new(1).admit().unwrap());
    let expires = Moment::at(Duration::from_secs(1));
    command(owner, OwnerCommand::Decide(Request { ask, expires, reply }))
}

/// Decides an issue request of each of these users, none of whom made a request before.
fn issue(owner: &mut Owner, users: std::ops::Range<u32>) -> Vec<Effect> {
    let request = |user| IssueRequest {
        user: UserId::parse(&format!("user-{user}")).unwrap(),
        key: RequestKey::parse("key").unwrap(),
    };
    users
        .flat_map(|user| decide(owner, request(user).into()))
        .collect()
}

fn command(owner: &mut Owner, command: OwnerCommand) -> Vec<Effect> {
    let mut effects = Vec::new();
    owner.handle(command, now(), true, &mut effects);
    effects
}

fn settle(owner: &mut Owner, fate: Fate) -> Vec<Effect> {
    command(
        owner,
        OwnerCommand::Settle(Settlement {
            fence: fence(),
            fate,
            batch: None,
        }),
    )
}

/// Returns the effects in order: `a` for an answer, `s` and the number of rows for a submission, `g` for
/// gathering.
fn summary(effects: &[Effect]) -> String {
    let letter = |effect: &Effect| match effect {
        Effect::Answer(..) => "a".to_owned(),
        Effect::Submit(portion, _) => format!("s{}", portion.run.rows()),
        Effect::Gather => "g".to_owned(),
        other => panic!("{other:?}"),
    };
    effects.iter().map(letter).collect()
}

/// Makes an owner whose first issuance came back fenced.
fn fenced() -> Owner {
    let mut owner = owner(None);
    issue(&mut owner, 0..1);
    let effects = settle(&mut owner, Fate::Fenced);
    assert!(matches!(effects[..], [Effect::ReportFenced(_)]), "{effects:?}");
    owner
}

#[test]
fn a_few_waiting_callers_share_a_portion_with_callers_that_were_just_answered() {
    let mut owner = owner(None);
    let effects = issue(&mut owner, 0..3);
    assert_eq!(summary(&effects), "s1", "an idle owner does not wait");
    assert_eq!(summary(&settle(&mut owner, Fate::Stored)), "ag");
    assert_eq!(summary(&issue(&mut owner, 3..4)), "");
    assert_eq!(summary(&command(&mut owner, OwnerCommand::Submit)), "s3");
    let effects = settle(&mut owner, Fate::Stored);
    assert_eq!(
        summary(&effects),
        "aaag",
        "the three callers may ask again at once"
    );
    let effects = command(&mut owner, OwnerCommand::Submit);
    assert_eq!(summary(&effects), "", "or they may not");
    assert_eq!(summary(&issue(&mut owner, 5..6)), "s1");
    let effects = settle(&mut owner, Fate::Stored);
    assert_eq!(summary(&effects), "a", "a single caller does not wait for others");
    assert_eq!(summary(&issue(&mut owner, 6..7)), "s1");
}

#[test]
fn a_large_portion_is_sent_before_the_callers_of_the_last_portion_are_answered() {
    let mut owner = owner(None);
    issue(&mut owner, 0..5);
    assert_eq!(summary(&settle(&mut owner, Fate::Stored)), "s4a");
}

#[test]
fn gathering_ends_when_there_are_enough_entries_or_no_entry_can_join() {
    let mut enough = owner(None);
    issue(&mut enough, 0..4);
    assert_eq!(summary(&settle(&mut enough, Fate::Stored)), "ag");
    assert_eq!(summary(&issue(&mut enough, 4..5)), "s4", "enough entries");
    assert_eq!(summary(&command(&mut enough, OwnerCommand::Submit)), "");

    let mut sold_out = owner(Some(3));
    issue(&mut sold_out, 0..3);
    let effects = settle(&mut sold_out, Fate::Stored);
    assert_eq!(summary(&effects), "s2a", "no coupon is left");

    let mut changed = owner(None);
    issue(&mut changed, 0..1);
    let pause = ChangeRequest::from(Change::Pause);
    decide(&mut changed, pause.into());
    let effects = settle(&mut changed, Fate::Stored);
    assert_eq!(summary(&effects), "s1a", "a change has a portion of its own");
}

#[test]
fn a_draining_owner_does_not_gather() {
    let mut owner = owner(None);
    issue(&mut owner, 0..3);
    command(&mut owner, OwnerCommand::Drain);
    assert_eq!(summary(&settle(&mut owner, Fate::Stored)), "s2a");
}

/// The actor takes no command while its owner gathers; the simulation may send one.
#[test]
fn an_owner_that_is_drained_while_it_gathers_stores_everything_before_it_stops() {
    let mut owner = owner(None);
    issue(&mut owner, 0..3);
    settle(&mut owner, Fate::Stored);
    assert_eq!(summary(&command(&mut owner, OwnerCommand::Drain)), "");
    assert_eq!(summary(&command(&mut owner, OwnerCommand::Submit)), "s2");
    let effects = settle(&mut owner, Fate::Stored);
    assert!(
        matches!(effects.last(), Some(Effect::Stop { unsettled: false })),
        "{effects:?}"
    );
}

#[test]
fn a_fenced_portion_is_sent_again_under_the_next_epoch() {
    let effects = command(&mut fenced(), OwnerCommand::Refence(Epoch::new(2)));
    assert!(
        matches!(&effects[..], [Effect::Submit(portion, _)] if portion.fence.epoch == Epoch::new(2)),
        "{effects:?}"
    );
}

#[test]
fn a_draining_owner_does_not_wait_for_an_epoch_that_never_comes() {
    let effects = command(&mut fenced(), OwnerCommand::Drain);
    assert!(
        matches!(effects.last(), Some(Effect::Stop { unsettled: true })),
        "{effects:?}"
    );
}
