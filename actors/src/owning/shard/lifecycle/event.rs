//! The events and the effects of a shard.

use crate::ids::{Epoch, Fence, Incarnation};
use crate::owning::kind::Kind;
use crate::owning::request::{Request, Setback};

/// An event in the life of a shard.
#[derive(Debug)]
pub enum Event<K: Kind> {
    /// The shard was claimed for this node, under this fence.
    Claimed(Fence),
    /// The shard may not be served any more: the lease is over, or another node has it.
    Lost,
    /// A request came, and its id has no owner, or no owner that admits the request.
    Asked(K::Id, Request<K>),
    /// A request could not enter its owner's mailbox, because the mailbox is closed.
    Bounced(K::Id, Request<K>),
    /// Loading this id ended.
    Loaded(K::Id, Load),
    /// An owner stopped.
    Stopped {
        /// The id that it owned.
        id: K::Id,
        /// The highest epoch under which it wrote.
        epoch: Epoch,
        /// True if the outcome of one of its decisions is unknown.
        unsettled: bool,
    },
    /// An owner panicked.
    Panicked(K::Id),
    /// The store refused a portion that was sent under this epoch.
    Fenced(Epoch),
    /// The attempt to raise the epoch ended.
    Raised {
        /// The fence before the attempt. A result for an earlier fence says nothing about the present fence.
        from: Fence,
        /// How the attempt ended.
        raise: Raise,
    },
    /// Hand the shard off, or release it: store everything, stop all owners, then name the next owner. The
    /// shard may be claimed again later.
    HandOff {
        /// The fence under which the shard is served here. If the present fence is a different one, the shard
        /// is not handed off.
        from: Fence,
        /// The owner in the next epoch; `None` to release it.
        to: Option<Incarnation>,
    },
    /// The attempt to hand the shard off ended.
    HandedOff {
        /// The fence before the attempt.
        from: Fence,
        /// True if the shard is certainly not owned here any more.
        done: bool,
    },
    /// The shard is about to be handed to this node: load these ids ahead.
    LoadAhead(Vec<K::Id>),
    /// Loading this id ahead ended. False if nothing was read.
    LoadedAhead(K::Id, bool),
    /// Drop requests whose callers do not wait any more.
    Sweep,
    /// Store everything and stop all owners, for good.
    Drain,
}

/// How loading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Everything that the owner needs was read.
    Read,
    /// The id does not exist.
    Absent,
    /// The store did not answer, or the stored rows cannot be read.
    Failed,
    /// The node has as many owners as it may have.
    NoPlace,
}

/// How raising the epoch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raise {
    /// The shard is owned here, under this fence.
    Ours(Fence),
    /// Another incarnation owns the shard, or no incarnation owns it.
    Lost,
    /// The result is not known.
    Failed,
}

/// Effects that the shard's driver carries out.
#[derive(Debug)]
pub enum Effect<K: Kind> {
    /// Load this id. The fence is committed.
    Load(K::Id),
    /// Load the rows of this id ahead, without a fence.
    LoadAhead(K::Id),
    /// Keep the rows that were just loaded ahead, until [`Self::LoadRest`] or [`Self::Forget`].
    Keep(K::Id),
    /// Report that nothing is being loaded ahead any more.
    ReportLoadedAhead,
    /// Load the head of this id, and the rows that follow those loaded ahead. The fence is committed. This
    /// ends with the same event as [`Self::Load`].
    LoadRest(K::Id),
    /// Drop the rows that were kept.
    Forget(K::Id),
    /// Make the owner of the id that was just loaded, under this fence. A loaded state is dropped if no
    /// effect of the same event activates it.
    Activate(K::Id, Fence),
    /// Put a request into the owner's mailbox.
    Deliver(K::Id, Request<K>),
    /// Answer that there is no decision.
    SetBack(Request<K>, Setback),
    /// Answer that the requested thing does not exist.
    Absent(Request<K>),
    /// Tell the owner its shard's new epoch.
    Refence(K::Id, Epoch),
    /// Tell the owner to stop at once.
    Stop(K::Id),
    /// Tell the owner to store everything and stop.
    Drain(K::Id),
    /// Raise the epoch.
    Raise {
        /// The present fence.
        from: Fence,
        /// True to pause before the raise, because the last attempt failed.
        pause: bool,
    },
    /// All owners are gone after [`Event::HandOff`]: name the next owner by compare-and-set.
    HandOff {
        /// The present fence.
        from: Fence,
        /// The owner in the next epoch; `None` to release the shard.
        to: Option<Incarnation>,
    },
    /// All owners are gone after [`Event::Drain`]. The shard may be released from this fence, if there is a
    /// fence.
    Drained(Option<Fence>),
}
