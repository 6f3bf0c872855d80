//! The files of the database, as they were opened. A file that is removed while it is open, or replaced by a
//! copy, still accepts writes, and all of them are lost when the process ends.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::OpenError;

/// The device of a file, and the number of the file on it (inode).
type Identity = (u64, u64);

/// The database file and its log.
#[derive(Debug)]
pub(super) struct Files {
    database: PathBuf,
    opened: Identity,
    log: PathBuf,
}

impl Files {
    /// Remembers which file was opened.
    pub(super) fn new(path: &Path, opened: &File) -> Result<Self, OpenError> {
        let metadata = opened.metadata().map_err(|source| OpenError::File {
            path: path.to_path_buf(),
            source,
        })?;
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Ok(Self {
            database: path.to_path_buf(),
            opened: identity(&metadata),
            log: PathBuf::from(log),
        })
    }

    /// Checks that both files are where they were when the database was opened. Returns the size of the log
    /// in bytes, or what is wrong.
    ///
    /// The log may be another file than before: SQLite removes it with the last connection, and creates it
    /// again with the next connection.
    pub(super) fn check(&self) -> Result<u64, String> {
        let database = metadata(&self.database)?;
        if identity(&database) != self.opened {
            return Err(format!(
                "{} was replaced while it is open: restart the node to use the new file",
                self.database.display()
            ));
        }
        Ok(metadata(&self.log)?.len())
    }
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

fn metadata(path: &Path) -> Result<Metadata, String> {
    fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{} was removed while it is open", path.display()),
        _ => format!("{}: {error}", path.display()),
    })
}
