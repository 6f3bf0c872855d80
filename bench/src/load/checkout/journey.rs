//! What the customers of a run do with the issuances that they won.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::ids::IssuanceId;

use super::{Part, StepSender, Waiting};

/// The hold of an order that lets it lapse, in seconds.
const SHORT_HOLD: u32 = 1;
/// Time after which a short hold has certainly lapsed.
const LAPSE: Duration = Duration::from_millis(1_300);
/// Bound of the amounts of orders. Some are below the minimum of the run's coupons.
const AMOUNT_MAX: u64 = 60_000;
/// Customers between two changes of the discount.
const PER_CHANGE: u64 = 200;

/// The ways of a hundred customers: a customer goes the first way whose number is above the customer's own.
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
pub(super) async fn begin(sender: &mut StepSender<'_>, issuance: IssuanceId) {
    change_discount(sender, issuance).await;
    let way = way(sender.choose(100));
    let amount = sender.choose(AMOUNT_MAX);
    if sender.choose(4) == 0 {
        sender.quote(issuance, amount).await;
    }
    let order = sender.order("a");
    let order = order.as_str();
    match way {
        Way::Keeps => {}
        Way::Pays => {
            if reserve(sender, issuance, order, amount, None).await {
                redeem(sender, issuance, order, None).await;
            }
        }
        Way::PaysAtOnce => {
            redeem(sender, issuance, order, Some(amount)).await;
        }
        Way::Leaves => leave(sender, issuance, order, amount).await,
        Way::LetsLapse => {
            let at = Instant::now();
            if reserve(sender, issuance, order, amount, Some(SHORT_HOLD)).await {
                wait(sender, issuance, Part::Lapsed, at + LAPSE);
            }
        }
        Way::IsRefunded => be_refunded(sender, issuance, order, amount).await,
        Way::IsContended => {
            wait(sender, issuance, Part::Contends, Instant::now());
            if reserve(sender, issuance, order, amount, None).await {
                redeem(sender, issuance, order, Some(amount)).await;
            }
        }
        Way::IsRevoked => {
            let body = json!({"reason": "load", "return_quantity": sender.choose(2) == 0});
            twice(sender, issuance, "revoke", &body.to_string()).await;
            reserve(sender, issuance, order, amount, None).await;
        }
    }
}

/// Gives the issuance back before it is paid. Another order pays with it.
async fn leave(sender: &mut StepSender<'_>, issuance: IssuanceId, order: &str, amount: u64) {
    if !reserve(sender, issuance, order, amount, None).await {
        return;
    }
    give_back(sender, issuance, "release", order).await;
    let other = sender.order("b");
    redeem(sender, issuance, &other, Some(amount)).await;
    // The late retry of a client that did not see the answer.
    give_back(sender, issuance, "release", order).await;
}

/// Pays, is refunded, and pays another order with it. Late retries of both steps change nothing.
async fn be_refunded(sender: &mut StepSender<'_>, issuance: IssuanceId, order: &str, amount: u64) {
    if !redeem(sender, issuance, order, Some(amount)).await {
        return;
    }
    give_back(sender, issuance, "refund", order).await;
    let other = sender.order("b");
    if reserve(sender, issuance, &other, amount, None).await {
        redeem(sender, issuance, &other, Some(amount)).await;
    }
    give_back(sender, issuance, "refund", order).await;
    redeem(sender, issuance, order, Some(amount)).await;
}

/// Contends with the first order of a journey as a second order.
pub(super) async fn contend(sender: &mut StepSender<'_>, issuance: IssuanceId) {
    let (order, amount) = (sender.order("c"), sender.choose(AMOUNT_MAX));
    if sender.choose(2) == 0 {
        redeem(sender, issuance, &order, Some(amount)).await;
    } else if reserve(sender, issuance, &order, amount, None).await {
        give_back(sender, issuance, "release", &order).await;
    }
}

/// Goes on when the hold of the first order has lapsed: with that order, or with another one.
pub(super) async fn after_lapse(sender: &mut StepSender<'_>, issuance: IssuanceId) {
    if sender.choose(2) == 0 {
        let order = sender.order("a");
        redeem(sender, issuance, &order, None).await;
    } else {
        let (order, amount) = (sender.order("d"), sender.choose(AMOUNT_MAX));
        redeem(sender, issuance, &order, Some(amount)).await;
        let first = sender.order("a");
        redeem(sender, issuance, &first, None).await;
    }
}

fn wait(sender: &StepSender<'_>, issuance: IssuanceId, part: Part, due: Instant) {
    if let Some(journeys) = &sender.worker.journeys {
        journeys.wait(Waiting {
            issuance,
            number: sender.number,
            part,
            due,
        });
    }
}

async fn change_discount(sender: &mut StepSender<'_>, issuance: IssuanceId) {
    if sender.checkout.changes && sender.number % PER_CHANGE == PER_CHANGE - 1 {
        let value = 10 + sender.choose(20);
        let patch = json!({"discount": {"kind": "rate", "value": value}});
        sender.patch(issuance.coupon, &patch).await;
    }
}

/// Reserves for an order. True if the order has it then.
async fn reserve(
    sender: &mut StepSender<'_>,
    issuance: IssuanceId,
    order: &str,
    amount: u64,
    hold: Option<u32>,
) -> bool {
    let body = |amount: u64| match hold {
        Some(hold) => json!({"order_id": order, "order_amount": amount, "hold": hold}).to_string(),
        None => json!({"order_id": order, "order_amount": amount}).to_string(),
    };
    let is_done = twice(sender, issuance, "reserve", &body(amount)).await;
    if is_done && sender.choose(20) == 0 {
        sender.step(issuance, "reserve", &body(amount + 1)).await;
    }
    is_done
}

/// Redeems for an order. True if the order was paid with it.
async fn redeem(sender: &mut StepSender<'_>, issuance: IssuanceId, order: &str, amount: Option<u64>) -> bool {
    let body = match amount {
        Some(amount) => json!({"order_id": order, "order_amount": amount}),
        None => json!({"order_id": order}),
    };
    twice(sender, issuance, "redeem", &body.to_string()).await
}

async fn give_back(
    sender: &mut StepSender<'_>,
    issuance: IssuanceId,
    step: &'static str,
    order: &str,
) -> bool {
    twice(sender, issuance, step, &json!({"order_id": order}).to_string()).await
}

/// Takes a step, and one time in twenty once more. True if it was taken.
async fn twice(sender: &mut StepSender<'_>, issuance: IssuanceId, step: &'static str, body: &str) -> bool {
    let told = sender.step(issuance, step, body).await;
    if sender.choose(20) == 0 {
        sender.step(issuance, step, body).await;
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
