//! What a coupon's owner tells doors: that the coupon is sold out, and which users may have one.

use std::sync::Arc;

use prost::Message;

use crate::coupon::ids::{CouponId, Sequence};
use crate::coupon::issue::{self, IssueOutcome};
use crate::coupon::offer::Coupon;
use crate::coupon::wire;
use crate::coupon::{CouponAsk, CouponKind, CouponOutcome};
use crate::owning::door::filter::Filter;
use crate::owning::kind::{DecodeError, DoorNotice};
use crate::time::Timestamp;

/// The notice of a coupon that is sold out.
#[derive(Debug)]
pub struct SoldOutNotice {
    coupon: Coupon,
    /// How many issuances count against the quantity.
    taken: Sequence,
    /// How many were given back.
    returned: u64,
    winners: Arc<Filter>,
}

/// The form in which the notice is sent to another node.
#[derive(Clone, PartialEq, prost::Message)]
struct WireNotice {
    #[prost(message, optional, tag = "1")]
    coupon: Option<wire::messages::Coupon>,
    #[prost(uint64, tag = "2")]
    taken: u64,
    #[prost(uint32, tag = "3")]
    bits: u32,
    #[prost(bytes = "vec", tag = "4")]
    winners: Vec<u8>,
    #[prost(uint64, tag = "5")]
    returned: u64,
}

impl SoldOutNotice {
    /// Makes the notice of a coupon that is sold out, with the users that have one. `returned` of the issued
    /// ones were given back.
    pub fn new(mut coupon: Coupon, issued: Sequence, returned: u64, winners: Arc<Filter>) -> Self {
        // No refusal rests on these, and they may be long.
        coupon.offer.description = None;
        coupon.offer.metadata.clear();
        Self {
            coupon,
            taken: Sequence::new(issued.get().saturating_sub(returned)),
            returned,
            winners,
        }
    }
}

impl DoorNotice for SoldOutNotice {
    type Kind = CouponKind;

    fn id(&self) -> CouponId {
        self.coupon.id
    }

    fn version(&self) -> u64 {
        self.coupon.version + self.returned
    }

    fn refusal(&self, ask: &CouponAsk, now: Timestamp) -> Option<CouponOutcome> {
        let CouponAsk::Issue(request) = ask else {
            return None;
        };
        if self.winners.may_hold(request.user.as_str()) {
            return None;
        }
        let refusal = issue::refusal(&self.coupon, now, self.taken)?;
        Some(CouponOutcome::Issue(IssueOutcome::Refused(refusal)))
    }

    fn encode(&self) -> Vec<u8> {
        let (bits, winners) = self.winners.encode();
        let notice = WireNotice {
            coupon: Some(wire::write_coupon(self.coupon.clone())),
            taken: self.taken.get(),
            bits: u32::from(bits),
            winners,
            returned: self.returned,
        };
        notice.encode_to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let WireNotice {
            coupon,
            taken,
            bits,
            winners,
            returned,
        } = WireNotice::decode(bytes)?;
        Ok(Self {
            coupon: wire::read_coupon(coupon.ok_or(DecodeError::Wrong("coupon"))?)?,
            taken: Sequence::new(taken),
            returned,
            winners: Arc::new(Filter::decode(bits, &winners)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coupon::issue::IssueRequest;
    use crate::coupon::offer::{Offer, Status};
    use crate::ids::{RequestKey, UserId};
    use crate::owning::door::notice::NOTICE_BYTES_MAX;

    fn sold_out(winners: u64) -> SoldOutNotice {
        let offer = Offer {
            total_quantity: Some(winners),
            description: Some("x".repeat(2_000)),
            metadata: [("k".to_owned(), "v".repeat(500))].into(),
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
        let filter = Filter::of(names.iter().map(String::as_str));
        SoldOutNotice::new(coupon, Sequence::new(winners), 0, Arc::new(filter))
    }

    fn ask(number: u64) -> CouponAsk {
        CouponAsk::Issue(IssueRequest {
            user: UserId::parse(&format!("user-{number}")).unwrap(),
            key: RequestKey::parse("key").unwrap(),
        })
    }

    #[test]
    fn a_door_on_another_node_never_refuses_a_winner_and_refuses_enough_other_users() {
        for (winners, sent_on_percent) in [(1, 0), (10_000, 0), (50_000, 1), (200_000, 20), (1_000_000, 70)] {
            let notice = sold_out(winners);
            let bytes = notice.encode();
            assert!(
                bytes.len() <= NOTICE_BYTES_MAX,
                "{} bytes for {winners}",
                bytes.len()
            );
            let decoded = SoldOutNotice::decode(&bytes).unwrap();
            assert_eq!((decoded.id(), decoded.version()), (notice.id(), notice.version()));
            let refused = |number: u64| decoded.refusal(&ask(number), Timestamp::from_micros(1).unwrap());
            assert!((0..winners).step_by(97).all(|winner| refused(winner).is_none()));
            let others = winners..winners + 10_000;
            let sent_on = others.filter(|other| refused(*other).is_none()).count();
            assert!(
                sent_on <= sent_on_percent * 100,
                "{sent_on} of 10,000 for {winners} winners"
            );
            let sold_out = CouponOutcome::Issue(IssueOutcome::Refused(issue::Refusal::SoldOut {
                total_quantity: winners,
            }));
            let told = (winners..winners + 10_000).find_map(refused);
            assert_eq!(told, Some(sold_out));
        }
    }

    #[test]
    fn bytes_that_are_not_a_notice_are_refused() {
        let bytes = sold_out(10).encode();
        assert!(SoldOutNotice::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(SoldOutNotice::decode(&[]).is_err());
        let mut wire = WireNotice::decode(bytes.as_slice()).unwrap();
        wire.bits = 33;
        assert!(SoldOutNotice::decode(&wire.encode_to_vec()).is_err());
    }
}
