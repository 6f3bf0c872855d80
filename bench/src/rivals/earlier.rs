//! The load shapes with which earlier systems of this kind were tested, against every contender: ramps of
//! virtual users who think between two requests, a burst without thinking, and fixed numbers of requests.
//!
//! Times are divided by `--shorten`, and so are the quantities of the two long ramps, so that as large a part
//! of these coupons is asked for as in the original; users and thinking stay. `--scale` multiplies users,
//! quantities and requests of all shapes.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Bench;
use super::contender::{Contender, Running};
use super::measure::{self, Coupons, Demand, Judged, judge_plan};
use super::order::{self, Order};
use super::verdict::Verdict;
use crate::compare::series::Series;
use crate::load::Failed;
use crate::load::arrivals::Bounds;
use crate::load::crowd::{Crowd, Users};
use crate::load::drive::Plan;
use crate::load::virtual_users::{Stage, VirtualUsers};

/// Users from whom the ramp and the burst draw.
const MANY_USERS: u64 = 10_000_000;
/// How long a shape with a number of requests may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A load shape.
#[derive(Debug, Clone)]
struct Shape {
    title: String,
    coupons: u64,
    /// The quantity of each coupon.
    quantity: u64,
    connections: usize,
    virtual_users: VirtualUsers,
    users: Users,
    bounds: Bounds,
}

/// How much smaller shapes are than the originals.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// Divides times, and the quantities of the two long ramps.
    pub(super) shorten: f64,
    /// Multiplies users, quantities and requests.
    pub(super) scale: f64,
}

impl Size {
    fn time(self, seconds: u64) -> Duration {
        Duration::from_secs(seconds).div_f64(self.shorten)
    }

    /// Returns a number of users or requests, at least one.
    fn number(self, original: u64) -> u64 {
        ((original as f64 * self.scale).round() as u64).max(1)
    }

    fn users(self, original: u64) -> usize {
        usize::try_from(self.number(original)).unwrap_or(usize::MAX)
    }

    /// Returns the quantity of a long ramp.
    fn quantity(self, original: u64) -> u64 {
        ((original as f64 * self.scale / self.shorten).round() as u64).max(1)
    }

    /// Returns all shapes.
    fn shapes(self) -> Vec<Shape> {
        vec![
            self.ramp(50_000),
            self.ramp(100_000),
            self.sale(),
            self.burst(),
            self.requests(40, 40, 30),
            self.requests(1_000, 10, 1_000),
            self.requests(10_000, 30, 10_000),
        ]
    }

    /// Up to 2,000 users within 10 s, held for 80 s, with one second of thinking, for one coupon.
    fn ramp(self, quantity: u64) -> Shape {
        let (users, quantity) = (self.users(2_000), self.quantity(quantity));
        let (growing, held) = (self.time(10), self.time(80));
        let second = Duration::from_secs(1);
        Shape {
            title: format!(
                "{users} users within {growing:.1?}, held for {held:.1?}, 1 s of thinking; one coupon of {quantity}"
            ),
            coupons: 1,
            quantity,
            connections: users,
            virtual_users: VirtualUsers {
                ramp: vec![Stage {
                    duration: growing,
                    users,
                }],
                thinking: (second, second),
            },
            users: Users::Drawn(MANY_USERS),
            bounds: Bounds {
                duration: Some(growing + held),
                requests: None,
            },
        }
    }

    /// 100, 300 and 500 users with half a second to one and a half of thinking, for five coupons of 30.
    fn sale(self) -> Shape {
        let quantity = self.number(30);
        let stages = [(10, 100), (20, 300), (20, 500)];
        let ramp: Vec<Stage> = stages
            .into_iter()
            .map(|(seconds, users)| Stage {
                duration: self.time(seconds),
                users: self.users(users),
            })
            .collect();
        let virtual_users = VirtualUsers {
            ramp,
            thinking: (Duration::from_millis(500), Duration::from_millis(1_500)),
        };
        let (duration, users) = (virtual_users.duration(), self.number(500));
        let stages: Vec<String> = virtual_users
            .ramp
            .iter()
            .map(|stage| stage.users.to_string())
            .collect();
        let stages = stages.join(", ");
        Shape {
            title: format!(
                "ramp to {stages} users within {duration:.1?}, 0.5 s to 1.5 s of thinking; five coupons of {quantity}; users drawn from {users}"
            ),
            coupons: 5,
            quantity,
            connections: self.users(500),
            virtual_users,
            users: Users::Drawn(users),
            bounds: Bounds {
                duration: Some(duration),
                requests: None,
            },
        }
    }

    /// 5,000 users without thinking, for one coupon of 500.
    fn burst(self) -> Shape {
        let (users, duration, quantity) = (self.users(5_000), self.time(30), self.number(500));
        Shape {
            title: format!("{users} users at once for {duration:.1?}, no thinking; one coupon of {quantity}"),
            coupons: 1,
            quantity,
            connections: users,
            virtual_users: VirtualUsers::default(),
            users: Users::Drawn(MANY_USERS),
            bounds: Bounds {
                duration: Some(duration),
                requests: None,
            },
        }
    }

    /// This many requests over so many connections, each of a new user, for one coupon.
    fn requests(self, requests: u64, connections: u64, quantity: u64) -> Shape {
        let (requests, quantity) = (self.number(requests), self.number(quantity));
        let connections = connections.min(requests);
        Shape {
            title: format!("{requests} requests over {connections} connections; one coupon of {quantity}"),
            coupons: 1,
            quantity,
            connections: usize::try_from(connections).unwrap_or(usize::MAX),
            virtual_users: VirtualUsers::default(),
            users: Users::New,
            bounds: Bounds {
                duration: Some(LIMIT),
                requests: Some(requests),
            },
        }
    }
}

