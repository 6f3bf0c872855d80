//! Lanes: the tasks that store what owners decide.
//!
//! A batch costs the database nearly as much for one row as for ten. So portions wait for the batch under way
//! and share the next one, unless that batch takes long: then another lane takes them (`choice`). An owner
//! has at most one portion in flight, so its portions cannot overtake each other, whatever lanes they take,
//! and even if one is moved to another lane while it waits.
//!
//! The task here only carries out the effects of [`lane::Lane`]: it calls the store, pauses, and tells owners.

mod choice;
pub mod lane;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ractor::ActorRef;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Sleep;

use crate::cluster::lease::Lease;
use crate::critical::critical;
use crate::metrics::{Handles, handles};
use crate::owning::kind::{Kind, Run};
use crate::owning::request::{OwnerCommand, OwnerMail};
use crate::owning::write_back::choice::BatchStart;
use crate::owning::write_back::lane::{Effect, Event, Lane, Submission};
use crate::store::batch::{Batch, Fate, Portion, Settlement};
use crate::store::{Result, Store, StoreError};
use crate::summary::{self, Occurrence};
use crate::time::{self, Moment};
use crate::trace::{Span, SpanKind, Spans, TraceParent};

/// How long a call to the store may take. After this time the outcome is unknown.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// Commits that take at least this long are logged, many in one line. The alert on slow commits has the same
/// limit.
const SLOW_COMMIT: Duration = Duration::from_millis(250);

/// Once a batch takes this long, what waits behind it is moved to a lane that is idle, if there is one.
/// Commits of a database that is only busy take less, and then it is better to wait and to share the next
/// batch.
const HELD_UP_MAX: Duration = Duration::from_millis(100);

/// The mailbox of the owner of a portion.
type Mailbox<K> = ActorRef<OwnerMail<K>>;

/// A lane as owners see it.
#[derive(Debug)]
struct LaneQueue<K: Kind> {
    queue: mpsc::Sender<Submission<K, Mailbox<K>>>,
    batch_start: Arc<BatchStart>,
}

/// All lanes, in their order.
type LaneQueues<K> = Vec<LaneQueue<K>>;

/// The lanes of a node; cheap to clone.
#[derive(Debug)]
pub struct Lanes<K: Kind> {
    lanes: Arc<LaneQueues<K>>,
    delayed: Arc<AtomicUsize>,
}

impl<K: Kind> Clone for Lanes<K> {
    fn clone(&self) -> Self {
        Self {
            lanes: Arc::clone(&self.lanes),
            delayed: Arc::clone(&self.delayed),
        }
    }
}

impl<K: Kind> Lanes<K> {
    /// Starts this many lanes. They end when the last clone is dropped. `owners_max`, the maximum number of
    /// active owners, bounds their queues, because an owner has at most one portion in flight.
    pub fn start(
        count: usize,
        owners_max: usize,
        store: &Arc<dyn Store<K>>,
        lease: &Lease,
        spans: &Spans,
    ) -> Self {
        let delayed = Arc::new(AtomicUsize::new(0));
        let start = |all: &Weak<LaneQueues<K>>| {
            let (queue, submissions) = mpsc::channel(owners_max.max(1));
            let batch_start = Arc::new(BatchStart::default());
            let shell = Shell {
                lane: Lane::default(),
                all: Weak::clone(all),
                store: Arc::clone(store),
                lease: lease.clone(),
                delayed: Arc::clone(&delayed),
                is_delayed: false,
                is_busy: false,
                batch_start: Arc::clone(&batch_start),
                call: None,
                pause: None,
                held_up: Box::pin(tokio::time::sleep(HELD_UP_MAX)),
                spans: spans.clone(),
                batch: Span::default(),
                is_batch_over: false,
                metrics: handles(),
            };
            tokio::spawn(critical("a lane", shell.run(submissions)));
            LaneQueue { queue, batch_start }
        };
        Self {
            lanes: Arc::new_cyclic(|all| (0..count.max(1)).map(|_| start(all)).collect()),
            delayed: Arc::clone(&delayed),
        }
    }

