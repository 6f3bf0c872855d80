//! Writes a history from many threads into one file.
//!
//! Lines are built from the bytes of the answer, because parsing and writing each body would cost more than
//! the request. If the disk is slow, threads wait before their next request, so the queue is bounded.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use crate::ids::{CouponId, IssuanceId};
use serde::de::IgnoredAny;

/// Bytes that are handed to the writer together.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that may wait for the disk.
const CHUNKS_MAX: usize = 64;

/// A clock in wall-clock microseconds that never steps back: one reading of the wall clock, plus the time of
/// the monotonic clock since then.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    micros: i64,
    at: Instant,
}

impl Clock {
    /// Reads both clocks.
    pub fn new() -> Self {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            micros: i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            at: Instant::now(),
        }
    }

    fn micros(&self, at: Instant) -> i64 {
        self.micros.saturating_add(
            i64::try_from(at.saturating_duration_since(self.at).as_micros()).unwrap_or(i64::MAX),
        )
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// An HTTP answer, with its body as received.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// True if the answer carried `Idempotent-Replayed: true`.
    pub replayed: bool,
    /// The body.
    pub body: &'a [u8],
}

/// The file, and the thread that writes it.
#[derive(Debug)]
pub struct HistoryFile {
    sender: SyncSender<Vec<u8>>,
    writer: JoinHandle<std::io::Result<()>>,
    clock: Clock,
}

impl HistoryFile {
    /// Creates the file, or empties it.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        let file = File::create(path)?;
        let (sender, receiver) = sync_channel(CHUNKS_MAX);
        Ok(Self {
            sender,
            writer: std::thread::spawn(move || write(file, &receiver)),
            clock: Clock::new(),
        })
    }

    /// Returns a recorder for one thread.
    pub fn recorder(&self) -> Recorder {
        Recorder {
            sender: self.sender.clone(),
            buffer: Vec::with_capacity(CHUNK_BYTES),
            clock: self.clock,
        }
    }

    /// Waits until everything is written. All recorders must have been dropped.
    pub fn finish(self) -> std::io::Result<()> {
        drop(self.sender);
        self.writer
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("the writer panicked")))
    }
}

/// Writes until all recorders are dropped.
fn write(mut file: File, chunks: &Receiver<Vec<u8>>) -> std::io::Result<()> {
    for chunk in chunks {
        file.write_all(&chunk)?;
    }
    file.flush()
}

/// A request, as a line of the history describes it.
#[derive(Debug, Clone, Copy)]
pub enum Request<'a> {
    /// An administrator's request to make a coupon.
    Create,
    /// An administrator's request to change a coupon: `"pause"`, `"resume"`, `"close"` or `{"patch": {…}}`.
    Change(CouponId, &'a serde_json::Value),
    /// A user's request for a coupon, with the user and the key. Both must be texts that need no
    /// escaping in JSON.
    Issue(CouponId, &'a [u8], &'a [u8]),
    /// A request to use an issuance: `reserve`, `redeem`, `release`, `refund` or `revoke`, with the body that
    /// is sent, which is JSON on one line.
    Step(IssuanceId, &'a str, &'a str),
    /// A question what an order of this amount would get.
    Quote(IssuanceId, u64),
}

/// Appends the line of a request to a buffer, with the answer if a whole answer arrived. Times are in
/// microseconds.
pub fn append(buffer: &mut Vec<u8>, request: Request<'_>, call_us: i64, answer: Option<(i64, Answer<'_>)>) {
    // Writing to a Vec does not fail.
    let _ = match request {
        Request::Create => write!(buffer, "{{\"create\":{{\"call_us\":{call_us}"),
        Request::Change(coupon, change) => write!(
            buffer,
            "{{\"change\":{{\"call_us\":{call_us},\"coupon\":{coupon},\"change\":{change}"
        ),
        Request::Step(issuance, step, body) => write!(
            buffer,
            "{{\"step\":{{\"call_us\":{call_us},\"issuance\":\"{issuance}\",\"step\":\"{step}\",\"body\":{body}"
        ),
        Request::Quote(issuance, amount) => write!(
            buffer,
            "{{\"quote\":{{\"call_us\":{call_us},\"issuance\":\"{issuance}\",\"order_amount\":{amount}"
        ),
        Request::Issue(coupon, user, key) => {
            let _ = write!(
                buffer,
                "{{\"issue\":{{\"call_us\":{call_us},\"coupon\":{coupon},\"user\":\""
            );
            buffer.extend_from_slice(user);
            buffer.extend_from_slice(b"\",\"key\":\"");
            buffer.extend_from_slice(key);
            buffer.extend_from_slice(b"\"");
            Ok(())
        }
    };
    let Some((answer_us, answer)) = answer else {
        return buffer.extend_from_slice(b",\"answer\":null}}\n");
    };
    let Answer {
        status,
        replayed,
        body,
    } = answer;
    let _ = write!(
        buffer,
        ",\"answer_us\":{answer_us},\"answer\":{{\"status\":{status},\"replayed\":{replayed},\"body\":"
    );
    append_body(buffer, body);
    buffer.extend_from_slice(b"}}}\n");
}

