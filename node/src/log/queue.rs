//! The queue of log lines between the tasks that log and the thread that writes.
//!
//! Logging never waits and never fails: a line for which there is no room, or that cannot be written, is
//! dropped and counted. So an unread pipe or a full disk costs lines and nothing else.

use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Maximum total length of waiting lines: about 5,000 lines, enough for what is logged while the writing
/// thread waits for a processor.
pub(crate) const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// Pause before the next attempt to write to an output that another program has made non-blocking.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Signals the idle writer that a line was added.
    came: Condvar,
    /// Signals that the writer has written all lines.
    written: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    lines: Lines,
    /// True if the writer waits for lines.
    is_idle: bool,
}

/// Lines, one after the other.
#[derive(Debug)]
struct Lines {
    bytes: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
}

impl Lines {
    const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::new(),
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Returns how many lines end after this position.
    fn after(&self, position: usize) -> usize {
        self.ends.len() - self.ends.partition_point(|end| *end <= position)
    }

    /// Returns true if a line begins at this position.
    fn is_boundary(&self, position: usize) -> bool {
        position == 0 || self.ends.binary_search(&position).is_ok()
    }
}

/// Writes lines to the queue: each call of `write` is one line, with its end.
#[derive(Debug)]
pub(super) struct LineWriter(pub(super) &'static Queue);

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    pub(super) const fn new() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                lines: Lines::new(),
                is_idle: false,
            }),
            came: Condvar::new(),
            written: Condvar::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Returns how many lines were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Returns how many bytes of lines wait.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting().lines.bytes.len()
    }

    /// Adds a line, or drops it if there is no room. Never waits for the output.
    pub(super) fn push(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        let lines = &mut waiting.lines;
        if lines.bytes.len() + line.len() > WAITING_BYTES_MAX {
            drop(waiting);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        lines.bytes.extend_from_slice(line);
        lines.ends.push(lines.bytes.len());
        let was_idle = mem::replace(&mut waiting.is_idle, false);
        drop(waiting);
        if was_idle {
            self.came.notify_one();
        }
    }

    /// Waits until everything is written, for at most `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let waiting = self.waiting();
        // The writer is idle when nothing waits and nothing is being written.
        let _ = self
            .written
            .wait_timeout_while(waiting, limit, |waiting| !waiting.is_idle);
    }

    /// Writes lines to this output for ever.
    pub(super) fn write_to(&self, output: &mut impl Write) -> ! {
        let (mut lines, mut output) = (Lines::new(), Output::new(output));
        let mut reported = 0;
        loop {
            self.take(&mut lines);
            output.write(&lines, &self.dropped);
            let dropped = self.dropped();
            if dropped != reported && output.is_working {
                reported = dropped;
                tracing::warn!(dropped, "log lines were dropped; this is the total so far");
            }
        }
    }

    /// Waits for lines and takes all of them.
    fn take(&self, lines: &mut Lines) {
        lines.clear();
        let mut waiting = self.waiting();
        while waiting.lines.bytes.is_empty() {
            waiting.is_idle = true;
            self.written.notify_all();
            waiting = self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        mem::swap(&mut waiting.lines, lines);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The output, and how the last write to it ended.
struct Output<'o, W> {
    output: &'o mut W,
    is_working: bool,
    /// True if the last line was cut off. The next one must not be its continuation.
    is_torn: bool,
}

impl<'o, W: Write> Output<'o, W> {
    fn new(output: &'o mut W) -> Self {
        Self {
            output,
            is_working: true,
            is_torn: false,
        }
    }

    /// Writes lines. If that fails, counts those that were not written, and drops them.
    fn write(&mut self, lines: &Lines, dropped: &AtomicU64) {
        let mut position = 0;
        while position < lines.bytes.len() {
            let part = if self.is_torn {
                b"\n"
            } else {
                &lines.bytes[position..]
            };
            match self.output.write(part) {
                Ok(written) if written > 0 => {
                    if !mem::replace(&mut self.is_torn, false) {
                        position += written;
                    }
                    self.is_working = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_PAUSE),
                Ok(_) | Err(_) => {
                    self.is_torn |= !lines.is_boundary(position);
                    self.is_working = false;
                    dropped.fetch_add(lines.after(position) as u64, Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has room for some bytes, and fails when they are used up.
    struct Disk {
        content: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = bytes.len().min(self.room);
            if written == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= written;
            self.content.extend_from_slice(&bytes[..written]);
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(texts: &[&str]) -> Lines {
        let queue = Queue::new();
        for text in texts {
            queue.push(text.as_bytes());
        }
        let mut lines = Lines::new();
        queue.take(&mut lines);
        lines
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_and_the_next_line_is_whole() {
        let (mut disk, dropped) = (
            Disk {
                content: Vec::new(),
                room: 6,
            },
            AtomicU64::new(0),
        );
        let mut output = Output::new(&mut disk);
        output.write(&lines(&["one\n", "two\n", "three\n"]), &dropped);
        assert!(!output.is_working);
        assert_eq!(dropped.load(Ordering::Relaxed), 2, "two and three");
        output.write(&lines(&["four\n"]), &dropped);
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
        output.output.room = 100;
        output.write(&lines(&["five\n", "six\n"]), &dropped);
        assert!(output.is_working);
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
        assert_eq!(String::from_utf8_lossy(&disk.content), "one\ntw\nfive\nsix\n");
    }

    #[test]
    fn a_full_queue_drops_lines_without_waiting() {
        let queue = Queue::new();
        let line = [b'x'; 1024];
        for _ in 0..WAITING_BYTES_MAX / line.len() {
            queue.push(&line);
        }
        assert_eq!(queue.dropped(), 0);
        queue.push(b"\n");
        queue.push(&line);
        assert_eq!(queue.dropped(), 2);
        // Taking the lines makes room.
        queue.take(&mut Lines::new());
        queue.push(&line);
        assert_eq!(queue.dropped(), 2);
    }

    #[test]
    fn flushing_waits_for_what_was_pushed_and_no_longer_than_its_limit() {
        static QUEUE: Queue = Queue::new();
        let (mut reader, mut writer) = io::pipe().unwrap();
        thread::spawn(move || QUEUE.write_to(&mut writer));
        QUEUE.push(b"one\n");
        QUEUE.flush(Duration::from_secs(60));
        let mut line = [0; 4];
        io::Read::read_exact(&mut reader, &mut line).unwrap();
        assert_eq!(&line, b"one\n");
        // More than a pipe holds, and nothing reads it.
        QUEUE.push(&vec![b'x'; WAITING_BYTES_MAX]);
        QUEUE.flush(Duration::from_millis(50));
        assert!(!QUEUE.waiting().is_idle);
    }
}