    /// Submits a portion, with the spans of its traced requests. Its fate goes to `mailbox` as
    /// [`OwnerCommand::Settle`]. Returns false if the lane is gone or its queue is full.
    pub fn submit(
        &self,
        portion: Portion<K>,
        traces: Vec<TraceParent>,
        mailbox: ActorRef<OwnerMail<K>>,
    ) -> bool {
        let now = time::moment();
        let ages = self.lanes.iter().map(|lane| lane.batch_start.age(now));
        let lane = if portion.run.is_joinable() {
            choice::lane(ages, portion.shard)
        } else {
            // It shares no batch, and many of them in one lane would hold up all others.
            choice::spread(ages.len(), portion.shard)
        };
        let submission = Submission {
            portion,
            traces,
            mailbox,
        };
        self.lanes[lane].queue.try_send(submission).is_ok()
    }

    /// Returns true if the store does not accept the batch of at least one lane.
    pub fn are_delayed(&self) -> bool {
        self.delayed() > 0
    }

    /// Returns the number of lanes whose batch the store does not accept.
    pub fn delayed(&self) -> usize {
        self.delayed.load(Ordering::Acquire)
    }

    /// Returns the number of lanes.
    pub fn count(&self) -> usize {
        self.lanes.len()
    }

    /// Returns the length of the longest queue before a lane, and the maximum length.
    pub fn longest_queue(&self) -> (usize, usize) {
        let most = self.lanes.first().map_or(0, |lane| lane.queue.max_capacity());
        let length = |lane: &LaneQueue<K>| most - lane.queue.capacity();
        (self.lanes.iter().map(length).max().unwrap_or(0), most)
    }
}

/// A call to the store that is under way. If it is dropped, the store may still carry it out.
struct Call<K: Kind> {
    begun: Instant,
    span: Span,
    returns: BoxFuture<'static, Event<K, Mailbox<K>>>,
}

struct Shell<K: Kind> {
    lane: Lane<K, Mailbox<K>>,
    /// This lane and the others. They are gone once the last owner is, and then this lane ends.
    all: Weak<LaneQueues<K>>,
    store: Arc<dyn Store<K>>,
    lease: Lease,
    delayed: Arc<AtomicUsize>,
    is_delayed: bool,
    /// True while this lane is among the busy lanes in the metrics.
    is_busy: bool,
    batch_start: Arc<BatchStart>,
    call: Option<Call<K>>,
    pause: Option<Pin<Box<Sleep>>>,
    /// Ends when the batch under way takes long, and again and again after that.
    held_up: Pin<Box<Sleep>>,
    spans: Spans,
    /// The span of the batch in flight, if one of its requests is traced.
    batch: Span,
    /// True if the portions of that batch have their fate.
    is_batch_over: bool,
    metrics: &'static Handles,
}

impl<K: Kind> Shell<K> {
    async fn run(mut self, mut submissions: mpsc::Receiver<Submission<K, Mailbox<K>>>) {
        let mut effects = Vec::new();
        loop {
            let event = tokio::select! {
                biased;
                submission = submissions.recv() => match submission {
                    Some(submission) => Event::Submitted(submission),
                    None => break,
                },
                event = call_returns(&mut self.call, self.metrics) => event,
                () = pause_ends(&mut self.pause) => {
                    self.pause = None;
                    let (now, mut incarnations) = (time::moment(), self.lane.incarnations());
                    let lease_holds = incarnations.all(|incarnation| self.lease.holds_for(incarnation, now));
                    Event::RetryDue { lease_holds }
                }
                () = self.held_up.as_mut(), if self.is_busy => {
                    self.watch_for_hold_up();
                    if !self.is_another_idle() {
                        continue;
                    }
                    Event::TakesLong
                }
            };
            let gives_up = matches!(event, Event::RetryDue { lease_holds: false });
            self.lane.handle(event, &mut effects);
            // This comes first, so that what is given back does not return to this lane.
            self.show_delay(gives_up);
            for effect in effects.drain(..) {
                self.carry_out(effect);
            }
            self.end_batch_if_over();
            self.show_work();
        }
        if self.is_delayed {
            self.delayed.fetch_sub(1, Ordering::AcqRel);
        }
        if self.is_busy {
            self.metrics.lanes.busy.decrement(1.0);
        }
    }

