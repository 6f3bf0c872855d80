//! Orders that use issuances: they ask for quotes, reserve, redeem, release and refund, repeat steps, and
//! contend for a few issuances.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::ClientTask;
use crate::recorder::Answer;

/// Number of issuances that orders use. It is small, so that orders contend, and so that the checker reads
/// the uses of few issuances.
const POOL_MAX: usize = 100;

/// Number of orders of one client that stay paid. Later ones are refunded.
const PAID_MAX: usize = 2;

/// A hold that lapses during a test, and one that does not, in seconds.
const HOLDS: [u32; 2] = [1, 900];

/// One of this many issuances is left with the long hold, so that a coupon has holds when a test ends. No
/// other order can use it then.
const LEFT_EACH: usize = 10;

/// The first issuances, which orders use.
#[derive(Debug, Default)]
pub struct Pool(Mutex<PoolIssuances>);

#[derive(Debug, Default)]
struct PoolIssuances {
    all: Vec<String>,
    /// Number of those that orders left with the long hold.
    left: usize,
}

impl Pool {
    /// Adds an issuance, unless there are enough.
    pub fn add(&self, issuance: &str) {
        let mut pool = self.issuances();
        if pool.all.len() < POOL_MAX && !pool.all.iter().any(|known| known == issuance) {
            pool.all.push(issuance.to_owned());
        }
    }

    fn any(&self, rng: &mut StdRng) -> Option<String> {
        let pool = self.issuances();
        let all = &pool.all;
        (!all.is_empty()).then(|| all[rng.random_range(0..all.len())].clone())
    }

    /// Returns true if another issuance may be left with the long hold.
    fn may_leave(&self) -> bool {
        let pool = self.issuances();
        pool.left < pool.all.len() / LEFT_EACH
    }

    fn left_one(&self) {
        self.issuances().left += 1;
    }

    fn issuances(&self) -> MutexGuard<'_, PoolIssuances> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Issuances of the third coupon, which no order uses.
#[derive(Debug, Default)]
pub struct Scarce(Mutex<ScarceIssuances>);

#[derive(Debug, Default)]
struct ScarceIssuances {
    known: HashSet<String>,
    /// Those that were not given back, oldest first.
    kept: VecDeque<String>,
}

impl Scarce {
    /// Adds an issuance that a client was issued, maybe once more.
    pub fn add(&self, issuance: &str) {
        let mut issuances = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if issuances.known.insert(issuance.to_owned()) {
            issuances.kept.push_back(issuance.to_owned());
        }
    }

    /// Returns how many were issued.
    pub fn issued(&self) -> u64 {
        let issuances = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        issuances.known.len() as u64
    }

    fn take(&self) -> Option<String> {
        let mut issuances = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        issuances.kept.pop_front()
    }
}

/// An order for one issuance.
#[derive(Debug, Clone)]
pub struct Order {
    issuance: String,
    id: String,
    amount: u64,
}

impl Order {
    fn body(&self) -> Value {
        json!({"order_id": self.id, "order_amount": self.amount})
    }

    /// Returns the body of a step that needs no amount.
    fn bare(&self) -> Value {
        json!({"order_id": self.id})
    }
}

/// Orders that are paid, oldest first.
pub type Paid = VecDeque<Order>;

impl ClientTask {
    /// Makes an order for an issuance, or two that contend for it, or revokes it.
    pub(super) async fn check_out(&mut self, rng: &mut StdRng, number: u64) {
        let Some(issuance) = self.pool.any(rng) else {
            return;
        };
        let order = |name: &str, rng: &mut StdRng| Order {
            issuance: issuance.clone(),
            id: format!("order-{number}{name}"),
            amount: rng.random_range(1_000..100_000),
        };
        match rng.random_range(0..100) {
            0 => {
                // Few are given back: that waits for doors of killed nodes, and so would most clients.
                let returns = rng.random_ratio(1, 4);
                let body = json!({"reason": "a test", "return_quantity": returns});
                self.step(rng, &issuance, "revoke", &body).await;
            }
            1..30 => {
                let orders = [order("a", rng), order("b", rng)];
                let mut rival = Self {
                    paid: Paid::new(),
                    ..self.clone()
                };
                let mut rng_of_rival = StdRng::seed_from_u64(rng.random());
                let [one, other] = orders;
                tokio::join!(self.buy(rng, one), rival.buy(&mut rng_of_rival, other));
                self.paid.append(&mut rival.paid);
            }
            _ => {
                let order = order("", rng);
                self.buy(rng, order).await;
            }
        }
        while self.paid.len() > PAID_MAX
            && let Some(order) = self.paid.pop_front()
        {
            self.refund(rng, &order).await;
        }
    }

