//! What the latest use of an issuance may have been between a call and its answer.

use super::Uses;
use crate::ids::{OrderId, Sequence};
use crate::rows::{UseKind, UseRow};
use crate::time::Timestamp;

/// Number of orders that gave an issuance back that the service must remember besides the latest order, to
/// recognise their repeated steps.
pub(super) const REMEMBERED_MIN: usize = 16;

/// The part of the time between a call and its answer in which one use, or none, may have been the latest. It
/// is wider by the tolerance of clocks, so that it can be compared with the times in rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments<'a, 'h> {
    uses: &'a Uses<'h>,
    /// The indices of the uses until then; the last one is the latest.
    past: &'a [usize],
    pub(super) from: i64,
    pub(super) to: i64,
}

impl<'h> Uses<'h> {
    /// Returns the moments of each use that may have been the latest at some time from `call` to `answer`.
    pub(super) fn moments(&self, sequence: Sequence, call: i64, answer: i64) -> Vec<Moments<'_, 'h>> {
        let mut moments = self.all_moments(sequence, call, answer);
        moments.retain(|moments| moments.from <= moments.to);
        for moments in &mut moments {
            moments.from = moments.from.saturating_sub(self.tolerance);
            moments.to = moments.to.saturating_add(self.tolerance);
        }
        moments
    }

    /// Returns moments without bounds of each use that was certainly not the latest any more at the call.
    pub(super) fn before(&self, sequence: Sequence, call: i64) -> Vec<Moments<'_, 'h>> {
        let mut moments = self.all_moments(sequence, i64::MIN, i64::MAX);
        moments.retain(|moments| moments.to < call);
        for moments in &mut moments {
            (moments.from, moments.to) = (i64::MIN, i64::MAX);
        }
        moments
    }

    fn all_moments(&self, sequence: Sequence, call: i64, answer: i64) -> Vec<Moments<'_, 'h>> {
        let life = self.life(sequence);
        let states = (0..=life.len()).map(|count| {
            let begun = count
                .checked_sub(1)
                .map_or(i64::MIN, |last| self.bounds[life[last]].0);
            let ended = life.get(count).map_or(i64::MAX, |next| self.bounds[*next].1);
            Moments {
                uses: self,
                past: &life[..count],
                from: begun.max(call),
                to: ended.min(answer),
            }
        });
        states.collect()
    }
}

impl<'h> Moments<'_, 'h> {
    /// Returns the latest use.
    pub(super) fn latest(&self) -> Option<&'h UseRow> {
        self.past.last().map(|index| self.uses.rows[*index])
    }

    /// Returns the uses until then, the latest one first.
    pub(super) fn past(&self) -> impl Iterator<Item = &'h UseRow> + '_ {
        self.past.iter().rev().map(|index| self.uses.rows[*index])
    }

    /// Returns the latest use by this order, whatever other orders did since.
    pub(super) fn latest_of(&self, order: Option<&OrderId>) -> Option<&'h UseRow> {
        let mut past = self.past.iter().rev().map(|index| self.uses.rows[*index]);
        past.find(|row| order.is_some() && row.shown.order.as_ref() == order)
    }

    /// True if the service must remember what this order did, because few others gave the issuance back
    /// since.
    pub(super) fn remembers(&self, order: Option<&OrderId>) -> bool {
        let since = self.past().take_while(|row| row.shown.order.as_ref() != order);
        let given_back = since.filter(|row| {
            let kind = row.shown.kind;
            kind == UseKind::Released || kind == UseKind::Refunded
        });
        given_back.count() < REMEMBERED_MIN
    }

    /// Returns the latest use, if it is of this order and kind.
    pub(super) fn own(&self, order: Option<&OrderId>, kind: UseKind) -> Option<&'h UseRow> {
        self.latest()
            .filter(|row| row.shown.kind == kind && row.shown.order.as_ref() == order)
    }

    /// True if the hold of this row may have lasted at one of the moments.
    pub(super) fn may_hold(&self, row: &UseRow) -> bool {
        row.shown
            .hold_until
            .is_some_and(|hold_until| self.from < hold_until.as_micros())
    }

    /// True if at one of the moments a new order may have been able to use the issuance.
    pub(super) fn may_be_free(&self) -> bool {
        self.latest().is_none_or(|latest| match latest.shown.kind {
            UseKind::Reserved => {
                let hold_until = latest.shown.hold_until;
                hold_until.is_none_or(|hold_until| hold_until.as_micros() <= self.to)
            }
            UseKind::Released | UseKind::Refunded => true,
            UseKind::Redeemed | UseKind::Revoked => false,
        })
    }

    /// True if the issuance may have been past its end of use.
    pub(super) fn may_be_expired(&self, expires_at: Option<Timestamp>) -> bool {
        expires_at.is_some_and(|end| end.as_micros() <= self.to)
    }

    /// True if the issuance may have been before its end of use.
    pub(super) fn may_be_usable(&self, expires_at: Option<Timestamp>) -> bool {
        expires_at.is_none_or(|end| self.from < end.as_micros())
    }
}
