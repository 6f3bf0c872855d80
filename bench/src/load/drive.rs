//! Runs a load: threads with a runtime each, their connections, and one look at all of them ten times a
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
use super::connection::{Connection, Target, serve};
use super::crowd::Crowd;
use super::response::Response;
use super::scheduling;
use super::tally::{Failure, Tally};
use testkit::history::file::{HistoryFile, Recorder};

/// A run in which nothing was answered for so long, while requests failed, is over: the service is gone.
const GIVE_UP: Duration = Duration::from_secs(5);
/// How long threads may take to end after the last limit of a request.
const GRACE: Duration = Duration::from_secs(5);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Connections of one thread that are being made at a time: more would overflow the queue of a listener, and
/// wait a second for the system's next try.
const DIALS: usize = 32;

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where to; connections are shared out among them.
    pub targets: Vec<Target>,
    /// What is asked for.
    pub coupons: Vec<CouponId>,
    /// By whom.
    pub crowd: Crowd,
    /// How fast.
    pub pace: Pace,
    /// Until when, with the warm-up.
    pub bounds: Bounds,
    /// What arrives in this time is sent, and not counted.
    pub warm_up: Duration,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// Threads that share them.
    pub threads: usize,
    /// How long an answer may take.
    pub limit: Duration,
    /// Whether the threads interrupt nobody on this machine. Not for whoever must send when it is time.
    pub gives_way: bool,
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Since the beginning.
    pub elapsed: Duration,
    /// Requests that came to an end, also in the warm-up.
    pub ended: u64,
    /// Those of them without an answer.
    pub failed: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Run {
    /// What was seen in the measured time.
    pub tally: Tally,
    /// From the end of the warm-up to the last answer.
    pub measured: Duration,
    /// Requests that arrived and were never sent, as no connection was free before the run was over.
    pub unsent: u64,
    /// Whether it ended because nothing was answered any more.
    pub gave_up: bool,
    /// Whether it ended by Ctrl-C.
    pub interrupted: bool,
}

impl Run {
    /// Answers a second, without errors' share.
    pub fn rate(&self) -> f64 {
        let answered = self.tally.ended() - self.tally.errors();
        if self.measured.is_zero() {
            0.0
        } else {
            answered as f64 / self.measured.as_secs_f64()
        }
    }

    /// A percentile of all latencies.
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.tally.latency().value_at_percentile(percent))
    }
}

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// Nobody is there.
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
    measured_from: Instant,
    tally: RefCell<Tally>,
    counts: Arc<Counts>,
}

/// What one thread shows of its progress.
#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Worker {
    /// Takes in what came of an arrival.
    pub(super) fn count(&self, arrival: Arrival, now: Instant, outcome: Result<(&Response, &[u8]), Failure>) {
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
            Ok((response, body)) => tally.answered(response, body, latency),
            Err(failure) => tally.failed(failure, latency),
        }
    }
}

/// What a thread waits for when it is connected.
struct Start {
    arrivals: Arc<Arrivals>,
    measured_from: Instant,
}

/// What a thread reports.
enum Report {
    /// So many of its connections are up.
    Connected(usize),
    /// It is done.
    Done(Tally),
}

