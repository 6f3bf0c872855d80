//! The bare route, the door, an owner's refusal, and issuing on each store.

use std::fmt::Write as _;

use testkit::ids::CouponId;

use super::children::Service;
use super::series::{Series, verdict};
use super::stores::StoreServer;
use super::{Asked, Bench, expect, millis};
use crate::load::Failed;
use crate::load::arrivals::Pace;
use crate::load::drive::Run;
use testkit::servers::Kind;

/// What a row asks.
enum Question {
    Bare,
    /// A sold-out coupon; the node's door knows.
    Door(CouponId),
    /// A coupon that every asker has already.
    Owner(CouponId, String),
    Issue,
}

/// What a row must reach, at 256 connections.
#[derive(Clone, Copy, Default)]
struct Target {
    /// This share of the bare route's rate.
    share: Option<f64>,
    /// A p99 of at most so many times its p50.
    spread: Option<f64>,
}

/// For what the door answers: no actor is asked, and so little may come on top of the route.
const DOOR: Target = Target {
    share: Some(0.85),
    spread: None,
};

/// For what is issued and committed there.
fn issuing(store: &StoreServer) -> Target {
    match store {
        StoreServer::Embedded => Target {
            share: Some(0.5),
            spread: None,
        },
        StoreServer::Server(server) if server.kind() == Kind::MySql => Target {
            share: Some(0.33),
            spread: Some(3.0),
        },
        StoreServer::Server(_) => Target::default(),
    }
}

/// A row, and what came of it so far.
struct Row {
    name: String,
    question: Question,
    target: Target,
    /// Which of the programs.
    child: usize,
    rate: Series,
    ratio: Series,
    p50: Series,
    p99: Series,
    /// p99 in p50s.
    spread: Series,
}

/// How many different users ask for what they have already.
const OWNERS_USERS: u64 = 1_000;

pub(super) async fn table(bench: &Bench<'_>) -> Result<String, Failed> {
    let mut children = vec![bench.bare_route()?];
    let mut rows = vec![row("the bare route", Question::Bare, Target::default(), 0)];
    let mut absent = Vec::new();
    for stocked in &bench.stores {
        match &stocked.store {
            Ok(store) => {
                let node = bench.node(&store.fresh(bench).await?)?;
                if children.len() == 1 {
                    rows.push(row(
                        "sold out, answered by the door",
                        Question::Door(bench.sold_out(node.url()).await?),
                        DOOR,
                        1,
                    ));
                    let (coupon, name) = given(bench, &node).await?;
                    rows.push(row(
                        "`ALREADY_ISSUED`, answered by the owner",
                        Question::Owner(coupon, name),
                        Target::default(),
                        1,
                    ));
                }
                rows.push(row(
                    &format!("issued and committed, {}", stocked.name),
                    Question::Issue,
                    issuing(store),
                    children.len(),
                ));
                children.push(node);
            }
            Err(why) => absent.push(format!(
                "| {}: NOT MEASURED: {why} | – | – | – | – | – | – |",
                stocked.name
            )),
        }
    }
    for _ in 0..bench.flags.rounds {
        let mut bare = f64::NAN;
        for row in &mut rows {
            let run = ask(bench, &children[row.child], &row.question)
                .await
                .map_err(|error| format!("{}: {error}", row.name))?;
            if matches!(row.question, Question::Bare) {
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
    let mut text =
        "| answer | per second | of the bare route | target | p50 ms | p99 ms | p99 / p50 |\n|---|---|---|---|---|---|---|\n".to_owned();
    for row in &rows {
        let (rate, ratio, p50, p99) = (
            row.rate.shown(0),
            row.ratio.shown(2),
            row.p50.shown(1),
            row.p99.shown(1),
        );
        let share = row.target.share.map_or("–".to_owned(), |share| {
            format!("≥ {share}: {}", verdict(row.ratio.median() >= share))
        });
        let limit = row.target.spread.map_or(String::new(), |spread| {
            format!(", ≤ {spread}: {}", verdict(row.spread.median() <= spread))
        });
        let _ = writeln!(
            text,
            "| {} | {rate} | {ratio} | {share} | {p50} | {p99} | {}{limit} |",
            row.name,
            row.spread.shown(1)
        );
    }
    for line in absent {
        let _ = writeln!(text, "{line}");
    }
    let _ = write!(text, "\n{}", bench.settings());
    Ok(text)
}

fn row(name: &str, question: Question, target: Target, child: usize) -> Row {
    let [rate, ratio, p50, p99, spread] = Default::default();
    Row {
        name: name.to_owned(),
        question,
        target,
        child,
        rate,
        ratio,
        p50,
        p99,
        spread,
    }
}

async fn ask(bench: &Bench<'_>, child: &Service, question: &Question) -> Result<Run, Failed> {
    let name = Bench::name();
    let (coupon, users, name, expected) = match question {
        Question::Issue => return bench.issue(child, 1, Pace::Closed, bench.connections()).await,
        Question::Bare => (CouponId::new(1).ok_or("no id")?, None, &name, "issued"),
        Question::Door(coupon) => (*coupon, None, &name, "SOLD_OUT"),
        Question::Owner(coupon, name) => (*coupon, Some(OWNERS_USERS), name, "ALREADY_ISSUED"),
    };
    let before = if expected == "issued" {
        0.0
    } else {
        child.door_answers().await?
    };
    let asked = Asked {
        urls: vec![child.url()],
        coupons: vec![coupon],
        users,
        name,
        pace: Pace::Closed,
        connections: bench.connections(),
    };
    let run = bench.measure(asked).await?;
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

/// A coupon that the users of this name have.
async fn given(bench: &Bench<'_>, node: &Service) -> Result<(CouponId, String), Failed> {
    let coupon = bench.make_one(node.url(), None).await?;
    let name = Bench::name();
    let asked = Asked {
        urls: vec![node.url()],
        coupons: vec![coupon],
        users: Some(OWNERS_USERS),
        name: &name,
        pace: Pace::Closed,
        connections: 64,
    };
    let run = bench.send(asked, OWNERS_USERS).await?;
    expect(&run, "issued")?;
    Ok((coupon, name))
}
