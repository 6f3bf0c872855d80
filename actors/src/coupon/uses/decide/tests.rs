//! The rules one by one. [`table`] has each step in each state, and a comparison with a model.

mod table;

use super::*;
use crate::coupon::ids::Sequence;
use crate::coupon::uses::latest::{LoadedUse, Uses};

const END: i64 = 1_000_000_000;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn seconds(seconds: i64) -> Timestamp {
    at(seconds * 1_000_000)
}

fn order(name: &str) -> OrderId {
    OrderId::parse(name).unwrap()
}

fn reserve(name: &str, amount: u64) -> Step {
    Step::Reserve {
        order: order(name),
        amount,
        hold_seconds: 60,
    }
}

fn redeem(name: &str, amount: impl Into<Option<u64>>) -> Step {
    Step::Redeem {
        order: order(name),
        amount: amount.into(),
    }
}

fn release(name: &str) -> Step {
    Step::Release { order: order(name) }
}

fn refund(name: &str) -> Step {
    Step::Refund { order: order(name) }
}

fn revoke(returns: bool) -> Step {
    Step::Revoke {
        reason: None,
        returns,
    }
}

/// 15 percent, at most 500 on an order of at least 1,000.
fn offer() -> Offer {
    Offer {
        discount: Some(Discount::Rate(15)),
        max_discount: Some(500),
        min_order_amount: Some(1_000),
        ..Offer::titled("test")
    }
}

/// Takes steps one after the other, each at a second, with an issuance that can be used until second 1,000.
struct Life {
    offer: Offer,
    uses: Uses,
}

const SEQUENCE: Sequence = Sequence::new(7);

impl Life {
    fn new(steps: &[Step]) -> Self {
        let mut life = Self {
            offer: offer(),
            uses: Uses::default(),
        };
        for step in steps {
            assert!(matches!(life.take(0, step), Decision::Enter(_)), "{step:?}");
        }
        life
    }

    fn latest(&self) -> Option<LatestUse> {
        self.uses.latest(SEQUENCE)
    }

    /// Returns what a step leads to, and does not take it.
    fn decide(&self, second: i64, step: &Step) -> Decision {
        let terms = Terms {
            offer: &self.offer,
            expires_at: Some(at(END)),
        };
        let own = step.order().and_then(|order| self.uses.by_order(SEQUENCE, order));
        terms.decide(self.latest().as_ref(), own.as_ref(), seconds(second), step)
    }

    fn take(&mut self, second: i64, step: &Step) -> Decision {
        let decision = self.decide(second, step);
        if let Decision::Enter(made) = &decision {
            self.push(made);
        }
        decision
    }

    fn push(&mut self, made: &LatestUse) {
        let next = LoadedUse {
            number: self.uses.last().next(),
            sequence: SEQUENCE,
            kind: made.kind,
            order: made.order.as_ref().map(OrderId::as_str),
            figures: made.figures,
            hold_until: made.hold_until,
            returns: made.returns,
            at: made.at,
        };
        self.uses.push(&next).unwrap();
    }

    fn refusal(&mut self, second: i64, step: &Step) -> UseRefusal {
        match self.take(second, step) {
            Decision::Refuse(refusal) => refusal,
            other => panic!("{step:?}: {other:?}"),
        }
    }

    fn made(&mut self, second: i64, step: &Step) -> LatestUse {
        match self.take(second, step) {
            Decision::Enter(made) => made,
            other => panic!("{step:?}: {other:?}"),
        }
    }
}

fn figures(amount: u64, discount: u64) -> Option<Figures> {
    Some(Figures { amount, discount })
}

#[test]
fn an_order_reserves_and_redeems_and_is_refunded() {
    let mut life = Life::new(&[]);
    let reserved = life.made(1, &reserve("a", 2_000));
    let expected = LatestUse {
        kind: UseKind::Reserved,
        order: Some(order("a")),
        figures: figures(2_000, 300),
        hold_until: Some(seconds(61)),
        returns: false,
        at: seconds(1),
    };
    assert_eq!(reserved, expected);
    let redeemed = life.made(2, &redeem("a", None));
    assert_eq!(
        (redeemed.kind, redeemed.figures),
        (UseKind::Redeemed, figures(2_000, 300))
    );
    let refunded = life.made(3, &refund("a"));
    assert_eq!(
        (refunded.kind, refunded.figures),
        (UseKind::Refunded, figures(2_000, 300))
    );
    let released = [reserve("b", 4_000), release("b")].map(|step| life.made(4, &step));
    assert_eq!(
        (released[1].kind, released[1].figures),
        (UseKind::Released, figures(4_000, 500))
    );
    assert_eq!(life.made(5, &redeem("c", 1_000)).figures, figures(1_000, 150));
}

