//! Many rounds of kill -9 at random moments under load. In the end the checker judges everything that clients
//! saw.
//!
//! `FIRSTCOME_SEED` repeats the moments of a run, and `FIRSTCOME_CRASH_ROUNDS` sets the number of rounds.

use crate::FIRSTCOME;
use std::sync::Arc;
use std::time::Duration;
use testkit::on_each_server;
use testkit::poll::eventually;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Client;

use testkit::clients::{Clients, from_environment};
use testkit::node::Node;
use testkit::recorder::HttpRecorder;
use testkit::servers::{Server, ServerKind};

const CLIENTS: u64 = 48;

/// Kills the node, and the database server if there is one, at random moments.
async fn rounds_of_kills(server: Option<&Server>, rounds: u64) {
    let seed = from_environment("FIRSTCOME_SEED").unwrap_or_else(rand::random);
    let rounds = from_environment("FIRSTCOME_CRASH_ROUNDS").unwrap_or(rounds);
    println!("FIRSTCOME_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let data = tempfile::tempdir().unwrap();
    let mut keys = Vec::new();
    if let Some(server) = server {
        keys.push(format!(
            "store.url={}",
            server.url(&server.make_writable_database().await, None)
        ));
    }
    let mut process = Node::start(FIRSTCOME, data.path(), &keys);
    let client = Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    let history = Arc::new(HttpRecorder::default());
    let coupons = Clients::coupons(&client, &process.address, &history).await;
    let clients = Clients::begin(
        CLIENTS,
        Duration::ZERO,
        seed,
        &client,
        std::slice::from_ref(&process.address),
        &history,
        coupons,
    );
    for round in 0..rounds {
        // The random moment is the fault itself.
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..300))).await;
        match server {
            // The node keeps running and must recover by itself.
            Some(server) if round % 3 == 1 => tokio::task::block_in_place(|| {
                server.kill();
                server.resume().unwrap();
            }),
            _ => {
                process.kill();
                process = Node::start(FIRSTCOME, data.path(), &keys);
                clients.turn_to(std::slice::from_ref(&process.address));
            }
        }
    }
    eventually("what was given back is issued again", async || {
        clients.issued_again() > 0
    })
    .await;
    clients.end().await;
    let report = history.judge(&process.address).await;
    assert!(report.issuances > rounds, "there was hardly any load");
    assert!(report.uses > rounds, "hardly anything was used");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answered_issuance_is_lost_when_the_node_is_killed() {
    rounds_of_kills(None, 20).await;
}

/// The server commits durably. There are fewer rounds, because a server takes seconds to restart.
async fn no_answered_issuance_is_lost_when_node_and_server_are_killed(kind: ServerKind) {
    let server = Server::own(kind, &["--innodb-flush-log-at-trx-commit=1"]);
    rounds_of_kills(Some(&server), 6).await;
}

on_each_server! { no_answered_issuance_is_lost_when_node_and_server_are_killed }
