//! Outcomes of requests: how many of each, and how long they took.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memchr::memchr;
use memchr::memmem::Finder;

use super::response::Response;

/// Maximum recorded latency in microseconds: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Maximum number of outcomes that are counted separately. The service has about twenty, and as many of each
/// step. Any further outcomes are counted together as the last one, `other`.
const OUTCOMES_MAX: usize = 128;

/// The step of requests for coupons, which has no name.
pub const ISSUE: &str = "";

/// The reason why a request has no whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection.
    #[error("no connection")]
    Connect,
    /// The connection broke before the whole answer.
    #[error("the connection broke")]
    Cut,
    /// No whole answer in time.
    #[error("no answer in time")]
    TimeOut,
    /// The bytes are not an HTTP answer.
    #[error("no HTTP answer")]
    Malformed,
}

impl Failure {
    const fn name(self) -> &'static str {
        match self {
            Self::Connect => "no connection",
            Self::Cut => "connection broke",
            Self::TimeOut => "no answer in time",
            Self::Malformed => "no HTTP answer",
        }
    }
}

/// A histogram of microseconds, exact to three significant digits.
///
/// # Panics
/// Never: the bounds are valid.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("valid bounds")
}

/// All requests of one outcome.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The step, such as `redeem`; [`ISSUE`] for requests for coupons.
    pub step: &'static str,
    /// `issued`, `done`, `replayed`, the code of a refusal or failure, the status of any other answer, or the
    /// reason why there was no answer.
    pub name: String,
    /// True if the outcome is an error: no whole answer, or a status of 500 or more.
    pub error: bool,
    /// Latencies in microseconds.
    pub latency: Histogram<u64>,
}

/// Outcomes that one thread or all threads counted.
#[derive(Debug)]
pub struct Tally {
    /// Requests by outcome, in the order in which the outcomes were first seen.
    pub outcomes: Vec<Outcome>,
    /// Requests before the measured time began.
    pub warm_up: u64,
    /// The time of the last answer or failure.
    pub last: Option<Instant>,
}

impl Tally {
    /// Makes an empty tally.
    pub fn new() -> Self {
        Self {
            outcomes: Vec::new(),
            warm_up: 0,
            last: None,
        }
    }

    /// Adds an answer.
    pub fn answered(&mut self, step: &'static str, response: &Response, body: &[u8], latency: Duration) {
        let mut status = [0; 3];
        let name = match response.status {
            200 | 201 if response.replayed => b"replayed".as_slice(),
            201 => b"issued",
            200 if step != ISSUE => b"done",
            other => code(body).unwrap_or_else(|| {
                let digits = [other / 100 % 10, other / 10 % 10, other % 10];
                status = digits.map(|digit| b'0' + digit as u8);
                &status
            }),
        };
        self.add(step, name, response.status >= 500, latency);
    }

    /// Adds a failure.
    pub fn failed(&mut self, step: &'static str, failure: Failure, latency: Duration) {
        self.add(step, failure.name().as_bytes(), true, latency);
    }

    /// Adds a request whose answer was dropped on purpose.
    pub fn dropped(&mut self, step: &'static str, latency: Duration) {
        self.add(step, b"answer dropped", false, latency);
    }

    fn add(&mut self, step: &'static str, name: &[u8], error: bool, latency: Duration) {
        let known = self.outcomes.iter().position(|outcome| {
            outcome.name.as_bytes() == name && outcome.step == step && outcome.error == error
        });
        let place = known.unwrap_or_else(|| {
            if self.outcomes.len() == OUTCOMES_MAX {
                return OUTCOMES_MAX - 1;
            }
            let name = if self.outcomes.len() == OUTCOMES_MAX - 1 {
                "other".into()
            } else {
                String::from_utf8_lossy(name)
            };
            self.outcomes.push(Outcome {
                step,
                name: name.into_owned(),
                error,
                latency: histogram(),
            });
            self.outcomes.len() - 1
        });
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.outcomes[place].latency.saturating_record(micros.max(1));
    }

    /// Adds the tally of another thread.
    pub fn merge(&mut self, other: Self) {
        for outcome in other.outcomes {
            match self.outcomes.iter_mut().find(|known| {
                (known.step, &known.name, known.error) == (outcome.step, &outcome.name, outcome.error)
            }) {
                Some(known) => known.latency += outcome.latency,
                None => self.outcomes.push(outcome),
            }
        }
        self.warm_up += other.warm_up;
        self.last = self.last.max(other.last);
    }

