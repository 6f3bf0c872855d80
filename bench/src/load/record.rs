//! Writes what clients saw as a history ([`crate::history`]), from many threads into one file.
//!
//! Lines are put together from the answer's own bytes, as reading and writing each body would cost more than
//! the request. A thread in front of a slow disk waits with its next request, so that what waits here is
//! bounded.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use actors::ids::CouponId;
use serde::de::IgnoredAny;

/// Bytes that are handed to the writer together.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that may wait for the disk.
const CHUNKS_MAX: usize = 64;

/// Wall-clock microseconds that never step back: the time at one moment, and the steady clock since.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    micros: i64,
    at: Instant,
}

impl Clock {
    /// From now on.
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

/// An HTTP answer, with its body as it came.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Whether it carried `Idempotent-Replayed: true`.
    pub replayed: bool,
    /// What it said.
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
    /// Makes the file, over what was there.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        let file = File::create(path)?;
        let (sender, receiver) = sync_channel(CHUNKS_MAX);
        Ok(Self {
            sender,
            writer: std::thread::spawn(move || write(file, &receiver)),
            clock: Clock::new(),
        })
    }

    /// A recorder for one thread.
    pub fn recorder(&self) -> Recorder {
        Recorder {
            sender: self.sender.clone(),
            buffer: Vec::with_capacity(CHUNK_BYTES),
            clock: self.clock,
        }
    }

    /// Waits until everything is written. All recorders must be gone.
    pub fn finish(self) -> std::io::Result<()> {
        drop(self.sender);
        self.writer
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("the writer panicked")))
    }
}

/// Writes until nobody is left who could send more.
fn write(mut file: File, chunks: &Receiver<Vec<u8>>) -> std::io::Result<()> {
    for chunk in chunks {
        file.write_all(&chunk)?;
    }
    file.flush()
}

/// What one thread records.
#[derive(Debug)]
pub struct Recorder {
    sender: SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
    clock: Clock,
}

impl Recorder {
    /// A user's request, and its answer if one came whole. User and key are such that JSON writes them as
    /// they are.
    pub fn issue(
        &mut self,
        called: Instant,
        coupon: CouponId,
        user: &[u8],
        key: &[u8],
        answer: Option<(Instant, Answer<'_>)>,
    ) {
        // Writing to a Vec does not fail.
        let _ = write!(
            self.buffer,
            "{{\"issue\":{{\"call_us\":{},\"coupon\":{coupon},\"user\":\"",
            self.clock.micros(called)
        );
        self.buffer.extend_from_slice(user);
        self.buffer.extend_from_slice(b"\",\"key\":\"");
        self.buffer.extend_from_slice(key);
        self.buffer.push(b'"');
        self.end(answer);
    }

    /// An administrator's request for a coupon, and its answer if one came whole.
    pub fn create(&mut self, called: Instant, answer: Option<(Instant, Answer<'_>)>) {
        let _ = write!(
            self.buffer,
            "{{\"create\":{{\"call_us\":{}",
            self.clock.micros(called)
        );
        self.end(answer);
    }

    fn end(&mut self, answer: Option<(Instant, Answer<'_>)>) {
        let Some((
            at,
            Answer {
                status,
                replayed,
                body,
            },
        )) = answer
        else {
            self.buffer.extend_from_slice(b",\"answer\":null}}\n");
            return self.hand_over(CHUNK_BYTES);
        };
        let _ = write!(
            self.buffer,
            ",\"answer_us\":{},\"answer\":{{\"status\":{status},\"replayed\":{replayed},\"body\":",
            self.clock.micros(at)
        );
        self.body(body);
        self.buffer.extend_from_slice(b"}}}\n");
        self.hand_over(CHUNK_BYTES);
    }

    /// The body as it came if that is JSON on one line, and else as JSON on one line, or null if it is none.
    fn body(&mut self, body: &[u8]) {
        if serde_json::from_slice::<IgnoredAny>(body).is_err() {
            self.buffer.extend_from_slice(b"null");
        } else if body.contains(&b'\n') {
            let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            let _ = write!(self.buffer, "{value}");
        } else {
            self.buffer.extend_from_slice(body);
        }
    }

    fn hand_over(&mut self, at_least: usize) {
        if self.buffer.len() >= at_least {
            let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
            // A writer that failed is gone, and says why when all is over.
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

    #[test]
    fn what_is_recorded_is_a_history() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.jsonl");
        let file = HistoryFile::create(&path).unwrap();
        let called = Instant::now();
        let at = called + Duration::from_micros(70);
        let coupon = CouponId::new(42).unwrap();
        let answers: [(u16, &[u8]); 4] = [
            (201, ISSUANCE),
            (409, b"{\"code\":\"SOLD_OUT\",\"total_quantity\":1}"),
            (503, b"{\"code\":\"OVERLOADED\",\"applied\":false}"),
            (502, b"<html>\n"),
        ];
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let mut recorder = file.recorder();
                std::thread::spawn(move || {
                    for (status, body) in answers {
                        recorder.issue(
                            called,
                            coupon,
                            b"alice",
                            b"k",
                            Some((
                                at,
                                Answer {
                                    status,
                                    replayed: false,
                                    body,
                                },
                            )),
                        );
                    }
                    recorder.issue(called, coupon, b"alice", b"k", None);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        file.finish().unwrap();
        let read: Vec<Operation> = history::read(BufReader::new(File::open(&path).unwrap()))
            .map(Result::unwrap)
            .collect();
        let mut codes: Vec<&str> = read
            .iter()
            .map(|operation| match operation {
                Operation::Issue(issue) => {
                    let span = issue.span;
                    assert_eq!((issue.user.as_str(), issue.key.as_ref().unwrap().as_str()), ("alice", "k"));
                    assert!(span.answer.is_none_or(|answer| answer.as_micros() - span.call.as_micros() == 70));
                    assert!(!matches!(&issue.answer, IssueAnswer::Issued { issuance, .. } if issuance.id.sequence.get() != 1));
                    issue.answer.code()
                }
                other => panic!("{other}"),
            })
            .collect();
        codes.sort_unstable();
        assert_eq!(
            codes,
            ["OVERLOADED"; 3]
                .into_iter()
                .chain(["SOLD_OUT"; 3])
                .chain(["issued"; 3])
                .chain(["unknown"; 6])
                .collect::<Vec<_>>()
        );
    }
}
