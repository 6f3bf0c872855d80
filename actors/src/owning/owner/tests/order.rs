//! The order in which entries are stored, which `docs/architecture.md` describes under "The order of
//! commits".

use proptest::prelude::*;

use super::*;
use crate::coupon::offer::OfferPatch;

/// A row of a coupon, by its number among those of its sort.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Row {
    Issuance(u64),
    Use { number: u64, of: u64, returns: bool },
    Change(u64),
}

impl Row {
    /// Returns true if this row must be stored before `later`, which was decided after it.
    fn must_precede(&self, later: &Self) -> bool {
        match (self, later) {
            (Self::Issuance(sequence), Self::Use { of, .. }) => sequence == of,
            (Self::Use { returns, .. }, Self::Issuance(_)) => *returns,
            _ => true,
        }
    }
}

/// An owner, with its rows in the order of the decisions and in the order of the submissions.
struct World {
    owner: Owner,
    users: u32,
    /// How many rows of each sort are decided.
    issued: u64,
    used: u64,
    changed: u64,
    decided: Vec<Row>,
    submitted: Vec<Row>,
}

impl World {
    /// Takes the step with this number.
    fn step(&mut self, step: u8, sequence: u64) {
        let before = self.owner.unstored();
        let made = |number, returns| Row::Use {
            number,
            of: sequence,
            returns,
        };
        let (effects, row) = match step {
            0..=4 => {
                self.users += 1;
                let effects = issue(&mut self.owner, self.users..self.users + 1);
                (effects, Row::Issuance(self.issued + 1))
            }
            5..=7 => (redeem(&mut self.owner, sequence), made(self.used + 1, false)),
            8 => (give_back(&mut self.owner, sequence), made(self.used + 1, true)),
            9 => {
                let patch = OfferPatch {
                    title: Some(format!("the title after {} changes", self.changed)),
                    ..OfferPatch::default()
                };
                let change = ChangeRequest::from(Change::Patch(Box::new(patch)));
                // The coupon begins with version 1.
                (
                    decide(&mut self.owner, change.into()),
                    Row::Change(self.changed + 2),
                )
            }
            _ => return self.store(),
        };
        self.submit(&effects);
        if self.owner.unstored() > before {
            match row {
                Row::Issuance(_) => self.issued += 1,
                Row::Use { .. } => self.used += 1,
                Row::Change(_) => self.changed += 1,
            }
            self.decided.push(row);
        }
    }

    /// Stores the portion in flight, and submits the next one.
    fn store(&mut self) {
        let mut effects = settle(&mut self.owner, Fate::Stored);
        effects.extend(command(&mut self.owner, OwnerCommand::Submit));
        self.submit(&effects);
    }

    fn submit(&mut self, effects: &[Effect]) {
        for effect in effects {
            let Effect::Submit(portion, _) = effect else {
                continue;
            };
            match &portion.run {
                CouponRun::Issuances(run) => {
                    let rows = run.iter().map(|row| Row::Issuance(row.id.sequence.get()));
                    self.submitted.extend(rows);
                }
                CouponRun::Uses(run) => self.submitted.extend(run.iter().map(|row| Row::Use {
                    number: row.number.get(),
                    of: row.sequence.get(),
                    returns: row.shown.returns,
                })),
                CouponRun::Change(change) => self.submitted.push(Row::Change(change.coupon.version)),
            }
        }
    }
}

proptest! {
    #[test]
    fn only_issuances_and_uses_that_do_not_rest_on_each_other_are_stored_in_another_order(
        steps in prop::collection::vec((0..12_u8, 1..20_u64), 1..80),
    ) {
        let mut world = World {
            owner: owner(Some(1_000)),
            users: 0,
            issued: 0,
            used: 0,
            changed: 0,
            decided: Vec::new(),
            submitted: Vec::new(),
        };
        for (step, sequence) in steps {
            world.step(step, sequence);
        }
        while world.owner.unstored() > 0 {
            world.store();
        }
        prop_assert_eq!(world.submitted.len(), world.decided.len());
        let place = |row: &Row| world.submitted.iter().position(|submitted| submitted == row);
        for (index, later) in world.decided.iter().enumerate() {
            prop_assert!(place(later).is_some(), "{:?} is not stored", later);
            for earlier in &world.decided[..index] {
                prop_assert!(
                    place(earlier) < place(later) || !earlier.must_precede(later),
                    "{:?} is stored before {:?}", later, earlier
                );
            }
        }
    }
}
