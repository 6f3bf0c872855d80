//! The ledger against a model that keeps a plain list and reads the API's table of outcomes from top to
//! bottom.

use proptest::prelude::*;

use super::*;
use crate::ids::CouponId;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn coupon(total_quantity: Option<u64>, per_user_limit: u8) -> Coupon {
    let offer = Offer {
        total_quantity,
        per_user_limit,
        ..Offer::titled("test")
    };
    Coupon {
        id: CouponId::new(1).unwrap(),
        offer,
        status: Status::Open,
        version: 1,
        created_at: at(0),
        updated_at: at(0),
    }
}

fn ledger(coupon: Coupon) -> Ledger {
    let issued = Issued::new(coupon.id);
    Ledger::new(coupon, issued)
}

fn user(number: u8) -> UserId {
    UserId::parse(&format!("user-{number}")).unwrap()
}

fn key(number: u8) -> RequestKey {
    RequestKey::parse(&format!("key-{number}")).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Ask { user: u8, key: u8 },
    Change(Change),
    Pass { micros: i64 },
}

fn time() -> impl Strategy<Value = Option<Option<Timestamp>>> {
    prop_oneof![3 => Just(None), 1 => Just(Some(None)), 2 => (0..60_i64).prop_map(|micros| Some(Some(at(micros))))]
}

fn patch() -> impl Strategy<Value = OfferPatch> {
    let total = prop_oneof![2 => Just(None), 1 => Just(Some(None)), 3 => (1..12_u64).prop_map(|total| Some(Some(total)))];
    (total, time(), time()).prop_map(|(total_quantity, starts_at, ends_at)| OfferPatch {
        total_quantity,
        starts_at,
        ends_at,
        ..OfferPatch::default()
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..6_u8, 0..8_u8).prop_map(|(user, key)| Step::Ask { user, key }),
        1 => Just(Step::Change(Change::Pause)),
        2 => Just(Step::Change(Change::Resume)),
        2 => patch().prop_map(|patch| Step::Change(Change::Patch(Box::new(patch)))),
        2 => (0..10_i64).prop_map(|micros| Step::Pass { micros }),
    ]
}

/// What the table says, from a list of what was given.
fn table(given: &[Issuance], coupon: &Coupon, now: Timestamp, user: &UserId, key: &RequestKey) -> Verdict {
    let of_user: Vec<&Issuance> = given.iter().filter(|issuance| issuance.user == *user).collect();
    if let Some(same) = of_user.iter().rev().find(|issuance| issuance.key == *key) {
        return Verdict::Replay((*same).clone());
    }
    if of_user.len() >= usize::from(coupon.offer.per_user_limit) {
        return Verdict::Refuse(Refusal::AlreadyIssued(Box::new(
            (*of_user.last().unwrap()).clone(),
        )));
    }
    let offer = &coupon.offer;
    match (
        coupon.status,
        offer.starts_at,
        offer.ends_at,
        offer.total_quantity,
    ) {
        (Status::Closed, ..) => Verdict::Refuse(Refusal::Closed),
        (Status::Paused, ..) => Verdict::Refuse(Refusal::Paused),
        (_, Some(starts_at), ..) if now < starts_at => Verdict::Refuse(Refusal::NotStarted {
            starts_at,
            server_time: now,
        }),
        (_, _, Some(ends_at), _) if now >= ends_at => Verdict::Refuse(Refusal::Ended {
            ends_at,
            server_time: now,
        }),
        (.., Some(total_quantity)) if given.len() as u64 >= total_quantity => {
            Verdict::Refuse(Refusal::SoldOut { total_quantity })
        }
        _ => Verdict::Grant,
    }
}

proptest! {
    #[test]
    fn decisions_follow_the_table_and_sequences_have_no_gap(
        total in prop::option::of(1..10_u64),
        limit in 1..4_u8,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut ledger = ledger(coupon(total, limit));
        let mut given: Vec<Issuance> = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Pass { micros } => now += micros,
                Step::Ask { user: name, key: number } => {
                    let (user, key) = (user(name), key(number));
                    let verdict = ledger.judge(at(now), &user, &key);
                    prop_assert_eq!(&verdict, &table(&given, ledger.coupon(), at(now), &user, &key));
                    if verdict == Verdict::Grant {
                        let issuance = ledger.issue(at(now), &user, &key);
                        prop_assert_eq!(issuance.id.sequence.get(), given.len() as u64 + 1);
                        given.push(issuance);
                    }
                }
                Step::Change(change) => {
                    let before = ledger.coupon().clone();
                    let changed = ledger.change(at(now), &change, None);
                    let made = matches!(changed, Changed::Made(_));
                    prop_assert_eq!(ledger.coupon().version, before.version + u64::from(made));
                    prop_assert!(made || *ledger.coupon() == before);
                    prop_assert!(ledger.coupon().offer.check().is_empty());
                }
            }
            prop_assert_eq!(ledger.last().get(), given.len() as u64);
            prop_assert!(ledger.coupon().offer.total_quantity.is_none_or(|total| given.len() as u64 <= total));
        }
    }
}

#[test]
fn a_change_of_another_version_is_refused() {
    let mut ledger = ledger(coupon(Some(5), 1));
    let refused = ledger.change(at(0), &Change::Pause, Some(2));
    assert_eq!(
        refused,
        Changed::Kept(ChangeOutcome::Refused(ChangeRefusal::VersionMismatch {
            version: 1
        }))
    );
    assert!(matches!(
        ledger.change(at(0), &Change::Pause, Some(1)),
        Changed::Made(_)
    ));
}

#[test]
fn the_quantity_cannot_fall_below_what_is_decided() {
    let mut ledger = ledger(coupon(Some(5), 1));
    for name in 0..3 {
        ledger.issue(at(0), &user(name), &key(0));
    }
    let lower = |total| {
        Change::Patch(Box::new(OfferPatch {
            total_quantity: Some(Some(total)),
            ..OfferPatch::default()
        }))
    };
    let refused = ledger.change(at(0), &lower(2), None);
    assert_eq!(
        refused,
        Changed::Kept(ChangeOutcome::Refused(ChangeRefusal::QuantityBelowIssued {
            issued: 3
        }))
    );
    assert!(matches!(ledger.change(at(0), &lower(3), None), Changed::Made(_)));
    assert!(ledger.is_sold_out());
}

#[test]
fn closing_is_for_ever_and_repeating_it_changes_nothing() {
    let mut ledger = ledger(coupon(Some(5), 1));
    assert!(matches!(
        ledger.change(at(0), &Change::Close, None),
        Changed::Made(_)
    ));
    assert_eq!(
        ledger.change(at(0), &Change::Resume, None),
        Changed::Kept(ChangeOutcome::Refused(ChangeRefusal::Closed))
    );
    assert!(matches!(
        ledger.change(at(0), &Change::Close, None),
        Changed::Kept(ChangeOutcome::Done(_))
    ));
    assert_eq!(ledger.coupon().version, 2);
}