/// Appends the body: as received if it is JSON on one line, rewritten to one line if it is JSON on several
/// lines, else null.
fn append_body(buffer: &mut Vec<u8>, body: &[u8]) {
    if serde_json::from_slice::<IgnoredAny>(body).is_err() {
        buffer.extend_from_slice(b"null");
    } else if body.contains(&b'\n') {
        let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let _ = write!(buffer, "{value}");
    } else {
        buffer.extend_from_slice(body);
    }
}

/// Records the requests of one thread.
#[derive(Debug)]
pub struct Recorder {
    sender: SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
    clock: Clock,
}

impl Recorder {
    /// Records a request, with the answer if a whole answer arrived.
    pub fn record(&mut self, request: Request<'_>, called: Instant, answer: Option<(Instant, Answer<'_>)>) {
        let answer = answer.map(|(at, answer)| (self.clock.micros(at), answer));
        append(&mut self.buffer, request, self.clock.micros(called), answer);
        self.hand_over(CHUNK_BYTES);
    }

    fn hand_over(&mut self, at_least: usize) {
        if self.buffer.len() >= at_least {
            let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
            // Sending fails only if the writer has failed; `HistoryFile::finish` returns its error.
            let _ = self.sender.send(chunk);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.hand_over(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{self, IssueAnswer, Operation};
    use std::io::BufReader;
    use std::time::Duration;

    const ISSUANCE: &[u8] =
        b"{\"id\":\"42-1\",\"coupon_id\":42,\"user_id\":\"alice\",\n \"sequence\":1,\"issued_at\":\"2026-11-21T03:00:01.000500Z\",\"expires_at\":null}";

    const ANSWERS: [(u16, &[u8]); 4] = [
        (201, ISSUANCE),
        (409, b"{\"code\":\"SOLD_OUT\",\"total_quantity\":1}"),
        (503, b"{\"code\":\"OVERLOADED\",\"applied\":false}"),
        (502, b"<html>\n"),
    ];

    const TOOK: Duration = Duration::from_micros(70);

    /// Records a request with each answer, and one without an answer.
    fn record_all(mut recorder: Recorder, called: Instant) {
        let request = Request::Issue(CouponId::new(42).unwrap(), b"alice", b"k");
        for (status, body) in ANSWERS {
            let answer = Answer {
                status,
                replayed: false,
                body,
            };
            recorder.record(request, called, Some((called + TOOK, answer)));
        }
        recorder.record(request, called, None);
    }

    /// Checks what all recorded operations have in common, and returns the answer's code.
    fn checked_code(operation: &Operation) -> &str {
        let Operation::Issue(issue) = operation else {
            panic!("{operation}");
        };
        let (span, key) = (issue.span, issue.key.as_ref().unwrap());
        assert_eq!((issue.user.as_str(), key.as_str()), ("alice", "k"));
        assert!(
            span.answer
                .is_none_or(|answer| answer.as_micros() - span.call.as_micros() == 70)
        );
        if let IssueAnswer::Issued { issuance, .. } = &issue.answer {
            assert_eq!(issuance.id.sequence.get(), 1);
        }
        issue.answer.code()
    }

    #[test]
    fn recorded_requests_are_read_as_a_history() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.jsonl");
        let file = HistoryFile::create(&path).unwrap();
        let called = Instant::now();
        std::thread::scope(|threads| {
            for _ in 0..3 {
                let recorder = file.recorder();
                threads.spawn(move || record_all(recorder, called));
            }
        });
        file.finish().unwrap();
        let read: Vec<Operation> = history::read(BufReader::new(File::open(&path).unwrap()))
            .map(Result::unwrap)
            .collect();
        let mut codes: Vec<&str> = read.iter().map(checked_code).collect();
        codes.sort_unstable();
        let expected = [("OVERLOADED", 3), ("SOLD_OUT", 3), ("issued", 3), ("unknown", 6)];
        let expected: Vec<&str> = expected
            .iter()
            .flat_map(|(code, count)| std::iter::repeat_n(*code, *count))
            .collect();
        assert_eq!(codes, expected);
    }
}
