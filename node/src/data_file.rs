//! Small secrets and names that are made once and kept in the data directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The text kept under this name, or a new one that is kept from now on.
///
/// The file appears whole or not at all, synced, readable by its owner alone; of several processes that make
/// it at once, one wins and all read the same.
pub(crate) fn kept(directory: &Path, name: &str, make: impl FnOnce() -> String) -> io::Result<String> {
    let path = directory.join(name);
    match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return read,
    }
    fs::create_dir_all(directory)?;
    let draft = directory.join(format!(
        ".{name}.{}.{:08x}",
        std::process::id(),
        rand::random::<u32>()
    ));
    let written = write(&draft, &make()).and_then(|()| match fs::hard_link(&draft, &path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    // Left behind after a crash it does no harm.
    let _ = fs::remove_file(&draft);
    written?;
    File::open(directory)?.sync_all()?;
    read(&path)
}

fn read(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path)?.trim().to_owned();
    if text.is_empty() {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the file is empty; remove it, and a new one is made",
        ))
    } else {
        Ok(text)
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_kept_is_made_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let nested = directory.path().join("data");
        assert_eq!(kept(&nested, "token", || "one".to_owned()).unwrap(), "one");
        assert_eq!(kept(&nested, "token", || "two".to_owned()).unwrap(), "one");
        let mode = fs::metadata(nested.join("token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&nested).unwrap().count(), 1);
    }

    #[test]
    fn an_empty_file_is_not_taken_for_a_secret() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("token"), "\n").unwrap();
        assert!(kept(directory.path(), "token", || "one".to_owned()).is_err());
    }
}
