//! The latest use of each used issuance of one coupon in memory, packed. An issuance that was never used takes
//! nothing.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::coupon::ids::Sequence;
use crate::coupon::uses::{Figures, LatestUse, UseCounts, UseKind, UseNumber};
use crate::ids::OrderId;
use crate::time::Timestamp;

/// Number of records in a block; blocks do not move when there are more.
const BLOCK_RECORDS: usize = 1024;

/// A use as it is read when its owner is loaded.
#[derive(Debug, Clone, Copy)]
pub struct LoadedUse<'a> {
    /// Its number.
    pub number: UseNumber,
    /// The issuance.
    pub sequence: Sequence,
    /// What it does.
    pub kind: UseKind,
    /// The order, in the form of an [`OrderId`].
    pub order: Option<&'a str>,
    /// The figures of the order.
    pub figures: Option<Figures>,
    /// When its hold lapses.
    pub hold_until: Option<Timestamp>,
    /// True if it gave the issuance back to the quantity.
    pub returns: bool,
    /// When it was decided.
    pub at: Timestamp,
}

/// Why a use cannot be the next one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InconsistentUse {
    /// Its number is not the next one.
    #[error("found use {found}, expected {expected}")]
    Number {
        /// The next number.
        expected: UseNumber,
        /// The use's number.
        found: UseNumber,
    },
    /// It holds values that no owner writes.
    #[error("use {0} holds values that no owner writes")]
    Value(UseNumber),
}

/// The uses of one coupon, 1 to [`Self::last`].
#[derive(Debug, Default)]
pub struct Uses {
    last: UseNumber,
    /// The issuance of the last use.
    last_sequence: Option<Sequence>,
    counts: UseCounts,
    blocks: Vec<Vec<Record>>,
    count: u32,
    place_of: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

#[derive(Debug)]
struct Record {
    at: Timestamp,
    hold_until: Option<Timestamp>,
    figures: Figures,
    order: Option<Box<str>>,
    sequence: u32,
    kind: UseKind,
    returns: bool,
}

impl Uses {
    /// Returns the highest number.
    pub fn last(&self) -> UseNumber {
        self.last
    }

    /// Returns how many issuances are in which state.
    pub fn counts(&self) -> UseCounts {
        self.counts
    }

    /// Returns the highest issuance that has a use.
    pub fn highest(&self) -> Sequence {
        let sequences = self.blocks.iter().flatten().map(|record| record.sequence);
        Sequence::new(sequences.max().map_or(0, u64::from))
    }

    /// Returns the latest use of an issuance.
    pub fn latest(&self, sequence: Sequence) -> Option<LatestUse> {
        let record = self.find(u32::try_from(sequence.get()).ok()?)?;
        let order = record.order.as_deref().map(OrderId::parse);
        Some(LatestUse {
            kind: record.kind,
            figures: order.is_some().then_some(record.figures),
            order: order.map(|order| order.expect("checked when it was taken")),
            hold_until: record.hold_until,
            returns: record.returns,
            at: record.at,
        })
    }

    /// Returns true if the last use is identical to this one.
    pub fn ends_with(&self, other: &LoadedUse<'_>) -> bool {
        let record = self
            .last_sequence
            .filter(|last| *last == other.sequence && other.number == self.last)
            .and_then(|last| self.find(u32::try_from(last.get()).ok()?));
        record.is_some_and(|record| {
            record.kind == other.kind
                && record.order.as_deref() == other.order
                && record.order.as_ref().map(|_| record.figures) == other.figures
                && (record.hold_until, record.returns) == (other.hold_until, other.returns)
                && record.at == other.at
        })
    }

    /// Adds the next use.
    ///
    /// # Errors
    ///
    /// If it cannot follow the last one. Then nothing is added.
    pub fn push(&mut self, next: &LoadedUse<'_>) -> Result<(), InconsistentUse> {
        let expected = self.last.next();
        if next.number != expected {
            return Err(InconsistentUse::Number {
                expected,
                found: next.number,
            });
        }
        let is_revoked = next.kind == UseKind::Revoked;
        let fits = next.order.is_none_or(OrderId::is_form_of)
            && next.order.is_none() == is_revoked
            && next.figures.is_none() == is_revoked
            && next.hold_until.is_some() == (next.kind == UseKind::Reserved)
            && (is_revoked || !next.returns);
        let sequence = u32::try_from(next.sequence.get())
            .ok()
            .filter(|sequence| *sequence > 0);
        let (true, Some(sequence)) = (fits, sequence) else {
            return Err(InconsistentUse::Value(next.number));
        };
        let before = self.find(sequence).map(|record| record.kind);
        self.counts = self.counts.after(before, next.kind, next.returns);
        self.put(Record {
            at: next.at,
            hold_until: next.hold_until,
            figures: next.figures.unwrap_or(Figures {
                amount: 0,
                discount: 0,
            }),
            order: next.order.map(Box::from),
            sequence,
            kind: next.kind,
            returns: next.returns,
        });
        (self.last, self.last_sequence) = (expected, Some(next.sequence));
        Ok(())
    }

    /// Returns how many bytes of memory they take, with orders counted as the allocator rounds them.
    pub fn bytes(&self) -> usize {
        let records = self
            .blocks
            .iter()
            .map(|block| block.capacity() * size_of::<Record>());
        let orders = self.blocks.iter().flatten();
        let orders = orders.map(|record| {
            record
                .order
                .as_ref()
                .map_or(0, |order| order.len().next_multiple_of(16))
        });
        records.sum::<usize>() + orders.sum::<usize>() + self.place_of.allocation_size()
    }

