//! The coupon as a kind.

use crate::coupon::change::{self, ChangeDone, ChangeOutcome, ChangeRefusal, ChangeRequest};
use crate::coupon::entry::{CouponEntry, CouponRun};
use crate::coupon::issue::{self, IssueOutcome, IssueRequest, Refusal};
use crate::coupon::issued::Issued;
use crate::coupon::ledger::{CouponHead, Ledger};
use crate::coupon::notice::SoldOutNotice;
use crate::coupon::tail::Tail;
use crate::coupon::wire;
use crate::ids::{CouponId, ShardId};
use crate::owning::kind::{Kind, Superseded, Unreadable, Verdict};
use crate::time::Timestamp;

/// The kind of coupons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CouponKind;

/// A request to a coupon's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Issue the coupon to a user.
    Issue(IssueRequest),
    /// Change the coupon.
    Change(ChangeRequest),
}

/// The answer of a coupon's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The answer to an issue request.
    Issue(IssueOutcome),
    /// The answer to a change.
    Change(ChangeOutcome),
}

impl Kind for CouponKind {
    type Id = CouponId;
    type Ask = Ask;
    type Outcome = Outcome;
    type Entry = CouponEntry;
    type Run = CouponRun;
    type Head = CouponHead;
    type Rows = Issued;
    type Reading = Tail;
    type State = Ledger;
    type Notice = SoldOutNotice;

    fn shard(id: CouponId) -> ShardId {
        id.shard()
    }

    fn flow(id: CouponId) -> u64 {
        id.get()
    }

    fn id(ledger: &Ledger) -> CouponId {
        ledger.coupon().id
    }

    fn is_repeatable(ask: &Ask) -> bool {
        match ask {
            Ask::Issue(_) => true,
            // Most changes have no key by which an owner would recognise them. Those that have one are
            // repeated by their clients: an owner of the release before does not know the key.
            Ask::Change(_) => false,
        }
    }

    fn judge(ledger: &Ledger, now: Timestamp, ask: &Ask) -> Verdict<Self> {
        match ask {
            Ask::Issue(request) => issue::judge(ledger, now, request),
            Ask::Change(request) => change::judge(ledger, now, request),
        }
    }

    fn apply(ledger: &mut Ledger, entry: &CouponEntry) -> Outcome {
        match entry {
            CouponEntry::Issuance(issuance) => {
                ledger.issue(issuance);
                Outcome::Issue(IssueOutcome::Issued(issuance.clone()))
            }
            CouponEntry::Change(change) => {
                ledger.change(change);
                Outcome::Change(ChangeOutcome::Done(Box::new(ChangeDone {
                    coupon: change.coupon.clone(),
                    issued: change.issued,
                })))
            }
        }
    }

    fn is_refusal(outcome: &Outcome) -> bool {
        matches!(
            outcome,
            Outcome::Issue(IssueOutcome::Refused(_)) | Outcome::Change(ChangeOutcome::Refused(_))
        )
    }

    fn absent(ask: &Ask) -> Outcome {
        match ask {
            Ask::Issue(_) => Outcome::Issue(IssueOutcome::Refused(Refusal::UnknownCoupon)),
            Ask::Change(_) => Outcome::Change(ChangeOutcome::Refused(ChangeRefusal::UnknownCoupon)),
        }
    }

    fn version_of(entry: &CouponEntry) -> Option<u64> {
        match entry {
            CouponEntry::Issuance(_) => None,
            CouponEntry::Change(change) => Some(change.coupon.version),
        }
    }

    fn superseded(ask: &Ask, outcome: &Outcome) -> Option<Superseded> {
        match (ask, outcome) {
            (
                Ask::Change(request),
                Outcome::Change(ChangeOutcome::Done(done) | ChangeOutcome::Replayed(done)),
            ) => Some(Superseded {
                version: done.coupon.version,
                widens: request.change.may_widen(),
            }),
            _ => None,
        }
    }

    fn run_length<'a>(entries: impl Iterator<Item = &'a CouponEntry>, rows_max: usize) -> usize {
        CouponRun::length(entries, rows_max)
    }

    fn run(entries: impl Iterator<Item = CouponEntry>) -> CouponRun {
        CouponRun::of(entries)
    }

    fn may_be_joined(entry: &CouponEntry) -> bool {
        matches!(entry, CouponEntry::Issuance(_))
    }

    fn is_exhausted(ledger: &Ledger) -> bool {
        ledger.is_sold_out()
    }

    fn notice(ledger: &Ledger) -> Option<SoldOutNotice> {
        let notice = || SoldOutNotice::new(ledger.coupon().clone(), ledger.last(), ledger.issued().users());
        ledger.is_sold_out().then(notice)
    }

    fn reading(id: CouponId, ahead: Option<Issued>) -> Tail {
        Tail::of(ahead.unwrap_or_else(|| Issued::new(id)))
    }

    fn read(reading: Tail) -> Option<Issued> {
        reading.complete()
    }

    fn state(head: CouponHead, issued: Issued) -> Ledger {
        Ledger::new(head, issued)
    }

    fn entries(ledger: &Ledger) -> u64 {
        ledger.last().get()
    }

    fn encode_id(id: CouponId, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&id.get().to_le_bytes());
    }

    fn decode_id(bytes: &[u8]) -> Result<CouponId, Unreadable> {
        let number = <[u8; 8]>::try_from(bytes).ok().map(u64::from_le_bytes);
        number
            .and_then(CouponId::new)
            .ok_or(Unreadable::Wrong("coupon id"))
    }

    fn encode_ask(ask: Ask) -> Vec<u8> {
        wire::write_ask(ask)
    }

    fn decode_ask(bytes: &[u8]) -> Result<Ask, Unreadable> {
        wire::read_ask(bytes)
    }

    fn encode_outcome(outcome: Outcome) -> Vec<u8> {
        wire::write_outcome(outcome)
    }

    fn decode_outcome(bytes: &[u8]) -> Result<Outcome, Unreadable> {
        wire::read_outcome(bytes)
    }
}
