//! The shard's life against a model that keeps, for each coupon, whether an owner lives and from which epoch on it may be read again.

use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::oneshot;

use std::collections::HashMap;

use super::*;
use crate::admission::Admission;
use crate::coupon::message::{IssueAnswer, IssueRequest, Reply};
use crate::ids::{Incarnation, RequestKey, UserId};
use crate::time::Moment;

#[derive(Debug, Clone)]
enum Step {
    Ask(u64),
    /// The coupon's read ends.
    Read(u64, Load),
    /// The coupon's owner stops, or panics.
    Stop {
        coupon: u64,
        unsettled: bool,
    },
    Panic(u64),
    /// The store refused the owner's present epoch.
    Fence(u64),
    Raise {
        answered: bool,
    },
    Lose,
    Claim,
    Sweep,
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    let coupon = || 1..4_u64;
    prop_oneof![
        6 => coupon().prop_map(Step::Ask),
        4 => (coupon(), prop_oneof![6 => Just(Load::Read), 1 => Just(Load::NoSuchCoupon), 1 => Just(Load::Failed), 1 => Just(Load::NoPlace)])
            .prop_map(|(coupon, load)| Step::Read(coupon, load)),
        2 => (coupon(), any::<bool>()).prop_map(|(coupon, unsettled)| Step::Stop { coupon, unsettled }),
        1 => coupon().prop_map(Step::Panic),
        1 => coupon().prop_map(Step::Fence),
        3 => any::<bool>().prop_map(|answered| Step::Raise { answered }),
        1 => Just(Step::Lose),
        2 => Just(Step::Claim),
        1 => Just(Step::Sweep),
    ]
}

/// An owner as the model knows it.
struct Living {
    epoch: Epoch,
}

#[derive(Default)]
struct World {
    life: Life,
    /// The shard's epoch in the store.
    committed: u64,
    owners: HashMap<CouponId, Living>,
    reading: HashMap<CouponId, usize>,
    /// Whatever was decided in this epoch may still be stored: the coupon may be read only under a higher one.
    unsettled: HashMap<CouponId, Epoch>,
    raising: Vec<Fence>,
    waiting: Vec<oneshot::Receiver<IssueAnswer>>,
    delivered: Vec<Request>,
    drained: usize,
}

fn id(number: u64) -> CouponId {
    CouponId::new(number).unwrap()
}

