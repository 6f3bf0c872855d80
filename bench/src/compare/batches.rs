//! How batches grow with load: for each number of connections, the rows of a batch and the time of a commit,
//! from the node's metrics.

use std::fmt::Write as _;

use actors::metrics::COMMIT_SECONDS;

use super::alone::Alone;
use super::series::{Series, verdict};
use super::stores::StoreServer;
use super::{Bench, millis, prometheus};
use crate::load::Failed;

/// One connection measures a single commit, with which the others are compared.
const CONNECTIONS: [usize; 5] = [1, 16, 64, 256, 1_024];
/// The target: with this many connections (first), the median latency may be at most this many single commits
/// (second). A request waits for the commit in progress and for its own commit.
const FEW: (usize, f64) = (16, 2.5);

struct Row {
    rate: Series,
    p50: Series,
    p99: Series,
    commit: Series,
    lone: Series,
    alone: Alone,
}

pub(super) async fn table(bench: &Bench<'_>) -> Result<String, Failed> {
    let mut text = "| store | connections | issued per second | p50 ms | p99 ms | rows a batch | commit ms | p50 in single commits | the store alone, per second | of the store alone |\n\
                    |---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let mut targets = String::new();
    for measured in bench.servers() {
        let server = match &measured.store {
            Ok(server) => server,
            Err(why) => {
                let _ = writeln!(
                    text,
                    "| {}: NOT MEASURED: {why} | – | – | – | – | – | – | – | – | – |",
                    measured.name
                );
                continue;
            }
        };
        let rows = measure(bench, server).await?;
        for (connections, row) in CONNECTIONS.into_iter().zip(&rows) {
            let Row {
                rate,
                p50,
                p99,
                commit,
                lone,
                alone,
            } = row;
            let (rate, rows, commit, lone_shown) =
                (rate.shown(0), alone.rows.shown(1), commit.shown(1), lone.shown(1));
            let (p50, p99) = (p50.shown(1), p99.shown(1));
            let _ = writeln!(
                text,
                "| {} | {connections} | {rate} | {p50} | {p99} | {rows} | {commit} | {lone_shown} | {} | {} |",
                measured.name,
                alone.rate.shown(0),
                alone.share.shown(2)
            );
            if connections == FEW.0 {
                let _ = write!(
                    targets,
                    " {}: {:.1}, {}.",
                    measured.name,
                    lone.median(),
                    verdict(lone.median() <= FEW.1)
                );
            }
        }
    }
    let _ = write!(
        text,
        "\nTarget: at {} connections a median of at most {} single commits.{targets} The store alone: one connection stores the same rows in batches of the \
         same size, without a node. {}",
        FEW.0,
        FEW.1,
        bench.settings()
    );
    Ok(text)
}

/// Starts a node on a new database, and measures it with each number of connections in turn, round after
/// round.
async fn measure(bench: &Bench<'_>, server: &StoreServer) -> Result<Vec<Row>, Failed> {
    let node = bench.node(&server.fresh(bench).await?)?;
    let mut rows = Vec::new();
    for _ in CONNECTIONS {
        let [rate, p50, p99, commit, lone] = Default::default();
        let alone = Alone::of(server, bench).await?;
        rows.push(Row {
            rate,
            p50,
            p99,
            commit,
            lone,
            alone,
        });
    }
    for _ in 0..bench.flags.rounds {
        let mut lone = f64::NAN;
        for (connections, row) in CONNECTIONS.into_iter().zip(&mut rows) {
            let before = node.metrics().await?;
            let run = row.alone.beside(bench, &node, connections).await?;
            let after = node.metrics().await?;
            let p50 = millis(run.percentile(50.0));
            if connections == 1 {
                lone = p50;
            }
            row.rate.add(run.rate());
            row.p50.add(p50);
            row.p99.add(millis(run.percentile(99.0)));
            row.commit.add(
                1_000.0
                    * prometheus::mean(&before, &after, COMMIT_SECONDS).ok_or("the node timed no commit")?,
            );
            row.lone.add(p50 / lone);
        }
    }
    Ok(rows)
}
