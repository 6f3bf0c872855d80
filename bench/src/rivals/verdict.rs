//! What the checker found, in the words of the table.

use serde::Serialize;
use testkit::checker::{FindingKind, Report};

/// What is stored of a coupon, and what users were told about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CouponCount {
    pub(super) rows: u64,
    /// True if a user was refused because all were issued.
    pub(super) is_told_sold_out: bool,
}

/// What is wrong with the rows and the answers of a contender.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Rows beyond the quantity.
    pub too_many: u64,
    /// Places that were not issued although users were told that all are.
    pub too_few: u64,
    /// Sequences that are stored twice, users with more than one issuance, and issuances that two requests
    /// were answered with.
    pub duplicates: u64,
    /// Issuances that a user was told of and that are not stored.
    pub told_not_stored: u64,
    /// Requests that overtook one that had been answered before they were sent.
    pub overtook_an_answer: u64,
    /// All other findings.
    pub other: u64,
}

impl Verdict {
    /// Reads the checker's report about coupons with this quantity each.
    pub(super) fn of(report: &Report, quantity: u64, coupons: &[CouponCount]) -> Self {
        let sold_out = coupons.iter().filter(|coupon| coupon.is_told_sold_out);
        let mut verdict = Self {
            too_many: coupons
                .iter()
                .map(|coupon| coupon.rows.saturating_sub(quantity))
                .sum(),
            too_few: sold_out.map(|coupon| quantity.saturating_sub(coupon.rows)).sum(),
            ..Self::default()
        };
        for (kind, count) in &report.counts {
            match kind {
                // These are counted by coupon.
                FindingKind::OverQuantity | FindingKind::NotExhausted => {}
                FindingKind::SequenceTwice | FindingKind::OverUserLimit | FindingKind::AnsweredTwice => {
                    verdict.duplicates += count;
                }
                FindingKind::AnsweredNotStored => verdict.told_not_stored += count,
                FindingKind::OutOfOrder => verdict.overtook_an_answer += count,
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
            overtook_an_answer: self.overtook_an_answer.max(other.overtook_an_answer),
            other: self.other.max(other.other),
        }
    }

    /// True if what is stored is not what was promised, apart from the order and from single wrong answers.
    pub(super) fn is_broken(self) -> bool {
        self.too_many + self.too_few + self.duplicates + self.told_not_stored > 0
    }

    /// Returns what is broken, without figures.
    pub(super) fn brief(self) -> String {
        if self.is_exact() {
            return "exact".to_owned();
        }
        // The most important ones come first, and there is little space.
        let found: Vec<&str> = self.found().map(|(what, _)| what).take(3).collect();
        found.join(", ")
    }

    fn found(self) -> impl Iterator<Item = (&'static str, u64)> {
        let figures = [
            ("too many", self.too_many),
            ("too few", self.too_few),
            ("duplicates", self.duplicates),
            ("told, not stored", self.told_not_stored),
            ("overtook an answer", self.overtook_an_answer),
            ("other findings", self.other),
        ];
        figures.into_iter().filter(|(_, count)| *count > 0)
    }

    /// Returns the words of the table.
    pub fn shown(self) -> String {
        let found: Vec<String> = self
            .found()
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
        let count = |rows, is_told_sold_out| CouponCount {
            rows,
            is_told_sold_out,
        };
        let mut report = Report::default();
        assert_eq!(Verdict::of(&report, 500, &[count(500, true)]).shown(), "exact");
        // No user was told that all are issued.
        assert!(Verdict::of(&report, 500, &[count(200, false)]).is_exact());
        report.counts.insert(FindingKind::OverQuantity, 1);
        report.counts.insert(FindingKind::SequenceTwice, 40);
        report.counts.insert(FindingKind::OverUserLimit, 2);
        report.counts.insert(FindingKind::AnswerDiffers, 5);
        // What one coupon has too many is not made up for by another one.
        let verdict = Verdict::of(&report, 500, &[count(542, true), count(458, false)]);
        assert_eq!(verdict.shown(), "too many: 42; duplicates: 42; other findings: 5");
        assert_eq!(verdict.brief(), "too many, duplicates, other findings");
        assert!(!verdict.is_exact() && verdict.worse(Verdict::default()) == verdict);
        let mut report = Report::default();
        report.counts.insert(FindingKind::NotExhausted, 300);
        report.counts.insert(FindingKind::AnsweredNotStored, 3);
        report.counts.insert(FindingKind::OutOfOrder, 1);
        let verdict = Verdict::of(&report, 500, &[count(497, true)]);
        assert_eq!(
            verdict.shown(),
            "too few: 3; told, not stored: 3; overtook an answer: 1"
        );
    }
}
