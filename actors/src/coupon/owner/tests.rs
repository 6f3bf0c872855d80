//! How an owner ends. What it decides is the ledger's, and all of it together the simulation's.

use super::*;
use crate::admission::Admission;
use crate::coupon::issued::Issued;
use crate::ids::{RequestKey, UserId};
use crate::offer::{Coupon, Offer, Status};
use crate::time::Timestamp;

fn now() -> Now {
    Now { moment: Moment::ORIGIN, timestamp: Timestamp::from_micros(0).unwrap() }
}

/// An owner that has handed over one issuance, which came back fenced.
fn fenced() -> Owner {
    let (id, at) = (CouponId::new(1).unwrap(), Timestamp::from_micros(0).unwrap());
    let offer = Offer::titled("test");
    let coupon = Coupon { id, offer, status: Status::Open, version: 1, created_at: at, updated_at: at };
    let fence = Fence { epoch: Epoch::new(1), owner: Incarnation::new(1).unwrap() };
    let mut owner = Owner::new(Ledger::new(coupon, Issued::new(id)), fence, Duration::ZERO, Moment::ORIGIN);
    let (reply, _answer) = Reply::new(Admission::new(1).admit().unwrap());
    let (user, key) = (UserId::parse("ann").unwrap(), RequestKey::parse("key").unwrap());
    let request = Request::Issue(IssueRequest { user, key, expires: Moment::at(Duration::from_secs(1)) }, reply);
    owner.handle(OwnerCommand::Decide(request), now(), true, &mut Vec::new());
    let mut effects = Vec::new();
    owner.handle(OwnerCommand::Settle(Settlement { fence, fate: Fate::Fenced }), now(), true, &mut effects);
    assert!(matches!(effects[..], [Effect::ReportFenced(_)]), "{effects:?}");
    owner
}

#[test]
fn what_waits_for_the_next_epoch_goes_out_under_it() {
    let (mut owner, mut effects) = (fenced(), Vec::new());
    owner.handle(OwnerCommand::Refence(Epoch::new(2)), now(), true, &mut effects);
    assert!(matches!(&effects[..], [Effect::Submit(portion)] if portion.fence.epoch == Epoch::new(2)), "{effects:?}");
}

#[test]
fn a_draining_owner_does_not_wait_for_an_epoch_that_never_comes() {
    let (mut owner, mut effects) = (fenced(), Vec::new());
    owner.handle(OwnerCommand::Drain, now(), true, &mut effects);
    assert!(matches!(effects.last(), Some(Effect::Stop { unsettled: true })), "{effects:?}");
}
