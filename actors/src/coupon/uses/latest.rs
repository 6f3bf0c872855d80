//! The latest use of each used issuance of one coupon in memory, packed. An issuance that was never used takes
//! nothing.
//!
//! A retry of a release or a refund may come after another order used the issuance. So the orders that gave it
//! back are remembered too, the last few of each issuance.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::coupon::ids::Sequence;
use crate::coupon::uses::{Figures, LatestUse, Use, UseCounts, UseKind, UseNumber};
use crate::ids::OrderId;
use crate::time::Timestamp;

/// Number of records in a block; blocks do not move when there are more.
const BLOCK_RECORDS: usize = 1024;

/// Maximum number of earlier orders that are remembered of an issuance. A retry comes soon after its first attempt,
/// and memory must not grow with each order that only tries a coupon.
const EARLIER_ORDERS_MAX: usize = 16;

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

impl<'a> From<&'a Use> for LoadedUse<'a> {
    fn from(made: &'a Use) -> Self {
        Self {
            number: made.number,
            sequence: made.sequence,
            kind: made.shown.kind,
            order: made.shown.order.as_ref().map(OrderId::as_str),
            figures: made.shown.figures,
            hold_until: made.shown.hold_until,
            returns: made.shown.returns,
            at: made.shown.at,
        }
    }
}

/// What one order did with an issuance, as far as repeated steps are recognised by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderUses {
    /// The order's latest use of the issuance.
    pub latest: LatestUse,
    /// True if the order has released the issuance, then or earlier.
    pub has_released: bool,
    /// True if the order was refunded, then or earlier.
    pub was_refunded: bool,
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
    /// The latest use of each order that gave an issuance back before another order used it, oldest first.
    earlier: HashMap<u32, Vec<Record>>,
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
    /// True if the order has released the issuance, now or earlier.
    has_released: bool,
    /// True if the order was refunded, now or earlier.
    was_refunded: bool,
}

impl Record {
    fn shown(&self) -> LatestUse {
        let order = self.order.as_deref().map(OrderId::parse);
        LatestUse {
            kind: self.kind,
            figures: order.is_some().then_some(self.figures),
            order: order.map(|order| order.expect("checked when it was taken")),
            hold_until: self.hold_until,
            returns: self.returns,
            at: self.at,
        }
    }

    /// Adds what the order did before this use.
    fn follow(&mut self, before: &Self) {
        self.has_released |= before.has_released;
        self.was_refunded |= before.was_refunded;
    }
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
        self.find(u32::try_from(sequence.get()).ok()?).map(Record::shown)
    }

    /// Returns what this order did with an issuance; `None` if it did nothing, or nothing that is remembered.
    pub fn by_order(&self, sequence: Sequence, order: &OrderId) -> Option<OrderUses> {
        let sequence = u32::try_from(sequence.get()).ok()?;
        let is_own = |record: &&Record| record.order.as_deref() == Some(order.as_str());
        let latest = self.find(sequence).filter(is_own);
        let record = latest.or_else(|| self.earlier.get(&sequence)?.iter().find(is_own))?;
        Some(OrderUses {
            latest: record.shown(),
            has_released: record.has_released,
            was_refunded: record.was_refunded,
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
            has_released: next.kind == UseKind::Released,
            was_refunded: next.kind == UseKind::Refunded,
        });
        (self.last, self.last_sequence) = (expected, Some(next.sequence));
        Ok(())
    }

    /// Returns how many bytes of memory they take, with orders counted as the allocator rounds them.
    pub fn bytes(&self) -> usize {
        let earlier = self.earlier.values();
        let lists = self.blocks.iter().chain(earlier.clone());
        let records = lists.clone().map(|list| list.capacity() * size_of::<Record>());
        let orders = lists.flatten().filter_map(|record| record.order.as_ref());
        let orders = orders.map(|order| order.len().next_multiple_of(16));
        let indexes = self.place_of.allocation_size() + self.earlier.allocation_size();
        records.sum::<usize>() + orders.sum::<usize>() + indexes
    }

    /// Puts a record in the place of its issuance.
    fn put(&mut self, mut record: Record) {
        let Self {
            blocks,
            count,
            place_of,
            hasher,
            earlier,
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
                record.follow(old);
                *old = record;
            } else {
                let is_own = |other: &Record| other.order == record.order;
                if let Some(orders) = earlier.get_mut(&sequence)
                    && let Some(own) = orders.iter().position(is_own)
                {
                    record.follow(&orders.remove(own));
                }
                let displaced = std::mem::replace(old, record);
                if displaced.has_released || displaced.was_refunded {
                    remember(earlier.entry(sequence).or_default(), displaced);
                }
            }
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

/// Adds the latest use of an order that gave the issuance back.
fn remember(earlier: &mut Vec<Record>, record: Record) {
    if earlier.len() == EARLIER_ORDERS_MAX {
        earlier.remove(0);
    }
    // Most issuances have one or none, and a vector would make room for four.
    earlier.reserve_exact(1);
    earlier.push(record);
}

fn split(place: u32) -> (usize, usize) {
    (place as usize / BLOCK_RECORDS, place as usize % BLOCK_RECORDS)
}

fn at(blocks: &[Vec<Record>], place: u32) -> &Record {
    let (block, place) = split(place);
    &blocks[block][place]
}

#[cfg(test)]
mod tests;
