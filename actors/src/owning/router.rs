//! The router: id → shard → owner, on this node or on a peer. It sends a request, and retries it if nothing
//! was decided or the outcome is unknown, until there is an answer or no time is left.
//!
//! While a shard moves, its requests wait here. Each request holds a place, and is retried as soon as the
//! shard has another owner, or after a pause. Nodes do not relay requests: a node that does not own the shard
//! in that epoch answers *moved*, and the router tries the next owner itself.
//!
//! If an attempt may have been decided, the request is *uncertain*. From then on, only an owner's decision
//! for the same key settles the request.

pub mod attempts;
pub mod route;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::admission::Admission;
use crate::cluster::lease::Lease;
use crate::cluster::ownership::{Holder, Ownership, ShardLocation};
use crate::ids::{Epoch, Incarnation, ShardId};
use crate::metrics::handles;
use crate::owning::kind::Kind;
use crate::owning::request::{Answer, Reply, Request, Setback};
use crate::owning::router::attempts::{Attempts, Step};
use crate::owning::router::route::Route;
use crate::owning::shard::ShardHandle;
use crate::peer_names;
use crate::time::{self, Moment};
use crate::trace::{Span, SpanKind};

/// Default maximum number of requests in all queues of a node: as many as four owners may have. Each takes
/// about 500 bytes, so all of them take some 120 MB. The connections of clients that wait take more.
pub const REQUESTS_MAX: usize = 262_144;

/// Maximum number of requests of a node that wait while their shard moves: as many as reach a busy node in a
/// second. Such a request holds no place in a queue while it waits.
pub const MOVING_WAITING_MAX: usize = 65_536;

/// How long a request waits for a peer's answer once its shard has another owner. An owner that hands off
/// answers everything before the row names the next owner, so an answer that has not arrived a few round
/// trips later will never come. Without this limit, a request to a stopped or unreachable node would wait
/// until its deadline.
const MOVED_ANSWER_GRACE: Duration = Duration::from_millis(250);

/// The way to owners on other nodes.
pub trait Remote<K: Kind>: Send + Sync + 'static {
    /// Forwards a request to an owner on this peer, which owns the shard in this epoch. The request is
    /// answered in any case. Must not wait.
    fn forward(&self, to: Incarnation, epoch: Epoch, id: K::Id, request: Request<K>);
}

/// The way to other nodes for a node that has no peers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRemote;

impl<K: Kind> Remote<K> for NoRemote {
    fn forward(&self, _to: Incarnation, _epoch: Epoch, _id: K::Id, request: Request<K>) {
        request.set_back(Setback::Moved);
    }
}

/// Routes requests; cheap to clone.
#[derive(Clone)]
pub struct Router<K: Kind> {
    shards: Arc<[ShardHandle<K>]>,
    ownership: Ownership,
    remote: Arc<dyn Remote<K>>,
    lease: Lease,
    places: Admission,
    waiting: Admission,
}

impl<K: Kind> Router<K> {
    /// Makes a router to these shards, which are in order of their numbers. `places` are the places in the
    /// node's queues.
    pub fn new(
        shards: Arc<[ShardHandle<K>]>,
        ownership: Ownership,
        remote: Arc<dyn Remote<K>>,
        lease: Lease,
        places: Admission,
    ) -> Self {
        Self {
            shards,
            ownership,
            remote,
            lease,
            places,
            waiting: Admission::new(MOVING_WAITING_MAX),
        }
    }

    /// Returns how many requests are in this node's queues.
    pub fn admitted(&self) -> usize {
        self.places.taken()
    }

    /// Returns how many requests wait while their shard moves.
    pub fn waiting(&self) -> usize {
        self.waiting.taken()
    }

    /// Shows the lengths of its queues in the metrics.
    pub(crate) fn show_queues(&self) {
        let metrics = handles();
        metrics.queues.node.set(self.places.taken(), self.places.places());
        metrics
            .queues
            .moving
            .set(self.waiting.taken(), self.waiting.places());
    }

    /// Brings a request to its owner and returns the answer, by `deadline`. `expires` is the same time on the
    /// clock that owners use. A request that is not repeatable is not retried if it may have been decided.
    /// Each attempt is a part of `span`.
    ///
    /// Cancel safety: a dropped future may leave the request decided.
    ///
    /// # Errors
    ///
    /// If there is no decision to answer with.
    pub async fn route(
        &self,
        id: K::Id,
        ask: K::Ask,
        expires: Moment,
        deadline: Instant,
        span: &Span,
    ) -> Answer<K> {
        let mut attempts = match K::is_repeatable(&ask) {
            true => Attempts::repeatable(),
            false => Attempts::once(),
        };
        let shard = K::shard(id);
        loop {
            let seen = self.ownership.location(shard);
            let answer = self.attempt(id, seen, ask.clone(), expires, deadline, span).await;
            // If the shard's owner is alive but not reached, it stays the owner for longer than a client
            // waits. Only a request that may have been decided waits all the same.
            if matches!(&answer, Err(Setback::Moved))
                && Route::of(self.ownership.location(shard)) == Route::None
                && !attempts.is_uncertain()
            {
                return answer;
            }
            match attempts.after(answer) {
                Step::Answer(answer) => return answer,
                Step::TryAgain(pause) => {
                    Box::pin(self.pause(&attempts, shard, seen, pause, deadline)).await?;
                }
            }
        }
    }

