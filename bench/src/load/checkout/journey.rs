//! What the customers of a run do with what they won.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::ids::IssuanceId;

use super::{Part, Till, Waiting};

/// The hold of an order that lets it lapse, in seconds.
const SHORT_HOLD: u32 = 1;
/// Time from a reservation with a short hold until the hold has lapsed for certain.
const LAPSE: Duration = Duration::from_millis(1_300);
/// The largest amount of an order. Some are below what coupons of a run ask for at least.
const AMOUNT_MAX: u64 = 60_000;
/// Customers between two changes of the discount.
const PER_CHANGE: u64 = 200;

/// The way of one customer in a hundred.
const WAYS: [(u64, Way); 8] = [
    (40, Way::Pays),
    (52, Way::PaysAtOnce),
    (64, Way::Leaves),
    (72, Way::LetsLapse),
    (82, Way::IsRefunded),
    (92, Way::IsContended),
    (95, Way::IsRevoked),
    (100, Way::Keeps),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Pays,
    PaysAtOnce,
    Leaves,
    LetsLapse,
    IsRefunded,
    IsContended,
    IsRevoked,
    Keeps,
}

fn way(chosen: u64) -> Way {
    WAYS.iter()
        .find(|(below, _)| chosen < *below)
        .map_or(Way::Keeps, |(_, way)| *way)
}

/// Uses an issuance that was just won.
pub(super) async fn begin(till: &mut Till<'_>, issuance: IssuanceId) {
    change_discount(till, issuance).await;
    let way = way(till.choose(100));
    let amount = till.choose(AMOUNT_MAX);
    if till.choose(4) == 0 {
        till.quote(issuance, amount).await;
    }
    let order = till.order("a");
    let order = order.as_str();
    match way {
        Way::Keeps => {}
        Way::Pays => {
            if reserve(till, issuance, order, amount, None).await {
                redeem(till, issuance, order, None).await;
            }
        }
        Way::PaysAtOnce => {
            redeem(till, issuance, order, Some(amount)).await;
        }
        Way::Leaves => leave(till, issuance, order, amount).await,
        Way::LetsLapse => {
            let at = Instant::now();
            if reserve(till, issuance, order, amount, Some(SHORT_HOLD)).await {
                wait(till, issuance, Part::Lapsed, at + LAPSE);
            }
        }
        Way::IsRefunded => be_refunded(till, issuance, order, amount).await,
        Way::IsContended => {
            wait(till, issuance, Part::Contends, Instant::now());
            if reserve(till, issuance, order, amount, None).await {
                redeem(till, issuance, order, Some(amount)).await;
            }
        }
        Way::IsRevoked => {
            let body = json!({"reason": "load", "return_quantity": till.choose(2) == 0});
            twice(till, issuance, "revoke", &body.to_string()).await;
            reserve(till, issuance, order, amount, None).await;
        }
    }
}

/// Gives the issuance back before it is paid. Another order pays with it.
async fn leave(till: &mut Till<'_>, issuance: IssuanceId, order: &str, amount: u64) {
    if !reserve(till, issuance, order, amount, None).await {
        return;
    }
    give_back(till, issuance, "release", order).await;
    let other = till.order("b");
    redeem(till, issuance, &other, Some(amount)).await;
    // The late retry of a client that did not see the answer.
    give_back(till, issuance, "release", order).await;
}

/// Pays, is refunded, and pays another order with it. Late retries of both steps change nothing.
async fn be_refunded(till: &mut Till<'_>, issuance: IssuanceId, order: &str, amount: u64) {
    if !redeem(till, issuance, order, Some(amount)).await {
        return;
    }
    give_back(till, issuance, "refund", order).await;
    let other = till.order("b");
    if reserve(till, issuance, &other, amount, None).await {
        redeem(till, issuance, &other, Some(amount)).await;
    }
    give_back(till, issuance, "refund", order).await;
    redeem(till, issuance, order, Some(amount)).await;
}

/// Contends with the first order of a journey as a second order.
pub(super) async fn contend(till: &mut Till<'_>, issuance: IssuanceId) {
    let (order, amount) = (till.order("c"), till.choose(AMOUNT_MAX));
    if till.choose(2) == 0 {
        redeem(till, issuance, &order, Some(amount)).await;
    } else if reserve(till, issuance, &order, amount, None).await {
        give_back(till, issuance, "release", &order).await;
    }
}

/// Goes on when the hold of the first order has lapsed: with that order, or with another one.
pub(super) async fn after_lapse(till: &mut Till<'_>, issuance: IssuanceId) {
    if till.choose(2) == 0 {
        let order = till.order("a");
        redeem(till, issuance, &order, None).await;
    } else {
        let (order, amount) = (till.order("d"), till.choose(AMOUNT_MAX));
        redeem(till, issuance, &order, Some(amount)).await;
        let first = till.order("a");
        redeem(till, issuance, &first, None).await;
    }
}

fn wait(till: &Till<'_>, issuance: IssuanceId, part: Part, due: Instant) {
    if let Some(shop) = &till.worker.shop {
        shop.wait(Waiting {
            issuance,
            number: till.number,
            part,
            due,
        });
    }
}

async fn change_discount(till: &mut Till<'_>, issuance: IssuanceId) {
    if till.checkout.changes && till.number % PER_CHANGE == PER_CHANGE - 1 {
        let value = 10 + till.choose(20);
        let patch = json!({"discount": {"kind": "rate", "value": value}});
        till.patch(issuance.coupon, &patch).await;
    }
}

/// Reserves for an order. True if the order has it then.
async fn reserve(
    till: &mut Till<'_>,
    issuance: IssuanceId,
    order: &str,
    amount: u64,
    hold: Option<u32>,
) -> bool {
    let body = |amount: u64| match hold {
        Some(hold) => json!({"order_id": order, "order_amount": amount, "hold": hold}).to_string(),
        None => json!({"order_id": order, "order_amount": amount}).to_string(),
    };
    let is_done = twice(till, issuance, "reserve", &body(amount)).await;
    if is_done && till.choose(20) == 0 {
        till.step(issuance, "reserve", &body(amount + 1)).await;
    }
    is_done
}

/// Redeems for an order. True if the order was paid with it.
async fn redeem(till: &mut Till<'_>, issuance: IssuanceId, order: &str, amount: Option<u64>) -> bool {
    let body = match amount {
        Some(amount) => json!({"order_id": order, "order_amount": amount}),
        None => json!({"order_id": order}),
    };
    twice(till, issuance, "redeem", &body.to_string()).await
}

async fn give_back(till: &mut Till<'_>, issuance: IssuanceId, step: &'static str, order: &str) -> bool {
    twice(till, issuance, step, &json!({"order_id": order}).to_string()).await
}

/// Takes a step, and one time in twenty once more. True if it was taken.
async fn twice(till: &mut Till<'_>, issuance: IssuanceId, step: &'static str, body: &str) -> bool {
    let told = till.step(issuance, step, body).await;
    if till.choose(20) == 0 {
        till.step(issuance, step, body).await;
    }
    told.is_some_and(|(status, _)| status == 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_chosen() {
        for (_, wanted) in WAYS {
            assert!((0..100).any(|chosen| way(chosen) == wanted), "{wanted:?}");
        }
    }
}
