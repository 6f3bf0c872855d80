//! The record of a node's own incarnations, from which a restarted node knows that the last one is over.
//!
//! The record is a file that the node's process keeps locked. A process that has the lock knows that every
//! incarnation in the file is over: it belonged to a process that had the lock before. The first line of the
//! record names the file (device and inode) and the start of the machine (boot id). It does not fit a copy of
//! the file. Then the incarnations do not count, because their process may be alive elsewhere.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ids::Incarnation;

/// Maximum number of incarnations in a record. The node's row names the last one, or an earlier one if later
/// processes ended before they had replaced the row.
const INCARNATIONS_MAX: usize = 8;

/// The file that names the present start of the machine. Only Linux has it.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The record of a node; cheap to clone. Without a file, it holds the incarnations of this process only.
#[derive(Debug, Clone, Default)]
pub struct LifeRecord {
    shared: Arc<Mutex<Record>>,
}

#[derive(Debug, Default)]
struct Record {
    file: Option<RecordFile>,
    /// Own incarnations, oldest first.
    incarnations: VecDeque<Incarnation>,
}

/// The locked file, and the first line of its text.
#[derive(Debug)]
struct RecordFile {
    file: File,
    place: String,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LifeRecordError {
    /// A live process has it.
    #[error("another process of this node is running")]
    Locked,
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] io::Error),
}

impl LifeRecord {
    /// Opens the record in this file, which it creates if there is none, and locks it until the last clone is
    /// dropped.
    ///
    /// # Errors
    ///
    /// If another process has the record, or the file cannot be used.
    pub fn open(path: &Path) -> Result<Self, LifeRecordError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => LifeRecordError::Locked,
            TryLockError::Error(error) => error.into(),
        })?;
        let about = file.metadata()?;
        let boot = std::fs::read_to_string(BOOT_ID)?;
        let place = format!("{} {} {}", boot.trim(), about.dev(), about.ino());
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut lines = text.lines();
        let is_here = lines.next() == Some(place.as_str());
        let incarnations = lines.take_while(|_| is_here);
        let incarnations = incarnations.filter_map(|line| Incarnation::new(line.parse().ok()?));
        let record = Record {
            incarnations: incarnations.collect(),
            file: Some(RecordFile { file, place }),
        };
        Ok(Self {
            shared: Arc::new(Mutex::new(record)),
        })
    }

    /// Returns true if this is an earlier incarnation of this node, which is certainly over.
    pub fn is_over(&self, incarnation: Incarnation) -> bool {
        self.record().incarnations.contains(&incarnation)
    }

    /// Notes that the node joins as this incarnation now. If the file cannot be written, the next start does
    /// not know the incarnation.
    pub fn begin(&self, incarnation: Incarnation) {
        let mut record = self.record();
        if record.incarnations.len() >= INCARNATIONS_MAX {
            record.incarnations.pop_front();
        }
        record.incarnations.push_back(incarnation);
        if let Err(error) = record.write() {
            tracing::warn!(%error, "the record of this node's incarnations was not written");
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// Writes the file in place, because a new file would be another record. A text that was cut short names
    /// fewer incarnations, or none.
    fn write(&mut self) -> io::Result<()> {
        let Some(RecordFile { file, place }) = &mut self.file else {
            return Ok(());
        };
        let mut text = format!("{place}\n");
        for incarnation in &self.incarnations {
            text.push_str(&format!("{}\n", incarnation.get()));
        }
        file.rewind()?;
        file.set_len(0)?;
        file.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn incarnation(number: u64) -> Incarnation {
        Incarnation::new(number).unwrap()
    }

    #[test]
    fn a_record_is_locked_and_tells_the_next_process_which_incarnations_are_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        let first = LifeRecord::open(&path).unwrap();
        first.begin(incarnation(1));
        let clone = first.clone();
        drop(first);
        clone.begin(incarnation(2));
        assert!(matches!(LifeRecord::open(&path), Err(LifeRecordError::Locked)));
        drop(clone);
        let second = LifeRecord::open(&path).unwrap();
        assert!(second.is_over(incarnation(1)) && second.is_over(incarnation(2)));
        assert!(!second.is_over(incarnation(3)));
        for number in 3..20 {
            second.begin(incarnation(number));
        }
        drop(second);
        let third = LifeRecord::open(&path).unwrap();
        assert!(third.is_over(incarnation(19)) && !third.is_over(incarnation(2)));
    }

    #[test]
    fn a_copy_of_a_record_knows_no_incarnation() {
        let directory = tempfile::tempdir().unwrap();
        let (path, copy) = (directory.path().join("record"), directory.path().join("copy"));
        let record = LifeRecord::open(&path).unwrap();
        record.begin(incarnation(1));
        fs::copy(&path, &copy).unwrap();
        assert!(!LifeRecord::open(&copy).unwrap().is_over(incarnation(1)));
        drop(record);
        // After a restart of the machine, the record itself knows no incarnation either.
        let text = fs::read_to_string(&path).unwrap();
        let (boot, _) = text.split_once(' ').unwrap();
        fs::write(&path, text.replace(boot, "00000000-0000-0000-0000-000000000000")).unwrap();
        assert!(!LifeRecord::open(&path).unwrap().is_over(incarnation(1)));
        fs::write(&path, "garbage\n1\n").unwrap();
        assert!(!LifeRecord::open(&path).unwrap().is_over(incarnation(1)));
    }

    #[test]
    fn without_a_file_a_record_knows_the_incarnations_of_this_process() {
        let record = LifeRecord::default();
        record.begin(incarnation(1));
        assert!(record.is_over(incarnation(1)) && !record.is_over(incarnation(2)));
    }
}
