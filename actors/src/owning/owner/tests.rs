//! Whom an owner waits for, and how it ends. What it decides is the ledger's, and all of it together the
//! simulation's.

use super::*;
use crate::coupon::issued::Issued;
use crate::coupon::offer::{Coupon, Offer, Status};
use crate::ids::{RequestKey, UserId};
use crate::owning::admission::Admission;
use crate::owning::message::Change;
use crate::time::Timestamp;

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

/// It gathers up to three.
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
    Owner::new(
        Ledger::new(coupon, Issued::new(id)),
        fence(),
        Duration::ZERO,
        4,
        Moment::ORIGIN,
    )
}

/// So many more users ask.
fn ask(owner: &mut Owner, users: std::ops::Range<u32>) -> Vec<Effect> {
    let mut effects = Vec::new();
    for user in users {
        let (reply, _answer) = Reply::new(Admission::new(1).admit().unwrap());
        let (user, key) = (
            UserId::parse(&format!("user-{user}")).unwrap(),
            RequestKey::parse("key").unwrap(),
        );
        let request = Request::Issue(
            IssueRequest {
                user,
                key,
                expires: Moment::at(Duration::from_secs(1)),
            },
            reply,
        );
        owner.handle(OwnerCommand::Decide(request), now(), true, &mut effects);
    }
    effects
}

fn told(owner: &mut Owner, command: OwnerCommand) -> Vec<Effect> {
    let mut effects = Vec::new();
    owner.handle(command, now(), true, &mut effects);
    effects
}

fn settled(owner: &mut Owner, fate: Fate) -> Vec<Effect> {
    told(owner, OwnerCommand::Settle(Settlement { fence: fence(), fate }))
}

/// What is done, in order: `a`nswers, `s`ubmits so many rows, `g`athers.
fn done(effects: &[Effect]) -> String {
    let say = |effect: &Effect| match effect {
        Effect::Answer(_) => "a".to_owned(),
        Effect::Submit(portion) => format!("s{}", portion.entries.len()),
        Effect::Gather => "g".to_owned(),
        other => panic!("{other:?}"),
    };
    effects.iter().map(say).collect()
}

/// An owner that has handed over one issuance, which came back fenced.
fn fenced() -> Owner {
    let mut owner = owner(None);
    ask(&mut owner, 0..1);
    let effects = settled(&mut owner, Fate::Fenced);
    assert!(matches!(effects[..], [Effect::ReportFenced(_)]), "{effects:?}");
    owner
}

#[test]
fn a_few_wait_for_those_just_answered_and_go_with_them() {
    let mut owner = owner(None);
    assert_eq!(
        done(&ask(&mut owner, 0..3)),
        "s1",
        "an idle owner waits for nobody"
    );
    assert_eq!(done(&settled(&mut owner, Fate::Stored)), "ag");
    assert_eq!(done(&ask(&mut owner, 3..4)), "");
    assert_eq!(done(&told(&mut owner, OwnerCommand::Submit)), "s3");
    assert_eq!(
        done(&settled(&mut owner, Fate::Stored)),
        "aaag",
        "all of three that were answered may come again"
    );
    assert_eq!(done(&told(&mut owner, OwnerCommand::Submit)), "", "and need not");
    assert_eq!(done(&ask(&mut owner, 5..6)), "s1");
    assert_eq!(
        done(&settled(&mut owner, Fate::Stored)),
        "a",
        "who is alone waits for nobody"
    );
    assert_eq!(done(&ask(&mut owner, 6..7)), "s1");
}

#[test]
fn many_go_before_those_are_answered_whom_they_waited_for() {
    let mut owner = owner(None);
    ask(&mut owner, 0..5);
    assert_eq!(done(&settled(&mut owner, Fate::Stored)), "s4a");
}

#[test]
fn nobody_is_waited_for_when_there_are_enough_or_nobody_can_join() {
    let mut enough = owner(None);
    ask(&mut enough, 0..4);
    assert_eq!(done(&settled(&mut enough, Fate::Stored)), "ag");
    assert_eq!(done(&ask(&mut enough, 4..5)), "s4", "enough came");
    assert_eq!(done(&told(&mut enough, OwnerCommand::Submit)), "");

    let mut sold_out = owner(Some(3));
    ask(&mut sold_out, 0..3);
    assert_eq!(
        done(&settled(&mut sold_out, Fate::Stored)),
        "s2a",
        "none are left"
    );

    let mut changed = owner(None);
    ask(&mut changed, 0..1);
    let (reply, _answer) = Reply::new(Admission::new(1).admit().unwrap());
    let change = ChangeRequest {
        change: Change::Pause,
        if_version: None,
        expires: Moment::at(Duration::from_secs(1)),
    };
    told(&mut changed, OwnerCommand::Decide(Request::Change(change, reply)));
    assert_eq!(
        done(&settled(&mut changed, Fate::Stored)),
        "s1a",
        "a change goes by itself"
    );
}

#[test]
fn a_draining_owner_gathers_nobody() {
    let mut owner = owner(None);
    ask(&mut owner, 0..3);
    told(&mut owner, OwnerCommand::Drain);
    assert_eq!(done(&settled(&mut owner, Fate::Stored)), "s2a");
}

/// The actor takes no command while it gathers; the simulation's does.
#[test]
fn one_told_to_drain_while_it_gathers_stores_all_before_it_stops() {
    let mut owner = owner(None);
    ask(&mut owner, 0..3);
    settled(&mut owner, Fate::Stored);
    assert_eq!(done(&told(&mut owner, OwnerCommand::Drain)), "");
    assert_eq!(done(&told(&mut owner, OwnerCommand::Submit)), "s2");
    let effects = settled(&mut owner, Fate::Stored);
    assert!(
        matches!(effects.last(), Some(Effect::Stop { unsettled: false })),
        "{effects:?}"
    );
}

#[test]
fn what_waits_for_the_next_epoch_goes_out_under_it() {
    let effects = told(&mut fenced(), OwnerCommand::Refence(Epoch::new(2)));
    assert!(
        matches!(&effects[..], [Effect::Submit(portion)] if portion.fence.epoch == Epoch::new(2)),
        "{effects:?}"
    );
}

#[test]
fn a_draining_owner_does_not_wait_for_an_epoch_that_never_comes() {
    let effects = told(&mut fenced(), OwnerCommand::Drain);
    assert!(
        matches!(effects.last(), Some(Effect::Stop { unsettled: true })),
        "{effects:?}"
    );
}
