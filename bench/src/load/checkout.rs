//! The checkout of a run: each winner uses the coupon, as customers of a shop would.
//!
//! A *journey* is what one customer does with an issuance, step by step over the connection that won it. It
//! follows from the number of the request and the seed: most pay after a reservation, some pay at once, some
//! leave, some let the hold lapse, some are refunded, some are revoked, and for some a second order contends
//! with the first one over another connection. Some steps are repeated, some are sent with another amount,
//! and of some the answer is dropped and the step sent again.

mod journey;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use testkit::history::file::{Answer, Request};
use testkit::ids::{CouponId, IssuanceId};

use super::arrivals::Arrival;
use super::connection::Connection;
use super::crowd::mix;
use super::drive::Worker;
use super::response::Response;
use super::tally::Failure;

/// Maximum number of journeys of one thread that wait for a connection. Further ones do not wait, but end.
const WAITING_MAX: usize = 1_024;
/// Pause before a step is sent again because it got no answer or no decision.
const RETRY: Duration = Duration::from_millis(50);
/// Maximum number of times that a step is sent. A service that has not decided it by then is gone.
const SENT_MAX: u32 = 100;

/// How coupons are used in a run.
#[derive(Clone)]
pub struct Checkout {
    /// The token with which issuances are used.
    pub token: String,
    /// True if the discount is changed now and then. Only coupons that the run has made may be changed.
    pub changes: bool,
}

/// Does not show the token.
impl fmt::Debug for Checkout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkout")
            .field("changes", &self.changes)
            .finish_non_exhaustive()
    }
}

/// A journey that waits, and goes on over any connection.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    issuance: IssuanceId,
    number: u64,
    part: Part,
    due: Instant,
}

/// Which part of a journey waits.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// A second order contends with the first one.
    Contends,
    /// The hold of the first order has lapsed.
    Lapsed,
}

/// The journeys of one thread that wait.
#[derive(Debug, Default)]
pub(super) struct WaitingJourneys {
    contending: RefCell<VecDeque<Waiting>>,
    lapsing: RefCell<VecDeque<Waiting>>,
}

impl WaitingJourneys {
    fn wait(&self, waiting: Waiting) {
        let queue = match waiting.part {
            Part::Contends => &self.contending,
            Part::Lapsed => &self.lapsing,
        };
        let mut queue = queue.borrow_mut();
        if queue.len() < WAITING_MAX {
            queue.push_back(waiting);
        }
    }

    /// Returns a journey that is due. All holds of journeys that wait are equally long, so the first one
    /// lapses first.
    fn due(&self) -> Option<Waiting> {
        if let Some(contending) = self.contending.borrow_mut().pop_front() {
            return Some(contending);
        }
        let mut lapsing = self.lapsing.borrow_mut();
        let now = Instant::now();
        lapsing.pop_front_if(|first| first.due <= now)
    }
}

/// Continues journeys that are due. Does nothing in a run that only issues.
pub(super) async fn go_on(worker: &Rc<Worker>, connection: &mut Connection) {
    let Some(journeys) = &worker.journeys else { return };
    while let Some(waiting) = journeys.due() {
        let Some(mut sender) = StepSender::new(worker, connection, waiting.number) else {
            return;
        };
        match waiting.part {
            Part::Contends => journey::contend(&mut sender, waiting.issuance).await,
            Part::Lapsed => journey::after_lapse(&mut sender, waiting.issuance).await,
        }
    }
}

/// Uses what was just issued, if the answer shows an issuance. Does nothing in a run that only issues.
pub(super) async fn use_issued(
    worker: &Rc<Worker>,
    connection: &mut Connection,
    arrival: Arrival,
    issued: Option<IssuanceId>,
) {
    let Some(issuance) = issued else { return };
    if let Some(mut sender) = StepSender::new(worker, connection, arrival.number) {
        journey::begin(&mut sender, issuance).await;
    }
}

/// Returns the issuance in the answer to a request for a coupon, unless that is a replay.
pub(super) fn issued(worker: &Worker, response: &Response, body: &[u8]) -> Option<IssuanceId> {
    let _ = worker.journeys.as_ref()?;
    let is_first = response.status == 201 && !response.replayed;
    let body: serde_json::Value = serde_json::from_slice(body).ok().filter(|_| is_first)?;
    IssuanceId::parse(body["id"].as_str()?).ok()
}

/// Sends the steps of one journey over a connection, one at a time.
struct StepSender<'a> {
    worker: &'a Worker,
    connection: &'a mut Connection,
    checkout: &'a Checkout,
    number: u64,
    /// Number of random choices so far.
    choices: u64,
    request: Vec<u8>,
}