#[test]
fn the_same_step_again_is_made_already_and_other_figures_are_refused() {
    for (steps, again, other) in [
        (
            vec![reserve("a", 2_000)],
            reserve("a", 2_000),
            Some(reserve("a", 2_001)),
        ),
        (
            vec![reserve("a", 2_000), redeem("a", None)],
            redeem("a", 2_000),
            Some(redeem("a", 2_001)),
        ),
        (
            vec![redeem("a", 2_000)],
            redeem("a", None),
            Some(redeem("a", 1_999)),
        ),
        // A redemption of an issued one reserved it at once.
        (
            vec![redeem("a", 2_000)],
            redeem("a", 2_000),
            Some(reserve("a", 2_001)),
        ),
        (vec![reserve("a", 2_000), release("a")], release("a"), None),
        (vec![redeem("a", 2_000), refund("a")], refund("a"), None),
        (vec![revoke(true)], revoke(true), Some(revoke(false))),
    ] {
        let mut life = Life::new(&steps);
        assert_eq!(life.take(10, &again), Decision::Replay, "{again:?}");
        if let Some(other) = other {
            let latest = Box::new(life.latest().unwrap());
            assert_eq!(
                life.refusal(10, &other),
                UseRefusal::OrderMismatch(latest),
                "{other:?}"
            );
        }
    }
    let mut life = Life::new(&[reserve("a", 2_000)]);
    let mismatch = life.refusal(10, &redeem("a", 2_001));
    assert!(matches!(mismatch, UseRefusal::OrderMismatch(_)), "{mismatch:?}");
}

#[test]
fn what_one_order_has_no_other_order_gets() {
    let steps = [
        reserve("b", 2_000),
        redeem("b", 2_000),
        release("b"),
        refund("b"),
        revoke(false),
    ];
    let mut reserved = Life::new(&[reserve("a", 2_000)]);
    let mut redeemed = Life::new(&[redeem("a", 2_000)]);
    let mut revoked = Life::new(&[revoke(false)]);
    for step in &steps {
        let hold_until = seconds(60);
        assert_eq!(reserved.refusal(10, step), UseRefusal::Reserved { hold_until });
        assert!(
            matches!(redeemed.refusal(10, step), UseRefusal::Redeemed(_)),
            "{step:?}"
        );
        if !matches!(step, Step::Revoke { .. }) {
            assert_eq!(revoked.refusal(10, step), UseRefusal::Revoked);
        }
    }
    for step in [reserve("a", 2_000), release("a")] {
        assert!(
            matches!(redeemed.refusal(10, &step), UseRefusal::Redeemed(_)),
            "{step:?}"
        );
    }
}

#[test]
fn a_hold_lapses_when_its_time_has_come_and_its_order_may_still_redeem() {
    let lapsed = || Life::new(&[reserve("a", 2_000)]);
    assert!(matches!(
        lapsed().refusal(59, &reserve("b", 1_000)),
        UseRefusal::Reserved { .. }
    ));
    assert_eq!(lapsed().made(60, &reserve("b", 1_000)).order, Some(order("b")));
    assert_eq!(lapsed().refusal(60, &release("a")), UseRefusal::NotReserved);
    assert_eq!(lapsed().made(60, &revoke(false)).kind, UseKind::Revoked);
    assert_eq!(
        lapsed().made(60, &reserve("a", 3_000)).figures,
        figures(3_000, 450)
    );
    let mut other = lapsed();
    other.made(60, &reserve("b", 1_000));
    assert!(matches!(
        other.refusal(61, &redeem("a", None)),
        UseRefusal::Reserved { .. }
    ));

    // The discount was fixed when it was reserved.
    let mut life = lapsed();
    life.offer.discount = Some(Discount::Rate(1));
    assert_eq!(life.made(60, &redeem("a", None)).figures, figures(2_000, 300));
    let mut life = lapsed();
    life.offer.discount = Some(Discount::Rate(1));
    assert_eq!(life.made(60, &redeem("a", 3_000)).figures, figures(3_000, 30));
    let mut life = lapsed();
    life.offer.min_order_amount = Some(5_000);
    let min_order_amount = 5_000;
    assert_eq!(
        life.refusal(60, &redeem("a", None)),
        UseRefusal::BelowMinimum { min_order_amount }
    );
}

#[test]
fn an_issuance_past_its_end_is_not_used_but_a_hold_begun_in_time_is_redeemed() {
    let expired = UseRefusal::Expired {
        usable_until: at(END),
    };
    let mut life = Life::new(&[]);
    for step in [
        reserve("a", 1),
        redeem("a", 1),
        redeem("a", None),
        release("a"),
        refund("a"),
        revoke(true),
    ] {
        assert_eq!(life.refusal(1_000, &step), expired, "{step:?}");
    }
    let mut held = Life::new(&[]);
    held.made(999, &reserve("a", 2_000));
    assert_eq!(held.made(1_058, &redeem("a", None)).kind, UseKind::Redeemed);
    assert_eq!(held.made(9_000, &refund("a")).kind, UseKind::Refunded);
    assert_eq!(held.refusal(9_000, &redeem("b", 2_000)), expired);
    let mut lapsed = Life::new(&[]);
    lapsed.made(999, &reserve("a", 2_000));
    assert_eq!(lapsed.refusal(1_059, &redeem("a", None)), expired);
}

