//! Reads the final rows over HTTP, from the lists for administrators.

use std::collections::HashSet;
use std::time::Duration;

use crate::ids::{CouponId, IssuanceId};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::rows::{CouponRow, Rows, UseRow, UsedIssuance};
use crate::time::Timestamp;

/// Maximum number of items on a page of the service.
const PAGE_ITEMS_MAX: u32 = 200;
/// Maximum age of a list of coupons. A reader waits this long before it reads the final state.
const STALENESS: Duration = Duration::from_millis(1_100);
/// How long a page may take, so that a service that hangs is an error.
const PAGE_TIME_MAX: Duration = Duration::from_secs(20);
/// Maximum number of issuances whose uses are read at a time.
const READERS_MAX: usize = 8;

/// The reason why rows cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There was no whole answer in time.
    #[error("{url}: {error}")]
    Http {
        /// The URL of the request.
        url: String,
        /// The error of the request.
        error: reqwest::Error,
    },
    /// The status of an answer is not 200, so it is not a page.
    #[error("{url}: status {status}: {body}")]
    Status {
        /// The URL of the request.
        url: String,
        /// The status of the answer.
        status: StatusCode,
        /// The body of the answer.
        body: String,
    },
    /// A page names itself as the next page.
    #[error("{url}: the next page is the same page")]
    Circle {
        /// The URL of the request.
        url: String,
    },
    /// A use cannot be read.
    #[error("a use of {issuance}: {error}")]
    Use {
        /// The issuance.
        issuance: IssuanceId,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

#[derive(Debug, Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

/// Reads the rows of a service that has no requests in progress.
#[derive(Debug, Clone)]
pub struct Fetch {
    client: Client,
    url: String,
    admin_token: String,
}

impl Fetch {
    /// Makes a reader of the service at this base URL, with the token of administrators.
    pub fn new(url: &str, admin_token: &str) -> Self {
        Self {
            client: Client::new(),
            url: url.trim_end_matches('/').to_owned(),
            admin_token: admin_token.to_owned(),
        }
    }

    /// Waits until lists are up to date. Then reads these coupons, as far as they are stored, and all their
    /// issuances and uses.
    ///
    /// Cancel safe: it only reads.
    pub async fn rows(&self, coupons: &HashSet<CouponId>) -> Result<Rows, FetchError> {
        tokio::time::sleep(STALENESS).await;
        let mut rows = Rows {
            coupons: self.coupons(coupons).await?,
            ..Rows::default()
        };
        let mut used = Vec::new();
        for coupon in &rows.coupons {
            let mut issuances = Vec::new();
            self.issuances(coupon.id, &mut issuances).await?;
            for UsedIssuance { row, latest } in issuances {
                used.extend(latest.map(|_| row.id));
                rows.issuances.push(row);
            }
        }
        rows.uses = self.uses(used).await?;
        Ok(rows)
    }

    /// Reads the uses of these issuances.
    async fn uses(&self, issuances: Vec<IssuanceId>) -> Result<Vec<UseRow>, FetchError> {
        let mut uses = Vec::new();
        let mut issuances = issuances.into_iter();
        let mut readers = JoinSet::new();
        let read = |issuance| {
            let fetch = self.clone();
            async move { fetch.uses_of(issuance).await }
        };
        for issuance in issuances.by_ref().take(READERS_MAX) {
            readers.spawn(read(issuance));
        }
        while let Some(page) = readers.join_next().await {
            uses.extend(page.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?);
            if let Some(issuance) = issuances.next() {
                readers.spawn(read(issuance));
            }
        }
        Ok(uses)
    }

    async fn uses_of(&self, issuance: IssuanceId) -> Result<Vec<UseRow>, FetchError> {
        let mut uses = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let after = cursor.as_ref().map(|cursor| format!("&cursor={cursor}"));
            let url = format!(
                "{}/v1/issuances/{issuance}/uses?limit={PAGE_ITEMS_MAX}{}",
                self.url,
                after.unwrap_or_default()
            );
            let page: Page<Value> = self.page(&url).await?;
            for mut item in page.items {
                item["issuance_id"] = issuance.to_string().into();
                let row = serde_json::from_value(item);
                uses.push(row.map_err(|error| FetchError::Use { issuance, error })?);
            }
            match page.next_cursor {
                None => return Ok(uses),
                next if next == cursor => return Err(FetchError::Circle { url }),
                next => cursor = next,
            }
        }
    }

    async fn coupons(&self, wanted: &HashSet<CouponId>) -> Result<Vec<CouponRow>, FetchError> {
        let mut found: Vec<CouponRow> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let url = match &cursor {
                Some(cursor) => format!("{}/v1/coupons?limit={PAGE_ITEMS_MAX}&cursor={cursor}", self.url),
                None => format!("{}/v1/coupons?limit={PAGE_ITEMS_MAX}", self.url),
            };
            let page: Page<CouponRow> = self.page(&url).await?;
            found.extend(
                page.items
                    .into_iter()
                    .filter(|coupon| wanted.contains(&coupon.id)),
            );
            match page.next_cursor {
                None => break,
                next if next == cursor => return Err(FetchError::Circle { url }),
                next => cursor = next,
            }
        }
        let read_at = Some(Timestamp::now());
        for coupon in &mut found {
            coupon.read_at = read_at;
        }
        Ok(found)
    }

    async fn issuances(&self, coupon: CouponId, rows: &mut Vec<UsedIssuance>) -> Result<(), FetchError> {
        let mut after = 0;
        loop {
            let url = format!(
                "{}/v1/coupons/{coupon}/issuances?after_sequence={after}&limit={PAGE_ITEMS_MAX}",
                self.url
            );
            let page: Page<UsedIssuance> = self.page(&url).await?;
            let last = page.items.last().map(|used| used.row.id.sequence.get());
            rows.extend(page.items);
            match (page.next_cursor, last) {
                (None, _) | (_, None) => return Ok(()),
                (Some(_), Some(last)) if last <= after => return Err(FetchError::Circle { url }),
                (Some(_), Some(last)) => after = last,
            }
        }
    }

    async fn page<T: DeserializeOwned>(&self, url: &str) -> Result<T, FetchError> {
        let http = |error| FetchError::Http {
            url: url.to_owned(),
            error,
        };
        let request = self
            .client
            .get(url)
            .bearer_auth(&self.admin_token)
            .timeout(PAGE_TIME_MAX);
        let response = request.send().await.map_err(http)?;
        let status = response.status();
        if status != StatusCode::OK {
            let body = response.text().await.map_err(http)?;
            return Err(FetchError::Status {
                url: url.to_owned(),
                status,
                body,
            });
        }
        response.json().await.map_err(http)
    }
}
