//! What the checker found, in the words of the table.

use serde::Serialize;
use testkit::checker::{FindingKind, Report};

/// What is wrong with the rows and the answers of a contender.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Rows beyond the quantity.
    pub too_many: u64,
    /// Places that were not issued although users were told that all are.
    pub too_few: u64,
    /// Sequences that are stored twice, users with more than one issuance, and issuances that two requests were
    /// answered with.
    pub duplicates: u64,
    /// Issuances that a user was told of and that are not stored.
    pub told_not_stored: u64,
    /// Requests that overtook one that was answered before they were sent.
    pub out_of_order: u64,
    /// All other findings.
    pub other: u64,
}

impl Verdict {
    /// Reads the checker's report about a coupon with this quantity and this many rows.
    pub fn of(report: &Report, quantity: u64, stored: u64) -> Self {
        let mut verdict = Self {
            too_many: stored.saturating_sub(quantity),
            ..Self::default()
        };
        for (kind, count) in &report.counts {
            match kind {
                FindingKind::OverQuantity => {}
                FindingKind::NotExhausted => verdict.too_few = quantity.saturating_sub(stored),
                FindingKind::SequenceTwice | FindingKind::OverUserLimit | FindingKind::AnsweredTwice => {
                    verdict.duplicates += count;
                }
                FindingKind::AnsweredNotStored => verdict.told_not_stored += count,
                FindingKind::OutOfOrder => verdict.out_of_order += count,
                _ => verdict.other += count,
            }
        }
        verdict
    }

    /// True if nothing is wrong.
    pub fn is_exact(self) -> bool {
        self == Self::default()
    }

    /// Returns the larger figures of both.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        Self {
            too_many: self.too_many.max(other.too_many),
            too_few: self.too_few.max(other.too_few),
            duplicates: self.duplicates.max(other.duplicates),
            told_not_stored: self.told_not_stored.max(other.told_not_stored),
            out_of_order: self.out_of_order.max(other.out_of_order),
            other: self.other.max(other.other),
        }
    }

    /// Returns the words of the table.
    pub fn shown(self) -> String {
        let figures = [
            ("too many", self.too_many),
            ("too few", self.too_few),
            ("duplicates", self.duplicates),
            ("told, not stored", self.told_not_stored),
            ("out of order", self.out_of_order),
            ("other findings", self.other),
        ];
        let found: Vec<String> = figures
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{what}: {count}"))
            .collect();
        if found.is_empty() {
            "exact".to_owned()
        } else {
            found.join("; ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_counted_under_the_words_of_the_table() {
        let mut report = Report::default();
        assert_eq!(Verdict::of(&report, 500, 500).shown(), "exact");
        report.counts.insert(FindingKind::OverQuantity, 1);
        report.counts.insert(FindingKind::SequenceTwice, 40);
        report.counts.insert(FindingKind::OverUserLimit, 2);
        report.counts.insert(FindingKind::AnswerDiffers, 5);
        let verdict = Verdict::of(&report, 500, 542);
        assert_eq!(verdict.shown(), "too many: 42; duplicates: 42; other findings: 5");
        assert!(!verdict.is_exact() && verdict.worse(Verdict::default()) == verdict);
        let mut report = Report::default();
        report.counts.insert(FindingKind::NotExhausted, 300);
        report.counts.insert(FindingKind::AnsweredNotStored, 3);
        report.counts.insert(FindingKind::OutOfOrder, 1);
        let verdict = Verdict::of(&report, 500, 497);
        assert_eq!(
            verdict.shown(),
            "too few: 3; told, not stored: 3; out of order: 1"
        );
    }
}
