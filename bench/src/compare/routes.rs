//! The bare route, the door, an owner's refusal, and issuing on each store.

use std::fmt::Write as _;

use testkit::ids::CouponId;

use super::alone::Alone;
use super::children::Service;
use super::series::{Series, verdict};
use super::stores::StoreServer;
use super::{Bench, Measurement, expect, millis};
use crate::load::Failed;
use crate::load::arrivals::Pace;
use crate::load::drive::Run;
use testkit::servers::ServerKind;

/// The request of a row.
enum RowRequest {
    Bare,
    /// A coupon that the node's door knows to be sold out.
    Door(CouponId),
    /// A coupon that all requesting users have already, and the name of the run that gave it to them.
    Owner(CouponId, String),
    /// Issues a new coupon. Has the same store without a node, with which it is compared.
    Issue(Box<Alone>),
}

/// The target of a row, at 256 connections.
#[derive(Clone, Copy, Default)]
struct Target {
    /// Minimum share of the bare route's rate.
    share: Option<f64>,
    /// Maximum ratio of p99 to p50.
    spread: Option<f64>,
}

/// The target for answers of the door, which involve no actor and so cost little more than the bare route.
const DOOR: Target = Target {
    share: Some(0.85),
    spread: None,
};

/// Returns the target for issuing. It depends on the store, because each issuance is committed before it is
/// answered.
fn issuing(store: &StoreServer) -> Target {
    match store {
        StoreServer::Embedded => Target {
            share: Some(0.5),
            spread: None,
        },
        StoreServer::Server(server) if server.kind() == ServerKind::MySql => Target {
            share: Some(0.33),
            spread: Some(3.0),
        },
        StoreServer::Server(_) => Target::default(),
    }
}

/// A row with its results so far.
struct Row {
    name: String,
    request: RowRequest,
    target: Target,
    /// The index of the program that is measured.
    child: usize,
    rate: Series,
    ratio: Series,
    p50: Series,
    p99: Series,
    /// The ratio of p99 to p50.
    spread: Series,
}

/// Number of users who request the coupon again.
const OWNERS_USERS: u64 = 1_000;

pub(super) async fn table(bench: &Bench<'_>) -> Result<String, Failed> {
    let mut children = vec![bench.bare_route()?];
    let mut rows = vec![row("the bare route", RowRequest::Bare, Target::default(), 0)];
    let mut absent = Vec::new();
    for measured in &bench.stores {
        match &measured.store {
            Ok(store) => {
                let node = bench.node(&store.fresh(bench).await?)?;
                if children.len() == 1 {
                    rows.push(row(
                        "sold out, answered by the door",
                        RowRequest::Door(bench.sold_out(node.url()).await?),
                        DOOR,
                        1,
                    ));
                    let (coupon, name) = issued_coupon(bench, &node).await?;
                    rows.push(row(
                        "`ALREADY_ISSUED`, answered by the owner",
                        RowRequest::Owner(coupon, name),
                        Target::default(),
                        1,
                    ));
                }
                rows.push(row(
                    &format!("issued and committed, {}", measured.name),
                    RowRequest::Issue(Box::new(Alone::of(store, bench).await?)),
                    issuing(store),
                    children.len(),
                ));
                children.push(node);
            }
            Err(why) => absent.push(format!(
                "| {}: NOT MEASURED: {why} | – | – | – | – | – | – | – |",
                measured.name
            )),
        }
    }
    measure(bench, &children, &mut rows).await?;
    let mut text =
        "| answer | per second | of the bare route | of the store alone | target | p50 ms | p99 ms | p99 / p50 |\n|---|---|---|---|---|---|---|---|\n".to_owned();
    for row in &rows {
        write_row(&mut text, row);
    }
    for line in absent {
        let _ = writeln!(text, "{line}");
    }
    let _ = write!(
        text,
        "\nThe store alone: one connection stores the same rows in batches of the same size, without a node.{} {}",
        rows_of_batches(&rows),
        bench.settings()
    );
    Ok(text)
}

/// Returns how many rows the batches of each store have.
fn rows_of_batches(rows: &[Row]) -> String {
    let batches = rows.iter().filter_map(|row| match &row.request {
        RowRequest::Issue(alone) => Some(format!(" Rows a batch, {}: {}.", row.name, alone.rows.shown(1))),
        _ => None,
    });
    batches.collect()
}

