//! Tests that what was written is read back, and that bytes which this program did not write do no harm.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::coupon::change::{Change, ChangeDone, ChangeOutcome, ChangeRefusal, ChangeRequest};
use crate::coupon::ids::{CouponId, IssuanceId, Sequence};
use crate::coupon::issue::{IssueOutcome, IssueRequest, Refusal};
use crate::coupon::offer::{
    Coupon, Discount, DiscountKind, DiscountPatch, InvalidField, Issuance, Offer, OfferPatch, Status,
};
use crate::coupon::record::ChangeRecord;
use crate::coupon::uses::decide::{Step, UseRefusal};
use crate::coupon::uses::{
    Figures, LatestUse, UseCounts, UseDone, UseKind, UseOutcome, UseRequest, UsedIssuance,
};
use crate::coupon::{CouponAsk, CouponKind, CouponOutcome};
use crate::ids::{Author, AuthorKind, ID_MAX, OrderId, RequestKey, UserId};
use crate::owning::kind::{DecodeError, Kind};
use crate::time::Timestamp;

fn coupon_id() -> impl Strategy<Value = CouponId> {
    (1..=ID_MAX).prop_map(|number| CouponId::new(number).unwrap())
}

fn user() -> impl Strategy<Value = UserId> {
    "[!-~]{1,128}".prop_map(|text| UserId::parse(&text).unwrap())
}

fn key() -> impl Strategy<Value = RequestKey> {
    "[!-~]{1,255}".prop_map(|text| RequestKey::parse(&text).unwrap())
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (-30_610_224_000_000_000_i64..=253_402_207_199_999_999)
        .prop_map(|micros| Timestamp::from_micros(micros).unwrap())
}

fn issuance() -> impl Strategy<Value = Issuance> {
    let id = (coupon_id(), 1..=ID_MAX).prop_map(|(coupon, sequence)| IssuanceId {
        coupon,
        sequence: Sequence::new(sequence),
    });
    let times = (timestamp(), option::of(timestamp()));
    (id, user(), any::<u32>(), key(), times).prop_map(|(id, user, nth, key, (issued_at, expires_at))| {
        Issuance {
            id,
            user,
            nth,
            key,
            issued_at,
            expires_at,
        }
    })
}

fn used_issuance() -> impl Strategy<Value = UsedIssuance> {
    let parts = (issuance(), option::of(latest_use()));
    parts.prop_map(|(issuance, latest)| UsedIssuance { issuance, latest })
}

fn issue_outcome() -> impl Strategy<Value = IssueOutcome> {
    let window = || (timestamp(), timestamp());
    let refusal = prop_oneof![
        prop::sample::select(vec![Refusal::UnknownCoupon, Refusal::Closed, Refusal::Paused]),
        used_issuance().prop_map(|used| Refusal::AlreadyIssued(Box::new(used))),
        window().prop_map(|(starts_at, server_time)| Refusal::NotStarted {
            starts_at,
            server_time
        }),
        window().prop_map(|(ends_at, server_time)| Refusal::Ended { ends_at, server_time }),
        (0..=ID_MAX).prop_map(|total_quantity| Refusal::SoldOut { total_quantity }),
    ];
    prop_oneof![
        issuance().prop_map(IssueOutcome::Issued),
        used_issuance().prop_map(|used| IssueOutcome::Replayed(Box::new(used))),
        refusal.prop_map(IssueOutcome::Refused),
    ]
}

fn discount() -> impl Strategy<Value = Discount> {
    prop_oneof![
        any::<u64>().prop_map(Discount::Amount),
        any::<u8>().prop_map(Discount::Rate)
    ]
}

fn offer() -> impl Strategy<Value = Offer> {
    let numbers = (
        option::of(any::<u64>()),
        option::of(any::<u64>()),
        option::of(any::<u64>()),
        option::of(any::<u8>()),
    );
    let times = (
        option::of(timestamp()),
        option::of(timestamp()),
        option::of(any::<u16>()),
        option::of(timestamp()),
    );
    let texts = (
        ".{0,200}",
        option::of(".{0,50}"),
        btree_map(".{0,10}", ".{0,10}", 0..4),
        option::of("[A-Z]{3}"),
    );
    (texts, option::of(discount()), numbers, times).prop_map(|(texts, discount, numbers, times)| {
        let (title, description, metadata, time_zone) = texts;
        let (max_discount, min_order_amount, total_quantity, per_user_limit) = numbers;
        let (starts_at, ends_at, use_within_days, use_until) = times;
        Offer {
            title,
            description,
            metadata,
            discount,
            max_discount,
            min_order_amount,
            total_quantity,
            per_user_limit,
            starts_at,
            ends_at,
            use_within_days,
            use_until,
            time_zone,
        }
    })
}

