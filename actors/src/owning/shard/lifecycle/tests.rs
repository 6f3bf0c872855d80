//! The shard's life against a model that keeps, for each coupon, whether an owner lives and from which epoch
//! on it may be read again.

mod ahead;

use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::oneshot;

use std::collections::{HashMap, HashSet};

use super::*;
use crate::ids::{Incarnation, RequestKey, UserId};
use crate::owning::admission::Admission;
use crate::owning::message::{IssueAnswer, IssueRequest, Reply};
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
    /// Ours as it stands in the store, if it is, to somebody or to nobody.
    GiveUp {
        to: bool,
    },
    /// The compare-and-set of a giving ends.
    Give {
        done: bool,
        answered: bool,
    },
    Expect(u64),
    /// Reading ahead ends.
    ReadAhead(u64, bool),
    /// A claim of before is heard of once more.
    ClaimAgain(u64),
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
        2 => any::<bool>().prop_map(|to| Step::GiveUp { to }),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(done, answered)| Step::Give { done, answered }),
        1 => coupon().prop_map(Step::Expect),
        2 => (coupon(), any::<bool>()).prop_map(|(coupon, read)| Step::ReadAhead(coupon, read)),
        1 => (0..3_u64).prop_map(Step::ClaimAgain),
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
    /// It is ours in the store.
    ours: bool,
    /// Fences under which it was tried to give it up, and what is not answered of that.
    giving: Vec<(Fence, Option<Incarnation>)>,
    /// Whatever is served must be of a higher epoch: of this one nobody knows whether it was given away.
    given: Option<Epoch>,
    reading_ahead: HashMap<CouponId, usize>,
    kept: HashSet<CouponId>,
    owners: HashMap<CouponId, Living>,
    reading: HashMap<CouponId, usize>,
    /// Whatever was decided in this epoch may still be stored: the coupon may be read only under a higher
    /// one.
    unsettled: HashMap<CouponId, Epoch>,
    raising: Vec<Fence>,
    waiting: Vec<oneshot::Receiver<IssueAnswer>>,
    delivered: Vec<Request>,
    drained: usize,
    /// How often it said that nothing is being read ahead any more.
    loaded_ahead: usize,
}

fn id(number: u64) -> CouponId {
    CouponId::new(number).unwrap()
}

