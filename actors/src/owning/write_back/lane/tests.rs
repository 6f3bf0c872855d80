//! Tests of two lanes against a model store: every portion comes to one fate, and the fate is true. Coupons
//! are the sample kind.

mod waiting;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::coupon::CouponKind;
use crate::coupon::entry::CouponRun;
use crate::coupon::ids::{CouponId, IssuanceId, Sequence};
use crate::coupon::offer::Issuance;
use crate::coupon::uses::{LatestUse, Use, UseCounts, UseKind, UseNumber};
use crate::ids::{Author, Epoch, Fence, Incarnation, RequestKey, UserId};
use crate::time::Timestamp;

type Batch = super::Batch<CouponKind>;
type Portion = super::Portion<CouponKind>;
type Submission = super::Submission<CouponKind, u64>;
type Lane = super::Lane<CouponKind, u64>;
type Event = super::Event<CouponKind, u64>;
type Effect = super::Effect<CouponKind, u64>;

/// How the next call to the store goes.
#[derive(Debug, Clone, Copy)]
enum Call {
    Answers,
    NotStored,
    /// The batch is stored, and the answer is lost.
    LostAfter,
    /// The batch is not stored, and the answer is lost.
    LostBefore,
    /// The batch is not stored, and the store finds it unreadable.
    Unreadable,
}

#[derive(Debug, Clone)]
enum Step {
    /// Submits a portion of this many rows of this coupon. If `stale`, a former owner decided it, under an
    /// epoch that is not the shard's present one.
    Submit {
        lane: usize,
        coupon: u64,
        rows: usize,
        stale: bool,
    },
    /// The call or the pause of a lane ends.
    Go(usize, Call),
    /// The batch of a lane takes long.
    TakesLong(usize),
}

const LANES: usize = 2;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let submit = (0..LANES, 1..5_u64, 1..1_500_usize, prop::bool::weighted(0.2)).prop_map(
        |(lane, coupon, rows, stale)| Step::Submit {
            lane,
            coupon,
            rows,
            stale,
        },
    );
    let call = prop_oneof![
        5 => Just(Call::Answers),
        1 => Just(Call::NotStored),
        1 => Just(Call::LostAfter),
        1 => Just(Call::LostBefore),
        1 => Just(Call::Unreadable),
    ];
    let go = (0..LANES, call).prop_map(|(lane, call)| Step::Go(lane, call));
    let takes_long = (0..LANES).prop_map(Step::TakesLong);
    prop::collection::vec(prop_oneof![4 => submit, 8 => go, 1 => takes_long], 1..60)
}

/// Rows by coupon and sequence, with the user of each.
#[derive(Default)]
struct Model {
    rows: BTreeMap<(u64, u64), String>,
}

const EPOCH: Epoch = Epoch::new(5);

impl Model {
    fn write(&mut self, batch: &Batch) -> Result<u64, StoreError> {
        let mut new = Vec::new();
        for portion in batch
            .portions
            .iter()
            .filter(|portion| portion.fence.epoch == EPOCH)
        {
            new.extend(issuances(portion).iter().map(|row| {
                (
                    (portion.id.get(), row.id.sequence.get()),
                    row.user.as_str().to_owned(),
                )
            }));
        }
        if new.iter().any(|(place, _)| self.rows.contains_key(place)) {
            return Err(StoreError::Clash("taken".to_owned()));
        }
        let rows = new.len() as u64;
        self.rows.extend(new);
        Ok(rows)
    }

    fn read_back(&self, batch: &Batch) -> Vec<Found> {
        let of = |portion: &Portion| {
            let issuances = issuances(portion);
            let at = |row: &Issuance| self.rows.get(&(portion.id.get(), row.id.sequence.get()));
            if issuances
                .iter()
                .all(|row| at(row).is_some_and(|user| user == row.user.as_str()))
            {
                FoundRows::Stored
            } else if issuances.iter().any(|row| at(row).is_some()) {
                FoundRows::Different
            } else {
                FoundRows::Absent
            }
        };
        batch
            .portions
            .iter()
            .map(|portion| Found {
                fence_holds: portion.fence.epoch == EPOCH,
                rows: of(portion),
            })
            .collect()
    }
}

fn issuances(portion: &Portion) -> &[Issuance] {
    match &portion.run {
        CouponRun::Issuances(issuances) => issuances,
        CouponRun::Uses(_) | CouponRun::Change(_) => unreachable!("no other entries here"),
    }
}

