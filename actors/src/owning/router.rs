//! The router: coupon → shard → owner, here or at a peer. It asks, and asks again where nothing was decided
//! or nobody knows, until there is an answer or no time is left.
//!
//! While a shard moves, its requests wait here: each holds a place and looks again as soon as the shard has
//! another owner, or after a pause. Nobody relays: an owner of another epoch answers *moved*, and whoever
//! asked goes on.
//!
//! An attempt that may have been decided makes the request *uncertain*: from then on only what an owner says
//! of its key settles it.

pub mod attempts;
pub mod route;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::cluster::lease::Lease;
use crate::cluster::ownership::{Entry, Owner, Ownership};
use crate::ids::{CouponId, Epoch, Incarnation, ShardId};
use crate::metrics::handles;
use crate::owning::admission::Admission;
use crate::owning::message::{
    ChangeAnswer, ChangeRequest, IssueAnswer, IssueRequest, Reply, Request, Setback,
};
use crate::owning::router::attempts::{Attempts, Step};
use crate::owning::router::route::Way;
use crate::owning::shard::ShardHandle;
use crate::time;

/// Most requests in a node's queues together, unless it is said otherwise: four owners' worth, some 100 MB of
/// requests and waiting connections.
pub const REQUESTS_MAX: usize = 262_144;

/// Most requests of a node that wait while their shard moves: those of a second of a busy node. They hold no
/// place in a queue meanwhile.
pub const WAITING_MAX: usize = 65_536;

/// How long a peer's answer is waited for after its shard has another owner: an owner that hands over answers
/// all it holds before the row names the next, so what is not here some round trips later does not come. A
/// node that stands still, or that nobody reaches, would otherwise be waited for to the end.
const OVERDUE: Duration = Duration::from_millis(250);

/// The way to owners on other nodes.
pub trait Remote: Send + Sync + 'static {
    /// Asks an owner on this peer, whose shard it has in this epoch. The request is answered in any case.
    /// Must not wait.
    fn ask(&self, to: Incarnation, epoch: Epoch, coupon: CouponId, request: Request);
}

/// Of a node that has no peers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRemote;

impl Remote for NoRemote {
    fn ask(&self, _to: Incarnation, _epoch: Epoch, _coupon: CouponId, request: Request) {
        request.set_back(Setback::Moved);
    }
}

/// Knows who owns what; cheap to clone.
#[derive(Clone)]
pub struct Router {
    shards: Arc<[ShardHandle]>,
    ownership: Ownership,
    remote: Arc<dyn Remote>,
    lease: Lease,
    places: Admission,
    waiting: Admission,
}

impl Router {
    /// Over these shards, by number, with these places in the node's queues.
    pub fn new(
        shards: Arc<[ShardHandle]>,
        ownership: Ownership,
        remote: Arc<dyn Remote>,
        lease: Lease,
        places: Admission,
    ) -> Self {
        Self {
            shards,
            ownership,
            remote,
            lease,
            places,
            waiting: Admission::new(WAITING_MAX),
        }
    }

    /// How many requests are in this node's queues.
    pub fn admitted(&self) -> usize {
        self.places.taken()
    }

    /// How many wait while their shard moves.
    pub fn waiting(&self) -> usize {
        self.waiting.taken()
    }

    /// Asks the owner for an issuance until `deadline`.
    pub async fn issue(&self, coupon: CouponId, request: IssueRequest, deadline: Instant) -> IssueAnswer {
        self.insist(Attempts::repeatable(), coupon, deadline, |reply| {
            Request::Issue(request.clone(), reply)
        })
        .await
    }

    /// Asks the owner for a change until `deadline`. One that may have been made is not asked for again.
    pub async fn change(&self, coupon: CouponId, request: ChangeRequest, deadline: Instant) -> ChangeAnswer {
        self.insist(Attempts::once(), coupon, deadline, |reply| {
            Request::Change(request.clone(), reply)
        })
        .await
    }

