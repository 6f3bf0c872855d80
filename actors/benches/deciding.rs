//! Measures what decisions cost, without runtime, HTTP or database. Run it by hand after a change to code
//! that decides.
//!
//! ```sh
//! cargo bench -p firstcome-actors
//! ```

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use actors::coupon::entry::CouponRun;
use actors::coupon::ids::{CouponId, IssuanceId, Sequence};
use actors::coupon::issue::{IssueOutcome, IssueRequest, Refusal};
use actors::coupon::issued::Issued;
use actors::coupon::ledger::Ledger;
use actors::coupon::notice::SoldOutNotice;
use actors::coupon::offer::{Coupon, Issuance, Offer, Status};
use actors::coupon::rows::mysql::statement;
use actors::coupon::{CouponAsk, CouponKind, CouponOutcome};
use actors::ids::{Epoch, Fence, Incarnation, RequestKey, UserId};
use actors::owning::door::filter::Filter;
use actors::owning::kind::{Kind, Verdict};
use actors::owning::write_back::lane::{Effect, Event, Lane, Submission};
use actors::store::batch::{self, BATCH_ROWS_MAX};
use actors::store::mysql::Dialect;
use actors::time::{Moment, Now, Timestamp};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

type Door = actors::owning::door::Door<CouponKind>;
type Notice = actors::owning::door::Notice<CouponKind>;
type Portion = batch::Portion<CouponKind>;

/// How many times a coupon in demand was issued.
const ISSUED: u64 = 100_000;
/// How many sold-out coupons a door knows.
const SOLD_OUT: u64 = 1_000;

fn main() {
    divan::main();
}

fn at() -> Timestamp {
    Timestamp::parse("2026-11-27T00:00:00Z").unwrap()
}

fn user(number: u64) -> UserId {
    // Real ids are not in order.
    UserId::parse(&format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))).unwrap()
}

fn key(number: u64) -> RequestKey {
    RequestKey::parse(&format!("{number:036}")).unwrap()
}

fn ask(user: UserId, key: RequestKey) -> CouponAsk {
    IssueRequest { user, key }.into()
}

/// Decides as an owner does.
fn decide(ledger: &mut Ledger, ask: &CouponAsk) -> CouponOutcome {
    match CouponKind::judge(ledger, at(), ask) {
        Verdict::Enter(entry) => CouponKind::apply(ledger, &entry),
        Verdict::Known(outcome) | Verdict::Refused(outcome) => outcome,
    }
}

fn sold_out(total_quantity: u64) -> CouponOutcome {
    CouponOutcome::Issue(IssueOutcome::Refused(Refusal::SoldOut { total_quantity }))
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

/// Returns the ledger of a coupon that was issued to the first [`ISSUED`] users.
fn ledger(total_quantity: Option<u64>) -> Ledger {
    let coupon = coupon(42, total_quantity);
    let issued = Issued::new(coupon.id);
    let mut ledger = Ledger::new(coupon.into(), issued);
    for number in 0..ISSUED {
        decide(&mut ledger, &ask(user(number), key(number)));
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
            ask(user(next), key(next))
        };
        bencher.with_inputs(newcomer).bench_local_values(|ask| {
            let Verdict::Enter(entry) = CouponKind::judge(&ledger, at(), &ask) else {
                panic!("not issued")
            };
            CouponKind::apply(&mut ledger, &entry)
        });
    }

    #[divan::bench]
    fn sold_out(bencher: Bencher<'_, '_>) {
        let (ledger, ask) = (ledger(Some(ISSUED)), ask(user(ISSUED), key(ISSUED)));
        let refused = Verdict::Refused(super::sold_out(ISSUED));
        assert_eq!(CouponKind::judge(&ledger, at(), &ask), refused);
        bencher.bench_local(|| CouponKind::judge(&ledger, at(), black_box(&ask)));
    }

    #[divan::bench]
    fn already_issued(bencher: Bencher<'_, '_>) {
        let (ledger, ask) = (ledger(Some(ISSUED)), ask(user(ISSUED / 2), key(ISSUED)));
        assert!(matches!(
            CouponKind::judge(&ledger, at(), &ask),
            Verdict::Known(CouponOutcome::Issue(IssueOutcome::Refused(
                Refusal::AlreadyIssued(_)
            )))
        ));
        bencher.bench_local(|| CouponKind::judge(&ledger, at(), black_box(&ask)));
    }
}

/// Returns a portion of this many rows of one coupon.
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
        id: coupon,
        shard: coupon.shard(),
        fence,
        run: CouponRun::Issuances((1..=rows).map(issuance).collect()),
    }
}

mod lane {
    use super::*;

    /// A batch is stored, and the lane builds the next batch from the portions that this many coupons
    /// submitted meanwhile. Each portion has two rows.
    #[divan::bench(args = [1, 32, 1_024])]
    fn batch(bencher: Bencher<'_, '_>, coupons: u64) {
        let portions: Vec<Portion> = (1..=coupons + 1).map(|coupon| portion(coupon, 2)).collect();
        let waiting = || {
            let (mut lane, mut effects) = (Lane::default(), Vec::new());
            for portion in &portions {
                lane.handle(
                    Event::Submitted(Submission {
                        portion: portion.clone(),
                        mailbox: (),
                        traces: Vec::new(),
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

    /// Returns a door that knows many sold-out coupons, and the one coupon that has [`ISSUED`] winners.
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
            Arc::new(Notice::new(SoldOutNotice::new(
                coupon(id, Some(issued)),
                Sequence::new(issued),
                0,
                Filter::of(winners.iter().map(UserId::as_str)).into(),
            )))
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
        let ((door, coupon), ask) = (door(), ask(user(ISSUED + 1), key(1)));
        assert_eq!(door.refusal(coupon, &ask, now), Some(sold_out(ISSUED)));
        bencher.bench_local(|| door.refusal(coupon, black_box(&ask), now));
    }

    #[divan::bench]
    fn miss(bencher: Bencher<'_, '_>) {
        let ((door, _), ask) = (door(), ask(user(ISSUED + 1), key(1)));
        let unknown = CouponId::new(SOLD_OUT + 1).unwrap();
        assert_eq!(door.refusal(unknown, &ask, now), None);
        bencher.bench_local(|| door.refusal(unknown, black_box(&ask), now));
    }

    #[divan::bench]
    fn winner(bencher: Bencher<'_, '_>) {
        let ((door, coupon), ask) = (door(), ask(user(ISSUED / 2), key(1)));
        assert_eq!(door.refusal(coupon, &ask, now), None);
        bencher.bench_local(|| door.refusal(coupon, black_box(&ask), now));
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
