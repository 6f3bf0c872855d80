//! `firstcome-bench verify`: reads a history and rows, and prints what the checker finds.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use testkit::ids::CouponId;

use crate::load::flags::admin_token;
use testkit::checker::{self, Options, Report};
use testkit::fetch::{Fetch, FetchError};
use testkit::history::{self, InputError, Operation};
use testkit::rows::Rows;

/// The exit status if every promise was kept.
pub const CLEAN: u8 = 0;
/// The exit status if a promise was broken.
pub const FINDINGS: u8 = 1;
/// The exit status if the input cannot be read.
pub const BAD_INPUT: u8 = 2;

/// The history and the rows to check.
#[derive(Debug, Args)]
pub struct Verify {
    /// What clients saw, as JSON Lines.
    #[arg(long)]
    history: PathBuf,
    /// What is stored: coupons and issuances as the API returns them, as JSON Lines.
    #[arg(long, conflicts_with = "url", required_unless_present = "url")]
    rows: Option<PathBuf>,
    /// The service to read stored rows from, which should have no requests in progress.
    #[arg(long)]
    url: Option<String>,
    /// The admin token to read stored rows; by default the environment's ADMIN_TOKEN.
    #[arg(long)]
    admin_token: Option<String>,
    /// How long all reading over HTTP may take, in seconds.
    #[arg(long, default_value_t = 600)]
    fetch_seconds_max: u64,
    /// Largest difference between the clocks of clients and service, in milliseconds.
    #[arg(long, default_value_t = 250)]
    clock_tolerance_ms: u64,
    /// How long refusals may lag behind changes that do not widen the coupon, in milliseconds.
    #[arg(long, default_value_t = 0)]
    narrowing_lag_ms: u64,
    /// Other clients used the coupons too, so rows need no request in the history.
    #[arg(long)]
    foreign: bool,
    /// Maximum number of findings of each kind to print; all findings are counted.
    #[arg(long, default_value_t = 10)]
    shown_max: u64,
}

/// Input that cannot be read.
#[derive(Debug, thiserror::Error)]
enum VerifyError {
    #[error("{path}: {error}")]
    File { path: String, error: std::io::Error },
    #[error("{path}: {error}")]
    Input { path: String, error: InputError },
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the rows were not read within {0} s")]
    TooSlow(u64),
    #[error("neither --rows nor --url")]
    NoRows,
    #[error("--url needs --admin-token or the environment's ADMIN_TOKEN")]
    NoToken,
}

impl Verify {
    /// Checks, prints the report, and returns the exit status.
    pub async fn run(&self) -> ExitCode {
        match self.report().await {
            Ok(report) => {
                // The reader may close the pipe early; the exit status is still the verdict.
                let _ = std::io::stdout().write_all(rendered(&report).as_bytes());
                ExitCode::from(if report.is_clean() { CLEAN } else { FINDINGS })
            }
            Err(error) => {
                eprintln!("firstcome-bench: {error}");
                ExitCode::from(BAD_INPUT)
            }
        }
    }

    async fn report(&self) -> Result<Report, VerifyError> {
        let path = || self.history.display().to_string();
        let history = history::read(open(&self.history)?).collect::<Result<Vec<Operation>, InputError>>();
        let history = history.map_err(|error| VerifyError::Input { path: path(), error })?;
        let rows = self.rows(&history).await?;
        let options = Options {
            clock_tolerance: Duration::from_millis(self.clock_tolerance_ms),
            narrowing_lag: Duration::from_millis(self.narrowing_lag_ms),
            foreign: self.foreign,
            shown_max: self.shown_max,
        };
        Ok(checker::check(&history, &rows, &options))
    }

    async fn rows(&self, history: &[Operation]) -> Result<Rows, VerifyError> {
        match (&self.rows, &self.url) {
            (Some(path), _) => Rows::read(open(path)?).map_err(|error| VerifyError::Input {
                path: path.display().to_string(),
                error,
            }),
            (None, Some(url)) => {
                let token = admin_token(self.admin_token.as_ref()).ok_or(VerifyError::NoToken)?;
                let coupons: HashSet<CouponId> = history.iter().filter_map(Operation::coupon).collect();
                let limit = Duration::from_secs(self.fetch_seconds_max);
                let rows = tokio::time::timeout(limit, Fetch::new(url, &token).rows(&coupons)).await;
                Ok(rows.map_err(|_| VerifyError::TooSlow(self.fetch_seconds_max))??)
            }
            (None, None) => Err(VerifyError::NoRows),
        }
    }
}

fn open(path: &Path) -> Result<BufReader<File>, VerifyError> {
    let file = File::open(path).map_err(|error| VerifyError::File {
        path: path.display().to_string(),
        error,
    })?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

/// Returns the report as text: the counts, then the findings.
pub fn rendered(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |name: &str, count: u64| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name:<32}{count:>12}");
    };
    line("coupons", report.coupons);
    line("issuances stored", report.issuances);
    if report.uses > 0 {
        line("uses stored", report.uses);
    }
    for (answer, count) in &report.answers {
        line(&format!("requests: {answer}"), *count);
    }
    for (kind, count) in &report.counts {
        line(&format!("FOUND: {kind}"), *count);
    }
    for finding in &report.findings {
        let _ = write!(text, "\n{finding}\n");
    }
    if report.is_clean() {
        text.push_str("every promise was kept\n");
    } else {
        let total: u64 = report.counts.values().sum();
        let _ = writeln!(text, "\n{total} findings, {} shown", report.findings.len());
    }
    text
}
