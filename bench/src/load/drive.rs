//! Runs a load: threads with a runtime each, their connections, and a check of the whole run ten times a
//! second.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use testkit::ids::CouponId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::arrivals::{Arrival, Arrivals, Bounds, Pace};
use super::checkout::{Checkout, WaitingJourneys};
use super::connection::{Connection, Target, serve};
use super::crowd::Crowd;
use super::response::Response;
use super::scheduling;
use super::tally::{Failure, Tally};
use super::virtual_users::VirtualUsers;
use testkit::history::file::{HistoryFile, Recorder};

/// If requests fail and no request is answered for this long, the service is usually gone.
pub const GIVE_UP: Duration = Duration::from_secs(5);
/// How long threads may take to end after the last limit of a request.
const GRACE: Duration = Duration::from_secs(5);
/// Time between two checks of progress.
const POLL: Duration = Duration::from_millis(100);
/// Longest sleep of a virtual user until it looks whether the run was stopped.
const PAUSE: Duration = Duration::from_millis(500);
/// Maximum number of connections that one thread makes at a time. More connections at a time would overflow
/// the queue of a listener, and the system retries only after a second.
const DIALS: usize = 32;

/// A load to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The targets, which share the connections.
    pub targets: Vec<Target>,
    /// The requested coupons.
    pub coupons: Vec<CouponId>,
    /// The users.
    pub crowd: Crowd,
    /// How issuances are used; `None` if they are not.
    pub checkout: Option<Checkout>,
    /// The pace.
    pub pace: Pace,
    /// The bounds, including the warm-up.
    pub bounds: Bounds,
    /// Time in which requests are sent and not counted.
    pub warm_up: Duration,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// When each connection begins, and how long it pauses between two requests.
    pub virtual_users: VirtualUsers,
    /// Threads that share the connections.
    pub threads: usize,
    /// How long an answer may take.
    pub limit: Duration,
    /// The run ends if requests fail and no request is answered for this long.
    pub gives_up_after: Duration,
    /// True if the threads must not preempt other threads of this machine. False for a load that must send at
    /// exact times.
    pub gives_way: bool,
}

/// Progress of a run.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Time since the beginning.
    pub elapsed: Duration,
    /// Requests that ended, including the warm-up.
    pub ended: u64,
    /// Requests that ended without an answer.
    pub failed: u64,
}

/// The result of a run.
#[derive(Debug)]
pub struct Run {
    /// Outcomes in the measured time.
    pub tally: Tally,
    /// Time from the end of the warm-up to the last answer or failure.
    pub measured: Duration,
    /// Requests that arrived and were not sent, because no connection was free before the end.
    pub unsent: u64,
    /// True if the run ended because the service stopped answering.
    pub gave_up: bool,
    /// True if Ctrl-C ended the run.
    pub interrupted: bool,
}

impl Run {
    /// Returns the number of answers per second, not counting errors.
    pub fn rate(&self) -> f64 {
        let answered = self.tally.ended() - self.tally.errors();
        if self.measured.is_zero() {
            0.0
        } else {
            answered as f64 / self.measured.as_secs_f64()
        }
    }

    /// Returns a percentile of all latencies.
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.tally.latency().value_at_percentile(percent))
    }
}

/// The reason why a run did not take place.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// Nothing listens at this address.
    #[error("no connection to {0}")]
    NoConnection(String),
    /// The system gives no threads or runtimes.
    #[error("a thread does not start: {0}")]
    Thread(std::io::Error),
    /// Threads did not end, though every wait in them has a limit.
    #[error("the threads did not end within {0:?}")]
    Stuck(Duration),
}

/// What the connections of one thread share.
pub(super) struct Worker {
    pub(super) plan: Arc<Plan>,
    pub(super) arrivals: Arc<Arrivals>,
    pub(super) recorder: Option<RefCell<Recorder>>,
    /// Present if issuances are used.
    pub(super) journeys: Option<WaitingJourneys>,
    measured_from: Instant,
    tally: RefCell<Tally>,
    counts: Arc<Counts>,
}

/// The progress of one thread.
#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Worker {
    /// Waits for this long. Returns early if the run is stopped.
    pub(super) async fn pause(&self, duration: Duration) {
        let mut left = duration;
        while !left.is_zero() && !self.arrivals.stopped() {
            let slice = left.min(PAUSE);
            tokio::time::sleep(slice).await;
            left -= slice;
        }
    }

    /// Adds a step whose answer was dropped.
    pub(super) fn count_dropped(&self, step: &'static str, called: Instant) {
        if called >= self.measured_from {
            self.tally.borrow_mut().dropped(step, called.elapsed());
        }
    }

    /// Adds the outcome of an arrival, or of a step that followed from it.
    pub(super) fn count(
        &self,
        step: &'static str,
        arrival: Arrival,
        now: Instant,
        outcome: Result<(&Response, &[u8]), Failure>,
    ) {
        let count = if outcome.is_ok() {
            &self.counts.answered
        } else {
            &self.counts.failed
        };
        count.fetch_add(1, Ordering::Relaxed);
        let mut tally = self.tally.borrow_mut();
        if arrival.intended < self.measured_from {
            tally.warm_up += 1;
            return;
        }
        tally.last = Some(now);
        let latency = now.saturating_duration_since(arrival.intended);
        match outcome {
            Ok((response, body)) => tally.answered(step, response, body, latency),
            Err(failure) => tally.failed(step, failure, latency),
        }
    }
}

