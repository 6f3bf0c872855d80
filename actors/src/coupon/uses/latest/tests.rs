//! What is kept of uses, which uses are refused, and memory.

use super::*;

fn time(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn reserved(number: u64, sequence: u64, order: &str) -> LoadedUse<'_> {
    LoadedUse {
        number: UseNumber::new(number),
        sequence: Sequence::new(sequence),
        kind: UseKind::Reserved,
        order: Some(order),
        figures: Some(Figures {
            amount: 1_000,
            discount: 100,
        }),
        hold_until: Some(time(9_000)),
        returns: false,
        at: time(1_000),
    }
}

#[test]
fn the_latest_use_of_each_issuance_is_kept_and_the_states_are_counted() {
    let mut uses = Uses::default();
    assert_eq!(uses.latest(Sequence::new(1)), None);
    let redeemed = LoadedUse {
        kind: UseKind::Redeemed,
        hold_until: None,
        ..reserved(3, 7, "order-1")
    };
    let revoked = LoadedUse {
        kind: UseKind::Revoked,
        order: None,
        figures: None,
        hold_until: None,
        returns: true,
        ..reserved(4, 9, "")
    };
    for next in [
        reserved(1, 7, "order-1"),
        reserved(2, 8, "order-2"),
        redeemed,
        revoked,
    ] {
        assert!(!uses.ends_with(&next));
        uses.push(&next).unwrap();
        assert!(uses.ends_with(&next));
    }
    let latest = uses.latest(Sequence::new(7)).unwrap();
    assert_eq!((latest.kind, latest.hold_until), (UseKind::Redeemed, None));
    assert_eq!(latest.order, Some(OrderId::parse("order-1").unwrap()));
    let latest = uses.latest(Sequence::new(9)).unwrap();
    assert_eq!((latest.order, latest.figures, latest.returns), (None, None, true));
    let counts = UseCounts {
        reserved: 1,
        redeemed: 1,
        revoked: 1,
        returned: 1,
    };
    assert_eq!(
        (uses.counts(), uses.last().get(), uses.highest().get()),
        (counts, 4, 9)
    );
}

#[test]
fn a_use_that_no_owner_can_have_written_is_refused() {
    let mut uses = Uses::default();
    let first = reserved(1, 7, "order");
    for wrong in [
        LoadedUse {
            sequence: Sequence::NONE,
            ..first
        },
        LoadedUse {
            order: Some(""),
            ..first
        },
        LoadedUse { order: None, ..first },
        LoadedUse {
            figures: None,
            ..first
        },
        LoadedUse {
            hold_until: None,
            ..first
        },
        LoadedUse {
            returns: true,
            ..first
        },
        LoadedUse {
            kind: UseKind::Redeemed,
            ..first
        },
    ] {
        assert_eq!(
            uses.push(&wrong),
            Err(InconsistentUse::Value(UseNumber::new(1))),
            "{wrong:?}"
        );
    }
    assert!(matches!(
        uses.push(&reserved(2, 7, "order")),
        Err(InconsistentUse::Number { .. })
    ));
    assert_eq!((uses.last(), uses.bytes()), (UseNumber::NONE, 0));
}

#[test]
fn three_hundred_thousand_uses_take_less_than_24_megabytes_and_while_orders_hold_them_12_more() {
    let mut uses = Uses::default();
    for number in 1..=300_000_u64 {
        let order = format!("0c8fb9d4-6a1e-4f0e-9c3b-{number:012}");
        uses.push(&reserved(number, number * 3, &order)).unwrap();
    }
    assert_eq!(uses.count_holds(time(8_999)), 300_000);
    assert!(uses.bytes() < 36_000_000, "{} bytes", uses.bytes());
    assert_eq!(uses.count_holds(time(9_001 + crate::time::MICROS_PER_DAY)), 0);
    assert!(uses.bytes() < 24_000_000, "{} bytes", uses.bytes());
    assert_eq!(size_of::<Record>(), 48);
}

fn released(number: u64, sequence: u64, order: &str) -> LoadedUse<'_> {
    LoadedUse {
        kind: UseKind::Released,
        hold_until: None,
        ..reserved(number, sequence, order)
    }
}

#[test]
fn orders_that_gave_an_issuance_back_are_remembered_the_last_few_of_each_issuance() {
    let mut uses = Uses::default();
    let orders: Vec<String> = (0..20).map(|number| format!("order-{number}")).collect();
    for order in &orders {
        for sequence in [7, 8] {
            uses.push(&reserved(uses.last().get() + 1, sequence, order))
                .unwrap();
            uses.push(&released(uses.last().get() + 1, sequence, order))
                .unwrap();
        }
    }
    // An order that only reserved is not remembered.
    for order in ["lapsed", "latest"] {
        uses.push(&reserved(uses.last().get() + 1, 7, order)).unwrap();
    }
    let of = |order: &str| uses.by_order(Sequence::new(7), &OrderId::parse(order).unwrap());
    assert_eq!(of("lapsed"), None);
    assert!(!of("latest").unwrap().has_released);
    let known: Vec<bool> = orders.iter().map(|order| of(order).is_some()).collect();
    let forgotten = orders.len() - EARLIER_ORDERS_MAX;
    assert!(known[..forgotten].iter().all(|known| !known), "{known:?}");
    for order in &orders[forgotten..] {
        let own = of(order).unwrap();
        assert_eq!((own.latest.kind, own.has_released), (UseKind::Released, true));
    }

    // An order that comes again keeps what it did, and is the last one again.
    let first = orders[forgotten].as_str();
    for order in [first, "lapsed", "again"] {
        uses.push(&reserved(uses.last().get() + 1, 7, order)).unwrap();
    }
    let own = uses
        .by_order(Sequence::new(7), &OrderId::parse(first).unwrap())
        .unwrap();
    assert_eq!(
        (own.latest.kind, own.has_released, own.was_refunded),
        (UseKind::Reserved, true, false)
    );
}

#[test]
fn three_hundred_thousand_uses_of_which_all_were_given_back_take_less_than_50_megabytes() {
    let mut uses = Uses::default();
    for number in (1..=300_000_u64).step_by(2) {
        let order = format!("0c8fb9d4-6a1e-4f0e-9c3b-{number:012}");
        let sequence = number % 30_000 / 2 + 1;
        uses.push(&reserved(number, sequence, &order)).unwrap();
        uses.push(&released(number + 1, sequence, &order)).unwrap();
    }
    assert!(uses.bytes() < 50_000_000, "{} bytes", uses.bytes());
}

#[test]
fn orders_of_any_length_follow_each_other_and_take_at_most_two_rooms() {
    let mut uses = Uses::default();
    for number in 1..=500_u64 {
        let order = "o".repeat(1 + (number * 7 % 64) as usize);
        uses.push(&reserved(number, 7, &order)).unwrap();
        let latest = uses.latest(Sequence::new(7)).unwrap();
        assert_eq!(latest.order, Some(OrderId::parse(&order).unwrap()));
    }
    assert!(
        uses.blocks[0].texts.len() <= 128,
        "{}",
        uses.blocks[0].texts.len()
    );
}
