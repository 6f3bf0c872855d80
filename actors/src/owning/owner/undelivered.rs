//! The entries of an owner that no portion has yet, in the order of their positions.

use std::collections::VecDeque;

use crate::owning::gate::Position;
use crate::owning::kind::Kind;
use crate::time::Moment;

/// The queue of undelivered entries.
#[derive(Debug)]
pub(super) struct Undelivered<K: Kind> {
    entries: VecDeque<Decided<K::Entry>>,
    /// How many of them the kind counts.
    counted: u64,
}

/// An entry with its place in the owner's list.
#[derive(Debug)]
struct Decided<E> {
    position: Position,
    at: Moment,
    /// By how much the entry raised the number of entries that the kind counts: 1 or 0.
    counted: u64,
    entry: E,
}

impl<K: Kind> Default for Undelivered<K> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            counted: 0,
        }
    }
}

impl<K: Kind> Undelivered<K> {
    /// Adds the entry that was decided at a position and a time, after all others. `counted` is by how much
    /// it raised the number of entries that the kind counts.
    pub(super) fn push(&mut self, position: Position, at: Moment, counted: u64, entry: K::Entry) {
        self.counted += counted;
        self.entries.push_back(Decided {
            position,
            at,
            counted,
            entry,
        });
    }

    /// Returns how many of the entries the kind counts.
    pub(super) fn counted(&self) -> u64 {
        self.counted
    }

    /// Returns how many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the entries, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &K::Entry> {
        self.entries.iter().map(|decided| &decided.entry)
    }

    /// Returns when the oldest entry was decided.
    pub(super) fn oldest_at(&self) -> Option<Moment> {
        self.entries.front().map(|oldest| oldest.at)
    }

    /// Returns the position before the oldest entry.
    pub(super) fn position_before(&self) -> Option<Position> {
        self.entries.front().map(|oldest| oldest.position.minus(1))
    }

    /// Returns true if the entry at this position is undelivered.
    pub(super) fn holds(&self, position: Position) -> bool {
        let place = self
            .entries
            .binary_search_by_key(&position, |decided| decided.position);
        place.is_ok()
    }

    /// Takes the entries of the next run, which has at most `rows_max`. The oldest entry is one of them, so
    /// that no entry waits for ever. `None` if there is no entry.
    pub(super) fn take_run(&mut self, rows_max: usize) -> Option<K::Run> {
        self.entries.front()?;
        let length = K::run_length(self.iter(), rows_max);
        let along = K::taken_along(self.iter(), length, rows_max);
        let counted = &mut self.counted;
        let Some(last) = along.last() else {
            let run = self.entries.drain(..length);
            return Some(K::run(run.map(|decided| {
                *counted -= decided.counted;
                decided.entry
            })));
        };
        let (mut taken, mut passed) = (Vec::with_capacity(length + along.len()), Vec::new());
        for (place, decided) in self.entries.drain(..=*last).enumerate() {
            if place < length || along.binary_search(&place).is_ok() {
                *counted -= decided.counted;
                taken.push(decided.entry);
            } else {
                passed.push(decided);
            }
        }
        // What is behind the last entry that was taken stays where it is: there may be many more.
        for decided in passed.into_iter().rev() {
            self.entries.push_front(decided);
        }
        Some(K::run(taken.into_iter()))
    }
}
