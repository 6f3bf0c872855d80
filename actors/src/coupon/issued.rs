//! All issuances of one coupon in memory, packed: about 35 bytes each, plus the bytes of the user id and the
//! request key.
//!
//! Sequence `n` is record `n - 1`, so no index by sequence is needed. Records are in blocks that never move
//! in memory, and the texts of a block share one buffer. A user's issuances form a chain from the latest to
//! the first, and an index of record numbers finds the latest. A second index finds the keys of users with
//! more issuances than a limit allows, because their chains would be too long.

mod expiry;

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use self::expiry::{Expiries, Expiry};
use crate::coupon::ids::{CouponId, IssuanceId, Sequence};
use crate::coupon::offer::{Issuance, PER_USER_LIMIT_MAX, counted};
use crate::ids::{RequestKey, UserId};
use crate::time::Timestamp;

/// Number of records in a block. It is large enough that the cost of blocks is negligible. It is small enough
/// that a coupon with ten issuances does not take much more memory than its issuances.
const BLOCK_RECORDS: usize = 1024;
/// Maximum number of issuances that are examined for a key one after the other.
const CHAIN_MAX: u32 = PER_USER_LIMIT_MAX as u32;
/// Stands in place of a record number if there is no record.
const NONE: u32 = u32::MAX;

/// An issuance as it is read when its owner is loaded. Its texts are borrowed, because there may be a million
/// issuances.
#[derive(Debug, Clone, Copy)]
pub struct LoadedIssuance<'a> {
    /// Its sequence.
    pub sequence: Sequence,
    /// The user that has the coupon, in the form of a [`UserId`].
    pub user: &'a str,
    /// Counts the user's issuances of this coupon, from 1, as far as [`counted`].
    pub nth: u32,
    /// The key of the issue request, in the form of a [`RequestKey`].
    pub key: &'a str,
    /// When it was decided.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
}

/// Why an issuance cannot be the next one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InconsistentIssuance {
    /// Its sequence is not the next one.
    #[error("found sequence {found}, expected {expected}")]
    Sequence {
        /// The next sequence.
        expected: Sequence,
        /// The issuance's sequence.
        found: Sequence,
    },
    /// Its `nth` is not the next one of its user.
    #[error("sequence {sequence} has nth {found}, expected {expected}")]
    Nth {
        /// The issuance's sequence.
        sequence: Sequence,
        /// The next `nth` of its user.
        expected: u32,
        /// The issuance's `nth`.
        found: u32,
    },
    /// The user id or the key is not one that this program writes.
    #[error("sequence {0} holds values that no owner writes")]
    Value(Sequence),
}

