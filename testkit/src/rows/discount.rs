//! What a coupon takes off an order. Computed a second time and not taken from the service, so that a mistake
//! in the service's own calculation is found.

use serde::{Deserialize, Serialize};

/// What a coupon takes off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum Discount {
    /// This amount, in the currency's smallest unit.
    Amount(u64),
    /// This many percent of the order's amount, rounded down.
    Rate(u64),
}

impl Discount {
    /// Returns what is taken off an order of this amount. `max` is the most that a rate takes off.
    pub fn of(self, amount: u64, max: Option<u64>) -> u64 {
        match self {
            Self::Amount(value) => value.min(amount),
            Self::Rate(percent) => {
                // amount = 100 a + b, so that no product is beyond 64 bits for amounts below 2^53.
                let (hundreds, rest) = (amount / 100, amount % 100);
                let part = hundreds * percent + rest * percent / 100;
                part.min(max.unwrap_or(amount)).min(amount)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discount_is_rounded_down_and_never_above_the_order_or_its_maximum() {
        for (discount, amount, max, expected) in [
            (Discount::Amount(1_000), 5_000, None, 1_000),
            (Discount::Amount(1_000), 999, None, 999),
            (Discount::Rate(15), 999, None, 149),
            (Discount::Rate(33), 199, None, 65),
            (Discount::Rate(100), 199, None, 199),
            (Discount::Rate(50), 1_000, Some(300), 300),
            (Discount::Rate(50), 599, Some(300), 299),
            (Discount::Rate(99), (1 << 53) - 1, None, 8_917_127_262_193_581),
            (Discount::Rate(1), 0, None, 0),
        ] {
            assert_eq!(
                discount.of(amount, max),
                expected,
                "{discount:?} of {amount}, {max:?}"
            );
        }
    }
}
