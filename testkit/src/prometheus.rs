//! The parts of Prometheus' text format that are needed: counters, and the sum and count of a histogram.

/// Returns the sum of the samples with exactly this name. If the name includes no labels, samples with any
/// labels are added. Returns zero if there are no such samples.
pub fn value(text: &str, name: &str) -> f64 {
    let sample = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.as_bytes().first()? {
            b' ' => rest,
            b'{' => rest.rsplit_once('}')?.1,
            _ => return None,
        };
        value.split_whitespace().next()?.parse::<f64>().ok()
    };
    // `Iterator::sum` returns -0 if there are no samples.
    text.lines()
        .filter_map(sample)
        .fold(0.0, |sum, value| sum + value)
}

/// Returns by how much a counter grew between two readings.
pub fn since(before: &str, after: &str, name: &str) -> f64 {
    value(after, name) - value(before, name)
}

/// Returns the mean of what a histogram observed between two readings; `None` if it observed nothing.
pub fn mean(before: &str, after: &str, name: &str) -> Option<f64> {
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
        let values = ["x_sum", "y_total", "y_total{a=\"1\"}", "z"].map(|name| value(BEFORE, name));
        assert_eq!(values, [10.0, 5.0, 2.0, 0.0]);
        assert_eq!(mean(BEFORE, "x_sum 30\nx_count 14\n", "x"), Some(2.0));
        assert_eq!(mean(BEFORE, BEFORE, "x"), None);
    }
}
