//! Compares uses with issuing: redeeming at once, and reserving followed by redeeming, on coupons of the same
//! size.
//!
//! Each row has a coupon that is filled before the node starts, because a use needs an issuance of its own.
//! The loop here is simpler than that of the load tool: a fixed number of requests, all of which must have
//! the expected status. Issuing is measured with the same loop.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use testkit::ids::CouponId;
use testkit::servers::ServerKind;
use tokio::task::LocalSet;

use super::children::{ADMIN_TOKEN, Service, processor_time};
use super::filled::filled_coupons;
use super::series::{Series, verdict};
use super::stores::StoreServer;
use super::{ANSWER_LIMIT, Bench, millis, processors};
use crate::load::Failed;
use crate::load::connection::{Connection, Target};
use crate::load::flags::target;
use crate::load::scheduling;
use crate::load::tally::histogram;

/// Maximum number of issuances of each coupon, which are all used.
const ISSUED_MAX: u64 = 100_000;
/// Share of the customers that are served before the measurement, until caches and the rate are steady.
const WARM_UP: f64 = 0.1;
/// Distance between the sequences of two successive customers, so that issuances are not used in their order.
/// It is a prime, so that each customer gets another issuance.
const STRIDE: u64 = 65_537;

/// What each customer of a row sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Customer {
    Issues,
    Redeems,
    ReservesAndRedeems,
}

impl Customer {
    const ALL: [Self; 3] = [Self::Issues, Self::Redeems, Self::ReservesAndRedeems];

    const fn name(self) -> &'static str {
        match self {
            Self::Issues => "issued",
            Self::Redeems => "redeemed at once",
            Self::ReservesAndRedeems => "reserved and redeemed",
        }
    }

    /// The target on MySQL: the rate of customers, as a share of the rate of issuing.
    const fn share(self) -> Option<f64> {
        match self {
            Self::Issues => None,
            Self::Redeems => Some(0.7),
            Self::ReservesAndRedeems => Some(0.35),
        }
    }

    /// The requests of a customer, each with the status of its answer.
    const fn requests(self) -> &'static [(Request, u16)] {
        match self {
            Self::Issues => &[(Request::Issue, 201)],
            Self::Redeems => &[(Request::Step("redeem"), 200)],
            Self::ReservesAndRedeems => &[(Request::Step("reserve"), 200), (Request::Step("redeem"), 200)],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Issue,
    /// A step with an issuance. Its name is in the path.
    Step(&'static str),
}

impl Request {
    /// Writes the request of the customer with this number.
    fn write(self, work: &Work, number: u64, out: &mut Vec<u8>) {
        out.clear();
        let (coupon, host, name) = (work.coupon, &work.target.host, &work.name);
        // Writing to a Vec does not fail.
        let _ = match self {
            Self::Issue => {
                // Real ids are not in order.
                let user = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                write!(
                    out,
                    "POST /v1/coupons/{coupon}/issuances HTTP/1.1\r\nHost: {host}\r\nX-User-Id: {user:016x}.{name}\r\n\
                     Idempotency-Key: {number:016x}.{name}\r\nContent-Length: 0\r\n\r\n"
                )
            }
            Self::Step(step) => {
                let sequence = number * STRIDE % work.issued + 1;
                let body = format!("{{\"order_id\":\"{name}-{number}\",\"order_amount\":10000}}");
                write!(
                    out,
                    "POST /v1/issuances/{coupon}-{sequence}/{step} HTTP/1.1\r\nHost: {host}\r\n\
                     Authorization: Bearer {ADMIN_TOKEN}\r\nContent-Type: application/json\r\n\
                     Content-Length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
        };
    }
}

/// The work that all connections of a measurement share.
struct Work {
    target: Target,
    coupon: CouponId,
    /// Number of issuances of the coupon, and of customers.
    issued: u64,
    customer: Customer,
    name: String,
    next: AtomicU64,
}

/// What was measured after the warm-up.
struct Measured {
    customers: u64,
    took: Duration,
    p50: Duration,
    p99: Duration,
    /// Processor time of the node for a customer, warm-up included.
    processor: Duration,
}

/// A row with its results so far.
#[derive(Default)]
struct Row {
    rate: Series,
    share: Series,
    p50: Series,
    p99: Series,
    processor: Series,
}

pub(super) async fn table(bench: &Bench<'_>) -> Result<String, Failed> {
    let mut text = "| store | each customer | customers per second | of issuing | target | p50 ms | p99 ms | processor time of the node, µs |\n\
                    |---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for measured in &bench.stores {
        match &measured.store {
            Ok(server) => write_rows(bench, &measured.name, server, &mut text).await?,
            Err(why) => {
                let _ = writeln!(
                    text,
                    "| {}: NOT MEASURED: {why} | – | – | – | – | – | – | – |",
                    measured.name
                );
            }
        }
    }
    let _ = write!(
        text,
        "\nEach row has coupons of its own with {} issued, one a round. p50 and p99 are of single requests.\n\n{}",
        issued(bench),
        bench.settings()
    );
    Ok(text)
}

/// Returns the number of issuances of each coupon.
fn issued(bench: &Bench<'_>) -> u64 {
    bench.flags.issued.min(ISSUED_MAX)
}

/// Measures the rows of one store.
async fn write_rows(
    bench: &Bench<'_>,
    name: &str,
    server: &StoreServer,
    text: &mut String,
) -> Result<(), Failed> {
    let url = server.fresh(bench).await?;
    let count = Customer::ALL.len() * usize::from(bench.flags.rounds);
    let coupons = filled_coupons(&url, count, issued(bench)).await?;
    let node = bench.node(&url)?;
    let mut rows: [Row; 3] = Default::default();
    for round in coupons.chunks_exact(Customer::ALL.len()) {
        let mut issuing = f64::NAN;
        for ((customer, row), coupon) in Customer::ALL.into_iter().zip(&mut rows).zip(round) {
            node.issues(*coupon).await?;
            let measured = measure(bench, &node, customer, *coupon).await?;
            let rate = measured.customers as f64 / measured.took.as_secs_f64();
            if customer == Customer::Issues {
                issuing = rate;
            }
            row.rate.add(rate);
            row.share.add(rate / issuing);
            row.p50.add(millis(measured.p50));
            row.p99.add(millis(measured.p99));
            row.processor.add(1_000.0 * millis(measured.processor));
        }
    }
    for (customer, row) in Customer::ALL.into_iter().zip(&rows) {
        let is_target = matches!(server, StoreServer::Server(server) if server.kind() == ServerKind::MySql);
        let target = customer
            .share()
            .filter(|_| is_target)
            .map_or("–".to_owned(), |share| {
                format!("≥ {share}: {}", verdict(row.share.median() >= share))
            });
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {target} | {} | {} | {} |",
            customer.name(),
            row.rate.shown(0),
            row.share.shown(2),
            row.p50.shown(1),
            row.p99.shown(1),
            row.processor.shown(1)
        );
    }
    Ok(())
}

/// Serves as many customers as the coupon has issuances.
async fn measure(
    bench: &Bench<'_>,
    node: &Service,
    customer: Customer,
    coupon: CouponId,
) -> Result<Measured, Failed> {
    let work = Arc::new(Work {
        target: target(node.url())?,
        coupon,
        issued: issued(bench),
        customer,
        name: Bench::name(),
        next: AtomicU64::new(0),
    });
    let used = processor_time(node.process_id())?;
    let (threads, connections) = (processors(), bench.connections());
    let running: Vec<_> = (0..threads)
        .map(|thread| {
            let (work, connections) = (Arc::clone(&work), (thread..connections).step_by(threads).count());
            std::thread::spawn(move || serve_on_thread(&work, connections))
        })
        .collect();
    let ended = tokio::task::spawn_blocking(move || {
        let joined = running.into_iter().map(std::thread::JoinHandle::join);
        joined.collect::<Result<Vec<_>, _>>()
    });
    let ended = ended.await?.map_err(|_| "a thread of the load panicked")?;
    let used = processor_time(node.process_id())? - used;
    let (mut latency, mut begun, mut last) = (histogram(), None::<Instant>, None::<Instant>);
    for result in ended {
        for served in result? {
            latency.record(u64::try_from(served.took.as_micros()).unwrap_or(u64::MAX))?;
            begun = Some(begun.map_or(served.begun, |begun| begun.min(served.begun)));
            last = last.max(Some(served.begun + served.took));
        }
    }
    let took = begun.zip(last).map(|(begun, last)| last - begun);
    let requests = customer.requests().len() as u64;
    Ok(Measured {
        customers: latency.len() / requests,
        took: took.ok_or("nothing was measured")?,
        p50: Duration::from_micros(latency.value_at_percentile(50.0)),
        p99: Duration::from_micros(latency.value_at_percentile(99.0)),
        processor: used / u32::try_from(work.issued)?,
    })
}

/// A request after the warm-up.
struct Served {
    begun: Instant,
    took: Duration,
}

/// Serves customers over this many connections until there are no more.
fn serve_on_thread(work: &Arc<Work>, connections: usize) -> Result<Vec<Served>, Failed> {
    scheduling::give_way();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        let serving: Vec<_> = (0..connections)
            .map(|_| tokio::task::spawn_local(serve(Arc::clone(work))))
            .collect();
        let mut served = Vec::new();
        for connection in serving {
            served.extend(connection.await??);
        }
        Ok(served)
    }))
}

