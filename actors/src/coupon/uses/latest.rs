//! The latest use of each used issuance of one coupon in memory, packed. An issuance that was never used
//! takes nothing.
//!
//! A retry of a release or a refund may come after another order used the issuance. So the orders that gave
//! it back are remembered too, the last few of each issuance.

mod packed_order;

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use self::packed_order::PackedOrder;
use crate::coupon::ids::Sequence;
use crate::coupon::uses::holds::Holds;
use crate::coupon::uses::{Figures, LatestUse, Use, UseCounts, UseKind, UseNumber};
use crate::ids::{ORDER_ID_BYTES_MAX, OrderId};
use crate::time::Timestamp;

/// Number of records in a block; blocks do not move when there are more.
const BLOCK_RECORDS: usize = 1024;

/// Maximum number of earlier orders of an issuance that are remembered. A retry comes soon after its first
/// attempt, and memory must not grow with each order that only tries a coupon.
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

/// What one order did with an issuance, as needed to recognise a repeated step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderUses {
    /// The order's latest use of the issuance.
    pub latest: LatestUse,
    /// True if the order has ever released the issuance.
    pub has_released: bool,
    /// True if the order was ever refunded.
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
    /// A hold that has lapsed counts until the next use of its issuance.
    counts: UseCounts,
    holds: Holds,
    blocks: Vec<Block>,
    count: u32,
    place_of: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The latest use of each order that gave an issuance back before another order used it, oldest first.
    earlier: HashMap<u32, Vec<EarlierOrder>>,
}

#[derive(Debug, Default)]
struct Block {
    records: Vec<Record>,
    /// The ids of the orders.
    texts: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    at: Timestamp,
    /// In microseconds; [`NO_HOLD`] if it is no reservation.
    hold_until: i64,
    figures: Figures,
    sequence: u32,
    /// Where the order's room begins in the block's texts.
    text: u32,
    order_room: u8,
    /// As [`PackedOrder::length`]; 0 if it is revoked, which no order does.
    order_length: u8,
    kind: UseKind,
    returns: bool,
    /// True if the order has ever released the issuance.
    has_released: bool,
    /// True if the order was ever refunded.
    was_refunded: bool,
}

/// Stands in place of the time until which an issuance is held. No timestamp has this value.
const NO_HOLD: i64 = i64::MIN;

/// The latest use of an order that does not have the issuance any more.
#[derive(Debug)]
struct EarlierOrder {
    record: Record,
    order: Box<str>,
}

impl Record {
    fn hold_until(&self) -> Option<Timestamp> {
        Timestamp::from_micros(self.hold_until).filter(|_| self.hold_until != NO_HOLD)
    }

