//! Every row of the API's table, and a comparison with a model that keeps the state in another form.

use proptest::prelude::*;

use super::*;

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
    latest: Option<LatestUse>,
}

impl Life {
    fn new(steps: &[Step]) -> Self {
        let mut life = Self {
            offer: offer(),
            latest: None,
        };
        for step in steps {
            assert!(matches!(life.take(0, step), Decision::Make(_)), "{step:?}");
        }
        life
    }

    fn take(&mut self, second: i64, step: &Step) -> Decision {
        let terms = Terms {
            offer: &self.offer,
            expires_at: Some(at(END)),
        };
        let decision = terms.decide(self.latest.as_ref(), seconds(second), step);
        if let Decision::Make(made) = &decision {
            self.latest = Some(made.clone());
        }
        decision
    }

    fn refusal(&mut self, second: i64, step: &Step) -> UseRefusal {
        match self.take(second, step) {
            Decision::Refuse(refusal) => refusal,
            other => panic!("{step:?}: {other:?}"),
        }
    }

    fn made(&mut self, second: i64, step: &Step) -> LatestUse {
        match self.take(second, step) {
            Decision::Make(made) => made,
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
        (vec![reserve("a", 2_000), release("a")], release("a"), None),
        (vec![redeem("a", 2_000), refund("a")], refund("a"), None),
        (vec![revoke(true)], revoke(true), Some(revoke(false))),
    ] {
        let mut life = Life::new(&steps);
        assert_eq!(life.take(10, &again), Decision::Made, "{again:?}");
        if let Some(other) = other {
            let latest = Box::new(life.latest.clone().unwrap());
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
    for step in [reserve("a", 1), redeem("a", 1), redeem("a", None)] {
        assert_eq!(life.refusal(1_000, &step), expired, "{step:?}");
    }
    assert_eq!(life.refusal(1_000, &release("a")), UseRefusal::NotReserved);
    assert_eq!(life.refusal(1_000, &refund("a")), UseRefusal::NotRedeemed);
    assert!(life.made(1_000, &revoke(true)).returns);
    let mut held = Life::new(&[]);
    held.made(999, &reserve("a", 2_000));
    assert_eq!(held.made(1_058, &redeem("a", None)).kind, UseKind::Redeemed);
    assert_eq!(held.made(9_000, &refund("a")).kind, UseKind::Refunded);
    assert_eq!(held.refusal(9_000, &redeem("a", 2_000)), expired);
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
fn a_clock_that_was_set_back_makes_no_use_older_than_the_one_before() {
    let mut life = Life::new(&[]);
    life.made(100, &reserve("a", 2_000));
    assert_eq!(life.made(50, &redeem("a", None)).at, seconds(100));
}

/// The model: what an issuance is, in words of the design.
#[derive(Debug, Clone, PartialEq)]
enum Model {
    Issued,
    Reserved { order: u8, amount: u64, until: i64 },
    Redeemed { order: u8, amount: u64 },
    Revoked,
}

fn any_step() -> impl Strategy<Value = (u8, u8, Option<u64>, u32)> {
    let amount = prop_oneof![Just(None), Just(Some(999)), Just(Some(1_000)), Just(Some(2_000))];
    (
        0..5_u8,
        0..3_u8,
        amount,
        prop_oneof![Just(1_u32), Just(20), Just(86_400)],
    )
}

fn step_of((kind, number, amount, hold_seconds): (u8, u8, Option<u64>, u32)) -> Step {
    let order = order(&format!("order-{number}"));
    match kind {
        0 => Step::Reserve {
            order,
            amount: amount.unwrap_or(1_500),
            hold_seconds,
        },
        1 => Step::Redeem { order, amount },
        2 => Step::Release { order },
        3 => Step::Refund { order },
        _ => revoke(number == 0),
    }
}

proptest! {
    /// Whatever is asked and whenever: at most one order has the issuance, a redeemed one is only freed by its
    /// own order, a revoked one never, and a quote says what a reservation then fixes.
    #[test]
    fn the_machine_agrees_with_a_model(steps in proptest::collection::vec((any_step(), 0..40_i64), 1..60)) {
        let mut life = Life::new(&[]);
        let (mut model, mut now) = (Model::Issued, 940_i64);
        for ((kind, number, amount, hold), passed) in steps {
            now += passed;
            if let Model::Reserved { until, .. } = model && now >= until {
                model = Model::Issued;
            }
            let step = step_of((kind, number, amount, hold));
            let before = life.latest.clone();
            let asked = amount.unwrap_or(1_500);
            let terms = Terms { offer: &life.offer, expires_at: Some(at(END)) };
            let quote = terms.quote(life.latest.as_ref(), seconds(now), asked);
            let decision = life.take(now, &step);
            let usable = now < 1_000;
            match (&decision, kind) {
                (Decision::Make(made), 0) => {
                    prop_assert_eq!(&model, &Model::Issued);
                    prop_assert!(usable && asked >= 1_000);
                    prop_assert_eq!((made.figures, &quote.refusal), (Some(quote.figures), &None));
                    model = Model::Reserved { order: number, amount: asked, until: now + i64::from(hold) };
                }
                (Decision::Make(made), 1) => {
                    let paid = made.figures.unwrap().amount;
                    match model {
                        Model::Issued => prop_assert!(usable && paid >= 1_000),
                        Model::Reserved { order, amount, .. } => prop_assert_eq!((order, amount), (number, paid)),
                        _ => prop_assert!(false, "{:?}", model),
                    }
                    prop_assert!(amount.is_none_or(|amount| amount == paid));
                    model = Model::Redeemed { order: number, amount: paid };
                }
                (Decision::Make(_), 2) => {
                    prop_assert!(matches!(model, Model::Reserved { order, .. } if order == number), "{:?}", model);
                    model = Model::Issued;
                }
                (Decision::Make(_), 3) => {
                    prop_assert!(matches!(model, Model::Redeemed { order, .. } if order == number), "{:?}", model);
                    model = Model::Issued;
                }
                (Decision::Make(_), _) => {
                    prop_assert_eq!(&model, &Model::Issued);
                    model = Model::Revoked;
                }
                (Decision::Made, _) => {
                    let latest = before.unwrap();
                    prop_assert_eq!(latest.kind, super::kind(&step));
                    prop_assert_eq!(latest.order.as_ref(), step.order());
                }
                (Decision::Refuse(refusal), _) => {
                    prop_assert_eq!(&life.latest, &before);
                    match refusal {
                        UseRefusal::Revoked => prop_assert_eq!(&model, &Model::Revoked),
                        UseRefusal::Redeemed(_) => prop_assert!(matches!(model, Model::Redeemed { .. }), "{:?}", model),
                        UseRefusal::Reserved { hold_until } => {
                            prop_assert!(*hold_until > seconds(now));
                            prop_assert!(matches!(model, Model::Reserved { .. }), "{:?}", model);
                        }
                        UseRefusal::Expired { .. } => prop_assert!(!usable && model == Model::Issued),
                        UseRefusal::BelowMinimum { .. } => prop_assert_eq!(&model, &Model::Issued),
                        UseRefusal::NotReserved => prop_assert!(kind == 2 || (kind == 1 && amount.is_none())),
                        UseRefusal::NotRedeemed => prop_assert_eq!(kind, 3),
                        UseRefusal::OrderMismatch(_) => prop_assert!(model != Model::Issued),
                        UseRefusal::UnknownIssuance => prop_assert!(false),
                    }
                }
            }
        }
    }
}