fn portion(coupon: u64, first: u64, rows: usize, stale: bool) -> Portion {
    let coupon = CouponId::new(coupon).unwrap();
    let owner = if stale { "former" } else { "present" };
    let issuance = |sequence| Issuance {
        id: IssuanceId {
            coupon,
            sequence: Sequence::new(sequence),
        },
        user: UserId::parse(&format!("{owner}-{sequence}")).unwrap(),
        nth: 1,
        key: RequestKey::parse("k").unwrap(),
        issued_at: Timestamp::from_micros(0).unwrap(),
        expires_at: None,
    };
    let issuances: Arc<[Issuance]> = (first..first + rows as u64).map(issuance).collect();
    let epoch = if stale { Epoch::new(4) } else { EPOCH };
    Portion {
        id: coupon,
        shard: coupon.shard(),
        fence: Fence {
            epoch,
            owner: Incarnation::new(1).unwrap(),
        },
        run: CouponRun::Issuances(issuances),
    }
}

#[derive(Default)]
struct World {
    lanes: [Lane; LANES],
    store: Model,
    /// The call or the pause of each lane.
    under_way: [Option<Effect>; LANES],
    next_sequence: HashMap<CouponId, u64>,
    /// The owners with a portion in flight. Coupons have two owners, a former and a present one.
    out: BTreeSet<u64>,
    /// True once the store has found something unreadable.
    found_unreadable: bool,
}

impl World {
    fn submit(&mut self, lane: usize, coupon: u64, rows: usize, stale: bool) -> Result<(), TestCaseError> {
        // An owner has at most one portion in flight.
        let owner = 2 * coupon + u64::from(stale);
        if !self.out.insert(owner) {
            return Ok(());
        }
        let first = self.next_sequence.get(&CouponId::new(coupon).unwrap());
        let submission = Submission {
            portion: portion(coupon, *first.unwrap_or(&1), rows, stale),
            mailbox: owner,
            traces: Vec::new(),
        };
        self.take(lane, Event::Submitted(submission))
    }

    fn go(&mut self, lane: usize, call: Call) -> Result<(), TestCaseError> {
        let lost = || StoreError::Unknown("cut off".to_owned());
        let event = match (self.under_way[lane].take(), call) {
            (None, _) => return Ok(()),
            (Some(Effect::Pause(_)), _) => Event::RetryDue { lease_holds: true },
            (Some(Effect::Write(batch)), Call::Answers) => Event::Written(self.store.write(&batch)),
            (Some(Effect::Write(_)), Call::NotStored) => {
                Event::Written(Err(StoreError::NotStored("locked".to_owned())))
            }
            (Some(Effect::Write(batch)), Call::LostAfter) => {
                drop(self.store.write(&batch));
                Event::Written(Err(lost()))
            }
            (Some(Effect::Write(_)), Call::LostBefore) => Event::Written(Err(lost())),
            (Some(Effect::ReadBack(batch)), Call::Answers) => {
                Event::ReadBack(Ok(self.store.read_back(&batch)))
            }
            (Some(Effect::Write(_)), Call::Unreadable) => {
                self.found_unreadable = true;
                Event::Written(Err(StoreError::Unreadable("no such status".to_owned())))
            }
            (Some(Effect::ReadBack(_)), _) => Event::ReadBack(Err(lost())),
            (Some(other), _) => unreachable!("not under way: {other:?}"),
        };
        self.take(lane, event)
    }