    /// Returns how many requests ended in the measured time.
    pub fn ended(&self) -> u64 {
        self.outcomes.iter().map(|outcome| outcome.latency.len()).sum()
    }

    /// Returns how many requests ended with an error.
    pub fn errors(&self) -> u64 {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.error)
            .map(|outcome| outcome.latency.len())
            .sum()
    }

    /// Returns all latencies, including those of errors, because clients wait for errors too.
    pub fn latency(&self) -> Histogram<u64> {
        let mut all = histogram();
        for outcome in &self.outcomes {
            all += &outcome.latency;
        }
        all
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the `code` of a problem without parsing JSON, which would cost more than the rest of the loop. The
/// service's codes occur in no other text.
fn code(body: &[u8]) -> Option<&[u8]> {
    static NAME: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(b"\"code\":\""));
    let begin = NAME.find(body)? + NAME.needle().len();
    let length = memchr(b'"', &body[begin..])?;
    let code = &body[begin..begin + length];
    let is_one =
        (1..=40).contains(&length) && code.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'_');
    is_one.then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::response::parse;

    fn seen(answers: &[&str]) -> Tally {
        let mut tally = Tally::new();
        for answer in answers {
            let mut scratch = Vec::new();
            let response = parse(answer.as_bytes(), true, &mut scratch).unwrap().unwrap();
            tally.answered(
                ISSUE,
                &response,
                response.body(answer.as_bytes(), &scratch),
                Duration::from_millis(2),
            );
        }
        tally
    }

    fn counts(tally: &Tally) -> Vec<(&str, u64, bool)> {
        tally
            .outcomes
            .iter()
            .map(|outcome| (outcome.name.as_str(), outcome.latency.len(), outcome.error))
            .collect()
    }

    #[test]
    fn answers_are_counted_by_code_or_status() {
        let mut tally = seen(&[
            "HTTP/1.1 201 Created\r\n\r\n{}",
            "HTTP/1.1 201 Created\r\nIdempotent-Replayed: true\r\n\r\n{}",
            "HTTP/1.1 409 Conflict\r\n\r\n{\"status\":409,\"code\":\"SOLD_OUT\"}",
            "HTTP/1.1 409 Conflict\r\n\r\n{\"code\":\"SOLD_OUT\",\"total_quantity\":5}",
            "HTTP/1.1 503 x\r\n\r\n{\"code\":\"OVERLOADED\"}",
            "HTTP/1.1 502 x\r\n\r\n<html>",
            "HTTP/1.1 404 x\r\n\r\n{\"code\":\"<script>\"}",
        ]);
        tally.failed(ISSUE, Failure::Cut, Duration::from_secs(1));
        let expected = [
            ("issued", 1, false),
            ("replayed", 1, false),
            ("SOLD_OUT", 2, false),
            ("OVERLOADED", 1, true),
            ("502", 1, true),
            ("404", 1, false),
            ("connection broke", 1, true),
        ];
        assert_eq!(counts(&tally), expected);
        assert_eq!((tally.ended(), tally.errors()), (8, 3));
        assert_eq!(tally.latency().max() / 1_000, 1_000);
    }

    #[test]
    fn tallies_of_threads_are_added() {
        let mut one = seen(&["HTTP/1.1 201 x\r\n\r\n"]);
        one.warm_up = 2;
        let other = seen(&["HTTP/1.1 404 x\r\n\r\n", "HTTP/1.1 201 x\r\n\r\n"]);
        one.merge(other);
        assert_eq!(
            (counts(&one), one.warm_up),
            (vec![("issued", 2, false), ("404", 1, false)], 2)
        );
    }

    #[test]
    fn the_number_of_outcomes_is_bounded() {
        let code = |n: u8| format!("{}{}", char::from(b'A' + n % 26), "B".repeat(usize::from(n / 26)));
        let answers: Vec<String> = (0..=255)
            .map(|n| format!("HTTP/1.1 409 x\r\n\r\n{{\"code\":\"{}\"}}", code(n)))
            .collect();
        let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
        let tally = seen(&answers);
        assert_eq!((tally.outcomes.len(), tally.ended()), (OUTCOMES_MAX, 256));
    }
}
