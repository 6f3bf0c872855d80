//! The earliest and the latest time at which each issuance was decided, and what the versions of the coupon
//! allowed then.

use super::report::{FindingKind, Reporter};
use super::timeline::Version;
use super::{Case, micros};
use crate::rows::IssuanceRow;
use crate::rows::Status;

impl Case<'_> {
    /// Narrows the time of every decision: first by its calls, its answers and `issued_at`, and then by the
    /// decisions before and after.
    pub(super) fn bound(&mut self, reporter: &mut Reporter<'_>) {
        let tolerance = micros(self.options.clock_tolerance);
        self.bounds = Vec::with_capacity(self.rows.len());
        for (row, facts) in self.rows.iter().zip(&self.facts) {
            let issued_at = row.issued_at.as_micros();
            let (from, to) = (
                issued_at.saturating_sub(tolerance),
                issued_at.saturating_add(tolerance),
            );
            if to < facts.called || from > facts.answered {
                let places: Vec<usize> = [facts.caller, facts.answerer].into_iter().flatten().collect();
                let message = || format!("{} was not issued between its call and its answer", row.id);
                reporter.find(FindingKind::TimeOutside, self.coupon.id, message, &places, &[row]);
                self.bounds.push((facts.called, facts.answered));
            } else {
                self.bounds.push((from.max(facts.called), to.min(facts.answered)));
            }
        }
        let mut earliest = i64::MIN;
        for (from, _) in &mut self.bounds {
            earliest = earliest.max(*from);
            *from = earliest;
        }
        let mut latest = i64::MAX;
        for (_, to) in self.bounds.iter_mut().rev() {
            latest = latest.min(*to);
            *to = latest;
        }
    }

    /// Returns the first moment at which this many issuances may have been decided; `None` if there are fewer
    /// in all.
    pub(super) fn may_have_issued(&self, count: u64) -> Option<i64> {
        match usize::try_from(count).ok()?.checked_sub(1) {
            None => Some(i64::MIN),
            Some(position) => self.bounds.get(position).map(|(earliest, _)| *earliest),
        }
    }

    /// Returns how many issuances were given back to the quantity before this moment: how many certainly, and
    /// how many perhaps.
    pub(super) fn returned(&self, moment: i64) -> (u64, u64) {
        let certain = self.returns.partition_point(|(_, latest)| *latest < moment);
        let possible = self.returns.partition_point(|(earliest, _)| *earliest <= moment);
        (certain as u64, possible as u64)
    }

    /// Checks that no row beyond a version's quantity was decided before the next version came into force.
    pub(super) fn check_quantities(&self, reporter: &mut Reporter<'_>) {
        for pair in self.timeline.versions.windows(2) {
            let [version, next] = pair else { continue };
            let Some(quantity) = version.quantity_max() else {
                continue;
            };
            let quantity = quantity.saturating_add(self.returned(next.latest).1);
            let Some(position) = usize::try_from(quantity)
                .ok()
                .filter(|position| *position < self.rows.len())
            else {
                continue;
            };
            if self.bounds[position].1 < next.earliest {
                let row = self.rows[position];
                let message = || {
                    format!(
                        "{} was issued while version {} had {quantity}",
                        row.id, version.number
                    )
                };
                let places: Vec<usize> = self.facts[position].answerer.into_iter().collect();
                reporter.find(
                    FindingKind::OverQuantity,
                    self.coupon.id,
                    message,
                    &places,
                    &[row],
                );
            }
        }
    }

    /// Checks that each row is allowed by a version that may have been in force when the row was decided.
    pub(super) fn check_terms(&self, reporter: &mut Reporter<'_>) {
        for (position, row) in self.rows.iter().enumerate() {
            let (from, to) = self.bounds[position];
            // Contradictory bounds are a finding already.
            if from > to {
                continue;
            }
            let mut versions = self.timeline.versions[self.timeline.in_force(from, to)].iter();
            // Issuances that were given back do not count.
            let count = (position as u64 + 1).saturating_sub(self.returned(to).1);
            if !versions.any(|version| allows(version, row, count)) {
                let places: Vec<usize> = [self.facts[position].caller, self.facts[position].answerer]
                    .into_iter()
                    .flatten()
                    .collect();
                let message = || format!("no version that may have been in force allows {}", row.id);
                reporter.find(
                    FindingKind::AgainstTerms,
                    self.coupon.id,
                    message,
                    &places,
                    &[row],
                );
            }
        }
    }
}

/// True if the version allows this row as the `count`th issuance, not counting those given back. The owner
/// compared `issued_at` with the window, so no tolerance applies.
fn allows(version: &Version, row: &IssuanceRow, count: u64) -> bool {
    version.status.may(|status| status == Status::Open)
        && version
            .starts_at
            .may(|starts_at| starts_at.is_none_or(|starts_at| starts_at <= row.issued_at))
        && version
            .ends_at
            .may(|ends_at| ends_at.is_none_or(|ends_at| row.issued_at < ends_at))
        && version
            .quantity
            .may(|quantity| quantity.is_none_or(|quantity| count <= quantity))
        && version.may_expire(row.issued_at, row.expires_at)
}
