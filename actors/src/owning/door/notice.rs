//! Notices: what an owner tells doors about its sold-out coupon, on its node and on others.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message;
use roaring::RoaringBitmap;

use crate::coupon::ledger;
use crate::coupon::offer::Coupon;
use crate::ids::{CouponId, Sequence, UserId};
use crate::link::frame::{self, Unreadable};
use crate::owning::message::Refusal;
use crate::time::Timestamp;

/// By how many bits winners are told from others on another node, the most first; a million of them fill the
/// last one by two thirds.
const FILTER_BITS: [u8; 3] = [32, 24, 20];
/// Longest filter that goes to another node: one bit for each hash of the fewest bits, and what is around
/// them.
const FILTER_BYTES_MAX: usize = 129 * 1024;
/// Longest notice that goes to another node: its filter and the coupon.
pub const WRITTEN_BYTES_MAX: usize = FILTER_BYTES_MAX + 2 * 1024;

/// What an owner tells doors about its sold-out coupon. All of it is stored.
#[derive(Debug)]
pub struct Notice {
    coupon: Coupon,
    issued: Sequence,
    winners: Winners,
    /// A door answered by it since the owner last looked: the coupon is in demand, though its owner hears
    /// nothing of it.
    used: AtomicBool,
    written: OnceLock<Vec<u8>>,
}

/// A notice on its way to another node.
#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(message, optional, tag = "1")]
    coupon: Option<frame::WireCoupon>,
    #[prost(uint64, tag = "2")]
    issued: u64,
    #[prost(uint32, tag = "3")]
    bits: u32,
    #[prost(bytes = "vec", tag = "4")]
    winners: Vec<u8>,
}

impl Notice {
    /// The notice of a coupon that is sold out, and of whom it went to.
    pub fn new<'a>(coupon: Coupon, issued: Sequence, winners: impl Iterator<Item = &'a str>) -> Self {
        Self::of(coupon, issued, Winners::of(winners))
    }

    fn of(coupon: Coupon, issued: Sequence, winners: Winners) -> Self {
        Self {
            coupon,
            issued,
            winners,
            used: AtomicBool::new(false),
            written: OnceLock::new(),
        }
    }

    /// As it goes to other nodes: written once, however many there are. At most [`WRITTEN_BYTES_MAX`].
    pub fn written(&self) -> &[u8] {
        self.written.get_or_init(|| {
            let (bits, winners) = self.winners.write();
            let coupon = frame::write_coupon(self.coupon.clone());
            Wire {
                coupon: Some(coupon),
                issued: self.issued.get(),
                bits: u32::from(bits),
                winners,
            }
            .encode_to_vec()
        })
    }

    /// Reads what another node wrote.
    pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let Wire {
            coupon,
            issued,
            bits,
            winners,
        } = Wire::decode(bytes)?;
        let coupon = frame::read_coupon(coupon.ok_or(Unreadable::Wrong("coupon"))?)?;
        let bits = u8::try_from(bits)
            .ok()
            .filter(|bits| FILTER_BITS.contains(bits))
            .ok_or(Unreadable::Wrong("filter"))?;
        let hashes =
            RoaringBitmap::deserialize_from(winners.as_slice()).map_err(|_| Unreadable::Wrong("filter"))?;
        Ok(Self::of(coupon, Sequence::new(issued), Winners { bits, hashes }))
    }

    /// The refusal for this user at `now`, if the user surely has no coupon.
    pub fn answer(&self, user: &UserId, now: Timestamp) -> Option<Refusal> {
        if self.winners.may_hold(user) {
            return None;
        }
        // Read first: a write by every request would move this line between cores.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        ledger::refusal(&self.coupon, now, self.issued)
    }

    /// Which coupon.
    pub fn coupon(&self) -> CouponId {
        self.coupon.id
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.coupon.version
    }

    /// Whether a door answered by it since this was last asked.
    pub fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

