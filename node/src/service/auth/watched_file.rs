//! A small file with keys, which is read again when it changes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::token::Digest;

/// Interval between reads of a file; a removed key stays valid for up to this time. The whole file is read
/// each time, because modification times are too coarse, and mounted secrets are replaced through a link.
const READ_INTERVAL: Duration = Duration::from_secs(2);

/// Time between two reads of a content that is new: both must agree. A file that is being written is read in
/// half, and half of a file may be valid: a key without its last line has no end.
const SETTLED_AFTER: Duration = Duration::from_millis(100);

/// Maximum size of a file: ten times the size of a file with a hundred keys of tokens.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads the file every [`READ_INTERVAL`], for as long as the future is polled. Calls `changed` with the
/// first content, and with each content that differs from the one before and stays for [`SETTLED_AFTER`].
/// True marks the first.
pub(super) async fn watch(path: &Path, mut changed: impl FnMut(io::Result<Vec<u8>>, bool)) {
    let mut contents = Contents::default();
    let mut ticks = tokio::time::interval(READ_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        loop {
            let owned = path.to_owned();
            // A panic there would be a bug in `read`.
            let text = tokio::task::spawn_blocking(move || read(&owned))
                .await
                .unwrap_or_else(|panic| Err(io::Error::other(panic)));
            match contents.see(Content::of(&text)) {
                Seen::Same => break,
                Seen::Unsettled => tokio::time::sleep(SETTLED_AFTER).await,
                Seen::New { is_first } => {
                    changed(text, is_first);
                    break;
                }
            }
        }
    }
}

/// The contents that were seen.
#[derive(Debug, Default)]
struct Contents {
    /// The one that counts.
    last: Option<Content>,
    /// Another one, which the last read saw first.
    unsettled: Option<Content>,
}

/// What a read saw.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// The content that counts.
    Same,
    /// Another content, which may be half of one.
    Unsettled,
    /// The same content as the read before, which counts from now on.
    New { is_first: bool },
}

impl Contents {
    fn see(&mut self, content: Content) -> Seen {
        let unsettled = self.unsettled.take();
        if self.last.as_ref() == Some(&content) {
            Seen::Same
        } else if unsettled.as_ref() == Some(&content) {
            let is_first = self.last.replace(content).is_none();
            Seen::New { is_first }
        } else {
            self.unsettled = Some(content);
            Seen::Unsettled
        }
    }
}

/// The content of the file at a read.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    Unreadable(io::ErrorKind),
    Text(Digest),
}

impl Content {
    fn of(text: &io::Result<Vec<u8>>) -> Self {
        match text {
            Ok(text) => Self::Text(Sha256::digest(text).into()),
            Err(error) => Self::Unreadable(error.kind()),
        }
    }
}

/// Reads a file that is not too large.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        Err(io::Error::other("larger than a megabyte"))
    } else {
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_counts_once_two_reads_agree_on_it() {
        let content = |text: &str| Content::of(&Ok(text.as_bytes().to_vec()));
        let gone = || Content::of(&Err(io::ErrorKind::NotFound.into()));
        let (is_first, not_first) = (Seen::New { is_first: true }, Seen::New { is_first: false });
        let mut contents = Contents::default();
        for (seen, expected) in [
            (content("a key until 2020"), Seen::Unsettled),
            (content("a key until 2020"), is_first),
            (content("a key until 2020"), Seen::Same),
            // Another program writes the file.
            (content(""), Seen::Unsettled),
            (content("a key"), Seen::Unsettled),
            (content("a key until 2020"), Seen::Same),
            (content("a key"), Seen::Unsettled),
            (content("a key until 2021"), Seen::Unsettled),
            (content("a key until 2021"), not_first),
            (gone(), Seen::Unsettled),
            (gone(), Seen::New { is_first: false }),
            (gone(), Seen::Same),
        ] {
            assert_eq!(contents.see(seen), expected);
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(FILE_BYTES_MAX).unwrap();
        assert_eq!(read(file.path()).unwrap().len() as u64, FILE_BYTES_MAX);
        file.as_file().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(read(file.path()).is_err());
    }
}
