//! What is written is read back; what is not written by us never does harm.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::coupon::offer::{
    Coupon, Discount, DiscountKind, DiscountPatch, InvalidField, Issuance, Offer, OfferPatch, Status,
};
use crate::ids::{ID_MAX, IssuanceId, NodeId, SHARDS, Sequence};
use crate::owning::message::{ChangeDone, ChangeOutcome, ChangeRefusal, IssueOutcome, Refusal, Setback};
use crate::time::Timestamp;

fn coupon_id() -> impl Strategy<Value = CouponId> {
    (1..=ID_MAX).prop_map(|number| CouponId::new(number).unwrap())
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    (1..=ID_MAX).prop_map(|number| Incarnation::new(number).unwrap())
}

fn user() -> impl Strategy<Value = UserId> {
    "[A-Za-z0-9._:@-]{1,64}".prop_map(|text| UserId::parse(&text).unwrap())
}

fn key() -> impl Strategy<Value = RequestKey> {
    "[!-~]{1,64}".prop_map(|text| RequestKey::parse(&text).unwrap())
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (-30_610_224_000_000_000_i64..=253_402_207_199_999_999)
        .prop_map(|micros| Timestamp::from_micros(micros).unwrap())
}

fn setback() -> impl Strategy<Value = Setback> {
    use Setback::{Expired, Moved, Overloaded, StoreUnavailable, Unknown};
    prop::sample::select(vec![Overloaded, Moved, StoreUnavailable, Expired, Unknown])
}

fn issuance() -> impl Strategy<Value = Issuance> {
    let id = (coupon_id(), 1..=ID_MAX).prop_map(|(coupon, sequence)| IssuanceId {
        coupon,
        sequence: Sequence::new(sequence),
    });
    (
        id,
        user(),
        any::<u8>(),
        key(),
        timestamp(),
        option::of(timestamp()),
    )
        .prop_map(|(id, user, nth, key, issued_at, expires_at)| Issuance {
            id,
            user,
            nth,
            key,
            issued_at,
            expires_at,
        })
}

fn issue_answer() -> impl Strategy<Value = IssueAnswer> {
    let window = || (timestamp(), timestamp());
    let refusal = prop_oneof![
        prop::sample::select(vec![Refusal::UnknownCoupon, Refusal::Closed, Refusal::Paused]),
        issuance().prop_map(|issuance| Refusal::AlreadyIssued(Box::new(issuance))),
        window().prop_map(|(starts_at, server_time)| Refusal::NotStarted {
            starts_at,
            server_time
        }),
        window().prop_map(|(ends_at, server_time)| Refusal::Ended { ends_at, server_time }),
        (0..=ID_MAX).prop_map(|total_quantity| Refusal::SoldOut { total_quantity }),
    ];
    prop_oneof![
        issuance().prop_map(|issuance| Ok(IssueOutcome::Issued(issuance))),
        issuance().prop_map(|issuance| Ok(IssueOutcome::Replayed(issuance))),
        refusal.prop_map(|refusal| Ok(IssueOutcome::Refused(refusal))),
        setback().prop_map(Err),
    ]
}

fn discount() -> impl Strategy<Value = Discount> {
    prop_oneof![
        any::<u64>().prop_map(Discount::Amount),
        any::<u8>().prop_map(Discount::Rate)
    ]
}

fn coupon() -> impl Strategy<Value = Coupon> {
    let offer = (
        ".{0,200}",
        option::of(discount()),
        option::of(any::<u64>()),
        option::of(any::<u64>()),
        any::<u8>(),
        option::of(timestamp()),
        option::of(timestamp()),
        option::of(any::<u16>()),
    )
        .prop_map(
            |(
                title,
                discount,
                min_order_amount,
                total_quantity,
                per_user_limit,
                starts_at,
                ends_at,
                use_within_days,
            )| Offer {
                title,
                discount,
                min_order_amount,
                total_quantity,
                per_user_limit,
                starts_at,
                ends_at,
                use_within_days,
            },
        );
    let status = prop::sample::select(vec![Status::Open, Status::Paused, Status::Closed]);
    (coupon_id(), offer, status, any::<u64>(), timestamp(), timestamp()).prop_map(
        |(id, offer, status, version, created_at, updated_at)| Coupon {
            id,
            offer,
            status,
            version,
            created_at,
            updated_at,
        },
    )
}

