//! `firstcome-bench load`: drives a service over HTTP, reports how fast it answered, and compares that with
//! objectives.
//!
//! [`crowd`] determines user, key and coupon of each request, and [`arrivals`] determines its time.
//! [`virtual_users`] determine when connections begin and pause.
//! [`mod@drive`] runs threads of [`connection`]s, which read answers with [`response`] and count them in
//! [`tally`]. With `--checkout`, [`checkout`] uses what was issued. [`testkit::history::file`] records them
//! for the checker, and [`report`] shows them. [`ceiling`] is the highest rate of this tool itself.
//! `scheduling` keeps the tool from interrupting the service.

pub mod arrivals;
pub mod ceiling;
pub mod checkout;
pub mod connection;
pub mod coupons;
pub mod crowd;
pub mod drive;
pub(crate) mod flags;
pub mod report;
pub mod response;
pub(crate) mod scheduling;
pub mod tally;
pub mod virtual_users;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use testkit::ids::CouponId;

use crate::verify::{BAD_INPUT, CLEAN, FINDINGS, rendered};
use coupons::Wanted;
use drive::{Plan, Progress, drive};
use report::Figures;
use testkit::checker::{self, Options, Report};
use testkit::fetch::Fetch;
use testkit::history::file::HistoryFile;
use testkit::history::{self, InputError, Operation};
use testkit::rows::Rows;

pub use flags::Load;

/// How long reading the stored rows may take.
const FETCH_LIMIT: Duration = Duration::from_secs(600);

/// The error of a run that has no figures.
pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Load {
    /// Runs the load, prints the figures, and returns the exit status: 0 if all objectives were met, 1 if one
    /// was missed or the checker found something, 2 if there was no run or no rows to check.
    pub async fn run(&self) -> ExitCode {
        match self.measured().await {
            Ok(true) => ExitCode::from(CLEAN),
            Ok(false) => ExitCode::from(FINDINGS),
            Err(error) => {
                eprintln!("firstcome-bench: {error}");
                ExitCode::from(BAD_INPUT)
            }
        }
    }

    async fn measured(&self) -> Result<bool, Failed> {
        let scratch = tempfile::tempdir()?;
        let history: Option<PathBuf> = self
            .history
            .clone()
            .or_else(|| self.check.then(|| scratch.path().join("history.jsonl")));
        let mut plan = self.plan()?;
        let ceiling = if self.ceiling.is_zero() {
            None
        } else {
            Some(ceiling::measure(&plan, self.ceiling).await?)
        };
        let file = history.as_deref().map(HistoryFile::create).transpose()?;
        plan.coupons = self.coupons(&plan, file.as_ref()).await?;
        if !self.json {
            eprintln!("run {}, seed {}", plan.crowd.name, plan.crowd.seed);
        }
        let bar = bar(&plan);
        let run = drive(plan.clone(), file.as_ref(), |progress| {
            show(&bar, &plan, progress);
        })
        .await;
        bar.finish_and_clear();
        let run = run?;
        if let Some(file) = file {
            file.finish()?;
        }
        let figures = Figures::of(&plan, &run, ceiling, &self.slo());
        let verdict = match &history {
            Some(path) if self.check => Some(self.judge(path).await),
            Some(_) | None => None,
        };
        // The figures of a run are not lost because its rows cannot be read.
        self.print(&figures, verdict.as_ref())?;
        let is_clean = verdict.transpose()?.is_none_or(|report| report.is_clean());
        Ok(figures.missed.is_empty() && is_clean)
    }

    /// Returns the coupons of the run: those that the flags name, or new coupons.
    async fn coupons(&self, plan: &Plan, file: Option<&HistoryFile>) -> Result<Vec<CouponId>, Failed> {
        if !self.coupon.is_empty() {
            return Ok(self.coupon.clone());
        }
        let token = self.admin_token()?;
        let wanted = Wanted {
            count: self.coupons,
            quantity: self.quantity,
            name: &plan.crowd.name,
            with_discount: self.checkout,
        };
        Ok(coupons::make(self.first_url(), &token, wanted, file.map(HistoryFile::recorder)).await?)
    }

    /// Checks what clients saw against the stored rows.
    async fn judge(&self, history: &Path) -> Result<Report, Failed> {
        let operations = history::read(BufReader::new(File::open(history)?))
            .collect::<Result<Vec<Operation>, InputError>>();
        let operations = operations.map_err(|error| format!("the history: {error}"))?;
        let coupons = operations.iter().filter_map(Operation::coupon).collect();
        let rows = tokio::time::timeout(FETCH_LIMIT, self.rows(&coupons)).await;
        let rows = rows.map_err(|_| format!("the rows were not read within {FETCH_LIMIT:?}"))??;
        // Other clients may have requested a coupon that existed before the run.
        let options = Options {
            foreign: !self.coupon.is_empty(),
            ..Options::default()
        };
        Ok(checker::check(&operations, &rows, &options))
    }

    /// Reads the stored rows from the first node that returns all of them. Some nodes may be gone by now.
    async fn rows(&self, coupons: &HashSet<CouponId>) -> Result<Rows, Failed> {
        let token = self.admin_token()?;
        let mut errors = Vec::new();
        for url in self.urls() {
            match Fetch::new(url, &token).rows(coupons).await {
                Ok(rows) => return Ok(rows),
                Err(error) => errors.push(error.to_string()),
            }
        }
        Err(format!("the rows cannot be read: {}", errors.join("; ")).into())
    }

    fn print(&self, figures: &Figures, verdict: Option<&Result<Report, Failed>>) -> Result<(), Failed> {
        let text = if self.json {
            let mut value = serde_json::to_value(figures)?;
            if let Some(verdict) = verdict {
                value["verdict"] = match verdict {
                    Ok(report) => serde_json::json!({"clean": report.is_clean(), "report": rendered(report)}),
                    Err(error) => serde_json::json!({"clean": null, "error": error.to_string()}),
                };
            }
            format!("{value:#}\n")
        } else {
            let verdict = verdict.and_then(|verdict| verdict.as_ref().ok());
            let verdict = verdict.map(|report| format!("\n{}", rendered(report)));
            format!("{}{}", figures.table(), verdict.unwrap_or_default())
        };
        // The reader may close the pipe early; the exit status is still the verdict.
        let _ = std::io::stdout().write_all(text.as_bytes());
        Ok(())
    }
}

/// Returns a progress bar up to the bound of the run; hidden where standard error is not a terminal.
fn bar(plan: &Plan) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let length = match (plan.bounds.duration, plan.bounds.requests) {
        (Some(duration), _) => millis(duration),
        (None, requests) => requests.unwrap_or(0),
    };
    let style = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, plan: &Plan, progress: Progress) {
    bar.set_position(if plan.bounds.duration.is_some() {
        millis(progress.elapsed)
    } else {
        progress.ended
    });
    let rate = progress.ended as f64 / progress.elapsed.as_secs_f64().max(0.001);
    bar.set_message(format!(
        "{} requests, {rate:.0}/s, {} failed",
        progress.ended, progress.failed
    ));
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