    async fn insist<T>(
        &self,
        mut attempts: Attempts,
        coupon: CouponId,
        deadline: Instant,
        request: impl Fn(Reply<Result<T, Setback>>) -> Request,
    ) -> Result<T, Setback> {
        loop {
            let seen = self.ownership.entry(coupon.shard());
            let answer = self.ask(coupon, seen, deadline, &request).await;
            match attempts.after(answer) {
                Step::Answer(answer) => return answer,
                Step::AskAgain(pause) => {
                    Box::pin(self.pause(&attempts, coupon.shard(), seen, pause, deadline)).await?
                }
            }
        }
    }

    /// One attempt, at whoever has the shard by this entry.
    async fn ask<T>(
        &self,
        coupon: CouponId,
        entry: Entry,
        deadline: Instant,
        request: impl Fn(Reply<Result<T, Setback>>) -> Request,
    ) -> Result<T, Setback> {
        let place = self.places.admit().map_err(|_full| {
            handles().refused_by_node.increment(1);
            Setback::Overloaded
        })?;
        let (reply, answer) = Reply::new(place);
        let way = Way::of(entry);
        match way {
            Way::Here => self.shard(coupon.shard()).ask(coupon, request(reply)),
            Way::Peer { to, epoch } => {
                handles().forwarded.increment(1);
                self.remote.ask(to, epoch, coupon, request(reply));
            }
        }
        let answered = match way {
            Way::Here => tokio::time::timeout_at(deadline, answer)
                .await
                .ok()
                .and_then(Result::ok),
            // Boxed, as are pauses, so that the many that are asked here need no room for it.
            Way::Peer { to, .. } => {
                let answer = self.answer_of_peer(answer, to, coupon.shard(), entry);
                Box::pin(tokio::time::timeout_at(deadline, answer))
                    .await
                    .ok()
                    .flatten()
            }
        };
        match answered {
            // Without a lease shards are served by nobody here, and who serves the others is not read: it may
            // not be so until the store is back.
            Some(Err(Setback::Moved)) if !self.lease.holds(time::moment()) => Err(Setback::StoreUnavailable),
            Some(answer) => answer,
            None => Err(Setback::Unknown),
        }
    }

    /// The answer to one attempt at a peer; `None` if none will come.
    async fn answer_of_peer<T>(
        &self,
        mut answer: oneshot::Receiver<T>,
        peer: Incarnation,
        shard: ShardId,
        seen: Entry,
    ) -> Option<T> {
        let moved = async {
            let mut seen = seen;
            // In a newer epoch of the same owner whoever it holds is answered as before.
            while seen.owner == Owner::Elsewhere(peer) {
                self.ownership.changed(shard, seen).await;
                seen = self.ownership.entry(shard);
            }
        };
        tokio::select! {
            answer = &mut answer => answer.ok(),
            () = moved => tokio::time::timeout(OVERDUE, answer).await.ok()?.ok(),
        }
    }

    /// Waits before the next attempt, for the shard to have another owner or for `pause`; an error if there
    /// is no time for one, or no place to wait.
    async fn pause(
        &self,
        attempts: &Attempts,
        shard: ShardId,
        seen: Entry,
        pause: Duration,
        deadline: Instant,
    ) -> Result<(), Setback> {
        let wake = Instant::now() + pause;
        if wake >= deadline {
            return Err(attempts.out_of_time());
        }
        let Ok(_place) = self.waiting.admit() else {
            handles().refused_waiting.increment(1);
            return Err(attempts.turned_away());
        };
        // An error means that nothing changed.
        let _ = tokio::time::timeout_at(wake, self.ownership.changed(shard, seen)).await;
        Ok(())
    }

    fn shard(&self, id: ShardId) -> &ShardHandle {
        &self.shards[usize::from(id.get())]
    }
}

#[cfg(test)]
mod tests;
