//! One figure in several rounds.

/// The figures of the rounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Returns the median; zero if there is no figure.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => 0.0,
            odd if odd % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// Returns the median with minimum and maximum, with this many decimals.
    pub(crate) fn shown(&self, decimals: usize) -> String {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match self.0.len() {
            0 => "–".to_owned(),
            1 => format!("{:.decimals$}", self.median()),
            _ => format!(
                "{:.decimals$} ({least:.decimals$}–{most:.decimals$})",
                self.median()
            ),
        }
    }
}

/// Returns the word for a target that is met or missed.
pub(crate) fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let series = |values: &[f64]| Series(values.to_vec());
        assert_eq!(series(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(series(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!(series(&[3.0, 1.0, 2.0]).shown(1), "2.0 (1.0–3.0)");
        assert_eq!(
            (series(&[7.0]).shown(0), series(&[]).shown(0)),
            ("7".to_owned(), "–".to_owned())
        );
    }
}