impl Shape {
    fn plan(&self) -> Plan {
        let plan = measure::plan(Demand {
            connections: self.connections,
            bounds: self.bounds,
            repeats_ppm: 0,
        });
        Plan {
            virtual_users: self.virtual_users.clone(),
            crowd: Crowd {
                users: self.users,
                ..plan.crowd
            },
            ..plan
        }
    }

    /// Sends the load, and judges it.
    async fn judged(&self, running: &mut Running<'_>, bench: &Bench<'_>) -> Result<Judged, Failed> {
        let coupons = Coupons {
            count: self.coupons,
            quantity: Some(self.quantity),
        };
        judge_plan(running, coupons, self.plan(), bench.scratch).await
    }
}

/// The results of one contender with one shape.
#[derive(Debug, Default)]
struct Row {
    issued: Series,
    answers_per_second: Series,
    p50_ms: Series,
    p95_ms: Series,
    p99_ms: Series,
    failures: u64,
    requests: u64,
    verdict: Verdict,
    order: Order,
}

impl Row {
    fn add(&mut self, judged: &Judged) {
        let millis = |percent| judged.run.percentile(percent).as_secs_f64() * 1_000.0;
        self.issued.add(judged.report.issuances as f64);
        self.answers_per_second.add(judged.run.rate());
        self.p50_ms.add(millis(50.0));
        self.p95_ms.add(millis(95.0));
        self.p99_ms.add(millis(99.0));
        self.failures += judged.run.tally.errors();
        self.requests += judged.run.tally.ended();
        self.verdict = self.verdict.worse(judged.verdict);
        self.order = self.order.and(judged.order);
    }

    fn cells(&self) -> String {
        format!(
            "{} | {} | {} | {} | {} | {} of {} | {} | {}",
            self.issued.shown(0),
            self.answers_per_second.shown(0),
            self.p50_ms.shown(1),
            self.p95_ms.shown(1),
            self.p99_ms.shown(1),
            self.failures,
            self.requests,
            self.verdict.shown(),
            self.order.shown()
        )
    }

    fn json(&self, name: &str) -> Value {
        json!({
            "name": name,
            "issued": self.issued.median(),
            "answers_per_second": self.answers_per_second.median(),
            "p50_ms": self.p50_ms.median(),
            "p95_ms": self.p95_ms.median(),
            "p99_ms": self.p99_ms.median(),
            "failures": self.failures,
            "requests": self.requests,
            "verdict": self.verdict,
            "order": self.order,
        })
    }
}

/// Measures every shape, and returns a table for each and the figures.
pub(super) async fn measured(
    bench: &Bench<'_>,
    contenders: &[Contender],
    size: Size,
) -> Result<(String, Value), Failed> {
    let shapes = size.shapes();
    let mut rows: Vec<Vec<Row>> = Vec::new();
    for _ in &shapes {
        rows.push(contenders.iter().map(|_| Row::default()).collect());
    }
    bench
        .each_round(contenders, async |running, place| {
            for (shape, rows) in shapes.iter().zip(&mut rows) {
                rows[place].add(&shape.judged(running, bench).await?);
            }
            Ok(())
        })
        .await?;
    let (mut text, mut values) = (String::new(), Map::new());
    for (shape, rows) in shapes.iter().zip(&rows) {
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "#### {}\n\n| way to issue | issued | answers/s | p50 ms | p95 ms | p99 ms | failures | verdict | out of order |\n\
             |---|---|---|---|---|---|---|---|---|",
            shape.title
        );
        let mut figures = Vec::new();
        for (contender, row) in contenders.iter().zip(rows) {
            let _ = writeln!(text, "| {} | {} |", contender.name(), row.cells());
            figures.push(row.json(&contender.name()));
        }
        text.push('\n');
        values.insert(shape.title.clone(), figures.into());
    }
    let _ = write!(
        text,
        "Times, and the quantities of the two long ramps, are those of the originals divided by {}; users, \
         requests and quantities are multiplied by {}. Failures are requests without an answer or with a \
         status of 500 or more; refusals are answers. {}",
        size.shorten,
        size.scale,
        order::note()
    );
    Ok((text, values.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_the_sizes_of_the_originals_divided_by_the_factor() {
        let original = Size {
            shorten: 1.0,
            scale: 1.0,
        };
        let ramp = original.ramp(50_000);
        assert_eq!((ramp.quantity, ramp.connections), (50_000, 2_000));
        assert_eq!(ramp.bounds.duration, Some(Duration::from_secs(90)));
        let shorter = Size {
            shorten: 10.0,
            scale: 0.5,
        };
        let ramp = shorter.ramp(50_000);
        assert_eq!((ramp.quantity, ramp.connections), (2_500, 1_000));
        assert_eq!(ramp.bounds.duration, Some(Duration::from_secs(9)));
        assert_eq!(
            ramp.virtual_users.start_delay(999),
            Some(Duration::from_millis(999))
        );
        assert_eq!(ramp.virtual_users.start_delay(1_000), None);
        let sale = shorter.sale();
        assert_eq!((sale.coupons, sale.quantity, sale.connections), (5, 15, 250));
        assert_eq!(sale.bounds.duration, Some(Duration::from_secs(5)));
        let least = Size {
            shorten: 1_000.0,
            scale: 0.001,
        };
        assert!(
            least
                .shapes()
                .iter()
                .all(|shape| shape.quantity > 0 && shape.connections > 0)
        );
    }
}
