//! A set of users without false negatives, small enough to travel to other nodes.

use roaring::RoaringBitmap;

use crate::owning::kind::DecodeError;

/// The numbers of hash bits that a filter for another node may use, the largest first. With the smallest
/// number, a million users fill two thirds of the filter.
const FILTER_BITS: [u8; 3] = [32, 24, 20];

/// Maximum length of a filter for another node: one bit for each possible hash of the smallest number of
/// bits, and what the format adds.
pub const FILTER_BYTES_MAX: usize = 129 * 1024;

/// A set of users, of which only the first bits of a stable hash are kept. A filter is never wrong about a
/// user in the set. With 32 bits and a million users, it takes one in 4,000 other users for a member.
#[derive(Debug, Clone)]
pub struct Filter {
    bits: u8,
    hashes: RoaringBitmap,
}

impl Filter {
    /// Makes the filter of these users.
    pub fn of<'a>(users: impl Iterator<Item = &'a str>) -> Self {
        let mut hashes: Vec<u32> = users.map(hash).collect();
        hashes.sort_unstable();
        Self {
            bits: 32,
            hashes: hashes.into_iter().collect(),
        }
    }

    /// Adds these users to a set that [`Self::of`] made. A few cost much less than a new filter of all.
    pub fn add<'a>(&mut self, users: impl Iterator<Item = &'a str>) {
        let shift = 32 - self.bits;
        self.hashes.extend(users.map(|user| hash(user) >> shift));
    }

    /// Returns true if the user may be in the set, and false if the user certainly is not.
    pub fn may_hold(&self, user: &str) -> bool {
        self.hashes.contains(hash(user) >> (32 - self.bits))
    }

    /// Encodes the filter with as many hash bits as there is room for. With fewer bits, more users outside
    /// the set are taken for members. Returns the number of hash bits, and at most [`FILTER_BYTES_MAX`]
    /// bytes.
    pub fn encode(&self) -> (u8, Vec<u8>) {
        let mut bytes = Vec::new();
        for bits in FILTER_BITS {
            // Sparse hashes take two bytes each. Only the smallest number of bits makes many hashes dense.
            let is_sparse = bits > FILTER_BITS[FILTER_BITS.len() - 1];
            if is_sparse && self.hashes.len() > FILTER_BYTES_MAX as u64 / 2 {
                continue;
            }
            let shift = self.bits - bits.min(self.bits);
            // The shifted hashes are still in ascending order, so they need not be sorted.
            let coarser: RoaringBitmap = self.hashes.iter().map(|hash| hash >> shift).collect();
            if coarser.serialized_size() <= FILTER_BYTES_MAX {
                // Writing to memory does not fail.
                let _ = coarser.serialize_into(&mut bytes);
                return (bits, bytes);
            }
        }
        // This is never reached, because every set fits with the fewest bits. An empty filter would be wrong
        // about its users; a full filter takes every user for a member, which is allowed.
        let _ = RoaringBitmap::full().serialize_into(&mut bytes);
        (32, bytes)
    }

    /// Decodes what [`Self::encode`] returned.
    ///
    /// # Errors
    ///
    /// If the bytes are not a filter.
    pub fn decode(bits: u32, bytes: &[u8]) -> Result<Self, DecodeError> {
        let wrong = DecodeError::Wrong("filter");
        let bits = u8::try_from(bits).ok().filter(|bits| FILTER_BITS.contains(bits));
        Ok(Self {
            bits: bits.ok_or_else(|| wrong.clone())?,
            hashes: RoaringBitmap::deserialize_from(bytes).map_err(|_| wrong)?,
        })
    }
}

/// Returns the low half of xxh3-64 of the id, which is the same on every node.
fn hash(user: &str) -> u32 {
    xxhash_rust::xxh3::xxh3_64(user.as_bytes()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoded_filter_of_any_size_holds_all_its_users_and_few_others() {
        for (users, others_percent) in [(1, 0), (10_000, 0), (50_000, 1), (200_000, 20), (1_000_000, 70)] {
            let name = |number: u64| format!("user-{number}");
            let names: Vec<String> = (0..users).map(name).collect();
            let filter = Filter::of(names.iter().map(String::as_str));
            let (bits, bytes) = filter.encode();
            assert!(
                bytes.len() <= FILTER_BYTES_MAX,
                "{} bytes for {users}",
                bytes.len()
            );
            let decoded = Filter::decode(u32::from(bits), &bytes).unwrap();
            assert!(names.iter().step_by(97).all(|user| decoded.may_hold(user)));
            let others = (users..users + 10_000).filter(|other| decoded.may_hold(&name(*other)));
            let others = others.count();
            assert!(
                others <= others_percent * 100,
                "{others} of 10,000 others for {users} users"
            );
        }
    }

    #[test]
    fn users_that_are_added_are_held_like_the_others() {
        let names: Vec<String> = (0..1_000).map(|number| format!("user-{number}")).collect();
        let all = || names.iter().map(String::as_str);
        let mut filter = Filter::of(all().take(900));
        filter.add(all().skip(900));
        assert_eq!(filter.hashes, Filter::of(all()).hashes);
        assert!(all().all(|user| filter.may_hold(user)));
    }

    #[test]
    fn bytes_that_are_not_a_filter_are_refused() {
        let (bits, bytes) = Filter::of(["alice", "bob"].into_iter()).encode();
        assert!(Filter::decode(u32::from(bits), &bytes).is_ok());
        assert!(Filter::decode(33, &bytes).is_err());
        assert!(Filter::decode(u32::from(bits), &bytes[..bytes.len() - 1]).is_err());
        assert!(Filter::decode(u32::from(bits), &[]).is_err());
    }
}