impl World {
    fn fence(&self) -> Fence {
        Fence {
            epoch: Epoch::new(self.committed),
            owner: Incarnation::new(1).unwrap(),
        }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Ask(coupon) => {
                let request = self.request();
                self.take(Event::Asked(id(coupon), request))
            }
            Step::Read(coupon, load) => {
                let Some(reads) = self.reading.get_mut(&id(coupon)).filter(|reads| **reads > 0) else {
                    return Ok(());
                };
                *reads -= 1;
                self.take(Event::Loaded(id(coupon), load))
            }
            Step::Stop { coupon, unsettled } => {
                let Some(owner) = self.owners.remove(&id(coupon)) else {
                    return Ok(());
                };
                if unsettled {
                    self.unsettled.insert(id(coupon), owner.epoch);
                }
                self.take(Event::Stopped {
                    coupon: id(coupon),
                    epoch: owner.epoch,
                    unsettled,
                })
            }
            Step::Panic(coupon) => {
                let Some(owner) = self.owners.remove(&id(coupon)) else {
                    return Ok(());
                };
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
                if self.ours && self.fence() == from {
                    self.committed += 1;
                }
                let raise = match answered {
                    true if self.ours => Raise::Ours(self.fence()),
                    true => Raise::Lost,
                    false => Raise::Failed,
                };
                self.take(Event::Raised { from, raise })
            }
            Step::Lose => self.take(Event::Lost),
            Step::Claim => {
                self.committed += 1;
                self.ours = true;
                let fence = self.fence();
                self.take(Event::Claimed(fence))
            }
            Step::ClaimAgain(before) => {
                let epoch = Epoch::new(self.committed.saturating_sub(before));
                self.take(Event::Claimed(Fence {
                    epoch,
                    ..self.fence()
                }))
            }
            Step::GiveUp { to } => {
                let (from, to) = (self.fence(), to.then(|| Incarnation::new(2).unwrap()));
                if self.ours {
                    self.take(Event::GiveUp { from, to })
                } else {
                    Ok(())
                }
            }
            Step::Give { done, answered } => {
                if self.giving.is_empty() {
                    return Ok(());
                }
                let (from, to) = self.giving.remove(0);
                if done && self.ours && self.fence() == from {
                    self.ours = false;
                    self.committed += u64::from(to.is_some());
                }
                let is_ours = self.ours && self.fence() == from;
                self.take(Event::Given {
                    from,
                    given: answered && !is_ours,
                })
            }
            Step::Expect(coupon) => self.take(Event::Expect(vec![id(coupon)])),
            Step::ReadAhead(coupon, read) => {
                let Some(reads) = self
                    .reading_ahead
                    .get_mut(&id(coupon))
                    .filter(|reads| **reads > 0)
                else {
                    return Ok(());
                };
                *reads -= 1;
                self.take(Event::Preloaded(id(coupon), read))
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

    /// Reading and deciding need a fence under which the shard was not given away, as far as anybody can
    /// know.
    fn check_fence(&self) -> Result<(), TestCaseError> {
        let fence = self.life.fence();
        prop_assert!(fence.is_some(), "without a fence");
        prop_assert!(
            self.given
                .is_none_or(|given| fence.is_some_and(|fence| fence.epoch > given)),
            "it may have been given away"
        );
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<(), TestCaseError> {
        let was_read_ahead = matches!(event, Event::Preloaded(_, true));
        let mut effects = Vec::new();
        self.life.handle(event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Preload(coupon) => *self.reading_ahead.entry(coupon).or_default() += 1,
                Effect::LoadedAhead => self.loaded_ahead += 1,
                Effect::Keep(coupon) => {
                    prop_assert!(
                        was_read_ahead && self.kept.insert(coupon),
                        "what was not read is not kept"
                    );
                }
                Effect::Forget(coupon) => {
                    self.kept.remove(&coupon);
                }
                Effect::Give { from, to } => {
                    prop_assert!(self.owners.is_empty(), "owners go first: they may still decide");
                    self.giving.push((from, to));
                    self.given = self.given.max(Some(from.epoch));
                }
                Effect::Load(coupon) | Effect::LoadTail(coupon) => {
                    let under = self.life.fence();
                    self.check_fence()?;
                    if matches!(effect, Effect::LoadTail(_)) {
                        prop_assert!(self.kept.remove(&coupon), "the tail of nothing");
                    }
                    let void_below = self.unsettled.get(&coupon).copied();
                    prop_assert!(
                        void_below.is_none_or(|epoch| under.is_some_and(|fence| fence.epoch > epoch)),
                        "read before the epoch was raised"
                    );
                    *self.reading.entry(coupon).or_default() += 1;
                }
                Effect::Activate(coupon, fence) => {
                    prop_assert_eq!(Some(fence), self.life.fence());
                    self.check_fence()?;
                    let void_below = self.unsettled.remove(&coupon);
                    prop_assert!(void_below.is_none_or(|epoch| fence.epoch > epoch));
                    prop_assert!(
                        self.owners
                            .insert(coupon, Living { epoch: fence.epoch })
                            .is_none(),
                        "two owners"
                    );
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
                    // One that was lost while it was regained may be given up, and so regained, once more:
                    // the second raise finds the first one's.
                    let is_regained = self.given >= Some(from.epoch);
                    prop_assert!(
                        is_regained || !self.raising.contains(&from),
                        "raised twice at once"
                    );
                    self.raising.push(from);
                }
                Effect::Drained(_) => self.drained += 1,
            }
        }
        Ok(())
    }

    /// Ends everything that is under way.
    fn come_to_rest(&mut self) -> Result<(), TestCaseError> {
        let are_reading = |reading: &HashMap<CouponId, usize>| reading.values().any(|reads| *reads > 0);
        while !self.raising.is_empty()
            || !self.giving.is_empty()
            || are_reading(&self.reading)
            || are_reading(&self.reading_ahead)
            || !self.owners.is_empty()
        {
            self.step(Step::Raise { answered: true })?;
            self.step(Step::Give {
                done: true,
                answered: true,
            })?;
            for coupon in 1..4 {
                self.step(Step::ReadAhead(coupon, true))?;
                self.step(Step::Read(coupon, Load::Read))?;
                self.step(Step::Stop {
                    coupon,
                    unsettled: false,
                })?;
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
        prop_assert!(world.life.seats.is_empty() && world.kept.is_empty());
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
    assert_eq!(
        world
            .waiting
            .iter_mut()
            .filter_map(|answer| answer.try_recv().ok())
            .count(),
        1
    );
    world.step(Step::Read(1, Load::Read)).unwrap();
    assert_eq!(world.delivered.len(), 1);
}

#[test]
fn a_read_of_before_the_shard_was_away_tells_nobody_that_there_is_no_coupon() {
    let mut world = World::default();
    // The coupon may be made while the shard is away, and the read still be under way when it is back.
    for step in [
        Step::Claim,
        Step::Ask(1),
        Step::Lose,
        Step::Claim,
        Step::Ask(1),
        Step::Read(1, Load::NoSuchCoupon),
    ] {
        world.step(step).unwrap();
    }
    let mut answers = world.waiting.iter_mut().map(|answer| answer.try_recv().ok());
    assert_eq!(
        (answers.next(), answers.next()),
        (Some(Some(Err(Setback::Moved))), Some(None)),
        "the second waits for a read of its own"
    );
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
fn a_shard_is_given_once_all_is_stored_and_may_be_claimed_again() {
    let mut world = World::default();
    for step in [
        Step::Claim,
        Step::Ask(1),
        Step::Read(1, Load::Read),
        Step::Ask(2),
        Step::GiveUp { to: true },
        Step::Ask(1),
    ] {
        world.step(step).unwrap();
    }
    // Nobody is admitted, whoever waited is sent on, and the owner stores first.
    let sent_on = |world: &mut World| {
        world
            .waiting
            .iter_mut()
            .filter_map(|answer| answer.try_recv().ok())
            .collect::<Vec<_>>()
    };
    assert_eq!(sent_on(&mut world), [Err(Setback::Moved), Err(Setback::Moved)]);
    assert_eq!(
        (world.life.shown(), world.giving.len(), world.delivered.len()),
        (Shown::Moving, 0, 1)
    );
    world
        .step(Step::Stop {
            coupon: 1,
            unsettled: false,
        })
        .unwrap();
    assert_eq!(world.giving.len(), 0, "a coupon is still being read");
    world.step(Step::Read(2, Load::Read)).unwrap();
    assert_eq!(world.giving.len(), 1);
    world
        .step(Step::Give {
            done: true,
            answered: true,
        })
        .unwrap();
    assert_eq!((world.life.shown(), world.ours), (Shown::Unserved, false));
    for step in [Step::Claim, Step::Ask(1), Step::Read(1, Load::Read)] {
        world.step(step).unwrap();
    }
    assert_eq!(
        (world.life.shown(), world.delivered.len()),
        (Shown::Serving(Epoch::new(3)), 2)
    );
}

#[test]
fn a_shard_that_is_ours_by_its_row_alone_is_given_after_owners_of_before_have_stopped() {
    let mut world = World::default();
    for step in [
        Step::Claim,
        Step::Ask(1),
        Step::Read(1, Load::Read),
        Step::Lose,
        Step::GiveUp { to: true },
    ] {
        world.step(step).unwrap();
    }
    assert_eq!(
        (world.owners.len(), world.giving.len()),
        (1, 0),
        "the owner has not heard yet that it is to stop"
    );
    world
        .step(Step::Stop {
            coupon: 1,
            unsettled: false,
        })
        .unwrap();
    assert_eq!(world.giving.len(), 1);
}

#[test]
fn what_may_have_been_given_away_is_served_again_only_under_a_higher_epoch() {
    for done in [true, false] {
        let mut world = World::default();
        for step in [
            Step::Claim,
            Step::GiveUp { to: true },
            Step::Give {
                done,
                answered: false,
            },
            Step::Ask(1),
        ] {
            world.step(step).unwrap();
        }
        assert_eq!((world.life.shown(), world.reading.len()), (Shown::Moving, 0));
        world.step(Step::Raise { answered: true }).unwrap();
        let expected = if done {
            Shown::Unserved
        } else {
            Shown::Serving(Epoch::new(2))
        };
        assert_eq!(world.life.shown(), expected);
    }
}

#[test]
fn a_claim_that_is_heard_of_after_it_was_given_away_is_no_news() {
    let mut world = World::default();
    for step in [
        Step::Claim,
        Step::GiveUp { to: true },
        Step::Give {
            done: true,
            answered: true,
        },
    ] {
        world.step(step).unwrap();
    }
    world.step(Step::ClaimAgain(1)).unwrap();
    assert_eq!(world.life.fence(), None);
    // One that is ours by its row alone can be given away too, and is not served by a late word of it either.
    let mut world = World {
        committed: 7,
        ours: true,
        ..World::default()
    };
    for step in [
        Step::GiveUp { to: false },
        Step::Give {
            done: true,
            answered: true,
        },
        Step::ClaimAgain(0),
    ] {
        world.step(step).unwrap();
    }
    assert_eq!((world.life.fence(), world.ours), (None, false));
}

#[test]
fn a_drained_shard_stays_so() {
    let mut world = World::default();
    for step in [Step::Drain, Step::Claim, Step::Ask(1)] {
        world.step(step).unwrap();
    }
    assert_eq!(
        (world.drained, world.life.fence(), world.reading.len()),
        (1, None, 0)
    );
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
    assert_eq!(
        world
            .waiting
            .iter_mut()
            .filter_map(|answer| answer.try_recv().ok())
            .filter(Result::is_ok)
            .count(),
        2
    );
}
