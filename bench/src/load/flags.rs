//! Flags of `firstcome-bench load`.

use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use testkit::ids::CouponId;

use super::Failed;
use super::arrivals::{Bounds, Pace};
use super::checkout::Checkout;
use super::connection::Target;
use super::crowd::{Crowd, NAME_BYTES_MAX, Users};
use super::drive::{GIVE_UP, Plan};
use super::report::Slo;
use super::virtual_users::VirtualUsers;

/// Duration of a run without other bounds.
const DURATION: Duration = Duration::from_secs(10);
/// Maximum number of connections. Each connection has a buffer and takes one of this machine's ports.
const CONNECTIONS_MAX: usize = 25_000;

/// The load: targets, coupons, pace and duration.
#[derive(Debug, Clone, Args)]
pub struct Load {
    /// A node; may be given several times, and the nodes share the connections.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: Vec<String>,
    /// The admin token, to make coupons, to use issuances and to read stored rows; by default the
    /// environment's ADMIN_TOKEN.
    #[arg(long)]
    admin_token: Option<String>,

    /// Request this coupon; may be given several times. Without it, coupons are made.
    #[arg(long, value_parser = coupon, conflicts_with_all = ["coupons", "quantity"])]
    pub(super) coupon: Vec<CouponId>,
    /// Make this many coupons and request all of them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(super) coupons: u64,
    /// The quantity of each coupon that is made; without it, no limit.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(super) quantity: Option<u64>,

    /// Connections, each with one request at a time.
    #[arg(long, short, default_value_t = 256, value_parser = connections)]
    connections: usize,
    /// Threads that share the connections; as many as there are processors by default.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    threads: Option<u16>,
    /// Open loop: this many requests arrive per second, independent of answers. Latencies count from the
    /// intended start.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Spike: all --requests arrive at the same moment.
    #[arg(long, requires = "requests", conflicts_with_all = ["rate", "warm_up"])]
    spike: bool,
    /// Requests that arrive in this time are sent and not measured.
    #[arg(long, default_value = "0s", value_parser = duration)]
    warm_up: Duration,
    /// For how long requests arrive after the warm-up; 10s if --requests is not given.
    #[arg(long, short, value_parser = duration)]
    duration: Option<Duration>,
    /// At most this many requests, including the warm-up.
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// How long an answer may take.
    #[arg(long, default_value = "10s", value_parser = limit)]
    timeout: Duration,

    /// Use what is issued, as a shop would: reserve, redeem, release, refund, revoke, with repeats, lost
    /// answers, lapsed holds and orders that contend for one issuance. Coupons that are made take off
    /// something. --requests and --rate then count customers.
    #[arg(long)]
    pub(super) checkout: bool,

    /// The share of requests that come from earlier users, half of them with the same Idempotency-Key.
    #[arg(long, default_value = "0", value_parser = share)]
    repeats: f64,
    /// Only this many users, each of whom sends many requests with new keys.
    #[arg(long, conflicts_with = "repeats", value_parser = clap::value_parser!(u64).range(1..))]
    users: Option<u64>,
    /// The seed of random choices.
    #[arg(long)]
    seed: Option<u64>,
    /// The suffix of every user id and key of this run; a new one by default.
    #[arg(long, value_parser = name)]
    name: Option<String>,

    /// Write what clients saw to this file, for `firstcome-bench verify`.
    #[arg(long)]
    pub(super) history: Option<PathBuf>,
    /// Check what clients saw against the stored rows after the run.
    #[arg(long)]
    pub(super) check: bool,
    /// Print figures as JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// How long to measure this tool's own ceiling first; 0s skips that.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub(super) ceiling: Duration,

    /// Exit with 1 if the 99th percentile is longer than this.
    #[arg(long, value_parser = limit)]
    slo_p99: Option<Duration>,
    /// Exit with 1 if there are fewer answers a second than this.
    #[arg(long, value_parser = rate)]
    slo_rate: Option<f64>,
    /// Exit with 1 if a larger share of the requests has no answer or a status of 500 or more.
    #[arg(long, default_value = "0", value_parser = share)]
    slo_errors: f64,
}

