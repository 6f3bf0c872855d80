//! Conditions on the rows of a coupon that do not depend on requests.

use super::report::{FindingKind, Reporter};
use crate::rows::{CouponRow, IssuanceRow};

/// Checks sequences, quantity and per-user limit of one coupon's rows, which are sorted by sequence, and the
/// coupon's own count. Returns the rows without repeated sequences. Also returns, for each of these rows, its
/// user and its index. `returned` were given back to the quantity.
pub(super) fn check<'h>(
    coupon: &CouponRow,
    returned: u64,
    sorted: &[(&'h IssuanceRow, u32)],
    reporter: &mut Reporter<'_>,
) -> (Vec<&'h IssuanceRow>, Vec<(u32, usize)>) {
    let mut rows: Vec<&IssuanceRow> = Vec::with_capacity(sorted.len());
    let mut users = Vec::with_capacity(sorted.len());
    for &(row, user) in sorted {
        let last = rows.last().copied();
        let expected = last.map_or(1, |last| last.id.sequence.get() + 1);
        if let Some(last) = last
            && last.id == row.id
        {
            reporter.find(
                FindingKind::SequenceTwice,
                coupon.id,
                || format!("sequence {} is stored twice", row.id.sequence),
                &[],
                &[last, row],
            );
            continue;
        }
        if row.id.sequence.get() != expected {
            let message = || {
                format!(
                    "sequence {} is stored where {expected} should be",
                    row.id.sequence
                )
            };
            reporter.find(
                FindingKind::SequenceGap,
                coupon.id,
                message,
                &[],
                &last.into_iter().chain([row]).collect::<Vec<_>>(),
            );
        }
        users.push((user, rows.len()));
        rows.push(row);
    }
    let count = sorted.len() as u64;
    let quantity = coupon
        .terms
        .total_quantity
        .map(|quantity| quantity.saturating_add(returned));
    if let Some(quantity) = quantity.filter(|quantity| count > *quantity) {
        let over = sorted
            .get(usize::try_from(quantity).unwrap_or(usize::MAX)..)
            .unwrap_or_default();
        let over: Vec<&IssuanceRow> = over.iter().map(|(row, _)| *row).collect();
        reporter.find(
            FindingKind::OverQuantity,
            coupon.id,
            || format!("{count} issued of {quantity}"),
            &[],
            &over,
        );
    }
    if coupon.issued != count {
        let message = || format!("the coupon says {} issued, but {count} are stored", coupon.issued);
        reporter.find(FindingKind::IssuedDiffers, coupon.id, message, &[], &[]);
    }
    check_users(coupon, sorted, reporter);
    (rows, users)
}

fn check_users(coupon: &CouponRow, sorted: &[(&IssuanceRow, u32)], reporter: &mut Reporter<'_>) {
    let mut by_user: Vec<(u32, usize)> = sorted
        .iter()
        .enumerate()
        .map(|(place, (_, user))| (*user, place))
        .collect();
    by_user.sort_unstable();
    for of_user in by_user.chunk_by(|one, other| one.0 == other.0) {
        if of_user.len() > coupon.per_user_limit as usize {
            let rows: Vec<&IssuanceRow> = of_user.iter().map(|(_, place)| sorted[*place].0).collect();
            let message = || {
                format!(
                    "{} has {} where {} are allowed",
                    rows[0].user,
                    rows.len(),
                    coupon.per_user_limit
                )
            };
            reporter.find(FindingKind::OverUserLimit, coupon.id, message, &[], &rows);
        }
    }
}
