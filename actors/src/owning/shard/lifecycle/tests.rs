//! Tests of the shard's life against a model. For each coupon, the model keeps whether it has an owner, and
//! from which epoch on it may be loaded again. Coupons are the sample kind.

mod ahead;
mod hand_off;
mod loading;
mod world;

use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::coupon::CouponKind;
use world::{Step, WAITING_MAX, World, id, step};

type Event = super::Event<CouponKind>;
type Effect = super::Effect<CouponKind>;
type Request = super::Request<CouponKind>;

proptest! {
    /// A coupon has at most one owner. It is loaded only when no earlier decision about it can still be
    /// stored. Every request is delivered or answered.
    #[test]
    fn a_coupon_has_one_owner_and_is_loaded_only_when_no_earlier_decision_can_be_stored(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::default();
        world.step(Step::Claim)?;
        for step in steps {
            world.step(step)?;
        }
        world.step(Step::Drain)?;
        world.come_to_rest()?;
        prop_assert_eq!(world.drained, 1);
        prop_assert!(world.lifecycle.slots.is_empty() && world.kept.is_empty());
        let delivered = world.delivered.len();
        world.delivered.clear();
        let mut unanswered = 0;
        for answer in &mut world.answers {
            if let Err(error) = answer.try_recv() {
                prop_assert_eq!(error, oneshot::error::TryRecvError::Closed);
                unanswered += 1;
            }
        }
        prop_assert_eq!(unanswered, delivered, "every request that was not delivered was answered");
    }
}