    fn carry_out(&mut self, effect: Effect<K, Mailbox<K>>) {
        match effect {
            Effect::Write(batch) => {
                self.end_batch_if_over();
                // A batch that is sent again, whole or portion by portion, keeps the time of its first attempt.
                if !self.lane.is_delayed() && !self.lane.writes_alone() {
                    self.batch_start.begin(time::moment());
                    self.watch_for_hold_up();
                }
                let span = self.call_span("commit");
                self.call = Some(write(Arc::clone(&self.store), batch, span));
            }
            Effect::ReadBack(batch) => {
                let span = self.call_span("read back");
                self.call = Some(read_back(Arc::clone(&self.store), batch, span));
            }
            Effect::Pause(duration) => self.pause = Some(Box::pin(tokio::time::sleep(duration))),
            Effect::Settle(Submission { portion, mailbox, .. }, fate) => {
                self.is_batch_over = true;
                show_fate(&portion, fate, self.metrics, &self.batch);
                // An owner that is gone has answered all its callers already.
                let _ = mailbox.cast(
                    OwnerCommand::Settle(Settlement {
                        fence: portion.fence,
                        fate,
                        batch: self.batch.context(),
                    })
                    .into(),
                );
            }
            Effect::Delay(submission) => {
                let _ = submission.mailbox.cast(OwnerCommand::Delayed.into());
            }
            Effect::GiveBack(submission) => self.give_back(submission),
            Effect::EndProcess(why) => crate::store::end_process(&why),
        }
    }

    fn watch_for_hold_up(&mut self) {
        self.held_up
            .as_mut()
            .reset(tokio::time::Instant::now() + HELD_UP_MAX);
    }

    /// True if a lane would write at once what waits here. Behind a young batch of another lane it might wait
    /// longer than here.
    fn is_another_idle(&self) -> bool {
        let now = time::moment();
        let is_idle = |lane: &LaneQueue<K>| lane.batch_start.age(now).is_none();
        self.all.upgrade().is_some_and(|all| all.iter().any(is_idle))
    }

    /// Moves a submission to a lane that is free. If none is, the submission waits here, as before.
    fn give_back(&mut self, submission: Submission<K, Mailbox<K>>) {
        let now = time::moment();
        let all = self.all.upgrade().unwrap_or_default();
        let ages = all.iter().map(|lane| lane.batch_start.age(now));
        let Portion { shard, run, .. } = &submission.portion;
        let kept = match choice::free_lane(ages, *shard, run.is_joinable()) {
            Some(free) => {
                let sent = all[free].queue.try_send(submission);
                sent.map_err(TrySendError::into_inner).err()
            }
            None => Some(submission),
        };
        if let Some(kept) = kept {
            let mut effects = Vec::new();
            self.lane.handle(Event::Submitted(kept), &mut effects);
            for effect in effects {
                self.carry_out(effect);
            }
        }
    }

    /// Begins the span of a call for the batch in flight, and that of the batch if it has none. The batch is
    /// part of the trace of its first traced request, and links to all of them.
    fn call_span(&mut self, name: &'static str) -> Span {
        let mut traces = self.lane.traces();
        if !self.batch.is_recorded()
            && let Some(first) = traces.next()
        {
            self.batch = self.spans.continued(first, "batch", SpanKind::Internal);
            self.batch.edit(|record| {
                record.link(first.context);
                traces.for_each(|trace| record.link(trace.context));
                record.note("firstcome.rows", self.lane.rows());
            });
        }
        self.batch.child(name, SpanKind::Client)
    }

    fn end_batch_if_over(&mut self) {
        if std::mem::take(&mut self.is_batch_over) {
            self.batch = Span::default();
        }
    }

    fn show_work(&mut self) {
        let is_busy = self.call.is_some() || self.pause.is_some();
        if is_busy != self.is_busy {
            if !is_busy {
                self.batch_start.end();
            }
            self.is_busy = is_busy;
            self.metrics
                .lanes
                .busy
                .increment(if is_busy { 1.0 } else { -1.0 });
        }
    }

    /// A lane that gave up is no longer delayed, although the store may still accept nothing.
    fn show_delay(&mut self, gave_up: bool) {
        let is_delayed = self.lane.is_delayed();
        if is_delayed != self.is_delayed {
            self.is_delayed = is_delayed;
            if is_delayed {
                // Another lane takes what comes from now on.
                self.batch_start.begin(Moment::ORIGIN);
                self.delayed.fetch_add(1, Ordering::AcqRel);
            } else {
                self.delayed.fetch_sub(1, Ordering::AcqRel);
                if !gave_up {
                    tracing::info!("the store accepts writes again");
                }
            }
        }
    }
}

