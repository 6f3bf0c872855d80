//! Small files in the data directory: secrets and names that are created once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Returns the text of a file, and creates the file if it does not exist. Returns true if it was created.
///
/// The file appears complete and synced, or not at all. Only the file's owner can read it. If several
/// processes create the file at once, one of them wins and all read the same text.
pub(crate) fn read_or_create(
    directory: &Path,
    name: &str,
    create: impl FnOnce() -> String,
) -> io::Result<(String, bool)> {
    let path = directory.join(name);
    match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return Ok((read?, false)),
    }
    fs::create_dir_all(directory)?;
    let draft = directory.join(format!(
        ".{name}.{}.{:08x}",
        std::process::id(),
        rand::random::<u32>()
    ));
    let written = write(&draft, &create()).and_then(|()| match fs::hard_link(&draft, &path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        linked => linked.map(|()| true),
    });
    // A draft that a crash leaves behind does no harm.
    let _ = fs::remove_file(&draft);
    let is_new = written?;
    File::open(directory)?.sync_all()?;
    Ok((read(&path)?, is_new))
}

fn read(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path)?.trim().to_owned();
    if text.is_empty() {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the file is empty; remove it, and the node creates a new one",
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
    fn a_file_is_created_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let nested = directory.path().join("data");
        assert_eq!(
            read_or_create(&nested, "token", || "one".to_owned()).unwrap(),
            ("one".to_owned(), true)
        );
        assert_eq!(
            read_or_create(&nested, "token", || "two".to_owned()).unwrap(),
            ("one".to_owned(), false)
        );
        let mode = fs::metadata(nested.join("token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&nested).unwrap().count(), 1);
    }

    #[test]
    fn an_empty_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("token"), "\n").unwrap();
        assert!(read_or_create(directory.path(), "token", || "one".to_owned()).is_err());
    }
}
