//! The coupon as a kind.

use crate::coupon::change::{self, Change, ChangeDone, ChangeOutcome, ChangeRefusal, ChangeRequest};
use crate::coupon::entry::{CouponEntry, CouponRun};
use crate::coupon::ids::CouponId;
use crate::coupon::issue::{self, IssueOutcome, IssueRequest, Refusal};
use crate::coupon::issued::Issued;
use crate::coupon::ledger::{CouponHead, Ledger, LedgerRows};
use crate::coupon::notice::SoldOutNotice;
use crate::coupon::tail::Tail;
use crate::coupon::uses::decide::UseRefusal;
use crate::coupon::uses::{self, UseCounts, UseDone, UseNumber, UseOutcome, UseRequest, UsedIssuance};
use crate::coupon::wire;
use crate::ids::ShardId;
use crate::owning::kind::{COUNTS, DecodeError, Kind, Superseded, Verdict};
use crate::time::Timestamp;

/// The kind of coupons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CouponKind;

/// A request to a coupon's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CouponAsk {
    /// Issue the coupon to a user.
    Issue(IssueRequest),
    /// Change the coupon.
    Change(ChangeRequest),
    /// Use an issuance.
    Use(Box<UseRequest>),
}

/// The answer of a coupon's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CouponOutcome {
    /// The answer to an issue request.
    Issue(IssueOutcome),
    /// The answer to a change.
    Change(ChangeOutcome),
    /// The answer to a use.
    Use(UseOutcome),
}

impl Kind for CouponKind {
    type Id = CouponId;
    type Ask = CouponAsk;
    type Outcome = CouponOutcome;
    type Entry = CouponEntry;
    type Run = CouponRun;
    type Head = CouponHead;
    type Rows = LedgerRows;
    type PartialRows = Tail;
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

    fn is_repeatable(ask: &CouponAsk) -> bool {
        match ask {
            CouponAsk::Issue(_) => true,
            // A use is recognised by its issuance and order.
            CouponAsk::Use(_) => true,
            // Most changes have no key by which an owner would recognise them. Changes that have one are
            // repeated by clients only: an owner of the former build does not know the key.
            CouponAsk::Change(_) => false,
        }
    }

    fn judge(ledger: &Ledger, now: Timestamp, ask: &CouponAsk) -> Verdict<Self> {
        match ask {
            CouponAsk::Issue(request) => issue::judge(ledger, now, request),
            CouponAsk::Change(request) => change::judge(ledger, now, request),
            CouponAsk::Use(request) => uses::judge(ledger, now, request),
        }
    }

    fn apply(ledger: &mut Ledger, entry: &CouponEntry) -> CouponOutcome {
        match entry {
            CouponEntry::Issuance(issuance) => {
                ledger.issue(issuance);
                CouponOutcome::Issue(IssueOutcome::Issued(issuance.clone()))
            }
            CouponEntry::Change(change) => {
                ledger.change(change);
                CouponOutcome::Change(ChangeOutcome::Done(Box::new(ChangeDone {
                    coupon: change.coupon.clone(),
                    issued: change.issued,
                    from_version: Some(change.from_version),
                    uses: Some(UseCounts {
                        reserved: change.reserved,
                        ..ledger.uses().counts()
                    }),
                })))
            }
            CouponEntry::Use(entry) => {
                ledger.make(&entry.made);
                let issuance = ledger.issued().get(entry.made.sequence);
                CouponOutcome::Use(UseOutcome::Done(Box::new(UseDone {
                    used: UsedIssuance {
                        issuance: issuance.expect("the use was judged with this issuance"),
                        latest: Some(entry.made.shown.clone()),
                    },
                    supersedes: entry.supersedes,
                })))
            }
        }
    }

    fn is_refusal(outcome: &CouponOutcome) -> bool {
        matches!(
            outcome,
            CouponOutcome::Issue(IssueOutcome::Refused(_))
                | CouponOutcome::Change(ChangeOutcome::Refused(_))
                | CouponOutcome::Use(UseOutcome::Refused(_))
        )
    }

    fn absent(ask: &CouponAsk) -> CouponOutcome {
        match ask {
            CouponAsk::Issue(_) => CouponOutcome::Issue(IssueOutcome::Refused(Refusal::UnknownCoupon)),
            CouponAsk::Change(_) => {
                CouponOutcome::Change(ChangeOutcome::Refused(ChangeRefusal::UnknownCoupon))
            }
            CouponAsk::Use(_) => CouponOutcome::Use(UseOutcome::Refused(UseRefusal::UnknownIssuance)),
        }
    }