fn change_answer() -> impl Strategy<Value = ChangeAnswer> {
    let wrong = InvalidField::named("title", "must have 1 to 200 characters");
    let refusal = prop_oneof![
        prop::sample::select(vec![ChangeRefusal::UnknownCoupon, ChangeRefusal::Closed]),
        any::<u64>().prop_map(|version| ChangeRefusal::VersionMismatch { version }),
        (0..=ID_MAX).prop_map(|issued| ChangeRefusal::QuantityBelowIssued { issued }),
        (0..9_usize).prop_map(move |count| ChangeRefusal::Invalid(vec![wrong.clone(); count])),
    ];
    let done = (coupon(), 0..=ID_MAX).prop_map(|(coupon, issued)| ChangeDone {
        coupon,
        issued: Sequence::new(issued),
    });
    prop_oneof![
        done.prop_map(|done| Ok(ChangeOutcome::Done(Box::new(done)))),
        refusal.prop_map(|refusal| Ok(ChangeOutcome::Refused(refusal))),
        setback().prop_map(Err),
    ]
}

fn patch() -> impl Strategy<Value = OfferPatch> {
    let kind = prop::sample::select(vec![DiscountKind::Amount, DiscountKind::Rate]);
    let discount =
        (option::of(kind), option::of(any::<u64>())).prop_map(|(kind, value)| DiscountPatch { kind, value });
    fn maybe<T: std::fmt::Debug>(part: impl Strategy<Value = T>) -> impl Strategy<Value = Option<Option<T>>> {
        option::of(option::of(part))
    }
    (
        option::of(".{0,200}"),
        maybe(discount),
        maybe(any::<u64>()),
        maybe(any::<u64>()),
        maybe(timestamp()),
        maybe(timestamp()),
        maybe(any::<u16>()),
    )
        .prop_map(
            |(title, discount, min_order_amount, total_quantity, starts_at, ends_at, use_within_days)| {
                OfferPatch {
                    title,
                    discount,
                    min_order_amount,
                    total_quantity,
                    starts_at,
                    ends_at,
                    use_within_days,
                }
            },
        )
}