fn coupon() -> impl Strategy<Value = Coupon> {
    let status = prop::sample::select(vec![Status::Open, Status::Paused, Status::Closed]);
    (
        coupon_id(),
        offer(),
        status,
        any::<u64>(),
        timestamp(),
        timestamp(),
    )
        .prop_map(|(id, offer, status, version, created_at, updated_at)| Coupon {
            id,
            offer,
            status,
            version,
            created_at,
            updated_at,
        })
}

fn change_outcome() -> impl Strategy<Value = ChangeOutcome> {
    let wrong = InvalidField::named("title", "must have 1 to 200 characters");
    let refusal = prop_oneof![
        prop::sample::select(vec![
            ChangeRefusal::UnknownCoupon,
            ChangeRefusal::Closed,
            ChangeRefusal::KeyReused
        ]),
        any::<u64>().prop_map(|version| ChangeRefusal::VersionMismatch { version }),
        (0..=ID_MAX, 0..=ID_MAX)
            .prop_map(|(issued, returned)| ChangeRefusal::QuantityBelowIssued { issued, returned }),
        (0..9_usize).prop_map(move |count| ChangeRefusal::Invalid(vec![wrong.clone(); count])),
    ];
    let versions = option::of(any::<u64>());
    let parts = (coupon(), 0..=ID_MAX, versions, option::of(0..=ID_MAX));
    let done = parts.prop_map(|(coupon, issued, from_version, returned)| ChangeDone {
        coupon,
        issued: Sequence::new(issued),
        from_version,
        uses: returned.map(|returned| UseCounts {
            returned,
            ..UseCounts::default()
        }),
    });
    let done = done.boxed();
    prop_oneof![
        done.clone().prop_map(|done| ChangeOutcome::Done(Box::new(done))),
        done.prop_map(|done| ChangeOutcome::Replayed(Box::new(done))),
        refusal.prop_map(ChangeOutcome::Refused),
    ]
}

fn order() -> impl Strategy<Value = OrderId> {
    "[!-~]{1,64}".prop_map(|text| OrderId::parse(&text).unwrap())
}

fn latest_use() -> impl Strategy<Value = LatestUse> {
    let kinds = vec![
        UseKind::Reserved,
        UseKind::Redeemed,
        UseKind::Released,
        UseKind::Refunded,
        UseKind::Revoked,
    ];
    let figures = (0..=ID_MAX, 0..=ID_MAX).prop_map(|(amount, discount)| Figures { amount, discount });
    let times = (option::of(timestamp()), timestamp());
    let parts = (option::of(order()), option::of(figures), any::<bool>());
    (prop::sample::select(kinds), parts, times).prop_map(
        |(kind, (order, figures, returns), (hold_until, at))| LatestUse {
            kind,
            order,
            figures,
            hold_until,
            returns,
            at,
        },
    )
}

fn use_outcome() -> impl Strategy<Value = UseOutcome> {
    let refusal = prop_oneof![
        prop::sample::select(vec![
            UseRefusal::UnknownIssuance,
            UseRefusal::Revoked,
            UseRefusal::NotReserved,
            UseRefusal::NotRedeemed
        ]),
        latest_use().prop_map(|latest| UseRefusal::OrderMismatch(Box::new(latest))),
        latest_use().prop_map(|latest| UseRefusal::Redeemed(Box::new(latest))),
        timestamp().prop_map(|hold_until| UseRefusal::Reserved { hold_until }),
        timestamp().prop_map(|usable_until| UseRefusal::Expired { usable_until }),
        (0..=ID_MAX).prop_map(|min_order_amount| UseRefusal::BelowMinimum { min_order_amount }),
    ];
    let parts = (issuance(), option::of(latest_use()), option::of(any::<u64>()));
    let done = parts.prop_map(|(issuance, latest, supersedes)| {
        Box::new(UseDone {
            used: UsedIssuance { issuance, latest },
            supersedes,
        })
    });
    let done = done.boxed();
    prop_oneof![
        done.clone().prop_map(UseOutcome::Done),
        done.prop_map(UseOutcome::Replayed),
        refusal.prop_map(UseOutcome::Refused),
    ]
}