    fn take(&mut self, lane: usize, event: Event) -> Result<(), TestCaseError> {
        let mut effects = Vec::new();
        self.lanes[lane].handle(event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Write(ref batch) | Effect::ReadBack(ref batch) => {
                    prop_assert!(self.under_way[lane].is_none(), "one call at a time");
                    prop_assert!(batch.portions.len() == 1 || batch.rows() <= BATCH_ROWS_MAX);
                    let ids: BTreeSet<_> = batch.portions.iter().map(|portion| portion.id).collect();
                    prop_assert_eq!(ids.len(), batch.portions.len(), "one portion of each coupon");
                    self.under_way[lane] = Some(effect);
                }
                Effect::Pause(_) => {
                    prop_assert!(self.under_way[lane].is_none());
                    self.under_way[lane] = Some(effect);
                }
                Effect::GiveBack(submission) => {
                    self.take((lane + 1) % LANES, Event::Submitted(submission))?;
                }
                Effect::Settle(submission, fate) => self.settle(&submission, fate)?,
                Effect::Delay(submission) => prop_assert!(self.out.contains(&submission.mailbox)),
                Effect::EndProcess(why) => prop_assert!(false, "{}", why),
            }
        }
        Ok(())
    }

    fn settle(&mut self, submission: &Submission, fate: Fate) -> Result<(), TestCaseError> {
        prop_assert!(self.out.remove(&submission.mailbox), "settled twice");
        let found = self.store.read_back(&Batch {
            portions: vec![submission.portion.clone()],
        })[0];
        match fate {
            Fate::Stored => {
                prop_assert_eq!(found.rows, FoundRows::Stored);
                *self.next_sequence.entry(submission.portion.id).or_insert(1) +=
                    submission.portion.run.rows() as u64;
            }
            // The present owner may have stored other rows in the same places.
            Fate::Fenced => prop_assert!(!found.fence_holds && found.rows != FoundRows::Stored),
            Fate::Contradicted if self.found_unreadable => prop_assert_ne!(found.rows, FoundRows::Stored),
            Fate::Contradicted | Fate::Unknown => prop_assert!(false, "nothing here contradicts: {:?}", fate),
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn every_portion_comes_to_one_fate_and_it_is_true(steps in steps()) {
        let mut world = World::default();
        for step in steps {
            match step {
                Step::Submit { lane, coupon, rows, stale } => world.submit(lane, coupon, rows, stale)?,
                Step::Go(lane, call) => world.go(lane, call)?,
                Step::TakesLong(lane) => world.take(lane, Event::TakesLong)?,
            }
        }
        for step in 0..1_000 {
            world.go(step % LANES, Call::Answers)?;
        }
        prop_assert!(world.out.is_empty(), "without faults everything settles: {:?}", world.out);
    }
}

fn settled(effects: &[Effect]) -> Vec<(u64, Fate)> {
    let settled = effects.iter().filter_map(|effect| match effect {
        Effect::Settle(submission, fate) => Some((submission.mailbox, *fate)),
        _ => None,
    });
    settled.collect()
}

fn lane_with(portions: &[(u64, usize)]) -> (Lane, Vec<Effect>) {
    let (mut lane, mut effects) = (Lane::default(), Vec::new());
    for (coupon, rows) in portions {
        lane.handle(
            Event::Submitted(Submission {
                portion: portion(*coupon, 1, *rows, false),
                mailbox: *coupon,
                traces: Vec::new(),
            }),
            &mut effects,
        );
    }
    (lane, effects)
}

#[test]
fn portions_that_wait_while_a_batch_is_in_flight_share_the_next_batch() {
    let (mut lane, mut effects) = lane_with(&[(1, 1), (2, 3), (3, 4)]);
    assert!(matches!(&effects[..], [Effect::Write(batch)] if batch.rows() == 1));
    effects.clear();
    lane.handle(Event::Written(Ok(1)), &mut effects);
    assert!(
        matches!(&effects[..], [Effect::Settle(_, Fate::Stored), Effect::Write(batch)] if batch.rows() == 7)
    );
}

#[test]
fn portions_of_two_sorts_in_turn_share_one_batch_of_each_sort() {
    let mut lane = Lane::default();
    let mut effects = Vec::new();
    for coupon in 1..=100 {
        let mut portion = portion(coupon, 1, 2, false);
        if coupon % 2 == 0 {
            portion.run = CouponRun::Uses(vec![use_of(&portion)].into());
        }
        let submission = Submission {
            portion,
            mailbox: coupon,
            traces: Vec::new(),
        };
        lane.handle(Event::Submitted(submission), &mut effects);
    }
    let mut rows = Vec::new();
    while let Some(Effect::Write(batch)) = effects.pop() {
        rows.push(batch.rows());
        effects.clear();
        lane.handle(Event::Written(Ok(batch.rows() as u64)), &mut effects);
    }
    assert_eq!(rows, [2, 50, 98]);
}

/// An owner that panicked, or whose incarnation ended, may leave its portion behind in the queue.
#[test]
fn portions_of_two_owners_of_one_coupon_are_not_in_one_batch() {
    let (mut lane, mut effects) = lane_with(&[(9, 1)]);
    for (owner, (coupon, stale)) in (0..).zip([(1, true), (1, false), (2, false)]) {
        let submission = Submission {
            portion: portion(coupon, 1, 2, stale),
            mailbox: owner,
            traces: Vec::new(),
        };
        lane.handle(Event::Submitted(submission), &mut effects);
    }
    let mut store = Model::default();
    let (mut batches, mut settlements) = (Vec::new(), Vec::new());
    while let Some(effect) = effects.pop() {
        settlements.extend(settled(&effects));
        effects.clear();
        let event = match effect {
            Effect::Write(batch) => {
                batches.push(batch.portions.len());
                Event::Written(store.write(&batch))
            }
            Effect::ReadBack(batch) => Event::ReadBack(Ok(store.read_back(&batch))),
            Effect::Settle(submission, fate) => {
                settlements.push((submission.mailbox, fate));
                continue;
            }
            other => panic!("{other:?}"),
        };
        lane.handle(event, &mut effects);
    }
    assert_eq!(batches, [1, 2, 1]);
    assert_eq!(
        settlements,
        [
            (9, Fate::Stored),
            (0, Fate::Fenced),
            (2, Fate::Stored),
            (1, Fate::Stored)
        ]
    );
}

fn use_of(portion: &Portion) -> Use {
    Use {
        coupon: portion.id,
        number: UseNumber::new(1),
        sequence: Sequence::new(1),
        shown: LatestUse {
            kind: UseKind::Revoked,
            order: None,
            figures: None,
            hold_until: None,
            returns: false,
            at: Timestamp::from_micros(0).unwrap(),
        },
        reason: None,
        author: Author::parse("key:shop").unwrap(),
        counts: UseCounts::default(),
        lapses_at: None,
    }
}

#[test]
fn a_guard_that_refuses_is_a_contradiction() {
    let (mut lane, mut effects) = lane_with(&[(1, 2)]);
    lane.handle(Event::Written(Ok(0)), &mut effects);
    effects.clear();
    lane.handle(
        Event::ReadBack(Ok(vec![Found {
            fence_holds: true,
            rows: FoundRows::Absent,
        }])),
        &mut effects,
    );
    assert_eq!(settled(&effects), [(1, Fate::Contradicted)]);
}

#[test]
fn only_the_portion_that_clashed_is_contradicted() {
    let (mut lane, mut effects) = lane_with(&[(9, 1), (1, 2), (2, 2)]);
    lane.handle(Event::Written(Ok(1)), &mut effects);
    lane.handle(
        Event::Written(Err(StoreError::Clash("taken".to_owned()))),
        &mut effects,
    );
    effects.clear();
    let found = |rows| Found {
        fence_holds: true,
        rows,
    };
    lane.handle(
        Event::ReadBack(Ok(vec![found(FoundRows::Different), found(FoundRows::Absent)])),
        &mut effects,
    );
    assert_eq!(settled(&effects), [(1, Fate::Contradicted)]);
    effects.clear();
    lane.handle(Event::Written(Ok(2)), &mut effects);
    assert_eq!(settled(&effects), [(2, Fate::Stored)]);
}

#[test]
fn a_portion_that_cannot_be_read_back_is_contradicted_and_does_not_delay_others() {
    let unreadable = || StoreError::Unreadable("no such status".to_owned());
    let (mut lane, mut effects) = lane_with(&[(9, 1), (1, 2), (2, 2)]);
    lane.handle(Event::Written(Ok(1)), &mut effects);
    effects.clear();
    lane.handle(Event::Written(Err(unreadable())), &mut effects);
    assert!(
        matches!(&effects[..], [Effect::ReadBack(batch)] if batch.rows() == 4),
        "it may be stored: {effects:?}"
    );
    effects.clear();
    lane.handle(Event::ReadBack(Err(unreadable())), &mut effects);
    assert!(
        matches!(&effects[..], [Effect::Write(batch)] if batch.rows() == 2),
        "each is written alone: {effects:?}"
    );
    lane.handle(Event::Written(Err(unreadable())), &mut effects);
    effects.clear();
    lane.handle(Event::ReadBack(Err(unreadable())), &mut effects);
    assert_eq!(settled(&effects), [(1, Fate::Contradicted)]);
    lane.handle(Event::Written(Ok(2)), &mut effects);
    assert_eq!(settled(&effects), [(1, Fate::Contradicted), (2, Fate::Stored)]);
    assert!(!lane.is_delayed());
}

#[test]
fn a_disk_that_lost_writes_ends_the_process() {
    let (mut lane, mut effects) = lane_with(&[(1, 1)]);
    effects.clear();
    lane.handle(
        Event::Written(Err(StoreError::Fatal("fsync".to_owned()))),
        &mut effects,
    );
    assert!(matches!(&effects[..], [Effect::EndProcess(_)]));
}