/// Tells a connected thread to start sending.
struct Start {
    arrivals: Arc<Arrivals>,
    measured_from: Instant,
}

/// What a thread reports.
enum Report {
    /// This many connections are up.
    Connected(usize),
    /// The thread has no runtime, and has ended.
    NoRuntime(std::io::Error),
    /// The thread has ended.
    Done(Tally),
}

/// Runs the plan and calls `progress` ten times a second. Ctrl-C ends the run as if a bound were reached. A
/// second Ctrl-C ends the process.
///
/// Cancel safety: if this future is dropped before it completes, the threads go on until a bound of the run
/// is reached.
pub async fn drive(
    plan: Plan,
    history: Option<&HistoryFile>,
    mut progress: impl FnMut(Progress),
) -> Result<Run, DriveError> {
    let plan = Arc::new(plan);
    let threads = plan.threads.clamp(1, plan.connections.max(1));
    let (reports, mut reported) = mpsc::channel(2 * threads);
    let (mut starts, mut counts) = (Vec::new(), Vec::new());
    for thread in 0..threads {
        let (start, started) = std_mpsc::sync_channel::<Start>(1);
        let counted = Arc::new(Counts::default());
        let job = Job {
            thread,
            threads,
            plan: Arc::clone(&plan),
            counts: Arc::clone(&counted),
            recorder: history.map(HistoryFile::recorder),
        };
        let reports = reports.clone();
        let spawned = std::thread::Builder::new()
            .name(format!("load-{thread}"))
            .spawn(move || job.run(&reports, &started));
        spawned.map_err(DriveError::Thread)?;
        starts.push(start);
        counts.push(counted);
    }
    drop(reports);
    let mut up = 0;
    for _ in 0..threads {
        up += match reported.recv().await {
            Some(Report::Connected(up)) => up,
            Some(Report::NoRuntime(error)) => return Err(DriveError::Thread(error)),
            Some(Report::Done(_)) | None => 0,
        };
    }
    if up == 0 {
        let hosts: Vec<&str> = plan.targets.iter().map(|target| target.host.as_str()).collect();
        return Err(DriveError::NoConnection(hosts.join(", ")));
    }
    let start = Instant::now() + POLL;
    let arrivals = Arc::new(Arrivals::new(plan.pace, plan.bounds, start));
    let measured_from = start + plan.warm_up;
    for waiting in starts {
        // A thread that is gone reports no end, so the run ends as stuck.
        let _ = waiting.send(Start {
            arrivals: Arc::clone(&arrivals),
            measured_from,
        });
    }
    let _pacer = arrivals.pace();
    watch(
        &plan,
        &arrivals,
        start,
        measured_from,
        &counts,
        reported,
        &mut progress,
    )
    .await
}

/// Returns how many requests were answered and how many failed, over all threads.
fn ended(counts: &[Arc<Counts>]) -> (u64, u64) {
    let sum = |count: fn(&Counts) -> &AtomicU64| {
        let counts = counts.iter().map(|counts| count(counts).load(Ordering::Relaxed));
        counts.sum()
    };
    (sum(|counts| &counts.answered), sum(|counts| &counts.failed))
}

/// Returns how many requests arrived and were not sent.
fn unsent(arrivals: &Arrivals, now: Instant) -> u64 {
    let arrived = arrivals.arrived(now).unwrap_or(0);
    arrived.saturating_sub(arrivals.taken())
}

