//! The little of Prometheus' text that is needed: the sum and count of a histogram, and counters.

use super::ANSWER_LIMIT;
use crate::load::Failed;

/// The metrics of the node at this URL, as Prometheus reads them.
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

/// The value of the sample with exactly this name, over all its labels; zero if there is none.
pub(super) fn value(text: &str, name: &str) -> f64 {
    let sample = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.as_bytes().first()? {
            b' ' => rest,
            b'{' => rest.rsplit_once('}')?.1,
            _ => return None,
        };
        value.split_whitespace().next()?.parse::<f64>().ok()
    };
    text.lines().filter_map(sample).sum()
}

/// By how much a counter grew between two readings.
pub(super) fn since(before: &str, after: &str, name: &str) -> f64 {
    value(after, name) - value(before, name)
}

/// The mean of what a histogram observed between two readings; `None` if that is nothing.
pub(super) fn mean(before: &str, after: &str, name: &str) -> Option<f64> {
    let part = |part: &str| since(before, after, &format!("{name}_{part}"));
    let count = part("count");
    (count > 0.0).then(|| part("sum") / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# HELP x_sum no\nx_bucket{le=\"1\"} 7\nx_sum 10\nx_count 4\ny_total{a=\"1\"} 2\ny_total{a=\"}\"} 3\nx_sum_of_all 99\n";

    #[test]
    fn samples_are_found_by_their_whole_name() {
        assert_eq!(
            (
                value(BEFORE, "x_sum"),
                value(BEFORE, "y_total"),
                value(BEFORE, "z")
            ),
            (10.0, 5.0, 0.0)
        );
        assert_eq!(mean(BEFORE, "x_sum 30\nx_count 14\n", "x"), Some(2.0));
        assert_eq!(mean(BEFORE, BEFORE, "x"), None);
    }
}