fn use_request() -> impl Strategy<Value = UseRequest> {
    let step = prop_oneof![
        (order(), 0..=ID_MAX, 1..=86_400_u32).prop_map(|(order, amount, hold_seconds)| Step::Reserve {
            order,
            amount,
            hold_seconds
        }),
        (order(), option::of(0..=ID_MAX)).prop_map(|(order, amount)| Step::Redeem { order, amount }),
        order().prop_map(|order| Step::Release { order }),
        order().prop_map(|order| Step::Refund { order }),
        (option::of(".{0,50}"), any::<bool>()).prop_map(|(reason, returns)| Step::Revoke { reason, returns }),
    ];
    (1..=ID_MAX, option::of(user()), author(), step).prop_map(|(sequence, of_user, author, step)| {
        UseRequest {
            sequence: Sequence::new(sequence),
            of_user,
            author,
            step,
        }
    })
}

fn outcome() -> impl Strategy<Value = CouponOutcome> {
    prop_oneof![
        issue_outcome().prop_map(CouponOutcome::Issue),
        change_outcome().prop_map(CouponOutcome::Change),
        use_outcome().prop_map(CouponOutcome::Use),
    ]
}

fn patch() -> impl Strategy<Value = OfferPatch> {
    fn maybe<T: std::fmt::Debug>(part: impl Strategy<Value = T>) -> impl Strategy<Value = Option<Option<T>>> {
        option::of(option::of(part))
    }
    let kind = prop::sample::select(vec![DiscountKind::Amount, DiscountKind::Rate]);
    let discount =
        (option::of(kind), option::of(any::<u64>())).prop_map(|(kind, value)| DiscountPatch { kind, value });
    let numbers = (maybe(any::<u64>()), maybe(any::<u64>()), maybe(any::<u64>()));
    let times = (
        maybe(timestamp()),
        maybe(timestamp()),
        maybe(any::<u16>()),
        maybe(timestamp()),
    );
    let texts = (
        option::of(".{0,200}"),
        maybe(".{0,50}"),
        maybe(btree_map(".{0,10}", option::of(".{0,10}"), 0..4)),
        maybe("[A-Z]{3}"),
    );
    (texts, maybe(discount), numbers, times).prop_map(
        |(texts, discount, (max_discount, min_order_amount, total_quantity), times)| {
            let (title, description, metadata, time_zone) = texts;
            let (starts_at, ends_at, use_within_days, use_until) = times;
            OfferPatch {
                title,
                description,
                metadata,
                discount,
                max_discount,
                min_order_amount,
                total_quantity,
                starts_at,
                ends_at,
                use_within_days,
                use_until,
                time_zone,
            }
        },
    )
}

fn author() -> impl Strategy<Value = Author> {
    let kind = prop::sample::select(vec![AuthorKind::User, AuthorKind::Key]);
    (kind, "[!-~]{1,128}").prop_map(|(kind, name)| Author::new(kind, &name).unwrap())
}

fn record() -> impl Strategy<Value = ChangeRecord> {
    (author(), ".{0,40}").prop_map(|(author, asked)| ChangeRecord { author, asked })
}

fn ask() -> impl Strategy<Value = CouponAsk> {
    let change = prop_oneof![
        patch().prop_map(|patch| Change::Patch(Box::new(patch))),
        prop::sample::select(vec![Change::Pause, Change::Resume, Change::Close]),
    ];
    prop_oneof![
        (user(), key()).prop_map(|(user, key)| CouponAsk::Issue(IssueRequest { user, key })),
        use_request().prop_map(|request| CouponAsk::Use(Box::new(request))),
        (
            change,
            vec(any::<u64>(), 0..4),
            option::of(key()),
            option::of(record())
        )
            .prop_map(|(change, if_versions, key, record)| {
                CouponAsk::Change(ChangeRequest {
                    change,
                    if_versions,
                    key,
                    record,
                })
            }),
    ]
}