fn asked() -> impl Strategy<Value = Asked> {
    let change = prop_oneof![
        patch().prop_map(|patch| Change::Patch(Box::new(patch))),
        prop::sample::select(vec![Change::Pause, Change::Resume, Change::Close]),
    ];
    prop_oneof![
        (user(), key()).prop_map(|(user, key)| Asked::Issue { user, key }),
        (change, option::of(any::<u64>()))
            .prop_map(|(change, if_version)| Asked::Change { change, if_version }),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let hello = (
        vec(any::<u32>(), 0..=VERSIONS_MAX),
        ".{0,64}",
        "[a-z]{1,64}",
        incarnation(),
        any::<u32>(),
        ".{0,20}",
    )
        .prop_map(|(versions, cluster, node, incarnation, shards, hash)| Hello {
            versions,
            cluster,
            node: NodeId::parse(&node).unwrap(),
            incarnation,
            shards,
            hash,
        });
    let request = (
        any::<u64>(),
        coupon_id(),
        0..=ID_MAX,
        0..=3_600_000_000_u64,
        asked(),
    )
        .prop_map(|(id, coupon, epoch, micros, what)| RemoteRequest {
            id,
            coupon,
            epoch: Epoch::new(epoch),
            remaining: Duration::from_micros(micros),
            what,
        });
    let notice = || (any::<u64>(), vec(any::<u8>(), 0..200)).prop_map(|(id, content)| Notice { id, content });
    let shard = (0..SHARDS).prop_map(|number| ShardId::new(number).unwrap());
    prop_oneof![
        hello.prop_map(Item::Hello),
        ".{0,100}".prop_map(Item::Refusal),
        request.prop_map(Item::Request),
        (any::<u64>(), issue_answer()).prop_map(|(id, answer)| Item::Answer(id, Answer::Issue(answer))),
        (any::<u64>(), change_answer()).prop_map(|(id, answer)| Item::Answer(id, Answer::Change(answer))),
        notice().prop_map(Item::Heartbeat),
        notice().prop_map(Item::HeartbeatAnswer),
        notice().prop_map(Item::News),
        any::<u64>().prop_map(Item::Heard),
        (shard, vec(coupon_id(), 0..20)).prop_map(|(shard, coupons)| Item::Preload(shard, coupons)),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let header = (
        prop::sample::select(vec![0, 1]),
        incarnation(),
        incarnation(),
        any::<u64>(),
        any::<u64>(),
    )
        .prop_map(|(version, from, to, generation, number)| Header {
            version,
            from,
            to,
            generation,
            number,
        });
    (header, vec(item(), 0..8)).prop_map(|(header, items)| Frame { header, items })
}

fn write(frame: &Frame) -> Vec<u8> {
    let mut writer = Writer::new(frame.header);
    for item in &frame.items {
        writer.add(&Written::new(item.clone()).unwrap());
    }
    writer.finish()
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(frame in frame()) {
        prop_assert_eq!(Frame::read(write(&frame)), Ok(frame));
    }

    #[test]
    fn bytes_by_chance_are_refused_or_read(bytes in vec(any::<u8>(), 0..2_000)) {
        let _ = Frame::read(bytes);
    }

    #[test]
    fn a_frame_that_was_changed_on_the_way_is_refused_or_within_bounds(
        frame in frame(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let mut bytes = write(&frame);
        for (at, byte, how) in changes {
            let at = at.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match how {
                0 if !bytes.is_empty() => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => bytes.truncate(at),
            }
        }
        if let Ok(read) = Frame::read(bytes) {
            // What was taken can be written, and is the same again: nothing half understood comes through.
            prop_assert_eq!(Frame::read(write(&read)), Ok(read));
        }
    }
}

fn header() -> Header {
    let [from, to] = [1, 2].map(|number| Incarnation::new(number).unwrap());
    Header {
        version: 1,
        from,
        to,
        generation: 1,
        number: 1,
    }
}

/// Fields of a protocol buffer: an item of these bytes.
fn with_item(count: usize, item: &[u8]) -> Vec<u8> {
    let mut bytes = Writer::new(header()).finish();
    for _ in 0..count {
        bytes.push(6 << 3 | 2);
        prost::encoding::encode_varint(item.len() as u64, &mut bytes);
        bytes.extend_from_slice(item);
    }
    bytes
}

#[test]
fn frames_have_bounds() {
    assert_eq!(
        Frame::read(vec![0; FRAME_BYTES_MAX + 1]),
        Err(Unreadable::TooLong(FRAME_BYTES_MAX + 1))
    );
    assert_eq!(
        Frame::read(with_item(ITEMS_MAX + 1, &[])),
        Err(Unreadable::TooMany(ITEMS_MAX + 1))
    );
    assert_eq!(
        Frame::read(with_item(1, &vec![0; ITEM_BYTES_MAX + 1])),
        Err(Unreadable::TooMany(1))
    );
    assert_eq!(Frame::read(with_item(1, &[])), Err(Unreadable::Wrong("item")));
    assert!(
        Written::new(Item::News(Notice {
            id: 1,
            content: vec![0; NOTICE_BYTES_MAX]
        }))
        .is_some()
    );
    assert!(
        Written::new(Item::News(Notice {
            id: 1,
            content: vec![0; ITEM_BYTES_MAX]
        }))
        .is_none()
    );
    let versions = Hello {
        versions: vec![1; VERSIONS_MAX + 1],
        ..Hello::new("c", NodeId::parse("n").unwrap(), header().from)
    };
    let frame = Frame {
        header: header(),
        items: vec![Item::Hello(versions)],
    };
    assert_eq!(
        Frame::read(write(&frame)),
        Err(Unreadable::Wrong("list of versions"))
    );
    let shard = ShardId::new(1).unwrap();
    let frame = Frame {
        header: header(),
        items: vec![Item::Preload(
            shard,
            vec![CouponId::new(1).unwrap(); PRELOAD_MAX + 1],
        )],
    };
    assert_eq!(
        Frame::read(write(&frame)),
        Err(Unreadable::Wrong("list of coupons"))
    );
}

#[test]
fn a_full_frame_is_one_that_can_be_read() {
    let largest = Written::new(Item::News(Notice {
        id: u64::MAX,
        content: vec![7; NOTICE_BYTES_MAX],
    }))
    .unwrap();
    let mut writer = Writer::new(header());
    while !writer.is_full() {
        writer.add(&largest);
    }
    let bytes = writer.finish();
    assert!(bytes.len() > FRAME_BYTES_TARGET);
    assert!(Frame::read(bytes).is_ok());
}

#[test]
fn versions_that_this_release_does_not_speak_are_refused() {
    let frame = Writer::new(Header {
        version: 2,
        ..header()
    })
    .finish();
    assert_eq!(Frame::read(frame), Err(Unreadable::Version(2)));
}

/// The bytes of a request and its answer as the first release wrote them: a later one that speaks version 1
/// must read them so.
#[test]
fn version_1_is_pinned() {
    let issue = Asked::Issue {
        user: UserId::parse("alice").unwrap(),
        key: RequestKey::parse("k1").unwrap(),
    };
    let coupon = CouponId::new(42).unwrap();
    let request = RemoteRequest {
        id: 9,
        coupon,
        epoch: Epoch::new(3),
        remaining: Duration::from_millis(5),
        what: issue,
    };
    let answer = Answer::Issue(Ok(IssueOutcome::Refused(Refusal::SoldOut {
        total_quantity: 500,
    })));
    let frame = Frame {
        header: header(),
        items: vec![Item::Request(request), Item::Answer(9, answer)],
    };
    let bytes: String = write(&frame).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(bytes, PINNED);
}

const PINNED: &str =
    "0801100118022001280132161a140809102a18032088272a05616c69636532026b3132092a070809180938f403";