fn write<K: Kind>(store: Arc<dyn Store<K>>, batch: Batch<K>, span: Span) -> Call<K> {
    Call {
        begun: Instant::now(),
        span,
        returns: Box::pin(async move { Event::Written(limited(store.write(&batch)).await) }),
    }
}

fn read_back<K: Kind>(store: Arc<dyn Store<K>>, batch: Batch<K>, span: Span) -> Call<K> {
    Call {
        begun: Instant::now(),
        span,
        returns: Box::pin(async move { Event::ReadBack(limited(store.read_back(&batch)).await) }),
    }
}

/// Returns the result of a call to the store; a panic and a time-out are unknown outcomes.
async fn limited<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(CALL_LIMIT, AssertUnwindSafe(call).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(_panic)) => Err(StoreError::Unknown("the call panicked".to_owned())),
        Err(_limit) => Err(StoreError::Unknown(format!("no answer within {CALL_LIMIT:?}"))),
    }
}

/// Waits until the call under way ends, and returns its event. If there is no call, this waits for ever.
/// Cancel safe: the call is kept.
async fn call_returns<K: Kind>(call: &mut Option<Call<K>>, metrics: &Handles) -> Event<K, Mailbox<K>> {
    let Some(under_way) = call else {
        return std::future::pending().await;
    };
    let event = (&mut under_way.returns).await;
    match &event {
        Event::Written(Ok(rows)) => {
            let took = under_way.begun.elapsed();
            metrics.batch_rows.record(*rows as f64);
            metrics.commit_seconds.record(took.as_secs_f64());
            if took >= SLOW_COMMIT {
                let example = format!("{rows} rows in {took:.3?}");
                summary::count(Occurrence::SlowCommit, None, Some(example));
            }
        }
        Event::Written(Err(error)) => {
            under_way.span.edit(|record| record.fail(error.to_string()));
            show_failure(error, metrics);
        }
        Event::ReadBack(Err(error)) => under_way.span.edit(|record| record.fail(error.to_string())),
        Event::ReadBack(Ok(_)) | Event::Submitted(_) | Event::RetryDue { .. } | Event::TakesLong => {}
    }
    *call = None;
    event
}

async fn pause_ends(pause: &mut Option<Pin<Box<Sleep>>>) {
    match pause {
        Some(pause) => pause.await,
        None => std::future::pending().await,
    }
}

fn show_failure(error: &StoreError, metrics: &Handles) {
    match error {
        StoreError::NotStored(_) => metrics.retries_not_stored.increment(1),
        StoreError::Unknown(_) | StoreError::Fatal(_) => metrics.retries_unknown.increment(1),
        StoreError::Clash(_) | StoreError::Unreadable(_) => metrics.retries_clash.increment(1),
    }
    tracing::warn!(%error, "a batch is not known to be stored yet");
}

/// Describes a portion for the log.
fn portion_text<K: Kind>(portion: &Portion<K>) -> String {
    let Portion { id, shard, fence, .. } = portion;
    format!("{id} in shard {shard}, epoch {}", fence.epoch)
}

fn show_fate<K: Kind>(portion: &Portion<K>, fate: Fate, metrics: &Handles, batch: &Span) {
    let (id, shard, epoch) = (portion.id, portion.shard, portion.fence.epoch);
    match fate {
        Fate::Stored => {}
        Fate::Fenced => {
            batch.edit(|record| record.fail("fenced"));
            metrics.fenced_rows.increment(portion.run.rows() as u64);
            tracing::debug!(%id, %shard, %epoch, "a portion was fenced");
            summary::count(Occurrence::PortionFenced, None, Some(portion_text(portion)));
        }
        Fate::Contradicted => {
            batch.edit(|record| record.fail("contradicted"));
            metrics.contradictions.increment(1);
            tracing::error!(%id, %shard, %epoch, "the store contradicts an owner; the owner is loaded again");
        }
        Fate::Unknown => {
            batch.edit(|record| record.fail("the outcome is unknown"));
            tracing::debug!(%id, %shard, %epoch, "the lease ended before a portion was known to be stored");
            summary::count(Occurrence::PortionGivenUp, None, Some(portion_text(portion)));
        }
    }
}

#[cfg(test)]
mod tests;
