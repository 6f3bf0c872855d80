//! One node of several: its process, its addresses, and the proxies in front of its database and its links.

use crate::FIRSTCOME;
use std::time::Duration;

use tempfile::TempDir;
use testkit::database_proxy::DatabaseProxy;
use testkit::ports::free_port;
use testkit::process::Signal;
use testkit::servers::Server;

use testkit::link_proxy::LinkProxy;
use testkit::node::Node;

/// The secret that the nodes share.
const COOKIE: &str = "a-cookie-of-these-tests";

/// How long stopping may take: longer than the node's own limit, so that the node logs what was wrong.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A node, running or not.
pub struct Member {
    /// The node's name. Of two nodes, the node with the smaller name dials.
    pub name: String,
    /// The address of its HTTP listener.
    pub address: String,
    /// The address that its peers use.
    pub links: String,
    /// The proxy in front of its database.
    pub database: DatabaseProxy,
    /// The proxy in front of its link listener, if it has one.
    pub link_proxy: Option<LinkProxy>,
    keys: Vec<String>,
    /// This field is declared before `data`, so that the process ends before the data is removed.
    process: Option<Node>,
    data: TempDir,
}

impl Member {
    /// Prepares the node with this number, which counts from 1. Does not start the node.
    pub async fn new(
        number: usize,
        server: &Server,
        database: &str,
        keys: &[&str],
        has_link_proxy: bool,
    ) -> Self {
        let (name, http, port) = (format!("node-{number}"), free_port(), free_port());
        let proxy = DatabaseProxy::before(server.port()).await;
        let link_proxy = if has_link_proxy {
            Some(LinkProxy::before(port).await)
        } else {
            None
        };
        let links = format!("127.0.0.1:{}", link_proxy.as_ref().map_or(port, LinkProxy::port));
        let mut all = vec![
            format!("node.id={name}"),
            format!("store.url={}", server.url(database, Some(proxy.port()))),
            format!("cluster.listen=127.0.0.1:{port}"),
            format!("cluster.advertise={links}"),
            format!("cluster.cookie={COOKIE}"),
            // The log then says which node owned what, for the analysis of a failure.
            "log.level=info,actors=debug".to_owned(),
        ];
        all.extend(keys.iter().map(|key| (*key).to_owned()));
        let address = format!("127.0.0.1:{http}");
        Self {
            name,
            address,
            links,
            database: proxy,
            link_proxy,
            keys: all,
            process: None,
            data: tempfile::tempdir().unwrap(),
        }
    }

    /// Sets a key for the next start.
    pub fn set(&mut self, key: &str, value: &str) {
        let start = format!("{key}=");
        self.keys.retain(|set| !set.starts_with(&start));
        self.keys.push(format!("{start}{value}"));
    }

    /// Returns the URL of its database.
    pub fn store_url(&self) -> &str {
        let mut urls = self.keys.iter().filter_map(|key| key.strip_prefix("store.url="));
        urls.next().expect("it has a database")
    }

    /// Starts the node, and returns once the node is ready. Blocks.
    pub fn start(&mut self) {
        self.process = Some(Node::start_at(
            &self.address,
            FIRSTCOME,
            self.data.path(),
            &self.keys,
        ));
    }

    /// True if the node has a process.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Asks the node to stop, and returns once the node has stopped with success. Blocks.
    pub fn stop(&mut self) {
        let process = self.process.take().expect("a running node");
        assert!(
            process.stop(STOP_LIMIT),
            "{} did not stop with success: {}",
            self.name,
            process.log()
        );
    }

    /// Returns what it has logged, also while it does not run.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("stderr")).unwrap()
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(&mut self) {
        self.process.take().expect("a running node").kill();
    }

    /// Suspends the node's process until [`Self::resume`].
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
    }

    /// Resumes the node's process.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("a running node").signal(signal);
    }
}
