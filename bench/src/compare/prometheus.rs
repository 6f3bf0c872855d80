//! Metrics of nodes.

use super::ANSWER_LIMIT;
use crate::load::Failed;

pub(super) use testkit::prometheus::{mean, since, value};

/// Reads the metrics of the node at this URL.
pub(super) async fn read(url: &str) -> Result<String, Failed> {
    let client = reqwest::Client::builder()
        .timeout(ANSWER_LIMIT)
        .no_proxy()
        .build()?;
    Ok(client
        .get(format!("{url}/metrics"))
        .send()
        .await?
        .error_for_status()?
        .text()
        .await?)
}
