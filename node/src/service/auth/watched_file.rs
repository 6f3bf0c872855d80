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

/// Maximum size of a file: ten times the size of a file with a hundred keys of tokens.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads the file every [`READ_INTERVAL`], for as long as the future is polled. Calls `changed` with the
/// first content, and with each content that differs from the one before. True marks the first.
pub(super) async fn watch(path: &Path, mut changed: impl FnMut(io::Result<Vec<u8>>, bool)) {
    let mut last = Content::None;
    let mut ticks = tokio::time::interval(READ_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let owned = path.to_owned();
        // A panic there would be a bug in `read`.
        let text = tokio::task::spawn_blocking(move || read(&owned))
            .await
            .unwrap_or_else(|panic| Err(io::Error::other(panic)));
        let content = Content::of(&text);
        if content != last {
            changed(text, last == Content::None);
            last = content;
        }
    }
}

/// The content of the file at the last read.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    None,
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
    fn a_file_that_is_too_large_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(FILE_BYTES_MAX).unwrap();
        assert_eq!(read(file.path()).unwrap().len() as u64, FILE_BYTES_MAX);
        file.as_file().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(read(file.path()).is_err());
    }
}
