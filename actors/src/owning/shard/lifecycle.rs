//! The life of a shard as a state machine: claimed, served, raised, given up; and in it each coupon's owner:
//! loading, active, stopping. `event → effects`.
//!
//! Two rules. A coupon is loaded only under a fence of ours; what is loaded ahead is completed under one
//! before anybody decides upon it. And where an owner stopped with anything unsettled, the epoch is raised,
//! and that is committed, before the coupon is read again: whatever the stopped one still has under way is
//! then void.
//!
//! ```text
//! unserved ──claimed──► serving ◄──► raising
//!     ▲                   │  ▲
//!     │                give up └──── the epoch raised ── regaining
//!     │                   ▼                                 ▲
//!     └─────given────── giving ◄── all stored ── giving up  │
//!                         └────── not known to be given ────┘
//! ```

mod moving;
mod slot;

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{CouponId, Epoch, Fence, Incarnation};
use crate::owning::message::{Request, Setback};
use crate::owning::shard::lifecycle::slot::{Expected, Loading, Seat};

/// Most requests that wait for one owner to be loaded. As many as its mailbox takes, as they all go there.
pub const WAITING_MAX: usize = crate::owning::owner::actor::OWNER_PLACES;

/// Most coupons of a shard that are loaded ahead: a shard has some that are asked for at a time, and the rest
/// is loaded when it is.
pub const EXPECTED_MAX: usize = 64;

/// What happens to a shard.
#[derive(Debug)]
pub enum Event {
    /// The shard was claimed for us.
    Claimed(Fence),
    /// We may not serve it any more: the lease is over, or another has it.
    Lost,
    /// A request that found no owner, or none that takes it.
    Asked(CouponId, Request),
    /// A request could not be put into its owner's mailbox, as that is closed.
    Bounced(CouponId, Request),
    /// Loading ended.
    Loaded(CouponId, Load),
    /// The owner stopped, having been of this epoch; `unsettled` if something it decided may yet be stored or
    /// not.
    Stopped {
        /// Whose owner.
        coupon: CouponId,
        /// The highest epoch it wrote under.
        epoch: Epoch,
        /// Whether anything is unsettled.
        unsettled: bool,
    },
    /// The owner panicked.
    Panicked(CouponId),
    /// The store refused a portion of this coupon under this epoch.
    Fenced(Epoch),
    /// Raising the epoch from a fence ended.
    Raised {
        /// The fence it was to be raised from: an answer about an earlier one says nothing about the present.
        from: Fence,
        /// How it ended.
        raise: Raise,
    },
    /// Store everything, stop everybody, and then give the shard to another, or to nobody. It may be claimed
    /// again.
    GiveUp {
        /// The fence under which it is ours: if it is served under another by now, nothing happens.
        from: Fence,
        /// Who is to own it in the next epoch; `None`: nobody.
        to: Option<Incarnation>,
    },
    /// The attempt to give it up ended.
    Given {
        /// The fence under which it was ours.
        from: Fence,
        /// It surely is ours no more.
        given: bool,
    },
    /// The shard is about to be handed to us: load these coupons ahead.
    Expect(Vec<CouponId>),
    /// Loading ahead ended; false: nothing was read.
    Preloaded(CouponId, bool),
    /// Forget requests that nobody waits for any more.
    Sweep,
    /// Store everything, stop everybody, for good.
    Drain,
}

/// How loading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// The coupon was read.
    Read,
    /// There is no such coupon.
    NoSuchCoupon,
    /// The store did not answer, or what it holds makes no sense.
    Failed,
    /// The node has as many owners as it takes.
    NoPlace,
}

/// How raising the epoch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raise {
    /// Ours, with this fence.
    Ours(Fence),
    /// Another's.
    Lost,
    /// Not known.
    Failed,
}

/// What a shard wants done.
#[derive(Debug)]
pub enum Effect {
    /// Read the coupon; the fence is committed.
    Load(CouponId),
    /// Read the coupon's issuances under no fence.
    Preload(CouponId),
    /// Keep what was just read ahead, until [`Self::LoadTail`] or [`Self::Forget`].
    Keep(CouponId),
    /// Say that nothing is being read ahead any more.
    LoadedAhead,
    /// Read the coupon itself, and what is missing to what was read ahead; the fence is committed. Ends as
    /// [`Self::Load`] does.
    LoadTail(CouponId),
    /// Drop what was kept.
    Forget(CouponId),
    /// Make the owner of the coupon just read, under this fence. Whatever was read and is not activated by
    /// the time the effects are carried out is dropped.
    Activate(CouponId, Fence),
    /// Put a request into the owner's mailbox.
    Deliver(CouponId, Request),
    /// Answer that there is no decision.
    SetBack(Request, Setback),
    /// Answer that there is no such coupon.
    UnknownCoupon(Request),
    /// Tell the owner its shard's new epoch.
    Refence(CouponId, Epoch),
    /// Tell the owner to stop at once.
    Stop(CouponId),
    /// Tell the owner to store all and stop.
    Drain(CouponId),
    /// Raise the epoch from this fence; after a pause, if so said.
    Raise {
        /// The present one.
        from: Fence,
        /// Whether the last attempt failed.
        pause: bool,
    },
    /// All owners are gone after [`Event::GiveUp`]: name the next owner by compare-and-set.
    Give {
        /// The fence under which it is ours.
        from: Fence,
        /// Who is to own it in the next epoch; `None`: nobody.
        to: Option<Incarnation>,
    },
    /// All owners are gone after [`Event::Drain`]; the fence is free to be released, if there is one.
    Drained(Option<Fence>),
}