/// The status and the body of an answer.
type Answered = (u16, serde_json::Value);

impl<'a> StepSender<'a> {
    fn new(worker: &'a Worker, connection: &'a mut Connection, number: u64) -> Option<Self> {
        Some(Self {
            checkout: worker.plan.checkout.as_ref()?,
            worker,
            connection,
            number,
            choices: 0,
            request: Vec::with_capacity(512),
        })
    }

    /// Returns a pseudo-random number below `bound`, another one in each call.
    fn choose(&mut self, bound: u64) -> u64 {
        self.choices += 1;
        let seed = self.worker.plan.crowd.seed.wrapping_add(self.choices << 8);
        mix(seed, self.number) % bound
    }

    /// Returns the name of an order of this journey. Other runs have other orders.
    fn order(&self, which: &str) -> String {
        format!("{:x}{which}.{}", self.number, self.worker.plan.crowd.name)
    }

    /// Takes a step, and sends it again until it is decided. Returns the answer; `None` if it was never
    /// decided.
    async fn step(&mut self, issuance: IssuanceId, step: &'static str, body: &str) -> Option<Answered> {
        let path = format!("/v1/issuances/{issuance}/{step}");
        let request = Request::Step(issuance, step, body);
        for _ in 0..SENT_MAX {
            if self.choose(50) == 0 {
                self.drop_answer(&path, step, body, request).await;
            }
            match self.send("POST", &path, step, body, request).await {
                Some((status, body)) if status < 500 => return Some((status, body)),
                _ => tokio::time::sleep(RETRY).await,
            }
            if self.worker.arrivals.stopped() {
                return None;
            }
        }
        None
    }

    /// Asks for a quote.
    async fn quote(&mut self, issuance: IssuanceId, amount: u64) {
        let path = format!("/v1/issuances/{issuance}/quote?order_amount={amount}");
        let request = Request::Quote(issuance, amount);
        self.send("GET", &path, "quote", "", request).await;
    }

    /// Changes the coupon's discount.
    async fn patch(&mut self, coupon: CouponId, patch: &serde_json::Value) {
        let change = serde_json::json!({"patch": patch});
        let path = format!("/v1/coupons/{coupon}");
        let request = Request::Change(coupon, &change);
        self.send("PATCH", &path, "patch", &patch.to_string(), request)
            .await;
    }

    /// Sends a step and does not wait for the answer, as a client that crashes.
    async fn drop_answer(&mut self, path: &str, step: &'static str, body: &str, request: Request<'_>) {
        if self.connection.connect().await.is_err() {
            return;
        }
        self.write("POST", path, body);
        let called = Instant::now();
        let sent = self.connection.abandon(&self.request).await;
        self.record(request, called, None);
        if sent.is_ok() {
            self.worker.count_dropped(step, called);
        }
    }

    /// Sends a request, and counts and records its outcome.
    async fn send(
        &mut self,
        method: &str,
        path: &str,
        step: &'static str,
        body: &str,
        request: Request<'_>,
    ) -> Option<Answered> {
        let mut called = Instant::now();
        let outcome = match self.connection.connect().await {
            Ok(()) => {
                self.write(method, path, body);
                called = Instant::now();
                self.connection.exchange(&self.request).await
            }
            Err(failure) => Err(failure),
        };
        let answered = Instant::now();
        let answer = outcome.as_ref().ok().map(|response| Answer {
            status: response.status,
            replayed: response.replayed,
            body: self.connection.body(response),
        });
        if !matches!(outcome, Err(Failure::Connect)) {
            self.record(request, called, answer.map(|answer| (answered, answer)));
        }
        let arrival = Arrival {
            number: self.number,
            intended: called,
        };
        let shown = outcome
            .as_ref()
            .map(|response| (response, self.connection.body(response)));
        self.worker
            .count(step, arrival, answered, shown.map_err(|failure| *failure));
        let response = outcome.ok()?;
        let body = serde_json::from_slice(self.connection.body(&response));
        Some((response.status, body.unwrap_or_default()))
    }

    fn record(&self, request: Request<'_>, called: Instant, answer: Option<(Instant, Answer<'_>)>) {
        if let Some(recorder) = &self.worker.recorder {
            recorder.borrow_mut().record(request, called, answer);
        }
    }

    /// Writes a whole request into the buffer.
    fn write(&mut self, method: &str, path: &str, body: &str) {
        let (host, token) = (&self.connection.target().host, &self.checkout.token);
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        self.request.clear();
        self.request.extend_from_slice(head.as_bytes());
        self.request.extend_from_slice(body.as_bytes());
    }
}
