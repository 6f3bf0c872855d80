//! The model: a store, owners, loads and compare-and-sets under way, and what must be true of every effect.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::oneshot;

use super::{Effect, Event, Request};
use crate::admission::Admission;
use crate::coupon::CouponKind;
use crate::coupon::ids::CouponId;
use crate::coupon::issue::IssueRequest;
use crate::ids::{Epoch, Fence, Incarnation, RequestKey, UserId};
use crate::owning::request::{Answer, Reply};
use crate::owning::shard::lifecycle::{Load, Raise, ShardLifecycle};
use crate::time::Moment;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Ask(u64),
    /// Loading the coupon ends.
    EndLoad(u64, Load),
    /// The coupon's owner stops.
    Stop {
        coupon: u64,
        unsettled: bool,
    },
    /// The coupon's owner panics.
    Panic(u64),
    /// The store refused the owner's present epoch.
    Fence(u64),
    /// The compare-and-set of a raise ends.
    Raise {
        answered: bool,
    },
    Lose,
    Claim,
    /// If the store says that the shard is ours, it is handed off to a node, or released.
    HandOff {
        to: bool,
    },
    /// The compare-and-set of a hand-off ends.
    EndHandOff {
        done: bool,
        answered: bool,
    },
    LoadAhead(u64),
    /// Loading ahead ends.
    EndLoadAhead(u64, bool),
    /// A claim from this many epochs ago is reported once more.
    HearClaimAgain(u64),
    Sweep,
    Drain,
}

fn load() -> impl Strategy<Value = Load> {
    prop_oneof![
        6 => Just(Load::Read),
        1 => Just(Load::Absent),
        1 => Just(Load::Failed),
        1 => Just(Load::NoPlace),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let coupon = || 1..4_u64;
    prop_oneof![
        6 => coupon().prop_map(Step::Ask),
        4 => (coupon(), load()).prop_map(|(coupon, load)| Step::EndLoad(coupon, load)),
        2 => (coupon(), any::<bool>()).prop_map(|(coupon, unsettled)| Step::Stop { coupon, unsettled }),
        1 => coupon().prop_map(Step::Panic),
        1 => coupon().prop_map(Step::Fence),
        3 => any::<bool>().prop_map(|answered| Step::Raise { answered }),
        1 => Just(Step::Lose),
        2 => Just(Step::Claim),
        2 => any::<bool>().prop_map(|to| Step::HandOff { to }),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(done, answered)| Step::EndHandOff { done, answered }),
        1 => coupon().prop_map(Step::LoadAhead),
        2 => (coupon(), any::<bool>()).prop_map(|(coupon, read)| Step::EndLoadAhead(coupon, read)),
        1 => (0..3_u64).prop_map(Step::HearClaimAgain),
        1 => Just(Step::Sweep),
    ]
}

/// Maximum number of requests that wait for one owner to be loaded.
pub(super) const WAITING_MAX: usize = 8;

impl Default for ShardLifecycle<CouponKind> {
    fn default() -> Self {
        Self::new(WAITING_MAX)
    }
}

/// An owner in the model.
pub(super) struct ModelOwner {
    epoch: Epoch,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) lifecycle: ShardLifecycle<CouponKind>,
    /// The shard's epoch in the store.
    committed: u64,
    /// True if the shard is ours in the store.
    pub(super) ours: bool,
    /// Hand-offs under way: the fence before, and the next owner.
    pub(super) handing_off: Vec<(Fence, Option<Incarnation>)>,
    /// The highest epoch in which a hand-off was tried. That hand-off may have been done, so the shard may be
    /// served only in a higher epoch.
    handed_off: Option<Epoch>,
    loading_ahead: HashMap<CouponId, usize>,
    pub(super) kept: HashSet<CouponId>,
    pub(super) owners: HashMap<CouponId, ModelOwner>,
    pub(super) loading: HashMap<CouponId, usize>,
    /// The fence under which the coupon's last load began.
    loaded_under: HashMap<CouponId, Fence>,
    /// Decisions of this epoch may still be stored, so the coupon may be loaded only under a higher epoch.
    unsettled: HashMap<CouponId, Epoch>,
    raising: Vec<Fence>,
    pub(super) answers: Vec<oneshot::Receiver<Answer<CouponKind>>>,
    pub(super) delivered: Vec<Request>,
    pub(super) drained: usize,
    /// How often it was reported that no coupon is being loaded ahead any more.
    pub(super) reported_loaded_ahead: usize,
}

pub(super) fn id(number: u64) -> CouponId {
    CouponId::new(number).unwrap()
}

/// Ends one of this coupon's loads under way. Returns false if there is none.
fn end_one(loads: &mut HashMap<CouponId, usize>, coupon: CouponId) -> bool {
    let count = loads.get_mut(&coupon).filter(|count| **count > 0);
    count.map(|count| *count -= 1).is_some()
}