/// Does it. `progress` is told ten times a second. Ctrl-C ends the run as its bounds would, a second one the
/// process.
///
/// Cancel safety: dropped midway, the threads go on to the run's bounds.
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
            Some(Report::Done(_)) | None => 0,
        };
    }
    if up == 0 {
        let hosts: Vec<&str> = plan.targets.iter().map(|target| target.host.as_str()).collect();
        return Err(DriveError::NoConnection(hosts.join(", ")));
    }
    let start = Instant::now() + LOOK;
    let arrivals = Arc::new(Arrivals::new(plan.pace, plan.bounds, start));
    let measured_from = start + plan.warm_up;
    for waiting in starts {
        // A thread that is gone has reported nothing, and is missed below.
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

/// Waits for the threads, and stops them where they would not stop themselves.
async fn watch(
    plan: &Plan,
    arrivals: &Arrivals,
    start: Instant,
    measured_from: Instant,
    counts: &[Arc<Counts>],
    mut reported: mpsc::Receiver<Report>,
    progress: &mut impl FnMut(Progress),
) -> Result<Run, DriveError> {
    let mut looks = tokio::time::interval(LOOK);
    let mut interrupts = signal(SignalKind::interrupt()).map_err(DriveError::Thread)?;
    let (mut tally, mut gave_up, mut interrupted) = (Tally::new(), false, false);
    let mut life = Life {
        answered: 0,
        failed: 0,
        since: start,
    };
    let mut stopped: Option<Instant> = None;
    loop {
        tokio::select! {
            report = reported.recv() => match report {
                Some(Report::Done(seen)) => tally.merge(seen),
                Some(Report::Connected(_)) => {}
                None => break,
            },
            _ = interrupts.recv() => {
                if interrupted {
                    // Whoever asks twice does not want to wait for the table.
                    std::process::exit(130);
                }
                interrupted = true;
                arrivals.stop();
            }
            _ = looks.tick() => {
                let now = Instant::now();
                let sum = |count: fn(&Counts) -> &AtomicU64| counts.iter().map(|counts| count(counts).load(Ordering::Relaxed)).sum::<u64>();
                let (answered, failed) = (sum(|counts| &counts.answered), sum(|counts| &counts.failed));
                progress(Progress { elapsed: now.saturating_duration_since(start), ended: answered + failed, failed });
                if life.is_gone(answered, failed, now) {
                    gave_up = true;
                    arrivals.stop();
                }
                // What has arrived by the end may still be sent as long as a request may take.
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
    let unsent = if interrupted {
        0
    } else {
        arrivals
            .arrived(now)
            .unwrap_or(0)
            .saturating_sub(arrivals.taken())
    };
    let measured = tally.last.unwrap_or(now).saturating_duration_since(measured_from);
    Ok(Run {
        tally,
        measured,
        unsent,
        gave_up,
        interrupted,
    })
}

/// When something was answered last.
struct Life {
    answered: u64,
    failed: u64,
    since: Instant,
}

impl Life {
    /// Whether nothing was answered for long, though there were requests.
    fn is_gone(&mut self, answered: u64, failed: u64, now: Instant) -> bool {
        if answered > self.answered {
            *self = Self {
                answered,
                failed,
                since: now,
            };
        }
        failed > self.failed && now.saturating_duration_since(self.since) > GIVE_UP
    }
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
        // Without a runtime the thread is missed by whoever counts the reports.
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        let local = LocalSet::new();
        let connections = runtime.block_on(local.run_until(self.connect()));
        let up = connections.iter().filter(|(up, _)| *up).count();
        if reports.blocking_send(Report::Connected(up)).is_err() {
            return;
        }
        // Nobody starts it if there was no connection at all.
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
        let worker = Rc::new(Worker {
            plan,
            arrivals,
            recorder,
            measured_from,
            tally: RefCell::new(Tally::new()),
            counts,
        });
        runtime.block_on(local.run_until(async {
            tokio::time::sleep_until((measured_from - worker.plan.warm_up).into()).await;
            let serving: Vec<_> = connections
                .into_iter()
                .map(|(_, connection)| tokio::task::spawn_local(serve(Rc::clone(&worker), connection)))
                .collect();
            for connection in serving {
                let _ = connection.await;
            }
        }));
        let tally = std::mem::take(&mut *worker.tally.borrow_mut());
        // The recorder hands over its rest before the run is said to be done.
        drop(worker);
        let _ = reports.blocking_send(Report::Done(tally));
    }

    /// Its connections, and whether they are up; those that are not are tried again with their first request.
    async fn connect(&self) -> Vec<(bool, Connection)> {
        let mine = (self.thread..self.plan.connections).step_by(self.threads);
        let targets = &self.plan.targets;
        let mut made = Vec::new();
        let places: Vec<usize> = mine.collect();
        for some in places.chunks(DIALS) {
            let dials: Vec<_> = some
                .iter()
                .map(|place| {
                    let mut connection =
                        Connection::new(targets[place % targets.len()].clone(), self.plan.limit);
                    tokio::task::spawn_local(async move { (connection.connect().await.is_ok(), connection) })
                })
                .collect();
            for dial in dials {
                made.extend(dial.await.ok());
            }
        }
        made
    }
}