/// Replaces, inserts or cuts off bytes.
fn damaged(mut bytes: Vec<u8>, changes: Vec<(prop::sample::Index, u8, u8)>) -> Vec<u8> {
    for (at, byte, how) in changes {
        let at = at.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        match how {
            0 if !bytes.is_empty() => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

proptest! {
    #[test]
    fn an_ask_is_read_as_it_was_written(ask in ask()) {
        prop_assert_eq!(read_ask(&write_ask(ask.clone())), Ok(ask));
    }

    #[test]
    fn an_outcome_is_read_as_it_was_written(outcome in outcome()) {
        prop_assert_eq!(read_outcome(&write_outcome(outcome.clone())), Ok(outcome));
    }

    #[test]
    fn an_id_is_read_as_it_was_written(id in coupon_id()) {
        let mut bytes = Vec::new();
        CouponKind::encode_id(id, &mut bytes);
        prop_assert_eq!(CouponKind::decode_id(&bytes), Ok(id));
    }

    #[test]
    fn random_bytes_are_refused_or_read(bytes in vec(any::<u8>(), 0..2_000)) {
        let _ = read_ask(&bytes);
        let _ = read_outcome(&bytes);
        let _ = CouponKind::decode_id(&bytes);
    }

    /// What was read can be written and read again, and no field is lost or changed.
    #[test]
    fn damaged_bytes_are_refused_or_read_within_bounds(
        ask in ask(),
        outcome in outcome(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        if let Ok(read) = read_ask(&damaged(write_ask(ask), changes.clone())) {
            prop_assert_eq!(read_ask(&write_ask(read.clone())), Ok(read));
        }
        if let Ok(read) = read_outcome(&damaged(write_outcome(outcome), changes)) {
            prop_assert_eq!(read_outcome(&write_outcome(read.clone())), Ok(read));
        }
    }
}

#[test]
fn ids_outside_the_range_or_of_another_length_are_refused() {
    let bytes = |number: u64| number.to_le_bytes();
    assert!(CouponKind::decode_id(&bytes(ID_MAX)).is_ok());
    for number in [0, ID_MAX + 1, u64::MAX] {
        let read = CouponKind::decode_id(&bytes(number));
        assert_eq!(read, Err(DecodeError::Wrong("coupon id")));
    }
    assert!(CouponKind::decode_id(&bytes(1)[..7]).is_err());
    assert!(CouponKind::decode_id(&[]).is_err());
}

#[test]
fn texts_and_lists_have_bounds() {
    let patch = |bytes: usize| {
        let patch = OfferPatch {
            title: Some("x".repeat(bytes)),
            ..OfferPatch::default()
        };
        let change = Change::Patch(Box::new(patch));
        read_ask(&write_ask(CouponAsk::Change(change.into())))
    };
    assert!(patch(TEXT_BYTES_MAX).is_ok());
    assert_eq!(patch(TEXT_BYTES_MAX + 1), Err(DecodeError::Wrong("title")));

    let versions = |count: usize| {
        let request = ChangeRequest {
            if_versions: vec![1; count],
            ..Change::Pause.into()
        };
        read_ask(&write_ask(CouponAsk::Change(request)))
    };
    assert!(versions(VERSIONS_MAX).is_ok());
    assert_eq!(versions(VERSIONS_MAX + 1), Err(DecodeError::Wrong("condition")));

    let invalid = |count: usize| {
        let fields = vec![InvalidField::named("title", "must have 1 to 200 characters"); count];
        let refusal = ChangeRefusal::Invalid(fields);
        read_outcome(&write_outcome(CouponOutcome::Change(ChangeOutcome::Refused(
            refusal,
        ))))
    };
    assert!(invalid(INVALID_MAX).is_ok());
    assert_eq!(
        invalid(INVALID_MAX + 1),
        Err(DecodeError::Wrong("list of invalid fields"))
    );
}

/// Pins the bytes of an id, a request and its outcome as the first release with this form wrote them. Later
/// releases must read the same values from them.
#[test]
fn the_written_form_is_pinned() {
    let hex = |bytes: Vec<u8>| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let mut id = Vec::new();
    CouponKind::encode_id(CouponId::new(42).unwrap(), &mut id);
    let ask = CouponAsk::Issue(IssueRequest {
        user: UserId::parse("alice").unwrap(),
        key: RequestKey::parse("k1").unwrap(),
    });
    let refusal = Refusal::SoldOut { total_quantity: 500 };
    let outcome = CouponOutcome::Issue(IssueOutcome::Refused(refusal));
    assert_eq!(hex(id), "2a00000000000000");
    assert_eq!(hex(write_ask(ask)), "0a0b0a05616c69636512026b31");
    assert_eq!(hex(write_outcome(outcome)), "0a05180938f403");
}