    /// Reserves, and then redeems, releases or leaves it; or redeems at once.
    async fn buy(&mut self, rng: &mut StdRng, order: Order) {
        let Order { issuance, .. } = &order;
        if rng.random_ratio(3, 4) {
            let is_left = rng.random_ratio(1, 8);
            let is_long = if is_left {
                self.pool.may_leave()
            } else {
                rng.random()
            };
            let mut body = order.body();
            body["hold"] = HOLDS[usize::from(is_long)].into();
            let is_reserved = self.reserve(rng, &order, &body).await;
            if rng.random_ratio(1, 8) {
                self.step(rng, issuance, "reserve", &body).await;
            }
            if !is_reserved || is_left {
                if is_reserved && is_long {
                    self.pool.left_one();
                }
                return;
            }
            if rng.random_ratio(1, 4) {
                self.step(rng, issuance, "release", &order.bare()).await;
                return;
            }
            if rng.random_ratio(1, 2) {
                // The amount is that of the reservation. If that has lapsed, this may be refused.
                if self.step(rng, issuance, "redeem", &order.bare()).await == 200 {
                    self.paid.push_back(order);
                }
                return;
            }
        }
        let is_paid = self.step(rng, issuance, "redeem", &order.body()).await == 200;
        if rng.random_ratio(1, 8) {
            self.step(rng, issuance, "redeem", &order.body()).await;
        }
        if is_paid {
            self.paid.push_back(order);
        }
    }

    /// Reserves, sometimes after a quote. Returns true if that succeeded.
    async fn reserve(&mut self, rng: &mut StdRng, order: &Order, body: &Value) -> bool {
        let quoted = if rng.random() {
            self.quote(rng, order).await
        } else {
            None
        };
        let (status, reserved) = self.answer(rng, &order.issuance, "reserve", body).await;
        // The discount of the first coupon may have changed since the quote.
        let is_of_second = order.issuance.starts_with(&format!("{}-", self.coupons[1]));
        if let (Some(quoted), true, 200) = (quoted, is_of_second, status) {
            assert_eq!(reserved["use"]["discount"], quoted, "{order:?}");
        }
        status == 200
    }

    /// Returns the discount that the order would get; `None` if it would get none, or there is no answer.
    async fn quote(&mut self, rng: &mut StdRng, order: &Order) -> Option<u64> {
        let address = self.any_address(rng);
        let answer = self
            .history
            .quote(&self.client, &address, &order.issuance, order.amount);
        let (_, quote) = answer.await?;
        quote["discount"].as_u64().filter(|_| quote["usable"] == true)
    }

    async fn refund(&mut self, rng: &mut StdRng, order: &Order) {
        for _ in 0..=u8::from(rng.random_ratio(1, 8)) {
            self.step(rng, &order.issuance, "refund", &order.bare()).await;
        }
    }

    /// Gives an issuance of the third coupon back to its quantity, so that another client is issued one.
    pub(super) async fn give_back(&mut self, rng: &mut StdRng) {
        if let Some(issuance) = self.scarce.take() {
            let body = json!({"reason": "a test", "return_quantity": true});
            self.step(rng, &issuance, "revoke", &body).await;
        }
    }

    /// Takes a step, and repeats it until there is a definite answer. Returns its status.
    async fn step(&mut self, rng: &mut StdRng, issuance: &str, step: &str, body: &Value) -> u16 {
        self.answer(rng, issuance, step, body).await.0
    }

    /// Takes a step, and repeats it until there is a definite answer.
    async fn answer(&mut self, rng: &mut StdRng, issuance: &str, step: &str, body: &Value) -> Answer {
        loop {
            let address = self.any_address(rng);
            let answer = self.history.step(&self.client, &address, issuance, step, body);
            match answer.await {
                Some(answer) if answer.0 != 503 => return answer,
                _ => self.wait_a_little().await,
            }
        }
    }
}

/// Returns the bodies with which the coupons of a test are made. The first has [`TOTAL`](super::TOTAL), the
/// second no limit, the third [`FEW`](super::FEW).
pub fn offers() -> [Value; 3] {
    let rate = json!({"title": "a rate", "total_quantity": super::TOTAL, "use_within_days": 30,
        "discount": {"kind": "rate", "value": 15}, "max_discount": 5_000, "min_order_amount": 2_000});
    let amount = json!({"title": "an amount", "total_quantity": null, "use_within_days": 30,
        "discount": {"kind": "amount", "value": 3_000}});
    let few = json!({"title": "few", "total_quantity": super::FEW});
    [rate, amount, few]
}

/// Returns a patch of the first coupon's discount.
pub fn other_discount(rng: &mut StdRng) -> Value {
    json!({"discount": {"kind": "rate", "value": rng.random_range(1..=100)}, "max_discount": rng.random_range(1..9_000)})
}