/// Measures all rows in turn, in several rounds.
async fn measure(bench: &Bench<'_>, children: &[Service], rows: &mut [Row]) -> Result<(), Failed> {
    for _ in 0..bench.flags.rounds {
        let mut bare = f64::NAN;
        for row in &mut *rows {
            let run = measure_row(bench, &children[row.child], &mut row.request)
                .await
                .map_err(|error| format!("{}: {error}", row.name))?;
            if matches!(row.request, RowRequest::Bare) {
                bare = run.rate();
            }
            row.rate.add(run.rate());
            row.ratio.add(run.rate() / bare);
            row.p50.add(millis(run.percentile(50.0)));
            row.p99.add(millis(run.percentile(99.0)));
            row.spread
                .add(millis(run.percentile(99.0)) / millis(run.percentile(50.0)));
        }
    }
    Ok(())
}

/// Writes a row of the table.
fn write_row(text: &mut String, row: &Row) {
    let (rate, ratio, p50, p99) = (
        row.rate.shown(0),
        row.ratio.shown(2),
        row.p50.shown(1),
        row.p99.shown(1),
    );
    let share = row.target.share.map_or("–".to_owned(), |share| {
        format!("≥ {share}: {}", verdict(row.ratio.median() >= share))
    });
    let of_store = match &row.request {
        RowRequest::Issue(alone) => alone.share.shown(2),
        _ => "–".to_owned(),
    };
    let limit = row.target.spread.map_or(String::new(), |spread| {
        format!(", ≤ {spread}: {}", verdict(row.spread.median() <= spread))
    });
    let _ = writeln!(
        text,
        "| {} | {rate} | {ratio} | {of_store} | {share} | {p50} | {p99} | {}{limit} |",
        row.name,
        row.spread.shown(1)
    );
    if let RowRequest::Issue(alone) = &row.request {
        let _ = writeln!(
            text,
            "| {}: the store alone | {} | – | 1.00 | – | – | – | – |",
            row.name,
            alone.rate.shown(0)
        );
    }
}

fn row(name: &str, request: RowRequest, target: Target, child: usize) -> Row {
    let [rate, ratio, p50, p99, spread] = Default::default();
    Row {
        name: name.to_owned(),
        request,
        target,
        child,
        rate,
        ratio,
        p50,
        p99,
        spread,
    }
}

async fn measure_row(bench: &Bench<'_>, child: &Service, request: &mut RowRequest) -> Result<Run, Failed> {
    let name = Bench::name();
    let (coupon, users, name, expected) = match request {
        RowRequest::Issue(alone) => return alone.beside(bench, child, bench.connections()).await,
        RowRequest::Bare => (CouponId::new(1).ok_or("no id")?, None, &name, "issued"),
        RowRequest::Door(coupon) => (*coupon, None, &name, "SOLD_OUT"),
        RowRequest::Owner(coupon, name) => (*coupon, Some(OWNERS_USERS), &*name, "ALREADY_ISSUED"),
    };
    let before = if expected == "issued" {
        0.0
    } else {
        child.door_answers().await?
    };
    let measurement = Measurement {
        urls: vec![child.url()],
        coupons: vec![coupon],
        users,
        name,
        pace: Pace::Closed,
        connections: bench.connections(),
    };
    let run = bench.measure(measurement).await?;
    expect(&run, expected)?;
    if expected != "issued" {
        let by_door = child.door_answers().await? - before;
        let share = by_door / (run.tally.ended() + run.tally.warm_up) as f64;
        if (expected == "SOLD_OUT" && share < 0.95) || (expected == "ALREADY_ISSUED" && share > 0.0) {
            return Err(format!("the door answered a share of {share:.2}").into());
        }
    }
    Ok(run)
}

/// Makes a coupon and issues it to users. Returns the coupon, and the name of the run, which is in the users'
/// ids.
async fn issued_coupon(bench: &Bench<'_>, node: &Service) -> Result<(CouponId, String), Failed> {
    let coupon = bench.make_one(node.url(), None).await?;
    let name = Bench::name();
    let measurement = Measurement {
        urls: vec![node.url()],
        coupons: vec![coupon],
        users: Some(OWNERS_USERS),
        name: &name,
        pace: Pace::Closed,
        connections: 64,
    };
    let run = bench.send(measurement, OWNERS_USERS).await?;
    expect(&run, "issued")?;
    Ok((coupon, name))
}