#[test]
fn what_was_not_done_cannot_be_undone_and_small_orders_are_refused() {
    let mut life = Life::new(&[]);
    assert_eq!(life.refusal(1, &release("a")), UseRefusal::NotReserved);
    assert_eq!(life.refusal(1, &redeem("a", None)), UseRefusal::NotReserved);
    assert_eq!(life.refusal(1, &refund("a")), UseRefusal::NotRedeemed);
    let min_order_amount = 1_000;
    for step in [reserve("a", 999), redeem("a", 999)] {
        assert_eq!(
            life.refusal(1, &step),
            UseRefusal::BelowMinimum { min_order_amount }
        );
    }
    life.made(1, &reserve("a", 1_000));
    assert_eq!(life.refusal(2, &refund("a")), UseRefusal::NotRedeemed);
}

#[test]
fn discounts_are_rounded_down_and_never_above_the_order() {
    let of = |discount, max_discount, amount| {
        let offer = Offer {
            discount,
            max_discount,
            ..Offer::titled("test")
        };
        super::discount(&offer, amount)
    };
    let rate = |percent| Some(Discount::Rate(percent));
    for (discount, most, amount, expected) in [
        (None, None, 1_000, 0),
        (Some(Discount::Amount(500)), None, 1_000, 500),
        (Some(Discount::Amount(500)), None, 499, 499),
        (rate(15), None, 999, 149),
        (rate(15), Some(100), 999, 100),
        (rate(15), Some(149), 999, 149),
        (rate(100), None, 999, 999),
        (rate(1), None, 99, 0),
        (rate(33), None, 0, 0),
        (rate(99), None, crate::ids::ID_MAX, 8_917_127_262_193_581),
    ] {
        assert_eq!(
            of(discount, most, amount),
            expected,
            "{discount:?} {most:?} {amount}"
        );
    }
}

#[test]
fn a_clock_that_was_ahead_makes_no_later_hold_longer() {
    let mut life = Life::new(&[]);
    life.made(900, &reserve("a", 2_000));
    assert_eq!(life.made(50, &release("a")).at, seconds(50));
    let held = life.made(60, &reserve("b", 2_000));
    assert_eq!((held.at, held.hold_until), (seconds(60), Some(seconds(120))));
    assert!(matches!(
        life.refusal(119, &reserve("c", 2_000)),
        UseRefusal::Reserved { .. }
    ));
    assert_eq!(life.made(120, &reserve("c", 2_000)).at, seconds(120));
}

#[test]
fn a_late_retry_does_not_undo_what_came_after_its_step() {
    // Each step is asked for again after the steps that follow it.
    let mut life = Life::new(&[reserve("a", 2_000), release("a"), reserve("b", 3_000)]);
    assert_eq!(life.take(10, &release("a")), Decision::Replay);
    life.made(11, &redeem("b", None));
    assert_eq!(life.take(12, &release("a")), Decision::Replay);

    let mut life = Life::new(&[redeem("a", 2_000), refund("a")]);
    assert_eq!(
        life.take(10, &redeem("a", None)),
        Decision::Replay,
        "the order was cancelled"
    );
    let refunded = Box::new(life.latest().unwrap());
    assert_eq!(
        life.refusal(10, &redeem("a", 3_000)),
        UseRefusal::OrderMismatch(refunded.clone())
    );
    life.made(11, &redeem("b", 2_000));
    assert_eq!(life.take(12, &redeem("a", 2_000)), Decision::Replay);
    assert_eq!(life.take(12, &refund("a")), Decision::Replay);
    assert_eq!(
        life.refusal(12, &redeem("a", 3_000)),
        UseRefusal::OrderMismatch(refunded)
    );
    life.made(13, &refund("b"));
    life.made(13, &revoke(false));
    assert_eq!(life.take(14, &refund("a")), Decision::Replay);
    assert_eq!(life.refusal(14, &reserve("a", 2_000)), UseRefusal::Revoked);
}

#[test]
fn an_order_that_gave_a_coupon_back_may_reserve_it_again() {
    let mut life = Life::new(&[reserve("a", 2_000), release("a")]);
    assert_eq!(
        life.made(1, &reserve("a", 3_000)).figures,
        figures(3_000, 450),
        "with another amount"
    );
    life.made(2, &release("a"));
    life.made(3, &redeem("a", 2_000));
    assert!(matches!(life.refusal(4, &release("a")), UseRefusal::Redeemed(_)));
    life.made(4, &refund("a"));
    life.made(5, &reserve("a", 1_000));
    assert_eq!(life.refusal(6, &refund("a")), UseRefusal::NotRedeemed);
    assert_eq!(life.made(6, &redeem("a", None)).figures, figures(1_000, 150));
}