    /// Makes one attempt: sends the request to the holder of the shard that this location names.
    async fn attempt(
        &self,
        id: K::Id,
        location: ShardLocation,
        ask: K::Ask,
        expires: Moment,
        deadline: Instant,
        span: &Span,
    ) -> Answer<K> {
        let place = self.places.admit().map_err(|_full| {
            handles().refused_by_node.increment(1);
            Setback::Overloaded
        })?;
        let (reply, answer) = Reply::new(place);
        let route = Route::of(location);
        let request = Request {
            ask,
            expires,
            reply: reply.traced(attempt_span::<K>(span, id, location, route)),
        };
        let answered = match route {
            Route::None => Some(Err(Setback::Moved)),
            Route::Local => {
                self.shard(K::shard(id)).deliver(id, request);
                tokio::time::timeout_at(deadline, answer)
                    .await
                    .ok()
                    .and_then(Result::ok)
            }
            // This future is boxed, like those of pauses, so that the many local requests need no room for
            // it.
            Route::Peer { to, epoch } => {
                handles().forwarded.increment(1);
                self.remote.forward(to, epoch, id, request);
                let answer = self.peer_answer(answer, to, K::shard(id), location);
                Box::pin(tokio::time::timeout_at(deadline, answer))
                    .await
                    .ok()
                    .flatten()
            }
        };
        match answered {
            // Without a lease, this node serves no shard, and does not read which nodes own the other shards.
            // So *moved* may be wrong until the store is back.
            Some(Err(Setback::Moved)) if !self.lease.holds(time::moment()) => Err(Setback::StoreUnavailable),
            Some(answer) => answer,
            None => Err(Setback::Unknown),
        }
    }

    /// Waits for the answer to one attempt at a peer; `None` if no answer will come.
    async fn peer_answer(
        &self,
        mut answer: oneshot::Receiver<Answer<K>>,
        peer: Incarnation,
        shard: ShardId,
        seen: ShardLocation,
    ) -> Option<Answer<K>> {
        let moved = async {
            let mut seen = seen;
            // If the same owner only raised the epoch, it still answers the requests that it holds.
            while seen.holder == Holder::Peer(peer) {
                self.ownership.changed(shard, seen).await;
                seen = self.ownership.location(shard);
            }
        };
        tokio::select! {
            answer = &mut answer => answer.ok(),
            () = moved => tokio::time::timeout(MOVED_ANSWER_GRACE, answer).await.ok()?.ok(),
        }
    }

    /// Waits before the next attempt, until the shard has another owner, but at most for `pause`. Returns an
    /// error if there is no time for another attempt, or no place to wait.
    async fn pause(
        &self,
        attempts: &Attempts,
        shard: ShardId,
        seen: ShardLocation,
        pause: Duration,
        deadline: Instant,
    ) -> Result<(), Setback> {
        let wake = Instant::now() + pause;
        if wake >= deadline {
            return Err(attempts.out_of_time());
        }
        let Ok(_place) = self.waiting.admit() else {
            handles().refused_waiting.increment(1);
            return Err(attempts.overloaded());
        };
        // A time-out means that nothing changed.
        let _ = tokio::time::timeout_at(wake, self.ownership.changed(shard, seen)).await;
        Ok(())
    }

    fn shard(&self, id: ShardId) -> &ShardHandle<K> {
        &self.shards[usize::from(id.get())]
    }
}

/// Begins the span of an attempt.
fn attempt_span<K: Kind>(span: &Span, id: K::Id, location: ShardLocation, route: Route) -> Span {
    let attempt = match route {
        Route::None => return Span::default(),
        Route::Local => span.child("decide", SpanKind::Internal),
        Route::Peer { .. } => span.child("forward", SpanKind::Client),
    };
    attempt.edit(|record| {
        record.note("firstcome.id", id.to_string());
        record.note("firstcome.shard", u64::from(K::shard(id).get()));
        record.note("firstcome.epoch", location.epoch.get());
        if let Route::Peer { to, .. } = route {
            record.note("firstcome.peer", peer_names::of(to));
        }
    });
    attempt
}

#[cfg(test)]
mod tests;