/// The issuances of one coupon, 1 to [`Self::last`].
#[derive(Debug)]
pub struct Issued {
    coupon: CouponId,
    blocks: Vec<Block>,
    count: u32,
    expiries: Expiries,
    latest_of_user: HashTable<u32>,
    /// All issuances of users with more than [`CHAIN_MAX`], by user and key.
    by_key: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

#[derive(Debug, Default)]
struct Block {
    records: Vec<Record>,
    texts: Vec<u8>,
}

impl Block {
    /// Returns an empty block with room for as much as this block holds, so that the new block's buffers are
    /// allocated only once. Buffers that grow between many small allocations leave holes in memory as large
    /// as themselves.
    fn successor(&self) -> Self {
        Self {
            records: Vec::with_capacity(BLOCK_RECORDS),
            texts: Vec::with_capacity(self.texts.len() + self.texts.len() / 64),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Record {
    issued_at_micros: i64,
    /// The place in the block's texts at which the user id begins. The key follows the user id.
    text: u32,
    /// The record of the user's previous issuance, or [`NONE`].
    previous: u32,
    nth: u32,
    /// When it expires.
    expiry: Expiry,
    user_bytes: u8,
    key_bytes: u8,
}

impl Issued {
    /// Makes an empty list for this coupon.
    pub fn new(coupon: CouponId) -> Self {
        Self {
            coupon,
            blocks: Vec::new(),
            count: 0,
            expiries: Expiries::default(),
            latest_of_user: HashTable::new(),
            by_key: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Returns the coupon.
    pub fn coupon(&self) -> CouponId {
        self.coupon
    }

    /// Returns the highest sequence.
    pub fn last(&self) -> Sequence {
        Sequence::new(u64::from(self.count))
    }

    /// Returns the user's latest issuance.
    pub fn latest(&self, user: &UserId) -> Option<Issuance> {
        self.find(user.as_str()).map(|index| self.issuance(index))
    }

    /// Returns the issuance with this sequence.
    pub fn get(&self, sequence: Sequence) -> Option<Issuance> {
        let index = u32::try_from(sequence.get().checked_sub(1)?).ok()?;
        (index < self.count).then(|| self.issuance(index))
    }

    /// Returns how many issuances the user has.
    pub fn count_of(&self, user: &UserId) -> u32 {
        self.find(user.as_str()).map_or(0, |index| self.record(index).nth)
    }

    /// Returns the user's issuance whose request had this key.
    pub fn answered(&self, user: &UserId, key: &RequestKey) -> Option<Issuance> {
        let mut next = self.find(user.as_str())?;
        if self.record(next).nth > CHAIN_MAX {
            let wanted = (user.as_str().as_bytes(), key.as_str().as_bytes());
            let hash = self.hasher.hash_one(wanted);
            let found = self
                .by_key
                .find(hash, |&other| user_and_key_of(&self.blocks, other) == wanted);
            return found.map(|index| self.issuance(*index));
        }
        loop {
            if self.key(next) == key.as_str().as_bytes() {
                return Some(self.issuance(next));
            }
            next = self.record(next).previous;
            if next == NONE {
                return None;
            }
        }
    }

    /// Returns true if the last issuance is identical to this one.
    pub fn ends_with(&self, other: &LoadedIssuance<'_>) -> bool {
        let Some(index) = self
            .count
            .checked_sub(1)
            .filter(|_| other.sequence == self.last())
        else {
            return false;
        };
        let record = self.record(index);
        self.user(index) == other.user.as_bytes()
            && self.key(index) == other.key.as_bytes()
            && counted(record.nth) == counted(other.nth)
            && record.issued_at_micros == other.issued_at.as_micros()
            && self.expires_at(index) == other.expires_at
    }

    /// Adds the next issuance.
    ///
    /// # Errors
    ///
    /// If the issuance cannot follow the last one. Then nothing is added.
    pub fn push(&mut self, next: &LoadedIssuance<'_>) -> Result<(), InconsistentIssuance> {
        let expected = self.last().next();
        if next.sequence != expected {
            return Err(InconsistentIssuance::Sequence {
                expected,
                found: next.sequence,
            });
        }
        if !UserId::is_form_of(next.user) || !RequestKey::is_form_of(next.key) {
            return Err(InconsistentIssuance::Value(next.sequence));
        }
        let previous = self.find(next.user);
        // There are fewer issuances than 2^32.
        let nth = previous.map_or(0, |index| self.record(index).nth) + 1;
        if counted(next.nth) != counted(nth) {
            return Err(InconsistentIssuance::Nth {
                sequence: next.sequence,
                expected: nth,
                found: next.nth,
            });
        }
        let expiry = self.expiries.enter(self.count, next.issued_at, next.expires_at);
        let index = self.append(next.user, next.key, |text| Record {
            issued_at_micros: next.issued_at.as_micros(),
            text,
            previous: previous.unwrap_or(NONE),
            nth,
            expiry,
            // Both lengths are at most 255, by the form of the texts.
            user_bytes: next.user.len() as u8,
            key_bytes: next.key.len() as u8,
        });
        self.point(index);
        if nth > CHAIN_MAX {
            self.index_keys(index);
        }
        Ok(())
    }

    /// Returns the user of each issuance after a sequence, in order of sequence.
    pub fn users_after(&self, after: Sequence) -> impl Iterator<Item = &str> {
        // More than there are stand for all.
        let first = u32::try_from(after.get()).unwrap_or(self.count);
        (first..self.count).map(|index| as_text(self.user(index)))
    }

    /// Returns how many bytes of memory the list takes.
    pub fn bytes(&self) -> usize {
        let blocks: usize = self
            .blocks
            .iter()
            .map(|block| block.records.capacity() * size_of::<Record>() + block.texts.capacity())
            .sum();
        let indexes = self.latest_of_user.allocation_size() + self.by_key.allocation_size();
        blocks + self.expiries.bytes() + indexes
    }

    fn append(&mut self, user: &str, key: &str, record: impl FnOnce(u32) -> Record) -> u32 {
        if self
            .blocks
            .last()
            .is_none_or(|block| block.records.len() == BLOCK_RECORDS)
        {
            self.blocks
                .push(self.blocks.last().map_or_else(Block::default, Block::successor));
        }
        let index = self.count;
        assert!(
            index < NONE,
            "four thousand million issuances would take 280 GB of memory"
        );
        self.count += 1;
        let block = self
            .blocks
            .last_mut()
            .expect("a block was pushed above if there was none");
        // At most 1,024 records of two texts of at most 255 bytes: far below 2^32.
        block.records.push(record(block.texts.len() as u32));
        block.texts.extend_from_slice(user.as_bytes());
        block.texts.extend_from_slice(key.as_bytes());
        index
    }

    /// Enters `index` as its user's latest issuance.
    fn point(&mut self, index: u32) {
        let Self {
            blocks,
            latest_of_user,
            hasher,
            ..
        } = self;
        let user = user_of(blocks, index);
        let slot = latest_of_user.entry(
            hasher.hash_one(user),
            |&other| user_of(blocks, other) == user,
            |&other| hasher.hash_one(user_of(blocks, other)),
        );
        slot.and_modify(|latest| *latest = index).or_insert(index);
    }

    /// Enters the key of an issuance, and all earlier keys of its user unless they are entered.
    fn index_keys(&mut self, index: u32) {
        let mut next = index;
        loop {
            let Self {
                blocks,
                by_key,
                hasher,
                ..
            } = self;
            let hash = |&other: &u32| hasher.hash_one(user_and_key_of(blocks, other));
            by_key.insert_unique(hash(&next), next, hash);
            let Record { nth, previous, .. } = *self.record(next);
            if nth > CHAIN_MAX + 1 || previous == NONE {
                return;
            }
            next = previous;
        }
    }

    fn find(&self, user: &str) -> Option<u32> {
        let user = user.as_bytes();
        self.latest_of_user
            .find(self.hasher.hash_one(user), |&index| self.user(index) == user)
            .copied()
    }

    fn record(&self, index: u32) -> &Record {
        let (block, place) = place(index);
        &self.blocks[block].records[place]
    }

    fn user(&self, index: u32) -> &[u8] {
        user_of(&self.blocks, index)
    }

    fn key(&self, index: u32) -> &[u8] {
        user_and_key_of(&self.blocks, index).1
    }

    fn issued_at(&self, index: u32) -> Timestamp {
        let micros = self.record(index).issued_at_micros;
        Timestamp::from_micros(micros).expect("it was a timestamp when it was taken")
    }

    fn expires_at(&self, index: u32) -> Option<Timestamp> {
        let expiry = self.record(index).expiry;
        self.expiries.read(index, self.issued_at(index), expiry)
    }

    fn issuance(&self, index: u32) -> Issuance {
        let record = self.record(index);
        Issuance {
            id: IssuanceId {
                coupon: self.coupon,
                sequence: Sequence::new(u64::from(index) + 1),
            },
            user: UserId::parse(as_text(self.user(index))).expect("checked when it was taken"),
            nth: record.nth,
            key: RequestKey::parse(as_text(self.key(index))).expect("checked when it was taken"),
            issued_at: self.issued_at(index),
            expires_at: self.expires_at(index),
        }
    }
}

fn place(index: u32) -> (usize, usize) {
    (index as usize / BLOCK_RECORDS, index as usize % BLOCK_RECORDS)
}

fn user_of(blocks: &[Block], index: u32) -> &[u8] {
    user_and_key_of(blocks, index).0
}

fn user_and_key_of(blocks: &[Block], index: u32) -> (&[u8], &[u8]) {
    let (block, place) = place(index);
    let block = &blocks[block];
    let record = &block.records[place];
    let texts = &block.texts[record.text as usize..];
    let (user, texts) = texts.split_at(usize::from(record.user_bytes));
    (user, &texts[..usize::from(record.key_bytes)])
}

fn as_text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("taken from a str")
}

#[cfg(test)]
mod tests;