/// The users who may have a coupon, by the first bits of a stable hash: never wrong about who has one. By 32
/// bits it is wrong about one in 4,000 others at a million winners.
#[derive(Debug)]
struct Winners {
    bits: u8,
    hashes: RoaringBitmap,
}

impl Winners {
    fn of<'a>(users: impl Iterator<Item = &'a str>) -> Self {
        let mut hashes: Vec<u32> = users.map(hash).collect();
        hashes.sort_unstable();
        Self {
            bits: 32,
            hashes: hashes.into_iter().collect(),
        }
    }

    fn may_hold(&self, user: &UserId) -> bool {
        self.hashes.contains(hash(user.as_str()) >> (32 - self.bits))
    }

    /// With as many bits as there is room for: the fewer, the more of those who have none are sent on to the
    /// owner.
    fn write(&self) -> (u8, Vec<u8>) {
        let mut bytes = Vec::new();
        for bits in FILTER_BITS {
            // Ascending still, so that they need not be sorted.
            let coarser: RoaringBitmap = self
                .hashes
                .iter()
                .map(|hash| hash >> (self.bits - bits.min(self.bits)))
                .collect();
            if coarser.serialized_size() <= FILTER_BYTES_MAX {
                // Writing to memory does not fail.
                let _ = coarser.serialize_into(&mut bytes);
                return (bits, bytes);
            }
        }
        // Not reached: the fewest bits have room for all. An empty filter would lie; one that holds everybody
        // does not.
        let _ = RoaringBitmap::full().serialize_into(&mut bytes);
        (32, bytes)
    }
}

/// The low half of xxh3-64 of the id: the same on every node.
fn hash(user: &str) -> u32 {
    xxhash_rust::xxh3::xxh3_64(user.as_bytes()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coupon::offer::{Offer, Status};
    use crate::ids::CouponId;

    fn sold_out(winners: u64) -> Notice {
        let offer = Offer {
            total_quantity: Some(winners),
            ..Offer::titled("x".repeat(200))
        };
        let at = Timestamp::from_micros(0).unwrap();
        let coupon = Coupon {
            id: CouponId::new(7).unwrap(),
            offer,
            status: Status::Open,
            version: 3,
            created_at: at,
            updated_at: at,
        };
        let names: Vec<String> = (0..winners).map(|number| format!("user-{number}")).collect();
        Notice::new(coupon, Sequence::new(winners), names.iter().map(String::as_str))
    }

    fn user(number: u64) -> UserId {
        UserId::parse(&format!("user-{number}")).unwrap()
    }

    #[test]
    fn on_another_node_no_winner_is_refused_and_most_others_are_whatever_their_number() {
        for (winners, sent_on_percent) in [(1, 0), (10_000, 0), (50_000, 1), (200_000, 20), (1_000_000, 70)] {
            let notice = sold_out(winners);
            let written = notice.written();
            assert!(
                written.len() <= WRITTEN_BYTES_MAX,
                "{} bytes for {winners}",
                written.len()
            );
            let read = Notice::read(written).unwrap();
            assert_eq!(
                (read.coupon(), read.version()),
                (notice.coupon(), notice.version())
            );
            let now = Timestamp::from_micros(1).unwrap();
            assert!(
                (0..winners)
                    .step_by(97)
                    .all(|winner| read.answer(&user(winner), now).is_none())
            );
            let others = winners..winners + 10_000;
            let sent_on = others
                .filter(|other| read.answer(&user(*other), now).is_none())
                .count();
            assert!(
                sent_on <= sent_on_percent * 100,
                "{sent_on} of 10,000 for {winners} winners"
            );
        }
    }

    #[test]
    fn what_is_no_notice_is_refused() {
        let written = sold_out(10).written().to_vec();
        assert!(Notice::read(&written[..written.len() - 1]).is_err());
        assert!(Notice::read(&[]).is_err());
        let mut wire = Wire::decode(written.as_slice()).unwrap();
        wire.bits = 33;
        assert!(Notice::read(&wire.encode_to_vec()).is_err());
    }
}
