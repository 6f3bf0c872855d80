//! What the decisions cost, without runtime, HTTP or database: by hand, when one of them is touched.
//!
//! ```sh
//! cargo bench -p firstcome-actors
//! ```

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use actors::coupon::issued::Issued;
use actors::coupon::ledger::{Ledger, Verdict};
use actors::coupon::offer::{Coupon, Issuance, Offer, Status};
use actors::ids::{CouponId, Epoch, Fence, Incarnation, IssuanceId, RequestKey, Sequence, UserId};
use actors::owning::door::{Door, Notice};
use actors::owning::message::Refusal;
use actors::owning::write_back::lane::{Effect, Event, Lane, Submission};
use actors::store::batch::{BATCH_ROWS_MAX, Entries, Portion};
use actors::store::mysql::{Dialect, statement};
use actors::time::{Moment, Now, Timestamp};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

/// How many a coupon that is in demand has given.
const ISSUED: u64 = 100_000;
/// How many coupons a door knows to be sold out.
const SOLD_OUT: u64 = 1_000;

fn main() {
    divan::main();
}

fn at() -> Timestamp {
    Timestamp::parse("2026-11-27T00:00:00Z").unwrap()
}

fn user(number: u64) -> UserId {
    // Real ids come in no order.
    UserId::parse(&format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))).unwrap()
}

fn key(number: u64) -> RequestKey {
    RequestKey::parse(&format!("{number:036}")).unwrap()
}

fn coupon(id: u64, total_quantity: Option<u64>) -> Coupon {
    let offer = Offer {
        total_quantity,
        use_within_days: Some(30),
        ..Offer::titled("a coupon")
    };
    Coupon {
        id: CouponId::new(id).unwrap(),
        offer,
        status: Status::Open,
        version: 1,
        created_at: at(),
        updated_at: at(),
    }
}

/// One that has given [`ISSUED`], to the users below.
fn ledger(total_quantity: Option<u64>) -> Ledger {
    let coupon = coupon(42, total_quantity);
    let issued = Issued::new(coupon.id);
    let mut ledger = Ledger::new(coupon, issued);
    for number in 0..ISSUED {
        ledger.issue(at(), &user(number), &key(number));
    }
    ledger
}

mod ledger {
    use super::*;

    #[divan::bench]
    fn issue(bencher: Bencher<'_, '_>) {
        let mut ledger = ledger(None);
        let mut next = ISSUED;
        let newcomer = || {
            next += 1;
            (user(next), key(next))
        };
        bencher.with_inputs(newcomer).bench_local_values(|(user, key)| {
            assert_eq!(ledger.judge(at(), &user, &key), Verdict::Grant);
            ledger.issue(at(), &user, &key)
        });
    }

    #[divan::bench]
    fn sold_out(bencher: Bencher<'_, '_>) {
        let (ledger, user, key) = (ledger(Some(ISSUED)), user(ISSUED), key(ISSUED));
        let told = Verdict::Refuse(Refusal::SoldOut {
            total_quantity: ISSUED,
        });
        assert_eq!(ledger.judge(at(), &user, &key), told);
        bencher.bench_local(|| ledger.judge(at(), black_box(&user), &key));
    }

    #[divan::bench]
    fn already_issued(bencher: Bencher<'_, '_>) {
        let (ledger, user, key) = (ledger(Some(ISSUED)), user(ISSUED / 2), key(ISSUED));
        assert!(matches!(
            ledger.judge(at(), &user, &key),
            Verdict::Refuse(Refusal::AlreadyIssued(_))
        ));
        bencher.bench_local(|| ledger.judge(at(), black_box(&user), &key));
    }
}

/// Rows of one coupon on their way.
fn portion(coupon: u64, rows: u64) -> Portion {
    let coupon = CouponId::new(coupon).unwrap();
    let issuance = |number| Issuance {
        id: IssuanceId {
            coupon,
            sequence: Sequence::new(number),
        },
        user: user(number),
        nth: 1,
        key: key(number),
        issued_at: at(),
        expires_at: Some(at().plus_days(30)),
    };
    let fence = Fence {
        epoch: Epoch::new(7),
        owner: Incarnation::new(1 << 50).unwrap(),
    };
    Portion {
        coupon,
        shard: coupon.shard(),
        fence,
        entries: Entries::Issuances((1..=rows).map(issuance).collect()),
    }
}