/// Whether and how the shard is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Unserved,
    Serving(Fence),
    Raising(Fence),
    /// Owners store what they decided, and stop; nobody is admitted.
    GivingUp {
        from: Fence,
        to: Option<Incarnation>,
    },
    /// The compare-and-set is under way.
    Giving(Fence),
    /// It was not heard of: it may yet be done. The epoch is raised, which makes it void, or shows that it
    /// was done.
    Regaining(Fence),
    Draining(Option<Fence>),
    /// For good: the node is stopping.
    Drained,
}

/// How a shard stands, for those outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Not served.
    Unserved,
    /// Served under this epoch.
    Serving(Epoch),
    /// Being given up.
    Moving,
    /// Given up for good.
    Drained,
}

/// The state machine; see the module.
#[derive(Debug)]
pub struct Life {
    standing: Standing,
    /// The last fence of ours that was heard of: one that is not newer was given up since, and is heard of
    /// late.
    last: Option<Fence>,
    /// In order, so that the same events have the same effects.
    seats: BTreeMap<CouponId, Seat>,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            standing: Standing::Unserved,
            last: None,
            seats: BTreeMap::new(),
        }
    }
}

impl Life {
    /// The fence under which it is served.
    pub fn fence(&self) -> Option<Fence> {
        match self.standing {
            Standing::Serving(fence) | Standing::Raising(fence) => Some(fence),
            Standing::Unserved
            | Standing::GivingUp { .. }
            | Standing::Giving(_)
            | Standing::Regaining(_)
            | Standing::Draining(_)
            | Standing::Drained => None,
        }
    }

    /// How it stands.
    pub fn shown(&self) -> Shown {
        match self.standing {
            Standing::Unserved => Shown::Unserved,
            Standing::Serving(fence) | Standing::Raising(fence) => Shown::Serving(fence.epoch),
            Standing::GivingUp { .. }
            | Standing::Giving(_)
            | Standing::Regaining(_)
            | Standing::Draining(_) => Shown::Moving,
            Standing::Drained => Shown::Drained,
        }
    }

