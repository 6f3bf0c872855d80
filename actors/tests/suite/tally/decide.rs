//! Decisions on a tally, and loading it.

use actors::owning::kind::Verdict;

use super::{Add, AddOutcome, Addition, PartialTallyRows, Tally, TallyHead, TallyState};

/// Returns what an add request leads to.
pub(super) fn judge(state: &TallyState, ask: &Add) -> Verdict<Tally> {
    if let Some(place) = state.by_key.get(&ask.key) {
        return Verdict::Known(AddOutcome::Replayed(state.additions[*place].clone()));
    }
    let bound = state.head.bound;
    match state.total().checked_add(ask.amount) {
        Some(total) if total <= bound => Verdict::Enter(Addition {
            tally: state.head.id,
            number: state.additions.len() as u64 + 1,
            amount: ask.amount,
            total,
            key: ask.key.clone(),
        }),
        _ => Verdict::Refused(AddOutcome::BeyondBound { bound }),
    }
}

impl TallyState {
    pub(super) fn new(head: TallyHead, additions: Vec<Addition>) -> Self {
        let keys = additions.iter().map(|addition| addition.key.clone());
        let by_key = keys.zip(0..).collect();
        Self {
            head,
            additions,
            by_key,
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.additions.last().map_or(0, |addition| addition.total)
    }

    pub(super) fn push(&mut self, addition: Addition) {
        self.by_key.insert(addition.key.clone(), self.additions.len());
        self.additions.push(addition);
    }
}

impl PartialTallyRows {
    /// Returns the number of the addition after which reading begins. The last addition loaded ahead is read
    /// again, to check that it is still stored.
    pub fn after(&self) -> u64 {
        (self.additions.len() as u64).saturating_sub(1)
    }

    /// Takes the next addition that was read.
    ///
    /// # Errors
    ///
    /// If the addition does not follow the additions taken before.
    pub fn take(&mut self, next: Addition) -> Result<(), String> {
        if self.differs {
            return Ok(());
        }
        if !self.begins {
            self.begins = true;
            self.differs = self.additions.last() != Some(&next);
            return Ok(());
        }
        let before = self.additions.last().map_or(0, |addition| addition.total);
        let follows = next.number == self.additions.len() as u64 + 1 && next.total == before + next.amount;
        if !follows {
            return Err(format!("{next:?} does not follow a total of {before}"));
        }
        self.additions.push(next);
        Ok(())
    }
}