/// Waits for the threads. Stops arrivals after Ctrl-C, when the service is gone, and after the run's time.
async fn watch(
    plan: &Plan,
    arrivals: &Arrivals,
    start: Instant,
    measured_from: Instant,
    counts: &[Arc<Counts>],
    mut reported: mpsc::Receiver<Report>,
    progress: &mut impl FnMut(Progress),
) -> Result<Run, DriveError> {
    let mut polls = tokio::time::interval(POLL);
    let mut interrupts = signal(SignalKind::interrupt()).map_err(DriveError::Thread)?;
    let (mut tally, mut gave_up, mut interrupted) = (Tally::new(), false, false);
    let mut last_answer = LastAnswer {
        answered: 0,
        failed: 0,
        since: start,
    };
    let mut stopped: Option<Instant> = None;
    loop {
        tokio::select! {
            report = reported.recv() => match report {
                Some(Report::Done(seen)) => tally.merge(seen),
                Some(Report::Connected(_) | Report::NoRuntime(_)) => {}
                None => break,
            },
            _ = interrupts.recv() => {
                if interrupted {
                    // A second Ctrl-C ends the program without a table.
                    std::process::exit(130);
                }
                interrupted = true;
                arrivals.stop();
            }
            _ = polls.tick() => {
                let now = Instant::now();
                let (answered, failed) = ended(counts);
                progress(Progress { elapsed: now.saturating_duration_since(start), ended: answered + failed, failed });
                if last_answer.is_too_old(answered, failed, now, plan.gives_up_after) {
                    gave_up = true;
                    arrivals.stop();
                }
                // Requests that arrived before the end may still be sent for as long as a request may take.
                if plan.bounds.duration.is_some_and(|duration| now > start + duration + plan.limit) {
                    arrivals.stop();
                }
            }
        }
        if arrivals.stopped() {
            let limit = 2 * plan.limit + GRACE;
            if stopped.get_or_insert_with(Instant::now).elapsed() > limit {
                return Err(DriveError::Stuck(limit));
            }
        }
    }
    let now = Instant::now();
    // The service is not to blame for the unsent requests of an interrupted run.
    let unsent = if interrupted { 0 } else { unsent(arrivals, now) };
    let measured = tally.last.unwrap_or(now).saturating_duration_since(measured_from);
    Ok(Run {
        tally,
        measured,
        unsent,
        gave_up,
        interrupted,
    })
}

/// When the last answer was noticed, and the counts at that time.
struct LastAnswer {
    answered: u64,
    failed: u64,
    since: Instant,
}

impl LastAnswer {
    /// True if requests have failed since the last answer, and that answer is too long ago.
    fn is_too_old(&mut self, answered: u64, failed: u64, now: Instant, limit: Duration) -> bool {
        if answered > self.answered {
            *self = Self {
                answered,
                failed,
                since: now,
            };
        }
        failed > self.failed && now.saturating_duration_since(self.since) > limit
    }
}

/// A connection that was made before the run.
struct Made {
    /// Its index among the connections of all threads.
    place: usize,
    is_up: bool,
    connection: Connection,
}

/// One thread.
struct Job {
    thread: usize,
    threads: usize,
    plan: Arc<Plan>,
    counts: Arc<Counts>,
    recorder: Option<Recorder>,
}

impl Job {
    fn run(self, reports: &mpsc::Sender<Report>, started: &std_mpsc::Receiver<Start>) {
        if self.plan.gives_way {
            scheduling::give_way();
        }
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = reports.blocking_send(Report::NoRuntime(error));
                return;
            }
        };
        let local = LocalSet::new();
        let connections = runtime.block_on(local.run_until(self.connect()));
        let up = connections.iter().filter(|made| made.is_up).count();
        if reports.blocking_send(Report::Connected(up)).is_err() {
            return;
        }
        // If no thread has a connection, no start is sent.
        let Ok(Start {
            arrivals,
            measured_from,
        }) = started.recv()
        else {
            return;
        };
        let Self {
            plan,
            counts,
            recorder,
            ..
        } = self;
        let recorder = recorder.map(RefCell::new);
        let journeys = plan.checkout.as_ref().map(|_| WaitingJourneys::default());
        let worker = Rc::new(Worker {
            plan,
            arrivals,
            recorder,
            journeys,
            measured_from,
            tally: RefCell::new(Tally::new()),
            counts,
        });
        runtime.block_on(local.run_until(async {
            tokio::time::sleep_until((measured_from - worker.plan.warm_up).into()).await;
            let serving: Vec<_> = connections
                .into_iter()
                .map(|made| tokio::task::spawn_local(serve(Rc::clone(&worker), made.place, made.connection)))
                .collect();
            for connection in serving {
                let _ = connection.await;
            }
        }));
        let tally = std::mem::take(&mut *worker.tally.borrow_mut());
        // Dropping the worker lets the recorder send its last lines before the thread reports its end.
        drop(worker);
        let _ = reports.blocking_send(Report::Done(tally));
    }

    /// Returns the thread's connections. A connection that is down connects before its first request.
    async fn connect(&self) -> Vec<Made> {
        let mine = (self.thread..self.plan.connections).step_by(self.threads);
        let targets = &self.plan.targets;
        let mut made = Vec::new();
        let places: Vec<usize> = mine.collect();
        for some in places.chunks(DIALS) {
            let dials: Vec<_> = some
                .iter()
                .copied()
                .map(|place| {
                    let mut connection =
                        Connection::new(targets[place % targets.len()].clone(), self.plan.limit);
                    tokio::task::spawn_local(async move {
                        Made {
                            place,
                            is_up: connection.connect().await.is_ok(),
                            connection,
                        }
                    })
                })
                .collect();
            for dial in dials {
                made.extend(dial.await.ok());
            }
        }
        made
    }
}