    /// Coupons whose owner is active.
    pub fn active(&self) -> impl Iterator<Item = CouponId> {
        self.seats
            .iter()
            .filter(|(_, seat)| matches!(seat, Seat::Active))
            .map(|(coupon, _)| *coupon)
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Claimed(fence) => self.claimed(fence, effects),
            Event::Lost => self.lost(effects),
            Event::Asked(coupon, request) => self.asked(coupon, request, effects),
            Event::Bounced(coupon, request) => {
                if matches!(self.seats.get(&coupon), Some(Seat::Active)) {
                    self.seats.insert(coupon, Seat::Stopping(VecDeque::new()));
                }
                self.asked(coupon, request, effects);
            }
            Event::Loaded(coupon, load) => self.loaded(coupon, load, effects),
            Event::Stopped {
                coupon,
                epoch,
                unsettled,
            } => {
                let void_already = self.fence().is_some_and(|fence| fence.epoch > epoch);
                self.gone(coupon, unsettled && !void_already, effects);
            }
            Event::Panicked(coupon) => self.gone(coupon, true, effects),
            Event::Fenced(epoch) => {
                // While a raise is under way the owner was fenced by ourselves, and is told the new epoch
                // after it.
                if self.standing_is_serving_at(epoch) {
                    self.lost(effects);
                }
            }
            Event::Raised { from, raise } => self.raised(from, raise, effects),
            Event::GiveUp { from, to } => self.give_up(from, to, effects),
            Event::Given { from, given } => self.given(from, given, effects),
            Event::Expect(coupons) => {
                self.expect(coupons, effects);
                self.say_if_loaded_ahead(effects);
            }
            Event::Preloaded(coupon, read) => {
                self.preloaded(coupon, read, effects);
                self.say_if_loaded_ahead(effects);
            }
            Event::Sweep => self.sweep(effects),
            Event::Drain => self.drain(effects),
        }
        if let Standing::GivingUp { from, to } = self.standing
            && self.seats.is_empty()
        {
            self.standing = Standing::Giving(from);
            effects.push(Effect::Give { from, to });
        }
        if let Standing::Draining(fence) = self.standing
            && self.seats.is_empty()
        {
            self.standing = Standing::Drained;
            effects.push(Effect::Drained(fence));
        }
    }

    /// Whether a later fence of the same incarnation was heard of.
    fn is_known_beyond(&self, fence: Fence) -> bool {
        self.last
            .is_some_and(|last| last.owner == fence.owner && last.epoch > fence.epoch)
    }

    fn standing_is_serving_at(&self, epoch: Epoch) -> bool {
        matches!(self.standing, Standing::Serving(fence) if fence.epoch == epoch)
    }

    fn claimed(&mut self, fence: Fence, effects: &mut Vec<Effect>) {
        let is_news = self.last != Some(fence) && !self.is_known_beyond(fence);
        if is_news && !matches!(self.standing, Standing::Draining(_) | Standing::Drained) {
            self.serve(fence, effects);
        }
    }

    /// Serves under a fence that was just committed: those who are active take it, those who wait for it are
    /// read.
    fn serve(&mut self, fence: Fence, effects: &mut Vec<Effect>) {
        self.standing = Standing::Serving(fence);
        self.last = Some(fence);
        effects.extend(self.active().map(|coupon| Effect::Refence(coupon, fence.epoch)));
        self.seats.retain(|coupon, seat| match seat {
            Seat::AwaitingRaise(requests) if requests.is_empty() => false,
            Seat::AwaitingRaise(requests) => {
                effects.push(Effect::Load(*coupon));
                *seat = Loading::of(fence, std::mem::take(requests));
                true
            }
            // It was asked for where the shard was before, so its owner is made without being asked for here.
            Seat::Expected(Expected { read: true, .. }) => {
                effects.push(Effect::LoadTail(*coupon));
                *seat = Loading::of(fence, VecDeque::new());
                true
            }
            Seat::Expected(_) | Seat::Loading(_) | Seat::Active | Seat::Stopping(_) => true,
        });
    }

    fn lost(&mut self, effects: &mut Vec<Effect>) {
        self.standing = match self.standing {
            Standing::Draining(_) => Standing::Draining(None),
            Standing::Drained => Standing::Drained,
            Standing::Unserved
            | Standing::Serving(_)
            | Standing::Raising(_)
            | Standing::GivingUp { .. }
            | Standing::Giving(_)
            | Standing::Regaining(_) => Standing::Unserved,
        };
        self.clear(effects, Effect::Stop);
    }

    fn sweep(&mut self, effects: &mut Vec<Effect>) {
        let is_served = self.fence().is_some();
        self.seats.retain(|coupon, seat| {
            let stays = seat.sweep(is_served);
            if !stays {
                effects.push(Effect::Forget(*coupon));
            }
            stays
        });
    }

    fn drain(&mut self, effects: &mut Vec<Effect>) {
        self.standing = match self.standing {
            // Ours still, but with a raise under way the epoch is not known: it is left to whoever claims
            // next. So is what is being given.
            Standing::Unserved
            | Standing::Raising(_)
            | Standing::Giving(_)
            | Standing::Regaining(_)
            | Standing::Drained => Standing::Draining(None),
            Standing::Serving(fence) | Standing::GivingUp { from: fence, .. } => {
                Standing::Draining(Some(fence))
            }
            Standing::Draining(fence) => Standing::Draining(fence),
        };
        self.clear(effects, Effect::Drain);
    }

    /// Sends everybody away who waits, and every active owner what ends it.
    fn clear(&mut self, effects: &mut Vec<Effect>, end: fn(CouponId) -> Effect) {
        let mut away = Vec::new();
        self.seats.retain(|coupon, seat| {
            away.extend(seat.waiting().map(std::mem::take).unwrap_or_default());
            match seat {
                Seat::Active => {
                    effects.push(end(*coupon));
                    *seat = Seat::Stopping(VecDeque::new());
                    true
                }
                // Whoever asks from now on was not there when the read began.
                Seat::Loading(loading) => {
                    loading.before = 0;
                    true
                }
                Seat::Stopping(_) => true,
                Seat::AwaitingRaise(_) => false,
                Seat::Expected(_) => {
                    effects.push(Effect::Forget(*coupon));
                    false
                }
            }
        });
        effects.extend(
            away.into_iter()
                .map(|request| Effect::SetBack(request, Setback::Moved)),
        );
    }

    fn asked(&mut self, coupon: CouponId, request: Request, effects: &mut Vec<Effect>) {
        let Some(present) = self.fence() else {
            effects.push(Effect::SetBack(request, Setback::Moved));
            return;
        };
        match self.seats.get_mut(&coupon) {
            Some(Seat::Active) => effects.push(Effect::Deliver(coupon, request)),
            // One that was not read ahead in time is read now: nobody waits behind what nobody asks for.
            None | Some(Seat::Expected(_)) => {
                self.seats
                    .insert(coupon, Loading::of(present, VecDeque::from([request])));
                effects.push(Effect::Load(coupon));
            }
            Some(
                Seat::Loading(Loading { requests, .. })
                | Seat::Stopping(requests)
                | Seat::AwaitingRaise(requests),
            ) => match requests.len() < WAITING_MAX {
                true => requests.push_back(request),
                false => effects.push(Effect::SetBack(request, Setback::Overloaded)),
            },
        }
    }

    fn loaded(&mut self, coupon: CouponId, load: Load, effects: &mut Vec<Effect>) {
        if !matches!(self.seats.get(&coupon), Some(Seat::Loading(_))) {
            return;
        }
        let Some(Seat::Loading(Loading {
            under,
            mut requests,
            before,
        })) = self.seats.remove(&coupon)
        else {
            return;
        };
        match (load, self.fence()) {
            (Load::Read, Some(present)) if present == under => {
                self.seats.insert(coupon, Seat::Active);
                effects.push(Effect::Activate(coupon, present));
                effects.extend(
                    requests
                        .into_iter()
                        .map(|request| Effect::Deliver(coupon, request)),
                );
                return;
            }
            // It was read under a fence that is not ours any more: others may have written since.
            (Load::Read, Some(_)) => {}
            (Load::NoSuchCoupon, _) => {
                effects.extend(
                    requests
                        .drain(..before.min(requests.len()))
                        .map(Effect::UnknownCoupon),
                );
            }
            (Load::Failed, _) => effects.extend(
                requests
                    .drain(..)
                    .map(|request| Effect::SetBack(request, Setback::StoreUnavailable)),
            ),
            (Load::NoPlace, _) => effects.extend(
                requests
                    .drain(..)
                    .map(|request| Effect::SetBack(request, Setback::Overloaded)),
            ),
            (Load::Read, None) => {}
        }
        match self.fence() {
            Some(present) if !requests.is_empty() => {
                self.seats.insert(coupon, Loading::of(present, requests));
                effects.push(Effect::Load(coupon));
            }
            _ => effects.extend(
                requests
                    .into_iter()
                    .map(|request| Effect::SetBack(request, Setback::Moved)),
            ),
        }
    }

    fn gone(&mut self, coupon: CouponId, unsettled: bool, effects: &mut Vec<Effect>) {
        let requests = match self.seats.remove(&coupon) {
            Some(Seat::Stopping(requests)) => requests,
            Some(Seat::Active) => VecDeque::new(),
            // It stopped before, and was noticed twice.
            Some(other) => {
                self.seats.insert(coupon, other);
                return;
            }
            None => return,
        };
        match self.standing {
            Standing::Serving(fence) if unsettled => {
                self.standing = Standing::Raising(fence);
                self.seats.insert(coupon, Seat::AwaitingRaise(requests));
                effects.push(Effect::Raise {
                    from: fence,
                    pause: false,
                });
            }
            Standing::Raising(_) if unsettled => {
                // Its portions carry the epoch that the raise under way makes void.
                self.seats.insert(coupon, Seat::AwaitingRaise(requests));
            }
            Standing::Serving(fence) | Standing::Raising(fence) if !requests.is_empty() => {
                self.seats.insert(coupon, Loading::of(fence, requests));
                effects.push(Effect::Load(coupon));
            }
            Standing::Serving(_) | Standing::Raising(_) => {}
            Standing::Unserved
            | Standing::GivingUp { .. }
            | Standing::Giving(_)
            | Standing::Regaining(_)
            | Standing::Draining(_)
            | Standing::Drained => {
                effects.extend(
                    requests
                        .into_iter()
                        .map(|request| Effect::SetBack(request, Setback::Moved)),
                );
            }
        }
    }

    fn raised(&mut self, from: Fence, raise: Raise, effects: &mut Vec<Effect>) {
        if self.standing != Standing::Raising(from) && self.standing != Standing::Regaining(from) {
            return;
        }
        match raise {
            Raise::Ours(fence) => self.serve(fence, effects),
            Raise::Lost => self.lost(effects),
            Raise::Failed => effects.push(Effect::Raise { from, pause: true }),
        }
    }
}

#[cfg(test)]
mod tests;