    /// Puts a record in the place of its issuance.
    fn put(&mut self, mut record: Record) {
        let Self {
            blocks,
            count,
            place_of,
            hasher,
            ..
        } = self;
        let sequence = record.sequence;
        let hash = |sequence: u32| hasher.hash_one(sequence);
        let found = place_of.find(hash(sequence), |&place| at(blocks, place).sequence == sequence);
        if let Some(&place) = found {
            let (block, place) = split(place);
            let old = &mut blocks[block][place];
            // The same order mostly goes on, and its text is kept.
            if old.order == record.order {
                record.order = old.order.take();
            }
            *old = record;
            return;
        }
        if blocks.last().is_none_or(|block| block.len() == BLOCK_RECORDS) {
            let room = if blocks.is_empty() { 0 } else { BLOCK_RECORDS };
            blocks.push(Vec::with_capacity(room));
        }
        if let Some(block) = blocks.last_mut() {
            block.push(record);
        }
        let place = *count;
        *count += 1;
        place_of.insert_unique(hash(sequence), place, |&other| hash(at(blocks, other).sequence));
    }

    fn find(&self, sequence: u32) -> Option<&Record> {
        let place = self.place_of.find(self.hasher.hash_one(sequence), |&place| {
            at(&self.blocks, place).sequence == sequence
        });
        place.map(|&place| at(&self.blocks, place))
    }
}

fn split(place: u32) -> (usize, usize) {
    (place as usize / BLOCK_RECORDS, place as usize % BLOCK_RECORDS)
}

fn at(blocks: &[Vec<Record>], place: u32) -> &Record {
    let (block, place) = split(place);
    &blocks[block][place]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    fn reserved(number: u64, sequence: u64, order: &str) -> LoadedUse<'_> {
        LoadedUse {
            number: UseNumber::new(number),
            sequence: Sequence::new(sequence),
            kind: UseKind::Reserved,
            order: Some(order),
            figures: Some(Figures {
                amount: 1_000,
                discount: 100,
            }),
            hold_until: Some(time(9_000)),
            returns: false,
            at: time(1_000),
        }
    }

    #[test]
    fn the_latest_use_of_each_issuance_is_kept_and_the_states_are_counted() {
        let mut uses = Uses::default();
        assert_eq!(uses.latest(Sequence::new(1)), None);
        let redeemed = LoadedUse {
            kind: UseKind::Redeemed,
            hold_until: None,
            ..reserved(3, 7, "order-1")
        };
        let revoked = LoadedUse {
            kind: UseKind::Revoked,
            order: None,
            figures: None,
            hold_until: None,
            returns: true,
            ..reserved(4, 9, "")
        };
        for next in [
            reserved(1, 7, "order-1"),
            reserved(2, 8, "order-2"),
            redeemed,
            revoked,
        ] {
            assert!(!uses.ends_with(&next));
            uses.push(&next).unwrap();
            assert!(uses.ends_with(&next));
        }
        let latest = uses.latest(Sequence::new(7)).unwrap();
        assert_eq!((latest.kind, latest.hold_until), (UseKind::Redeemed, None));
        assert_eq!(latest.order, Some(OrderId::parse("order-1").unwrap()));
        let latest = uses.latest(Sequence::new(9)).unwrap();
        assert_eq!((latest.order, latest.figures, latest.returns), (None, None, true));
        let counts = UseCounts {
            reserved: 1,
            redeemed: 1,
            revoked: 1,
            returned: 1,
        };
        assert_eq!(
            (uses.counts(), uses.last().get(), uses.highest().get()),
            (counts, 4, 9)
        );
    }

    #[test]
    fn a_use_that_no_owner_can_have_written_is_refused() {
        let mut uses = Uses::default();
        let first = reserved(1, 7, "order");
        for wrong in [
            LoadedUse {
                sequence: Sequence::NONE,
                ..first
            },
            LoadedUse {
                order: Some(""),
                ..first
            },
            LoadedUse { order: None, ..first },
            LoadedUse {
                figures: None,
                ..first
            },
            LoadedUse {
                hold_until: None,
                ..first
            },
            LoadedUse {
                returns: true,
                ..first
            },
            LoadedUse {
                kind: UseKind::Redeemed,
                ..first
            },
        ] {
            assert_eq!(
                uses.push(&wrong),
                Err(InconsistentUse::Value(UseNumber::new(1))),
                "{wrong:?}"
            );
        }
        assert!(matches!(
            uses.push(&reserved(2, 7, "order")),
            Err(InconsistentUse::Number { .. })
        ));
        assert_eq!((uses.last(), uses.bytes()), (UseNumber::NONE, 0));
    }

    #[test]
    fn three_hundred_thousand_uses_take_less_than_50_megabytes() {
        let mut uses = Uses::default();
        for number in 1..=300_000_u64 {
            let order = format!("0c8fb9d4-6a1e-4f0e-9c3b-{number:012}");
            uses.push(&reserved(number, number * 3, &order)).unwrap();
        }
        assert!(uses.bytes() < 50_000_000, "{} bytes", uses.bytes());
        assert!(size_of::<Record>() <= 72, "{}", size_of::<Record>());
    }
}
