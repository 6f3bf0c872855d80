//! The router: coupon → shard → owner. It asks, and asks again where nothing was decided or nobody knows, until there is an answer or no time is left.
//!
//! An attempt that may have been decided makes the request *uncertain*: from then on only what an owner says of its key settles it.

pub mod attempts;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::admission::Admission;
use crate::coupon::message::{ChangeAnswer, ChangeRequest, IssueAnswer, IssueRequest, Reply, Request, Setback};
use crate::ids::{CouponId, ShardId};
use crate::lease::Lease;
use crate::metrics::handles;
use crate::router::attempts::{Attempts, Step};
use crate::shard::ShardHandle;
use crate::time;

/// Most requests in a node's queues together, unless it is said otherwise: four owners' worth, some 100 MB of requests and waiting connections.
pub const REQUESTS_MAX: usize = 262_144;

/// Knows who owns what; cheap to clone.
#[derive(Clone)]
pub struct Router {
    shards: Arc<[ShardHandle]>,
    lease: Lease,
    places: Admission,
}

impl Router {
    /// Over these shards, by number, with at most so many requests in the node's queues.
    pub fn new(shards: Arc<[ShardHandle]>, lease: Lease, requests_max: usize) -> Self {
        Self { shards, lease, places: Admission::new(requests_max) }
    }

    /// How many requests are in this node's queues.
    pub fn admitted(&self) -> usize {
        self.places.taken()
    }

    /// Asks the owner for an issuance until `deadline`.
    pub async fn issue(&self, coupon: CouponId, request: IssueRequest, deadline: Instant) -> IssueAnswer {
        let mut attempts = Attempts::repeatable();
        loop {
            let request = request.clone();
            let answer = self.ask(coupon, deadline, |reply| Request::Issue(request, reply)).await;
            match attempts.after(answer) {
                Step::Answer(answer) => return answer,
                Step::AskAgain(pause) => attempts.pause(pause, deadline).await?,
            }
        }
    }

    /// Asks the owner for a change until `deadline`. One that may have been made is not asked for again.
    pub async fn change(&self, coupon: CouponId, request: ChangeRequest, deadline: Instant) -> ChangeAnswer {
        let mut attempts = Attempts::once();
        loop {
            let request = request.clone();
            let answer = self.ask(coupon, deadline, |reply| Request::Change(request, reply)).await;
            match attempts.after(answer) {
                Step::Answer(answer) => return answer,
                Step::AskAgain(pause) => attempts.pause(pause, deadline).await?,
            }
        }
    }

    /// One attempt.
    async fn ask<T>(
        &self,
        coupon: CouponId,
        deadline: Instant,
        request: impl FnOnce(Reply<Result<T, Setback>>) -> Request,
    ) -> Result<T, Setback> {
        let place = self.places.admit().map_err(|_full| {
            handles().refused_by_node.increment(1);
            Setback::Overloaded
        })?;
        let (reply, answer) = Reply::new(place);
        self.shard(coupon.shard()).ask(coupon, request(reply));
        match tokio::time::timeout_at(deadline, answer).await {
            // Without a lease shards are served by nobody here, and may not be until the store is back.
            Ok(Ok(Err(Setback::Moved))) if !self.lease.holds(time::moment()) => Err(Setback::StoreUnavailable),
            Ok(Ok(answer)) => answer,
            Ok(Err(oneshot::error::RecvError { .. })) | Err(_) => Err(Setback::Unknown),
        }
    }

    fn shard(&self, id: ShardId) -> &ShardHandle {
        &self.shards[usize::from(id.get())]
    }
}

impl Attempts {
    /// Waits before the next attempt; an error if there is no time for one.
    async fn pause(&self, pause: Duration, deadline: Instant) -> Result<(), Setback> {
        let wake = Instant::now() + pause;
        if wake >= deadline {
            return Err(self.out_of_time());
        }
        tokio::time::sleep_until(wake).await;
        Ok(())
    }
}
