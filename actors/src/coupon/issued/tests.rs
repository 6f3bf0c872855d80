//! What is pushed is found again, and what no owner writes is refused.

use super::*;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn loaded<'a>(sequence: u64, user: &'a str, nth: u32, key: &'a str) -> LoadedIssuance<'a> {
    LoadedIssuance {
        sequence: Sequence::new(sequence),
        user,
        nth,
        key,
        issued_at: at(1_000),
        expires_at: Some(at(1_000).plus_days(30)),
    }
}

#[test]
fn the_latest_issuance_is_found_by_user_and_every_issuance_by_user_and_key() {
    let mut issued = Issued::new(CouponId::new(7).unwrap());
    for (sequence, user, nth, key) in [(1, "alice", 1, "a"), (2, "bob", 1, "a"), (3, "alice", 2, "b")] {
        issued.push(&loaded(sequence, user, nth, key)).unwrap();
    }
    let alice = UserId::parse("alice").unwrap();
    let latest = issued.latest(&alice).unwrap();
    assert_eq!((latest.id.to_string().as_str(), latest.nth), ("7-3", 2));
    assert_eq!(latest.expires_at, Some(at(1_000).plus_days(30)));
    let first = issued.answered(&alice, &RequestKey::parse("a").unwrap()).unwrap();
    assert_eq!(first.id.sequence, Sequence::new(1));
    assert!(
        issued
            .answered(&alice, &RequestKey::parse("c").unwrap())
            .is_none()
    );
    assert!(issued.latest(&UserId::parse("Alice").unwrap()).is_none());
    assert_eq!(
        issued.users_after(Sequence::NONE).collect::<Vec<_>>(),
        ["alice", "bob", "alice"]
    );
}

#[test]
fn an_issuance_that_no_owner_can_have_written_is_refused() {
    let mut issued = Issued::new(CouponId::new(7).unwrap());
    issued.push(&loaded(1, "alice", 1, "a")).unwrap();
    assert!(matches!(
        issued.push(&loaded(3, "bob", 1, "b")),
        Err(InconsistentIssuance::Sequence { .. })
    ));
    assert!(matches!(
        issued.push(&loaded(2, "alice", 1, "b")),
        Err(InconsistentIssuance::Nth { .. })
    ));
    for (user, key) in [
        ("", "b"),
        ("b b", "b"),
        ("bob", ""),
        ("bob", "b b"),
        ("bob", &"k".repeat(256)),
        (&"u".repeat(129), "b"),
    ] {
        assert_eq!(
            issued.push(&loaded(2, user, 1, key)),
            Err(InconsistentIssuance::Value(Sequence::new(2))),
            "{user:?} {key:?}"
        );
    }
    assert_eq!(issued.last(), Sequence::new(1));
}

#[test]
fn an_issuance_takes_24_bytes_and_its_texts() {
    assert_eq!(size_of::<Record>(), 24);
}

#[test]
fn every_expiry_comes_back_and_a_user_may_have_any_number() {
    let mut issued = Issued::new(CouponId::new(7).unwrap());
    let odd = |number: i64| (number % 3 != 0).then(|| at(number * 1_000 - 50_000));
    for number in 1..=400_u32 {
        let key = format!("key-{number}");
        let issuance = LoadedIssuance {
            expires_at: odd(number.into()),
            ..loaded(number.into(), "alice", number, &key)
        };
        issued.push(&issuance).unwrap();
        assert!(issued.ends_with(&issuance));
        let later = Some(at(77));
        assert!(!issued.ends_with(&LoadedIssuance {
            expires_at: later,
            ..issuance
        }));
    }
    let alice = UserId::parse("alice").unwrap();
    assert_eq!(issued.count_of(&alice), 400);
    for number in 1..=400_u32 {
        assert_eq!(issued.expires_at(number - 1), odd(number.into()), "{number}");
        let key = RequestKey::parse(&format!("key-{number}")).unwrap();
        let found = issued.answered(&alice, &key).unwrap();
        assert_eq!(found.nth, number);
    }
    assert!(
        issued
            .answered(&alice, &RequestKey::parse("key-0").unwrap())
            .is_none()
    );
}

#[test]
fn a_million_issuances_take_less_than_80_megabytes() {
    let mut issued = Issued::new(CouponId::new(7).unwrap());
    for number in 1..=1_000_000_u64 {
        let (user, key) = (format!("user-{number:011}"), format!("key-{number:018}"));
        issued.push(&loaded(number, &user, 1, &key)).unwrap();
    }
    assert!(issued.bytes() < 80_000_000, "{} bytes", issued.bytes());
    let last = issued
        .latest(&UserId::parse("user-00001000000").unwrap())
        .unwrap();
    assert_eq!(last.id.sequence, issued.last());
}
