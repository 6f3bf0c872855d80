//! One node of several: its process, its place on loopback, and what lies between it and its database and its
//! peers.

use crate::FIRSTCOME;
use std::time::Duration;

use tempfile::TempDir;
use testkit::database_proxy::DatabaseProxy;
use testkit::ports::free_port;
use testkit::process::Signal;
use testkit::servers::Server;

use testkit::link_proxy::LinkProxy;
use testkit::node::Node;

/// What all nodes know, and nobody else.
const COOKIE: &str = "a-cookie-of-these-tests";

/// How long stopping may take: longer than it is allowed by default, so that the node says what was wrong.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A node, running or not.
pub struct Member {
    /// Its name. Of two nodes the one with the smaller name dials.
    pub name: String,
    /// Where its HTTP is.
    pub address: String,
    /// Where its peers are told to reach it.
    pub links: String,
    /// Between it and its database.
    pub database: DatabaseProxy,
    /// Between it and those who dial it, if there is anything.
    pub wire: Option<LinkProxy>,
    keys: Vec<String>,
    /// Before its data, so that it ends while that is there.
    process: Option<Node>,
    data: TempDir,
}

impl Member {
    /// The node of this number, from 1, that does not run yet.
    pub async fn new(number: usize, server: &Server, database: &str, keys: &[&str], has_wire: bool) -> Self {
        let (name, http, port) = (format!("node-{number}"), free_port(), free_port());
        let proxy = DatabaseProxy::before(server.port()).await;
        let wire = if has_wire {
            Some(LinkProxy::before(port).await)
        } else {
            None
        };
        let links = format!("127.0.0.1:{}", wire.as_ref().map_or(port, LinkProxy::port));
        let mut all = vec![
            format!("node.id={name}"),
            format!("store.url={}", server.url(database, Some(proxy.port()))),
            format!("cluster.listen=127.0.0.1:{port}"),
            format!("cluster.advertise={links}"),
            format!("cluster.cookie={COOKIE}"),
            // Who owned what, for whoever looks into a failure.
            "log.level=info".to_owned(),
        ];
        all.extend(keys.iter().map(|key| (*key).to_owned()));
        let address = format!("127.0.0.1:{http}");
        Self {
            name,
            address,
            links,
            database: proxy,
            wire,
            keys: all,
            process: None,
            data: tempfile::tempdir().unwrap(),
        }
    }

    /// Starts it, and returns once it is ready. Blocks.
    pub fn start(&mut self) {
        self.process = Some(Node::start_at(
            &self.address,
            FIRSTCOME,
            self.data.path(),
            &self.keys,
        ));
    }

    /// Whether there is a process.
    pub fn lives(&self) -> bool {
        self.process.is_some()
    }

    /// Asks it to stop, and returns once it has, which must go well. Blocks.
    pub fn stop(&mut self) {
        let process = self.process.take().expect("a node that runs");
        assert!(
            process.stop(STOP_LIMIT),
            "{} did not stop well: {}",
            self.name,
            process.log()
        );
    }

    /// As by `kill -9`.
    pub fn kill(&mut self) {
        self.process.take().expect("a node that runs").kill();
    }

    /// Nothing of it runs until it is resumed, and nobody is told.
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
    }

    /// Goes on as if nothing had been.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("a node that runs").signal(signal);
    }
}