impl World {
    fn fence(&self) -> Fence {
        Fence { epoch: Epoch::new(self.committed), owner: Incarnation::new(1).unwrap() }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Ask(coupon) => {
                let request = self.request();
                self.take(Event::Asked(id(coupon), request))
            }
            Step::Read(coupon, load) => {
                let Some(reads) = self.reading.get_mut(&id(coupon)).filter(|reads| **reads > 0) else { return Ok(()) };
                *reads -= 1;
                self.take(Event::Loaded(id(coupon), load))
            }
            Step::Stop { coupon, unsettled } => {
                let Some(owner) = self.owners.remove(&id(coupon)) else { return Ok(()) };
                if unsettled {
                    self.unsettled.insert(id(coupon), owner.epoch);
                }
                self.take(Event::Stopped { coupon: id(coupon), epoch: owner.epoch, unsettled })
            }
            Step::Panic(coupon) => {
                let Some(owner) = self.owners.remove(&id(coupon)) else { return Ok(()) };
                self.unsettled.insert(id(coupon), owner.epoch);
                self.take(Event::Panicked(id(coupon)))
            }
            Step::Fence(coupon) => match self.owners.get(&id(coupon)).map(|owner| owner.epoch) {
                Some(epoch) if epoch.get() < self.committed => self.take(Event::Fenced(epoch)),
                _ => Ok(()),
            },
            Step::Raise { answered } => {
                if self.raising.is_empty() {
                    return Ok(());
                }
                let from = self.raising.remove(0);
                self.committed = self.committed.max(from.epoch.get() + 1);
                let raise = if answered { Raise::Ours(self.fence()) } else { Raise::Failed };
                self.take(Event::Raised { from, raise })
            }
            Step::Lose => self.take(Event::Lost),
            Step::Claim => {
                self.committed += 1;
                let fence = self.fence();
                self.take(Event::Claimed(fence))
            }
            Step::Sweep => self.take(Event::Sweep),
            Step::Drain => self.take(Event::Drain),
        }
    }

    fn request(&mut self) -> Request {
        let (reply, answer) = Reply::new(Admission::new(1).admit().unwrap());
        self.waiting.push(answer);
        let request = IssueRequest {
            user: UserId::parse("u").unwrap(),
            key: RequestKey::parse("k").unwrap(),
            expires: Moment::at(Duration::from_secs(1)),
        };
        Request::Issue(request, reply)
    }

    fn take(&mut self, event: Event) -> Result<(), TestCaseError> {
        let mut effects = Vec::new();
        self.life.handle(event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Load(coupon) => {
                    let under = self.life.fence();
                    prop_assert!(under.is_some(), "read without a fence");
                    let void_below = self.unsettled.get(&coupon).copied();
                    prop_assert!(
                        void_below.is_none_or(|epoch| under.is_some_and(|fence| fence.epoch > epoch)),
                        "read before the epoch was raised"
                    );
                    *self.reading.entry(coupon).or_default() += 1;
                }
                Effect::Activate(coupon, fence) => {
                    prop_assert_eq!(Some(fence), self.life.fence());
                    let void_below = self.unsettled.remove(&coupon);
                    prop_assert!(void_below.is_none_or(|epoch| fence.epoch > epoch));
                    prop_assert!(self.owners.insert(coupon, Living { epoch: fence.epoch }).is_none(), "two owners");
                }
                Effect::Deliver(coupon, request) => {
                    if self.owners.contains_key(&coupon) {
                        self.delivered.push(request);
                    } else {
                        self.take(Event::Bounced(coupon, request))?;
                    }
                }
                Effect::SetBack(request, setback) => request.set_back(setback),
                Effect::UnknownCoupon(request) => request.unknown_coupon(),
                Effect::Refence(coupon, epoch) => {
                    if let Some(owner) = self.owners.get_mut(&coupon) {
                        owner.epoch = epoch;
                    }
                }
                Effect::Stop(coupon) | Effect::Drain(coupon) => {
                    prop_assert!(self.owners.contains_key(&coupon), "told an owner that is gone");
                }
                Effect::Raise { from, .. } => {
                    prop_assert!(!self.raising.contains(&from), "raised twice at once");
                    self.raising.push(from);
                }
                Effect::Drained(_) => self.drained += 1,
            }
        }
        Ok(())
    }

    /// Ends everything that is under way.
    fn come_to_rest(&mut self) -> Result<(), TestCaseError> {
        while !self.raising.is_empty() || self.reading.values().any(|reads| *reads > 0) || !self.owners.is_empty() {
            self.step(Step::Raise { answered: true })?;
            for coupon in 1..4 {
                self.step(Step::Read(coupon, Load::Read))?;
                self.step(Step::Stop { coupon, unsettled: false })?;
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn one_owner_a_coupon_read_only_when_nothing_else_can_be_stored_and_nobody_is_forgotten(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::default();
        world.step(Step::Claim)?;
        for step in steps {
            world.step(step)?;
        }
        world.step(Step::Drain)?;
        world.come_to_rest()?;
        prop_assert_eq!(world.drained, 1);
        prop_assert!(world.life.seats.is_empty());
        let delivered = world.delivered.len();
        world.delivered.clear();
        let unanswered = world.waiting.iter_mut().filter_map(|answer| answer.try_recv().err());
        let dropped = unanswered.inspect(|error| assert_eq!(*error, oneshot::error::TryRecvError::Closed)).count();
        prop_assert_eq!(dropped, delivered, "whoever was not delivered was answered");
    }
}

#[test]
fn requests_wait_for_a_coupon_that_is_being_read() {
    let mut world = World::default();
    world.step(Step::Claim).unwrap();
    for _ in 0..3 {
        world.step(Step::Ask(1)).unwrap();
    }
    assert_eq!((world.reading[&id(1)], world.delivered.len()), (1, 0));
    world.step(Step::Read(1, Load::Read)).unwrap();
    assert_eq!(world.delivered.len(), 3);
}

#[test]
fn whoever_asked_after_the_read_began_is_not_told_by_it_that_there_is_no_coupon() {
    let mut world = World::default();
    world.step(Step::Claim).unwrap();
    for _ in 0..2 {
        world.step(Step::Ask(1)).unwrap();
    }
    world.step(Step::Read(1, Load::NoSuchCoupon)).unwrap();
    // The first was there before, the second was not: for it the coupon is read again, and there it is.
    assert_eq!(world.waiting.iter_mut().filter_map(|answer| answer.try_recv().ok()).count(), 1);
    world.step(Step::Read(1, Load::Read)).unwrap();
    assert_eq!(world.delivered.len(), 1);
}

#[test]
fn a_request_that_nobody_waits_for_is_forgotten() {
    let mut world = World::default();
    world.step(Step::Claim).unwrap();
    for _ in 0..3 {
        world.step(Step::Ask(1)).unwrap();
    }
    world.waiting.truncate(1);
    world.take(Event::Sweep).unwrap();
    world.step(Step::Read(1, Load::Read)).unwrap();
    assert_eq!(world.delivered.len(), 1);
}

#[test]
fn a_drained_shard_stays_so() {
    let mut world = World::default();
    for step in [Step::Drain, Step::Claim, Step::Ask(1)] {
        world.step(step).unwrap();
    }
    assert_eq!((world.drained, world.life.fence(), world.reading.len()), (1, None, 0));
}

#[test]
fn that_a_coupon_does_not_exist_is_not_remembered() {
    let mut world = World::default();
    world.step(Step::Claim).unwrap();
    for _ in 0..2 {
        world.step(Step::Ask(1)).unwrap();
        world.step(Step::Read(1, Load::NoSuchCoupon)).unwrap();
    }
    assert!(world.life.seats.is_empty());
    assert_eq!(world.waiting.iter_mut().filter_map(|answer| answer.try_recv().ok()).filter(Result::is_ok).count(), 2);
}