impl Load {
    /// Returns the plan, with no coupons in it yet.
    pub(super) fn plan(&self) -> Result<Plan, Failed> {
        let targets = self
            .url
            .iter()
            .map(|url| target(url))
            .collect::<Result<Vec<Target>, Failed>>()?;
        let bounds = match (self.duration, self.requests) {
            (None, None) => Bounds {
                duration: Some(self.warm_up + DURATION),
                requests: None,
            },
            (duration, requests) => Bounds {
                duration: duration.map(|duration| self.warm_up + duration),
                requests,
            },
        };
        let name = self
            .name
            .clone()
            .unwrap_or_else(|| format!("{:08x}", rand::random::<u32>()));
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let pace = match self.rate {
            Some(rate) => Pace::Rate(rate),
            None if self.spike => Pace::Spike,
            None => Pace::Closed,
        };
        Ok(Plan {
            targets,
            coupons: Vec::new(),
            crowd: Crowd {
                name,
                repeats_ppm: (self.repeats * 1e6) as u32,
                users: Users::limited_to(self.users),
                seed: self.seed.unwrap_or_else(rand::random),
            },
            checkout: self.checkout().transpose()?,
            pace,
            bounds,
            warm_up: self.warm_up,
            connections: self.connections,
            virtual_users: VirtualUsers::default(),
            threads: self.threads.map_or(processors, usize::from),
            limit: self.timeout,
            gives_up_after: GIVE_UP,
            gives_way: pace == Pace::Closed,
        })
    }

    /// Returns how issuances are used, if they are.
    fn checkout(&self) -> Option<Result<Checkout, Failed>> {
        self.checkout.then(|| {
            Ok(Checkout {
                token: self.admin_token()?,
                changes: self.coupon.is_empty(),
            })
        })
    }

    /// Returns the objectives of a run.
    pub(super) fn slo(&self) -> Slo {
        Slo {
            p99: self.slo_p99,
            rate: self.slo_rate,
            errors: self.slo_errors,
        }
    }

    pub(super) fn admin_token(&self) -> Result<String, Failed> {
        admin_token(self.admin_token.as_ref()).ok_or_else(|| {
            "making coupons, --checkout and --check need --admin-token or the environment's ADMIN_TOKEN"
                .into()
        })
    }

    /// Returns the node that makes coupons.
    pub(super) fn first_url(&self) -> &str {
        self.url.first().map_or("", String::as_str)
    }

    /// Returns all nodes.
    pub(super) fn urls(&self) -> &[String] {
        &self.url
    }
}

/// Returns the given token, or the environment's ADMIN_TOKEN.
pub(crate) fn admin_token(given: Option<&String>) -> Option<String> {
    given
        .cloned()
        .or_else(|| std::env::var("ADMIN_TOKEN").ok())
        .filter(|token| !token.is_empty())
}

/// Returns the socket address of a base URL.
pub(crate) fn target(url: &str) -> Result<Target, Failed> {
    let parsed = reqwest::Url::parse(url).map_err(|error| format!("--url {url:?}: {error}"))?;
    let (Some(host), Some(port), "http", "/", None) = (
        parsed.host_str(),
        parsed.port_or_known_default(),
        parsed.scheme(),
        parsed.path(),
        parsed.query(),
    ) else {
        return Err(format!("--url {url:?}: must be like http://host:port, without a path").into());
    };
    let mut found = (host.trim_matches(['[', ']']), port)
        .to_socket_addrs()
        .map_err(|error| format!("--url {url:?}: {error}"))?;
    let address = found
        .next()
        .ok_or_else(|| format!("--url {url:?}: no such host"))?;
    Ok(Target {
        address,
        host: format!("{host}:{port}"),
    })
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; for example 500ms, 10s or 2m"))
}

/// Reads a duration above zero.
fn limit(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|limit| {
        if limit.is_zero() {
            Err("must be more than zero".to_owned())
        } else {
            Ok(limit)
        }
    })
}

fn coupon(text: &str) -> Result<CouponId, String> {
    CouponId::parse(text).map_err(|error| error.to_string())
}

fn connections(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|connections| (1..=CONNECTIONS_MAX).contains(connections))
        .ok_or_else(|| format!("must be from 1 to {CONNECTIONS_MAX}"))
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| (0.001..=1e7).contains(rate))
        .ok_or_else(|| "must be a number a second from 0.001 to 10000000".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "must be from 0 to 1".to_owned())
}

fn name(text: &str) -> Result<String, String> {
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    fits.then(|| text.to_owned())
        .ok_or_else(|| format!("must be 1 to {NAME_BYTES_MAX} letters, digits, - or _"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_a_port_and_nothing_else() {
        assert_eq!(
            target("http://127.0.0.1:8080").unwrap(),
            Target {
                address: ([127, 0, 0, 1], 8080).into(),
                host: "127.0.0.1:8080".into()
            }
        );
        assert_eq!(target("http://[::1]:80/").unwrap().host, "[::1]:80");
        for wrong in [
            "127.0.0.1:8080",
            "https://127.0.0.1",
            "http://127.0.0.1/v1",
            "http://127.0.0.1/?x",
            "x",
            "",
        ] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }
}
