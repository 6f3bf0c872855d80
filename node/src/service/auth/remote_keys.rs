//! Decides when keys are fetched from a URL: at the start, at intervals, and on demand for a token with an
//! unknown key.
//!
//! A fetch runs in the task of [`RemoteKeys::run`], so a client that gives up does not end it. Requests only
//! ask for it and wait. The keys of the last successful fetch stay in use while fetches fail.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::fetch::{FETCH_LIMIT, Source};
use super::token::Digest;
use crate::metrics::{self, KeySource, KeysRead};

/// Interval between fetches, so that a key which the provider took back is refused soon after.
const FETCH_EVERY: Duration = Duration::from_secs(300);

/// Interval between fetches until the first one has succeeded, and between fetches on demand: anyone can send
/// tokens with unknown keys.
const SPACING: Duration = Duration::from_secs(10);

/// Keys that are fetched.
#[derive(Debug)]
pub(super) struct RemoteKeys {
    source: Source,
    wanted: Notify,
    fetches: watch::Sender<Fetches>,
    /// [`Fetches::ended`], for requests that read it at their start.
    generation: AtomicU64,
}

/// The fetches until now.
#[derive(Debug, Clone, Copy)]
struct Fetches {
    /// How many have ended.
    ended: u64,
    /// True if one is in progress, or about to begin.
    is_in_progress: bool,
    /// When the next one may begin on demand.
    on_demand_at: Option<Instant>,
}

impl RemoteKeys {
    pub(super) fn new(source: Source) -> Self {
        let fetches = Fetches {
            ended: 0,
            // The first one begins with `run`.
            is_in_progress: true,
            on_demand_at: None,
        };
        Self {
            source,
            wanted: Notify::new(),
            fetches: watch::Sender::new(fetches),
            generation: AtomicU64::new(0),
        }
    }

    /// Returns the number of fetches that have ended.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Waits for a fetch that ends after the generation was `seen`, which it may cause. Returns false at once
    /// if it is too early for a fetch, and after [`FETCH_LIMIT`] if none has ended.
    ///
    /// Cancel safe.
    pub(super) async fn renew(&self, seen: u64) -> bool {
        let mut fetches = self.fetches.subscribe();
        if fetches.borrow_and_update().ended > seen {
            return true;
        }
        let now = Instant::now();
        let (mut is_coming, mut is_first) = (true, false);
        self.fetches.send_if_modified(|fetches| {
            if fetches.is_in_progress {
                return false;
            }
            is_first = fetches.on_demand_at.is_none_or(|at| now >= at);
            is_coming = is_first;
            if is_first {
                fetches.is_in_progress = true;
                fetches.on_demand_at = Some(now + SPACING);
            }
            is_first
        });
        if is_first {
            self.wanted.notify_one();
        }
        if !is_coming {
            return false;
        }
        let ended = fetches.wait_for(|fetches| fetches.ended > seen);
        matches!(timeout(FETCH_LIMIT, ended).await, Ok(Ok(_)))
    }

    /// Fetches keys for as long as the future is polled, and calls `take` with each set that differs from the
    /// one before. An error of `take` says why the set cannot be used.
    pub(super) async fn run(&self, take: impl Fn(&Bytes) -> Result<(), String>) {
        let (mut last, mut last_reason): (Option<Digest>, _) = (None, String::new());
        loop {
            let fetched = self.source.fetch().await;
            let is_first = last.is_none();
            let taken = fetched.and_then(|text| {
                let digest = Sha256::digest(&text).into();
                if last != Some(digest) {
                    take(&text)?;
                    last = Some(digest);
                    return Ok(true);
                }
                Ok(false)
            });
            self.report(&taken, is_first, &mut last_reason);
            self.fetches.send_modify(|fetches| {
                fetches.ended += 1;
                fetches.is_in_progress = false;
                self.generation.store(fetches.ended, Ordering::Release);
            });
            let pause = if last.is_some() { FETCH_EVERY } else { SPACING };
            let _ = timeout(pause, self.wanted.notified()).await;
            self.fetches.send_modify(|fetches| fetches.is_in_progress = true);
        }
    }

    /// Logs the result of a fetch. The same failure is logged once.
    fn report(&self, taken: &Result<bool, String>, is_first: bool, last_reason: &mut String) {
        let url = self.source.url();
        let read = match taken {
            Ok(true) if !is_first => KeysRead::Replaced,
            Ok(_) => KeysRead::Unchanged,
            Err(_) => KeysRead::Refused,
        };
        metrics::keys_read(KeySource::JwksUrl, read);
        match taken {
            Ok(is_new) => {
                if *is_new {
                    tracing::info!(%url, "fetched the keys of tokens");
                }
                last_reason.clear();
            }
            Err(reason) => {
                if reason != last_reason {
                    tracing::error!(%url, reason, "failed to fetch the keys of tokens; the old ones stay");
                }
                last_reason.clone_from(reason);
            }
        }
    }
}
