//! Tests of limits, panics, locks on the database file, and the counting of written pages.

use tokio::sync::oneshot;

use super::*;

#[tokio::test]
async fn work_that_times_out_is_unknown_and_goes_on() {
    let (go, wait) = oneshot::channel();
    let (done, finished) = oneshot::channel();
    let work = async move {
        wait.await
            .map_err(|_| StoreError::NotStored("cancelled".to_owned()))?;
        done.send(())
            .map_err(|()| StoreError::NotStored("the receiver was dropped".to_owned()))
    };
    assert!(matches!(
        within(Duration::from_millis(1), work).await,
        Err(StoreError::Unknown(_))
    ));
    go.send(()).unwrap();
    finished.await.unwrap();
}

/// Returns how many locks this process has on the database file; 0 if the system does not report locks.
#[cfg(target_os = "linux")]
fn locks(path: &Path) -> usize {
    use std::os::unix::fs::MetadataExt;
    let (process, file) = (
        std::process::id().to_string(),
        format!(":{}", std::fs::metadata(path).unwrap().ino()),
    );
    let is_ours = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.contains(&"POSIX")
            && words.contains(&process.as_str())
            && words.iter().any(|word| word.ends_with(&file))
    };
    std::fs::read_to_string("/proc/locks")
        .unwrap_or_default()
        .lines()
        .filter(is_ours)
        .count()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn dropping_a_store_releases_no_lock_of_open_connections() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path().join("test.db"));
    let first = SqliteStore::open(&options).await.unwrap();
    let path = first.path().to_path_buf();
    let held = locks(&path);
    if held == 0 {
        eprintln!("SKIPPED: this system does not report which process holds which lock");
        return;
    }
    first.close().await;
    let second = SqliteStore::open(&options).await.unwrap();
    drop(first);
    assert_eq!(locks(&path), held, "locks of the next store");
    let mut connection = second.inner.readers.acquire().await.unwrap();
    // A connection holds a lock from its first read until it is closed.
    sqlx::query("SELECT count(*) FROM coupons")
        .execute(&mut *connection)
        .await
        .unwrap();
    drop(second);
    assert_eq!(locks(&path), held, "the lock of its open connection");
    drop(connection);
}

#[tokio::test]
async fn beats_count_as_written_pages() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&Options::new(folder.path().join("test.db")))
        .await
        .unwrap();
    let before = store.inner.checkpoints.unmoved();
    for _ in 0..3 {
        store
            .beat(&NodeId::random(), Incarnation::random(), NodeState::Ready, &[])
            .await
            .unwrap();
    }
    assert_eq!(store.inner.checkpoints.unmoved() - before, 3);
}

#[tokio::test]
async fn no_snapshot_begins_while_the_log_is_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&Options::new(folder.path().join("test.db")))
        .await
        .unwrap();
    let execute = async |statement| {
        let mut writer = store.inner.writer().await.unwrap();
        sqlx::raw_sql(statement)
            .execute(&mut *writer.connection)
            .await
            .unwrap();
    };
    execute("PRAGMA user_version = 1").await;
    let snapshot = snapshot::Snapshot::begin(store.inner.snapshot_reader().await.unwrap());
    let snapshot = snapshot.await.unwrap();
    // What is behind the end of the log is no part of it.
    let log = format!("{}-wal", store.path().display());
    let log = File::options().write(true).open(log).unwrap();
    log.set_len(SNAPSHOT_LOG_BYTES_MAX).unwrap();
    assert!(store.inner.snapshot_reader().await.is_ok());
    log.set_len(SNAPSHOT_LOG_BYTES_MAX + 1).unwrap();
    assert!(matches!(
        store.inner.snapshot_reader().await,
        Err(StoreError::NotStored(_))
    ));
    drop(snapshot);
    // As a commit does with a log of this size.
    execute("PRAGMA wal_checkpoint(PASSIVE)").await;
    execute("PRAGMA user_version = 2").await;
    assert!(store.inner.snapshot_reader().await.is_ok());
}

#[tokio::test]
async fn a_write_that_panics_is_unknown_and_a_read_that_panics_is_not_stored() {
    async fn broken() -> Result<()> {
        panic!("on purpose")
    }
    assert!(matches!(
        write_limited(broken()).await,
        Err(StoreError::Unknown(_))
    ));
    assert!(matches!(
        read_limited(broken()).await,
        Err(StoreError::NotStored(_))
    ));
}