/// Serves customers over one connection until there are no more.
async fn serve(work: Arc<Work>) -> Result<Vec<Served>, Failed> {
    let mut connection = Connection::new(work.target.clone(), ANSWER_LIMIT);
    let (mut request, mut served) = (Vec::with_capacity(512), Vec::new());
    let warm = (work.issued as f64 * WARM_UP) as u64;
    loop {
        let number = work.next.fetch_add(1, Ordering::Relaxed);
        if number >= work.issued {
            return Ok(served);
        }
        for (asked, status) in work.customer.requests() {
            connection.connect().await?;
            asked.write(&work, number, &mut request);
            let begun = Instant::now();
            let response = connection.exchange(&request).await?;
            let took = begun.elapsed();
            if response.status != *status {
                let body = String::from_utf8_lossy(connection.body(&response)).into_owned();
                return Err(
                    format!("{}: {asked:?}: {} {body}", work.customer.name(), response.status).into(),
                );
            }
            if number >= warm {
                served.push(Served { begun, took });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_customer_uses_another_issuance() {
        let work = Work {
            target: target("http://127.0.0.1:1").unwrap(),
            coupon: CouponId::new(7).unwrap(),
            issued: ISSUED_MAX,
            customer: Customer::Redeems,
            name: "run".to_owned(),
            next: AtomicU64::new(0),
        };
        let (mut request, mut seen) = (Vec::new(), HashSet::new());
        for number in 0..work.issued {
            Request::Step("redeem").write(&work, number, &mut request);
            let text = std::str::from_utf8(&request).unwrap();
            let sequence: u64 = text
                .strip_prefix("POST /v1/issuances/7-")
                .and_then(|rest| rest.split('/').next()?.parse().ok())
                .unwrap();
            assert!((1..=work.issued).contains(&sequence) && seen.insert(sequence));
        }
    }
}