    fn shown(&self, order: Option<PackedOrder<'_>>) -> LatestUse {
        LatestUse {
            kind: self.kind,
            figures: order.map(|_| self.figures),
            order: order.map(|order| order.unpacked()),
            hold_until: self.hold_until(),
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

impl Block {
    /// Returns an empty block with room for as much as this block holds, so that its buffers are allocated
    /// only once.
    fn successor(&self) -> Self {
        Self {
            records: Vec::with_capacity(BLOCK_RECORDS),
            texts: Vec::with_capacity(self.texts.len() + self.texts.len() / 64),
        }
    }

    fn order(&self, record: &Record) -> Option<PackedOrder<'_>> {
        PackedOrder::read(&self.texts[record.text as usize..], record.order_length)
    }

    /// Writes an order into the room that the record has, or into new room if it does not fit.
    fn write(&mut self, record: &mut Record, order: Option<PackedOrder<'_>>) {
        record.order_length = order.map_or(0, |order| order.length());
        let order = order.as_ref().map_or(&[][..], PackedOrder::bytes);
        // An order has at most 64 bytes, and a block at most 1,024 records with two rooms each.
        if order.len() > usize::from(record.order_room) {
            // The second room is for any order, so that a record leaves at most one room unused.
            let is_first = record.order_room == 0;
            let room = if is_first { order.len() } else { ORDER_ID_BYTES_MAX };
            record.text = self.texts.len() as u32;
            record.order_room = room as u8;
            self.texts.resize(self.texts.len() + room, 0);
        }
        self.texts[record.text as usize..][..order.len()].copy_from_slice(order);
    }
}

impl Uses {
    /// Returns the highest number.
    pub fn last(&self) -> UseNumber {
        self.last
    }

    /// Returns how many issuances are in which state by their latest uses. A hold that has lapsed counts as
    /// reserved.
    pub fn counts(&self) -> UseCounts {
        self.counts
    }

    /// Returns how many issuances are in which state at `now`.
    pub fn counts_at(&self, now: Timestamp) -> UseCounts {
        UseCounts {
            reserved: self.holds.live(now),
            ..self.counts
        }
    }

    /// Returns how many issuances orders hold at `now`. Makes [`Self::counts_at`] faster, and drops what it
    /// needs no more.
    pub fn count_holds(&mut self, now: Timestamp) -> u64 {
        self.holds.count(now)
    }

    /// Returns the highest issuance that has a use.
    pub fn highest(&self) -> Sequence {
        let records = self.blocks.iter().flat_map(|block| &block.records);
        let sequences = records.map(|record| record.sequence);
        Sequence::new(sequences.max().map_or(0, u64::from))
    }

    /// Returns the latest use of an issuance.
    pub fn latest(&self, sequence: Sequence) -> Option<LatestUse> {
        let (record, order) = self.find(u32::try_from(sequence.get()).ok()?)?;
        Some(record.shown(order))
    }

    /// Returns what this order did with an issuance; `None` if it did nothing, or nothing that is remembered.
    pub fn by_order(&self, sequence: Sequence, order: &OrderId) -> Option<OrderUses> {
        let sequence = u32::try_from(sequence.get()).ok()?;
        let order = PackedOrder::new(order.as_str());
        let is_own = |(_, found): &(&Record, Option<PackedOrder<'_>>)| *found == Some(order);
        let earlier = || {
            let mut orders = self.earlier.get(&sequence)?.iter();
            orders.find_map(|earlier| {
                Some((&earlier.record, Some(PackedOrder::new(&earlier.order)))).filter(is_own)
            })
        };
        let (record, order) = self.find(sequence).filter(is_own).or_else(earlier)?;
        Some(OrderUses {
            latest: record.shown(order),
            has_released: record.has_released,
            was_refunded: record.was_refunded,
        })
    }

    /// Returns true if the last use is identical to this one.
    pub fn ends_with(&self, other: &LoadedUse<'_>) -> bool {
        let found = self
            .last_sequence
            .filter(|last| *last == other.sequence && other.number == self.last)
            .and_then(|last| self.find(u32::try_from(last.get()).ok()?));
        found.is_some_and(|(record, order)| {
            record.kind == other.kind
                && order == other.order.map(PackedOrder::new)
                && order.map(|_| record.figures) == other.figures
                && (record.hold_until(), record.returns) == (other.hold_until, other.returns)
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
        let before = self.find(sequence).map(|(record, _)| *record);
        let kind = before.map(|before| before.kind);
        self.counts = self.counts.after(kind, next.kind, next.returns);
        if let Some(until) = before.and_then(|before| before.hold_until()) {
            self.holds.end(sequence, until);
        }
        if let Some(until) = next.hold_until {
            self.holds.begin(sequence, until);
        }
        self.put(sequence, next);
        (self.last, self.last_sequence) = (expected, Some(next.sequence));
        Ok(())
    }

    /// Returns the number of bytes of memory that the uses take, with the room that the allocator adds to
    /// orders.
    pub fn bytes(&self) -> usize {
        let of_block =
            |block: &Block| block.records.capacity() * size_of::<Record>() + block.texts.capacity();
        let blocks = self.blocks.iter().map(of_block).sum::<usize>();
        let of_list = |list: &Vec<EarlierOrder>| {
            let orders = list
                .iter()
                .map(|earlier| earlier.order.len().next_multiple_of(16));
            list.capacity() * size_of::<EarlierOrder>() + orders.sum::<usize>()
        };
        let earlier = self.earlier.values().map(of_list).sum::<usize>();
        let tables = self.place_of.allocation_size() + self.earlier.allocation_size();
        blocks + earlier + tables + self.holds.bytes()
    }

    /// Puts a use in the place of its issuance.
    fn put(&mut self, sequence: u32, next: &LoadedUse<'_>) {
        let order = next.order.map(PackedOrder::new);
        let mut record = Record {
            at: next.at,
            hold_until: next.hold_until.map_or(NO_HOLD, Timestamp::as_micros),
            figures: next.figures.unwrap_or(Figures {
                amount: 0,
                discount: 0,
            }),
            sequence,
            text: 0,
            order_room: 0,
            order_length: 0,
            kind: next.kind,
            returns: next.returns,
            has_released: next.kind == UseKind::Released,
            was_refunded: next.kind == UseKind::Refunded,
        };
        if let Some(place) = self.place(sequence) {
            return self.replace(place, record, order);
        }
        if self
            .blocks
            .last()
            .is_none_or(|block| block.records.len() == BLOCK_RECORDS)
        {
            self.blocks
                .push(self.blocks.last().map_or_else(Block::default, Block::successor));
        }
        if let Some(block) = self.blocks.last_mut() {
            block.write(&mut record, order);
            block.records.push(record);
        }
        let (place, blocks, hasher) = (self.count, &self.blocks, &self.hasher);
        self.count += 1;
        let hash = |sequence: u32| hasher.hash_one(sequence);
        self.place_of
            .insert_unique(hash(sequence), place, |&other| hash(at(blocks, other).sequence));
    }

    /// Puts a use in the place of one before it of the same issuance.
    fn replace(&mut self, place: u32, mut record: Record, order: Option<PackedOrder<'_>>) {
        let (block, place) = split(place);
        let block = &mut self.blocks[block];
        let before = block.records[place];
        let order_before = block.order(&before);
        if order_before == order {
            record.follow(&before);
        } else {
            let is_own = |earlier: &EarlierOrder| Some(PackedOrder::new(&earlier.order)) == order;
            if let Some(orders) = self.earlier.get_mut(&record.sequence)
                && let Some(own) = orders.iter().position(is_own)
            {
                record.follow(&orders.remove(own).record);
            }
            if let Some(order) = order_before
                && (before.has_released || before.was_refunded)
            {
                let orders = self.earlier.entry(record.sequence).or_default();
                remember(orders, before, order);
            }
        }
        (record.text, record.order_room) = (before.text, before.order_room);
        block.write(&mut record, order);
        block.records[place] = record;
    }

    fn place(&self, sequence: u32) -> Option<u32> {
        let is_same = |&place: &u32| at(&self.blocks, place).sequence == sequence;
        self.place_of
            .find(self.hasher.hash_one(sequence), is_same)
            .copied()
    }

    fn find(&self, sequence: u32) -> Option<(&Record, Option<PackedOrder<'_>>)> {
        let (block, place) = split(self.place(sequence)?);
        let record = &self.blocks[block].records[place];
        Some((record, self.blocks[block].order(record)))
    }
}

/// Adds the latest use of an order that gave the issuance back.
fn remember(earlier: &mut Vec<EarlierOrder>, record: Record, order: PackedOrder<'_>) {
    if earlier.len() == EARLIER_ORDERS_MAX {
        earlier.remove(0);
    }
    // Most issuances have one or none, and a vector would make room for four.
    earlier.reserve_exact(1);
    earlier.push(EarlierOrder {
        record,
        order: order.unpacked().as_str().into(),
    });
}

fn split(place: u32) -> (usize, usize) {
    (place as usize / BLOCK_RECORDS, place as usize % BLOCK_RECORDS)
}

fn at(blocks: &[Block], place: u32) -> &Record {
    let (block, place) = split(place);
    &blocks[block].records[place]
}

#[cfg(test)]
mod tests;
