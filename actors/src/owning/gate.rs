//! The output gate: an answer waits until everything on which it is based is stored.
//!
//! Positions only grow, so the waiting answers are in order. When the stored position rises, answers are
//! released from the front.

use std::collections::VecDeque;

/// A place in an owner's list of entries, counted from the owner's activation. Position 0 stands for
/// everything that was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position(u64);

impl Position {
    /// Returns the position this many entries later.
    #[must_use]
    pub fn plus(self, entries: usize) -> Self {
        Self(self.0 + entries as u64)
    }

    /// Returns the position this many entries earlier.
    #[must_use]
    pub fn minus(self, entries: usize) -> Self {
        Self(self.0.saturating_sub(entries as u64))
    }

    /// Returns how many entries lie between an earlier position and this one.
    pub fn after(self, earlier: Self) -> u64 {
        self.0 - earlier.0
    }
}

/// Answers that wait, with the position at which each was decided.
#[derive(Debug)]
pub struct Gate<A> {
    stored: Position,
    waiting: VecDeque<(Position, A)>,
}

impl<A> Default for Gate<A> {
    fn default() -> Self {
        Self {
            stored: Position::default(),
            waiting: VecDeque::new(),
        }
    }
}

impl<A> Gate<A> {
    /// Returns the position up to which everything is stored.
    pub fn stored(&self) -> Position {
        self.stored
    }

    /// Returns how many answers wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Holds an answer that was decided at `position`, or gives it back if it need not wait.
    pub fn hold(&mut self, position: Position, answer: A) -> Option<A> {
        debug_assert!(
            self.waiting.back().is_none_or(|(last, _)| *last <= position),
            "positions only grow"
        );
        if position <= self.stored {
            return Some(answer);
        }
        self.waiting.push_back((position, answer));
        None
    }

    /// Raises the stored position, and returns the answers that waited for it, in order.
    pub fn raise(&mut self, stored: Position) -> impl Iterator<Item = A> {
        debug_assert!(stored >= self.stored, "what is stored stays stored");
        self.stored = stored;
        let free = self.waiting.partition_point(|(position, _)| *position <= stored);
        self.waiting.drain(..free).map(|(_, answer)| answer)
    }

    /// Drops the answers for which `waits` is false.
    pub fn retain(&mut self, waits: impl Fn(&A) -> bool) {
        self.waiting.retain(|(_, answer)| waits(answer));
    }

    /// Removes and returns all waiting answers, because their owner stores nothing more.
    pub fn abandon(&mut self) -> impl Iterator<Item = A> {
        self.waiting.drain(..).map(|(_, answer)| answer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Decide { entries: usize },
        Store { up_to: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let decide = (0..3_usize).prop_map(|entries| Step::Decide { entries });
        let store = (0..40_u64).prop_map(|up_to| Step::Store { up_to });
        prop::collection::vec(prop_oneof![3 => decide, 1 => store], 0..60)
    }

    proptest! {
        /// The model is a list of everything that was held. The positions of answers that have left are
        /// stored, the positions of answers that wait are not stored yet, and no answer leaves twice.
        #[test]
        fn an_answer_waits_exactly_until_everything_it_rests_on_is_stored(steps in steps()) {
            let mut gate = Gate::default();
            let (mut decided, mut stored) = (Position::default(), Position::default());
            let (mut held, mut left): (Vec<(Position, usize)>, Vec<usize>) = (Vec::new(), Vec::new());
            for (name, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Decide { entries } => {
                        decided = decided.plus(entries);
                        held.push((decided, name));
                        left.extend(gate.hold(decided, name));
                    }
                    Step::Store { up_to } => {
                        stored = stored.max(Position(up_to).min(decided));
                        left.extend(gate.raise(stored));
                    }
                }
                let free = held.iter().filter(|(position, _)| *position <= stored);
                let expected: Vec<usize> = free.map(|(_, name)| *name).collect();
                prop_assert_eq!(&left, &expected);
                prop_assert_eq!(gate.waiting(), held.len() - left.len());
            }
        }
    }
}
