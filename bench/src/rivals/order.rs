//! How far the order of issuing is from the order of the requests.
//!
//! The checker finds only what contradicts "first come, first served" for certain: a request that overtook
//! one which had been answered before it was sent. A lock whose waiters try again and again loses the order
//! among those that wait, and all of these overlap. So this compares the times at which clients sent their
//! requests.
//!
//! An issuance is out of order if its request was sent more than [`TOLERANCE`] after another request for the
//! same coupon that got a larger sequence, or that was refused because the coupon was sold out. A request
//! that was sent several times counts from the first time. Requests that failed count for nothing.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Serialize;
use testkit::history::{Issue, IssueAnswer, Operation, Refusal};
use testkit::ids::CouponId;

/// Differences up to this much are not counted. Requests that are sent one after the other over different
/// connections may be read in another order, and on a machine that is busy this takes some milliseconds.
const TOLERANCE: Duration = Duration::from_millis(50);

/// How many issuances are out of order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Order {
    /// Issuances that clients were told of.
    pub issued: u64,
    /// Those whose request was sent later than one that got a later place or none.
    pub out_of_order: u64,
    /// The largest difference between the times of two such requests, in microseconds, tolerated or not.
    pub longest_us: u64,
}

/// A request: when it was sent, and its sequence; `u64::MAX` if it was refused.
type Asked = (i64, u64);

impl Order {
    /// Reads what clients saw.
    pub fn of(history: &[Operation]) -> Self {
        let mut sent: HashMap<_, i64> = HashMap::new();
        for issue in issues(history) {
            let call = issue.span.call.as_micros();
            sent.entry((issue.coupon, &issue.user, &issue.key))
                .and_modify(|first| *first = call.min(*first))
                .or_insert(call);
        }
        let mut coupons: BTreeMap<CouponId, Vec<Asked>> = BTreeMap::new();
        for issue in issues(history) {
            let sequence = match &issue.answer {
                IssueAnswer::Issued {
                    issuance,
                    replayed: false,
                } => issuance.id.sequence.get(),
                IssueAnswer::Refused(Refusal::SoldOut { .. }) => u64::MAX,
                _ => continue,
            };
            let call = match issue.key {
                Some(_) => sent[&(issue.coupon, &issue.user, &issue.key)],
                None => issue.span.call.as_micros(),
            };
            coupons.entry(issue.coupon).or_default().push((call, sequence));
        }
        coupons
            .into_values()
            .map(Self::of_coupon)
            .fold(Self::default(), Self::and)
    }

    fn of_coupon(mut asked: Vec<Asked>) -> Self {
        asked.sort_unstable_by_key(|(_, sequence)| *sequence);
        let mut order = Self::default();
        // The first time at which a request was sent that got a later place or none.
        let mut earliest = i64::MAX;
        for same in asked.chunk_by(|one, other| one.1 == other.1).rev() {
            for (call, sequence) in same {
                if *sequence == u64::MAX {
                    continue;
                }
                let later_by = u64::try_from(call.saturating_sub(earliest)).unwrap_or(0);
                order.issued += 1;
                order.out_of_order += u64::from(u128::from(later_by) > TOLERANCE.as_micros());
                order.longest_us = order.longest_us.max(later_by);
            }
            earliest = same.iter().map(|(call, _)| *call).fold(earliest, i64::min);
        }
        order
    }

    /// Returns the figures of both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            issued: self.issued + other.issued,
            out_of_order: self.out_of_order + other.out_of_order,
            longest_us: self.longest_us.max(other.longest_us),
        }
    }

    /// Returns the percentage of the issuances that are out of order.
    pub fn percent(self) -> f64 {
        100.0 * self.out_of_order as f64 / (self.issued as f64).max(1.0)
    }

    /// Returns the figures of the table.
    pub fn shown(self) -> String {
        format!("{:.1} %, {:.2} s", self.percent(), self.longest_us as f64 / 1e6)
    }
}

/// Returns what the column of the tables means.
pub(super) fn note() -> String {
    format!(
        "Out of order: the part of what was issued whose request was sent more than {} ms after another \
         request for the same coupon that got a later place, or none because the coupon was sold out; and \
         the largest difference of two such requests.",
        TOLERANCE.as_millis()
    )
}

fn issues(history: &[Operation]) -> impl Iterator<Item = &Issue> {
    history.iter().filter_map(|operation| match operation {
        Operation::Issue(issue) => Some(issue),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::history::Span;
    use testkit::ids::{RequestKey, UserId};
    use testkit::time::Timestamp;

    /// A request for coupon 7, sent at this millisecond.
    fn asked(user: &str, key: &str, call_ms: i64, answer: IssueAnswer) -> Operation {
        let at = |ms: i64| Timestamp::from_micros(1_000_000_000 + 1_000 * ms).unwrap();
        Operation::Issue(Issue {
            span: Span {
                call: at(call_ms),
                answer: Some(at(10_000)),
            },
            coupon: CouponId::new(7).unwrap(),
            user: UserId::parse(user).unwrap(),
            key: Some(RequestKey::parse(key).unwrap()),
            answer,
        })
    }

    fn issued(user: &str, sequence: u64, replayed: bool) -> IssueAnswer {
        let coupon = CouponId::new(7).unwrap();
        let user = UserId::parse(user).unwrap();
        let issuance = super::super::tables::issuance_row(coupon, sequence, user, 1_000_000_000);
        IssueAnswer::Issued {
            issuance: issuance.unwrap(),
            replayed,
        }
    }

    fn sold_out() -> IssueAnswer {
        IssueAnswer::Refused(Refusal::SoldOut { total_quantity: 3 })
    }

    #[test]
    fn issuances_count_that_were_requested_later_than_one_behind_them() {
        let in_order = [
            asked("a", "a", 0, issued("a", 1, false)),
            asked("b", "b", 30, issued("b", 2, false)),
            // Earlier than the one before, but within the tolerance.
            asked("c", "c", 0, issued("c", 3, false)),
            asked("d", "d", 90, sold_out()),
        ];
        let order = Order::of(&in_order);
        assert_eq!(
            (order.issued, order.out_of_order, order.longest_us),
            (3, 0, 30_000)
        );
        let overtaken = [
            asked("a", "a", 400, issued("a", 1, false)),
            asked("b", "b", 100, issued("b", 2, false)),
            asked("c", "c", 300, issued("c", 3, false)),
            asked("d", "d", 200, sold_out()),
        ];
        let order = Order::of(&overtaken);
        // The first by all others, the third by the one that got none. The second was overtaken and overtook
        // none.
        assert_eq!(
            (order.issued, order.out_of_order, order.longest_us),
            (3, 2, 300_000)
        );
        assert_eq!(order.shown(), "66.7 %, 0.30 s");
        assert_eq!(order.and(order).out_of_order, 4);
    }

    #[test]
    fn a_repeated_request_counts_from_its_first_time_and_other_answers_for_nothing() {
        let history = [
            asked("a", "a", 0, issued("a", 1, true)),
            asked("a", "a", 500, issued("a", 1, false)),
            asked("b", "b", 10, issued("b", 2, false)),
            asked("c", "c", 0, IssueAnswer::Unknown),
            asked("d", "d", 0, IssueAnswer::NotApplied("OVERLOADED".to_owned())),
            // The same sequence twice is another fault.
            asked("e", "e", 900, issued("e", 2, false)),
        ];
        let order = Order::of(&history);
        assert_eq!((order.issued, order.out_of_order, order.longest_us), (3, 0, 0));
    }
}