impl World {
    /// Makes a world where the shard is ours in the store, in this epoch, but the state machine does not know
    /// that.
    pub(super) fn ours_in_the_store(epoch: u64) -> Self {
        Self {
            committed: epoch,
            ours: true,
            ..Self::default()
        }
    }

    /// Makes a world after these steps.
    pub(super) fn after(steps: impl IntoIterator<Item = Step>) -> Self {
        let mut world = Self::default();
        world.steps(steps);
        world
    }

    pub(super) fn steps(&mut self, steps: impl IntoIterator<Item = Step>) {
        for step in steps {
            self.step(step).unwrap();
        }
    }

    /// Returns the answers that have arrived and were not returned yet.
    pub(super) fn answered(&mut self) -> Vec<Answer<CouponKind>> {
        let answers = self.answers.iter_mut();
        answers.filter_map(|answer| answer.try_recv().ok()).collect()
    }

    fn fence(&self) -> Fence {
        Fence {
            epoch: Epoch::new(self.committed),
            owner: Incarnation::new(1).unwrap(),
        }
    }

    pub(super) fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Ask(coupon) => {
                let request = self.request();
                self.take(Event::Asked(id(coupon), request))
            }
            Step::EndLoad(coupon, load) if end_one(&mut self.loading, id(coupon)) => {
                self.take(Event::Loaded(id(coupon), load))
            }
            Step::EndLoadAhead(coupon, read) if end_one(&mut self.loading_ahead, id(coupon)) => {
                self.take(Event::LoadedAhead(id(coupon), read))
            }
            Step::EndLoad(..) | Step::EndLoadAhead(..) => Ok(()),
            Step::LoadAhead(coupon) => self.take(Event::LoadAhead(vec![id(coupon)])),
            Step::Stop { coupon, unsettled } => self.stop(id(coupon), unsettled),
            Step::Panic(coupon) => self.panic(id(coupon)),
            Step::Fence(coupon) => match self.owners.get(&id(coupon)).map(|owner| owner.epoch) {
                Some(epoch) if epoch.get() < self.committed => self.take(Event::Fenced(epoch)),
                _ => Ok(()),
            },
            Step::Raise { answered } => self.raise(answered),
            Step::Lose => self.take(Event::Lost),
            Step::Claim => {
                (self.committed, self.ours) = (self.committed + 1, true);
                let fence = self.fence();
                self.take(Event::Claimed(fence))
            }
            Step::HearClaimAgain(before) => {
                let (epoch, owner) = (
                    Epoch::new(self.committed.saturating_sub(before)),
                    self.fence().owner,
                );
                self.take(Event::Claimed(Fence { epoch, owner }))
            }
            Step::HandOff { to } if self.ours => {
                let (from, to) = (self.fence(), to.then(|| Incarnation::new(2).unwrap()));
                self.take(Event::HandOff { from, to })
            }
            Step::HandOff { .. } => Ok(()),
            Step::EndHandOff { done, answered } => self.end_hand_off(done, answered),
            Step::Sweep => self.take(Event::Sweep),
            Step::Drain => self.take(Event::Drain),
        }
    }

    fn stop(&mut self, id: CouponId, unsettled: bool) -> Result<(), TestCaseError> {
        let Some(ModelOwner { epoch }) = self.owners.remove(&id) else {
            return Ok(());
        };
        if unsettled {
            self.unsettled.insert(id, epoch);
        }
        self.take(Event::Stopped { id, epoch, unsettled })
    }

    fn panic(&mut self, id: CouponId) -> Result<(), TestCaseError> {
        let Some(ModelOwner { epoch }) = self.owners.remove(&id) else {
            return Ok(());
        };
        self.unsettled.insert(id, epoch);
        self.take(Event::Panicked(id))
    }

    fn raise(&mut self, answered: bool) -> Result<(), TestCaseError> {
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

    fn end_hand_off(&mut self, done: bool, answered: bool) -> Result<(), TestCaseError> {
        if self.handing_off.is_empty() {
            return Ok(());
        }
        let (from, to) = self.handing_off.remove(0);
        if done && self.ours && self.fence() == from {
            self.ours = false;
            self.committed += u64::from(to.is_some());
        }
        let is_ours = self.ours && self.fence() == from;
        let done = answered && !is_ours;
        self.take(Event::HandedOff { from, done })
    }

    fn request(&mut self) -> Request {
        let (reply, answer) = Reply::new(Admission::new(1).admit().unwrap());
        self.answers.push(answer);
        let issue = IssueRequest {
            user: UserId::parse("u").unwrap(),
            key: RequestKey::parse("k").unwrap(),
        };
        Request {
            ask: issue.into(),
            expires: Moment::at(Duration::from_secs(1)),
            reply,
        }
    }

    /// Checks that the shard has a fence, as every load and decision needs, and that its epoch is above every
    /// epoch in which a hand-off was tried.
    fn check_fence(&self) -> Result<(), TestCaseError> {
        let fence = self.lifecycle.fence();
        prop_assert!(fence.is_some(), "without a fence");
        let is_certain = self
            .handed_off
            .is_none_or(|epoch| fence.is_some_and(|fence| fence.epoch > epoch));
        prop_assert!(is_certain, "it may have been handed off");
        Ok(())
    }

    pub(super) fn take(&mut self, event: Event) -> Result<(), TestCaseError> {
        let was_loaded_ahead = matches!(event, Event::LoadedAhead(_, true));
        let mut effects = Vec::new();
        self.lifecycle.handle(event, &mut effects);
        for effect in effects {
            if matches!(effect, Effect::Keep(_)) {
                prop_assert!(was_loaded_ahead, "only what was read is kept");
            }
            self.carry_out(effect)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), TestCaseError> {
        match effect {
            Effect::LoadAhead(coupon) => *self.loading_ahead.entry(coupon).or_default() += 1,
            Effect::ReportLoadedAhead => self.reported_loaded_ahead += 1,
            Effect::Keep(coupon) => prop_assert!(self.kept.insert(coupon), "kept twice"),
            Effect::Forget(coupon) => drop(self.kept.remove(&coupon)),
            Effect::HandOff { from, to } => {
                prop_assert!(self.owners.is_empty(), "owners that may still decide");
                self.handing_off.push((from, to));
                self.handed_off = self.handed_off.max(Some(from.epoch));
            }
            Effect::Load(coupon) => self.load(coupon)?,
            Effect::LoadRest(coupon) => {
                prop_assert!(self.kept.remove(&coupon), "no rows were kept to be completed");
                self.load(coupon)?;
            }
            Effect::Activate(coupon, fence) => self.activate(coupon, fence)?,
            Effect::Deliver(coupon, request) => {
                if self.owners.contains_key(&coupon) {
                    self.delivered.push(request);
                } else {
                    self.take(Event::Bounced(coupon, request))?;
                }
            }
            Effect::SetBack(request, setback) => request.set_back(setback),
            Effect::Absent(request) => request.absent(),
            Effect::Refence(coupon, epoch) => {
                if let Some(owner) = self.owners.get_mut(&coupon) {
                    owner.epoch = epoch;
                }
            }
            Effect::Stop(coupon) | Effect::Drain(coupon) => {
                prop_assert!(self.owners.contains_key(&coupon), "the owner is gone");
            }
            Effect::Raise { from, .. } => {
                // A shard that is lost while it is reclaimed may be handed off and reclaimed once more. The
                // second raise then finds the result of the first raise.
                let is_reclaimed = self.handed_off >= Some(from.epoch);
                prop_assert!(
                    is_reclaimed || !self.raising.contains(&from),
                    "raised twice at once"
                );
                self.raising.push(from);
            }
            Effect::Drained(_) => self.drained += 1,
        }
        Ok(())
    }

    fn load(&mut self, coupon: CouponId) -> Result<(), TestCaseError> {
        self.check_fence()?;
        let (under, unsettled) = (self.lifecycle.fence(), self.unsettled.get(&coupon));
        let is_void = unsettled.is_none_or(|epoch| under.is_some_and(|fence| fence.epoch > *epoch));
        prop_assert!(is_void, "loaded before the epoch was raised");
        self.loaded_under.extend(under.map(|fence| (coupon, fence)));
        *self.loading.entry(coupon).or_default() += 1;
        Ok(())
    }

    fn activate(&mut self, coupon: CouponId, fence: Fence) -> Result<(), TestCaseError> {
        prop_assert_eq!(Some(fence), self.lifecycle.fence());
        self.check_fence()?;
        let under = self.loaded_under.get(&coupon);
        prop_assert_eq!(under, Some(&fence), "another node may have written since");
        let unsettled = self.unsettled.remove(&coupon);
        prop_assert!(unsettled.is_none_or(|epoch| fence.epoch > epoch));
        let owner = ModelOwner { epoch: fence.epoch };
        prop_assert!(self.owners.insert(coupon, owner).is_none(), "two owners");
        Ok(())
    }

    /// Ends everything that is under way.
    pub(super) fn come_to_rest(&mut self) -> Result<(), TestCaseError> {
        let is_busy = |loads: &HashMap<CouponId, usize>| loads.values().any(|count| *count > 0);
        while !self.raising.is_empty()
            || !self.handing_off.is_empty()
            || is_busy(&self.loading)
            || is_busy(&self.loading_ahead)
            || !self.owners.is_empty()
        {
            self.step(Step::Raise { answered: true })?;
            self.step(Step::EndHandOff {
                done: true,
                answered: true,
            })?;
            for coupon in 1..4 {
                self.step(Step::EndLoadAhead(coupon, true))?;
                self.step(Step::EndLoad(coupon, Load::Read))?;
                self.step(Step::Stop {
                    coupon,
                    unsettled: false,
                })?;
            }
        }
        Ok(())
    }
}
