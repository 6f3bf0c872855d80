//! What the nodes of a cluster log: a line for a move of many shards, and names of nodes.

use testkit::on_each_server;
use testkit::servers::{Server, ServerKind};

use crate::stage::Stage;

/// Maximum number of lines for one move. It is one line, unless the move takes longer on a busy machine than
/// a line is held to count further shards.
const LINES_MAX: usize = 4;

/// Returns the lines above level debug.
fn lines(log: &str) -> Vec<&str> {
    log.lines().filter(|line| !line.contains(" DEBUG ")).collect()
}

/// Returns the sum of the counts in the lines with this text about this peer.
fn sum(log: &str, text: &str, peer: &str) -> u64 {
    let peer = format!("peer=\"{peer}\"");
    let counts: Vec<u64> = lines(log)
        .into_iter()
        .filter(|line| line.contains(text) && line.contains(&peer))
        .map(|line| {
            let (_, count) = line.split_once(" count=").expect(line);
            count.split(' ').next().unwrap().parse().expect(line)
        })
        .collect();
    assert!(counts.len() <= LINES_MAX, "{log}");
    counts.iter().sum()
}

async fn a_move_of_many_shards_is_logged_in_a_line_with_the_name_of_the_peer(kind: ServerKind) {
    let server = Server::shared(kind);
    let mut stage = Stage::unstarted(server, 2, &[], false).await;
    stage.start(&[0]);
    stage.settled().await;
    stage.start(&[1]);
    stage.settled().await;
    stage.stop(1);
    stage.settled().await;
    stage.stop(0);
    let logs = [stage.members[0].log(), stage.members[1].log()];
    // The second node gets its share, and gives it back when it stops.
    let share = sum(&logs[0], "handed shards off", "node-2");
    assert!((64..=192).contains(&share), "{share} shards\n{}", logs[0]);
    assert_eq!(sum(&logs[1], "handed shards off", "node-1"), share, "{}", logs[1]);
    assert!(sum(&logs[0], "received shards", "node-2") > 0, "{}", logs[0]);
    assert!(sum(&logs[1], "received shards", "node-1") > 0, "{}", logs[1]);
    for (log, peer) in [(&logs[0], "node-2"), (&logs[1], "node-1")] {
        let shown = lines(log).join("\n");
        assert!(shown.contains(&format!("linked peer=\"{peer}\"")), "{shown}");
        assert!(!shown.contains("ractor"), "{shown}");
        assert!(lines(log).len() < 40, "{shown}");
    }
}

on_each_server! { a_move_of_many_shards_is_logged_in_a_line_with_the_name_of_the_peer }
