//! Two processes with one `node.id`, as after a data directory was copied: the second refuses to start and
//! does not disturb the first. A node that was killed starts again at once.

use std::path::Path;
use std::time::{Duration, Instant};

use testkit::node::{self, Node};
use testkit::on_each_server;
use testkit::poll::eventually;
use testkit::ports::free_port;
use testkit::servers::{Server, ServerKind};

use crate::FIRSTCOME;

/// Longer than any refusal takes.
const LIMIT: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(9);

/// The keys of a node on this database: without links, or with links at a port of its own and this address
/// for peers.
fn keys(url: &str, advertise: Option<u16>) -> Vec<String> {
    let mut keys = vec![
        format!("store.url={url}"),
        format!("cluster.lease={LEASE:?}"),
        "http.change_deadline=15s".to_owned(),
    ];
    if let Some(port) = advertise {
        keys.extend([
            format!("cluster.listen=127.0.0.1:{}", free_port()),
            format!("cluster.advertise=127.0.0.1:{port}"),
            "cluster.cookie=a-cookie-of-these-tests".to_owned(),
        ]);
    }
    keys
}

fn start(directory: &Path, keys: &[String]) -> Node {
    tokio::task::block_in_place(|| Node::start(FIRSTCOME, directory, keys))
}

/// Checks that the program refuses to start and returns the last line of its log.
fn refused(directory: &Path, keys: &[String]) -> String {
    let keys = [keys, &["http.listen=127.0.0.1:0".to_owned()]].concat();
    let (succeeded, log) =
        tokio::task::block_in_place(|| node::run(FIRSTCOME, directory, "serve", &keys, LIMIT));
    assert!(!succeeded, "{log}");
    log.lines().last().unwrap_or_default().to_owned()
}

fn copy(from: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from.join("data")).unwrap() {
        let entry = entry.unwrap();
        std::fs::create_dir_all(copy.path().join("data")).unwrap();
        std::fs::copy(entry.path(), copy.path().join("data").join(entry.file_name())).unwrap();
    }
    copy
}

async fn a_second_process_with_the_id_of_a_node_refuses_to_start(kind: ServerKind) {
    let server = Server::shared(kind);
    for advertise in [None, Some(free_port())] {
        let url = server.url(&server.make_writable_database().await, None);
        let folder = tempfile::tempdir().unwrap();
        let first = start(folder.path(), &keys(&url, advertise));
        let twin = copy(folder.path());
        let begun = Instant::now();
        let why = refused(twin.path(), &keys(&url, advertise));
        assert!(
            begun.elapsed() < LEASE,
            "the second process sees soon that the first beats: {:?}",
            begun.elapsed()
        );
        for part in [
            "another process runs as the node node-",
            &first.address,
            "give this node a node.id of its own, or a data_dir that is not a copy",
        ] {
            assert!(why.contains(part), "{part} is not in {why}");
        }
        assert!(
            !first.log().contains("this incarnation was ended"),
            "{}",
            first.log()
        );
        // Even without the database, the data directory shows that a process uses it.
        let why = refused(folder.path(), &keys(&url, advertise));
        assert!(why.contains("give each process a data_dir of its own"), "{why}");
        let ready = reqwest::get(format!("http://{}/readyz", first.address)).await;
        assert_eq!(ready.unwrap().status(), 200);
    }
}

async fn a_node_that_was_killed_starts_again_at_once_and_a_copy_of_it_after_its_lease(kind: ServerKind) {
    let server = Server::shared(kind);
    let url = server.url(&server.make_writable_database().await, None);
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    for _ in 0..2 {
        start(folder.path(), &keys(&url, Some(port))).kill();
        let begun = Instant::now();
        let again = start(folder.path(), &keys(&url, Some(port)));
        assert!(begun.elapsed() < LEASE * 2 / 3, "{:?}", begun.elapsed());
        again.kill();
    }
    // The copy cannot tell whether the process of the original is alive elsewhere.
    let (begun, twin) = (Instant::now(), copy(folder.path()));
    let started = start(twin.path(), &keys(&url, Some(port)));
    assert!(begun.elapsed() >= LEASE, "{:?}", begun.elapsed());
    eventually("the log says why that took long", async || {
        started.log().contains("watching its row for its lease")
    })
    .await;
}

on_each_server! {
    a_second_process_with_the_id_of_a_node_refuses_to_start
    a_node_that_was_killed_starts_again_at_once_and_a_copy_of_it_after_its_lease
}
