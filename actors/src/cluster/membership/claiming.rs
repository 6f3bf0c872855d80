//! Claims that were sent to the store and not answered yet, as a state machine.
//!
//! Claims run beside the beats. So however long a commit takes, it delays no beat, and no claim is given up
//! because it took long. Until a claim is answered, later rounds do not judge its shard.

use std::collections::HashSet;

use crate::cluster::claim::LocalState;
use crate::ids::{Fence, Incarnation, ShardId};
use crate::store::{Claim, ShardRow};

/// Maximum number of shards that one call claims, by one statement and one commit. The claimed shards are
/// served before the next call begins.
const PORTION_MAX: usize = 64;

/// The claims of one incarnation that are under way.
#[derive(Debug, Default)]
pub struct ClaimsUnderWay {
    claimant: Option<Incarnation>,
    shards: HashSet<ShardId>,
    /// True if a claim did not succeed since the last round.
    missed: bool,
}

impl ClaimsUnderWay {
    /// Begins the claims that a round of this incarnation planned. Returns them in the portions in which they
    /// are to be sent. Each portion must be [`answered`](Self::answered).
    pub fn begin(&mut self, claimant: Incarnation, claims: &[Claim]) -> Vec<Vec<Claim>> {
        if self.claimant != Some(claimant) {
            self.end();
            self.claimant = Some(claimant);
        }
        self.missed = false;
        self.shards.extend(claims.iter().map(|claim| claim.seen.id));
        claims.chunks(PORTION_MAX).map(<[Claim]>::to_vec).collect()
    }

    /// Returns the state by which a round judges a shard, which is [`LocalState::Unsettled`] while its claim
    /// is under way.
    pub fn judged(&self, shard: ShardId, state: LocalState) -> LocalState {
        if self.shards.contains(&shard) {
            LocalState::Unsettled
        } else {
            state
        }
    }

    /// Takes the rows of a portion's shards as they are after the claims; no rows if the outcome of the
    /// claims is unknown. Returns the claims that succeeded, whose shards must be served before the next
    /// round is planned.
    ///
    /// Returns no claims of an incarnation that is over: another node may own its shards.
    pub fn answered<'a>(&mut self, portion: &'a [Claim], rows: &[ShardRow]) -> Vec<(&'a Claim, Fence)> {
        let is_present = |claim: &&Claim| Some(claim.claimant) == self.claimant;
        let present: Vec<&Claim> = portion.iter().filter(is_present).collect();
        for claim in &present {
            self.shards.remove(&claim.seen.id);
        }
        let fence = |claim: &'a Claim| {
            let row = rows.iter().find(|row| row.id == claim.seen.id)?;
            Some((claim, claim.fence(row)?))
        };
        let claimed: Vec<_> = present.iter().filter_map(|claim| fence(claim)).collect();
        self.missed |= claimed.len() < present.len();
        claimed
    }

    /// Returns true if no claim is under way, and all claims since the last round succeeded.
    pub fn are_complete(&self) -> bool {
        self.shards.is_empty() && !self.missed
    }

    /// Returns true if no claim is under way.
    #[cfg(test)]
    pub fn are_none(&self) -> bool {
        self.shards.is_empty()
    }

    /// Forgets the claims, because their incarnation is over.
    pub fn end(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;

    fn incarnation(number: u64) -> Incarnation {
        Incarnation::new(number).unwrap()
    }

    fn shard(number: u16) -> ShardId {
        ShardId::new(number).unwrap()
    }

    fn row(number: u16, epoch: u64, owner: Option<u64>) -> ShardRow {
        ShardRow {
            id: shard(number),
            epoch: Epoch::new(epoch),
            owner: owner.map(incarnation),
        }
    }

    fn claims(numbers: std::ops::Range<u16>, claimant: u64) -> Vec<Claim> {
        let claim = |number| Claim {
            seen: row(number, 4, None),
            claimant: incarnation(claimant),
        };
        numbers.map(claim).collect()
    }

    #[test]
    fn a_shard_whose_claim_is_under_way_is_not_judged() {
        let (mut under_way, state) = (ClaimsUnderWay::default(), LocalState::Unserved);
        let portions = under_way.begin(incarnation(1), &claims(0..2, 1));
        assert_eq!(portions, [claims(0..2, 1)]);
        assert_eq!(under_way.judged(shard(0), state), LocalState::Unsettled);
        assert_eq!(under_way.judged(shard(2), state), state);
        let claimed = under_way.answered(&portions[0], &[row(0, 5, Some(1)), row(1, 5, Some(2))]);
        let fence = Fence {
            epoch: Epoch::new(5),
            owner: incarnation(1),
        };
        assert_eq!(
            claimed,
            [(&portions[0][0], fence)],
            "another node has the other shard"
        );
        assert_eq!(under_way.judged(shard(0), state), state);
        assert!(
            under_way.are_none() && !under_way.are_complete(),
            "one was not claimed"
        );
        assert!(under_way.begin(incarnation(1), &[]).is_empty());
        assert!(under_way.are_complete());
    }

    #[test]
    fn a_portion_that_failed_is_judged_again_and_the_others_stay_under_way() {
        let mut under_way = ClaimsUnderWay::default();
        let portions = under_way.begin(incarnation(1), &claims(0..100, 1));
        assert_eq!(portions.iter().map(Vec::len).collect::<Vec<_>>(), [64, 36]);
        assert!(under_way.answered(&portions[0], &[]).is_empty());
        assert_eq!(
            under_way.judged(shard(63), LocalState::Unserved),
            LocalState::Unserved
        );
        assert_eq!(
            under_way.judged(shard(64), LocalState::Unserved),
            LocalState::Unsettled
        );
        assert!(!under_way.are_none());
    }

    #[test]
    fn an_answer_to_an_incarnation_that_is_over_changes_nothing() {
        let mut under_way = ClaimsUnderWay::default();
        let old = under_way.begin(incarnation(1), &claims(0..2, 1)).remove(0);
        let rows = [row(0, 5, Some(1)), row(1, 5, Some(1))];
        under_way.end();
        assert!(under_way.answered(&old, &rows).is_empty());
        let new = under_way.begin(incarnation(2), &claims(0..1, 2)).remove(0);
        assert!(under_way.answered(&old, &rows).is_empty());
        assert_eq!(
            under_way.judged(shard(0), LocalState::Unserved),
            LocalState::Unsettled
        );
        assert_eq!(under_way.answered(&new, &[row(0, 6, Some(2))]).len(), 1);
        assert!(under_way.are_complete());
    }
}