    fn version_of(entry: &CouponEntry) -> Option<u64> {
        match entry {
            CouponEntry::Issuance(_) => None,
            CouponEntry::Change(change) => Some(change.coupon.version + change.returned),
            CouponEntry::Use(entry) => entry.supersedes,
        }
    }

    fn superseded(ask: &CouponAsk, outcome: &CouponOutcome) -> Option<Superseded> {
        match (ask, outcome) {
            (
                CouponAsk::Change(request),
                CouponOutcome::Change(ChangeOutcome::Done(done) | ChangeOutcome::Replayed(done)),
            ) => Some(Superseded {
                // An owner that does not know uses sends notices with the version alone.
                version: done.coupon.version + done.uses.map_or(0, |uses| uses.returned),
                widens: request.change.may_widen(),
            }),
            (CouponAsk::Use(_), CouponOutcome::Use(UseOutcome::Done(done) | UseOutcome::Replayed(done))) => {
                let version = done.supersedes?;
                Some(Superseded {
                    version,
                    widens: true,
                })
            }
            _ => None,
        }
    }

    fn run_length<'a>(entries: impl Iterator<Item = &'a CouponEntry>, rows_max: usize) -> usize {
        CouponRun::length(entries, rows_max)
    }

    fn taken_along<'a>(
        entries: impl Iterator<Item = &'a CouponEntry>,
        length: usize,
        rows_max: usize,
    ) -> Vec<usize> {
        CouponRun::taken_along(entries, length, rows_max)
    }

    fn run(entries: impl Iterator<Item = CouponEntry>) -> CouponRun {
        CouponRun::of(entries)
    }

    fn may_be_joined(entry: &CouponEntry) -> bool {
        entry.may_be_joined()
    }

    fn is_exhausted(ledger: &Ledger) -> bool {
        // While a coupon is given out and none was used yet, uses are rare.
        ledger.is_sold_out() && ledger.uses().last() == UseNumber::NONE
    }

    fn notice(ledger: &mut Ledger) -> Option<SoldOutNotice> {
        if !ledger.is_sold_out() {
            return None;
        }
        let winners = ledger.winners();
        let returned = ledger.uses().counts().returned;
        Some(SoldOutNotice::new(
            ledger.coupon().clone(),
            ledger.last(),
            returned,
            winners,
        ))
    }

    fn begin_load(id: CouponId, ahead: Option<LedgerRows>) -> Tail {
        Tail::of(ahead.unwrap_or_else(|| Issued::new(id).into()))
    }

    fn finish_load(reading: Tail) -> Option<LedgerRows> {
        reading.complete()
    }

    fn state(head: CouponHead, rows: LedgerRows) -> Ledger {
        Ledger::new(head, rows)
    }

    fn entries(ledger: &Ledger) -> u64 {
        ledger.last().get()
    }

    fn entries_max(ledger: &Ledger) -> Option<u64> {
        let total = ledger.coupon().offer.total_quantity?;
        Some(total + ledger.uses().counts().returned)
    }

    /// How many issuances are reserved, and how many are redeemed.
    fn counts(ledger: &mut Ledger, now: Timestamp) -> [u64; COUNTS] {
        [ledger.count_holds(now), ledger.uses().counts().redeemed]
    }

    fn encode_id(id: CouponId, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&id.get().to_le_bytes());
    }

    fn decode_id(bytes: &[u8]) -> Result<CouponId, DecodeError> {
        let number = <[u8; 8]>::try_from(bytes).ok().map(u64::from_le_bytes);
        number
            .and_then(CouponId::new)
            .ok_or(DecodeError::Wrong("coupon id"))
    }

    fn encode_ask(ask: CouponAsk) -> Vec<u8> {
        wire::write_ask(ask)
    }

    fn decode_ask(bytes: &[u8]) -> Result<CouponAsk, DecodeError> {
        wire::read_ask(bytes)
    }

    fn link_version(ask: &CouponAsk) -> u32 {
        match ask {
            CouponAsk::Change(ChangeRequest {
                change: Change::Patch(patch),
                ..
            }) if patch.needs_version_3() => 3,
            CouponAsk::Use(_) => 3,
            CouponAsk::Issue(_) | CouponAsk::Change(_) => 0,
        }
    }

    fn encode_outcome(outcome: CouponOutcome) -> Vec<u8> {
        wire::write_outcome(outcome)
    }

    fn decode_outcome(bytes: &[u8]) -> Result<CouponOutcome, DecodeError> {
        wire::read_outcome(bytes)
    }
}