mod lane {
    use super::*;

    /// A batch comes back, and the next is built from what so many coupons handed over meanwhile, two rows
    /// each.
    #[divan::bench(args = [1, 32, 1_024])]
    fn batch(bencher: Bencher<'_, '_>, coupons: u64) {
        let portions: Vec<Portion> = (1..=coupons + 1).map(|coupon| portion(coupon, 2)).collect();
        let waiting = || {
            let (mut lane, mut effects) = (Lane::default(), Vec::new());
            for portion in &portions {
                lane.handle(
                    Event::Submitted(Submission {
                        portion: portion.clone(),
                        home: (),
                    }),
                    &mut effects,
                );
            }
            lane
        };
        bencher
            .counter(ItemsCount::new(2 * coupons))
            .with_inputs(waiting)
            .bench_local_values(|mut lane| {
                let mut effects = Vec::new();
                lane.handle(Event::Written(Ok(2)), &mut effects);
                let Some(Effect::Write(batch)) = effects.last() else {
                    panic!("no batch: {effects:?}")
                };
                assert_eq!(batch.rows() as u64, 2 * coupons);
                (lane, effects)
            });
    }
}

mod door {
    use super::*;

    /// One that knows many coupons; this one went to [`ISSUED`] winners.
    fn door() -> (Door, CouponId) {
        let door = Door::default();
        let winners: Vec<UserId> = (0..ISSUED).map(user).collect();
        let notice = |id| {
            let winners = if id == 1 {
                winners.as_slice()
            } else {
                &winners[..1]
            };
            let issued = winners.len() as u64;
            Arc::new(Notice::new(
                coupon(id, Some(issued)),
                Sequence::new(issued),
                winners.iter().map(UserId::as_str),
            ))
        };
        door.hear(Moment::ORIGIN, (1..=SOLD_OUT).map(notice));
        (door, CouponId::new(1).unwrap())
    }

    fn now() -> Now {
        Now {
            moment: Moment::at(Duration::from_millis(1)),
            timestamp: at(),
        }
    }

    #[divan::bench]
    fn hit(bencher: Bencher<'_, '_>) {
        let ((door, coupon), user) = (door(), user(ISSUED + 1));
        assert_eq!(
            door.answer(coupon, &user, now),
            Some(Refusal::SoldOut {
                total_quantity: ISSUED
            })
        );
        bencher.bench_local(|| door.answer(coupon, black_box(&user), now));
    }

    #[divan::bench]
    fn miss(bencher: Bencher<'_, '_>) {
        let ((door, _), user, unknown) = (door(), user(ISSUED + 1), CouponId::new(SOLD_OUT + 1).unwrap());
        assert_eq!(door.answer(unknown, &user, now), None);
        bencher.bench_local(|| door.answer(unknown, black_box(&user), now));
    }

    #[divan::bench]
    fn winner(bencher: Bencher<'_, '_>) {
        let ((door, coupon), user) = (door(), user(ISSUED / 2));
        assert_eq!(door.answer(coupon, &user, now), None);
        bencher.bench_local(|| door.answer(coupon, black_box(&user), now));
    }
}

mod sql {
    use super::*;

    #[divan::bench(args = [1, 64, BATCH_ROWS_MAX as u64])]
    fn of_one(bencher: Bencher<'_, '_>, rows: u64) {
        let portions = [portion(42, rows)];
        bencher
            .counter(ItemsCount::new(rows))
            .bench_local(|| statement(Dialect::MySql, black_box(&portions)).unwrap());
    }

    #[divan::bench(args = [2, 64, BATCH_ROWS_MAX as u64])]
    fn of_many(bencher: Bencher<'_, '_>, coupons: u64) {
        let portions: Vec<_> = (1..=coupons).map(|coupon| portion(coupon, 1)).collect();
        bencher
            .counter(ItemsCount::new(coupons))
            .bench_local(|| statement(Dialect::MySql, black_box(&portions)).unwrap());
    }
}
