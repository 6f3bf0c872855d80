//! Random batches under random fences, compared with a small model of what must be stored.

use std::collections::{BTreeMap, HashMap};

use actors::coupon::ids::CouponId;
use actors::coupon::offer::Issuance;
use actors::ids::{Fence, Incarnation};
use actors::store::StoreError;
use actors::store::batch::FoundRows;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{CouponStore, Database, Owned, Portion, batch, claim_by, found, issued, listed, loaded};

/// Number of cases. Each case is costly and has many steps.
const CASES: u32 = 24;

#[derive(Debug, Clone)]
enum Step {
    /// Another claimant takes the shard of a coupon. The owner learns of it if `is_known`.
    Claim { coupon: usize, is_known: bool },
    /// A batch with one portion for each of some coupons.
    Write(Vec<Part>),
}

#[derive(Debug, Clone)]
struct Part {
    coupon: usize,
    /// The place of the first row relative to the stored rows: mostly just after them.
    offset: i8,
    /// The user and the `nth` of each row; `None` for the next `nth` of that user.
    rows: Vec<(u8, Option<u8>)>,
    /// True if the issuances expire.
    do_expire: bool,
    /// True if the fence was never valid.
    forged: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = (
        0..6_u8,
        prop_oneof![6 => Just(None), 1 => (1..=4_u8).prop_map(Some)],
    );
    let offset = prop_oneof![8 => Just(0_i8), 1 => -2..=2_i8];
    let part = (
        0..COUPONS.len(),
        offset,
        prop::collection::vec(row, 1..6),
        any::<bool>(),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(coupon, offset, rows, do_expire, forged)| Part {
            coupon,
            offset,
            rows,
            do_expire,
            forged,
        });
    let write = prop::collection::vec(part, 1..4).prop_map(Step::Write);
    let claim =
        (0..COUPONS.len(), any::<bool>()).prop_map(|(coupon, is_known)| Step::Claim { coupon, is_known });
    prop::collection::vec(prop_oneof![6 => write, 1 => claim], 1..20)
}

/// Quantity and limit per user of each coupon: low enough for a case to reach them.
const COUPONS: [(Option<u64>, u8); 3] = [(None, 2), (Some(4), 1), (Some(7), 3)];

/// What must be stored, and which fences may write.
#[derive(Default)]
struct Model {
    rows: HashMap<CouponId, BTreeMap<u64, Issuance>>,
    fences: HashMap<u16, Fence>,
}

impl Model {
    fn guards_hold(&self, owned: &Owned, portion: &Portion, rows: &[Issuance]) -> bool {
        let last = rows.iter().map(|row| row.id.sequence.get()).max().unwrap_or(0);
        self.fences.get(&portion.shard.get()) == Some(&portion.fence)
            && owned
                .coupon
                .offer
                .total_quantity
                .is_none_or(|total| last <= total)
            && rows.iter().all(|row| {
                let limit = owned.coupon.offer.per_user_limit;
                limit.is_none_or(|limit| row.nth <= u32::from(limit))
            })
    }

    fn clashes(&self, rows: &[Issuance]) -> bool {
        let mut seen: Vec<&Issuance> = Vec::new();
        rows.iter().any(|row| {
            let stored = self
                .rows
                .get(&row.id.coupon)
                .into_iter()
                .flat_map(BTreeMap::values);
            let clash = stored.chain(seen.iter().copied()).any(|other| {
                other.id.sequence == row.id.sequence || (&other.user, other.nth) == (&row.user, row.nth)
            });
            seen.push(row);
            clash
        })
    }

    fn count(&self, coupon: CouponId, user: &str) -> u32 {
        let rows = self.rows.get(&coupon).into_iter().flat_map(BTreeMap::values);
        u32::try_from(rows.filter(|row| row.user.as_str() == user).count()).unwrap()
    }

    fn rows_of(&self, owned: &Owned, part: &Part) -> Vec<Issuance> {
        let highest = self
            .rows
            .get(&owned.id())
            .and_then(|rows| rows.keys().last().copied())
            .unwrap_or(0);
        let first = highest.saturating_add_signed(i64::from(part.offset)) + 1;
        let mut given: HashMap<u8, u32> = HashMap::new();
        (first..)
            .zip(&part.rows)
            .map(|(sequence, &(number, nth))| {
                let user = format!("user{number}");
                let before = given.entry(number).or_default();
                *before += 1;
                let nth = nth.map_or(self.count(owned.id(), &user) + *before, u32::from);
                let issuance = owned.issuance(sequence, &user, nth);
                Issuance {
                    expires_at: issuance.expires_at.filter(|_| part.do_expire),
                    ..issuance
                }
            })
            .collect()
    }
}

/// Checks that the store holds what the model says, for all batches and fences.
pub fn random_batches_store_what_the_model_says<D: Database>() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    // A failing case prints its steps, which suffice to repeat it.
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    // Either one claimant has all shards, as a node does, or each claim has a claimant of its own.
    let result = TestRunner::new(config).run(&(any::<bool>(), steps()), |(is_one_owner, steps)| {
        let one = Incarnation::random();
        let claimant = || if is_one_owner { one } else { Incarnation::random() };
        runtime.block_on(async {
            let database = D::new().await;
            follow(&*database.store(), claimant, &steps).await
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

async fn follow(
    store: &dyn CouponStore,
    claimant: impl Fn() -> Incarnation,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    let mut coupons = Vec::new();
    for (quantity, limit) in COUPONS {
        let mut owned = Owned::make(store, quantity, limit).await;
        owned.fence = claim_by(store, owned.id().shard(), claimant()).await;
        model.fences.insert(owned.id().shard().get(), owned.fence);
        coupons.push(owned);
    }
    for step in steps {
        match step {
            Step::Claim { coupon, is_known } => {
                let shard = coupons[*coupon].id().shard();
                let fence = claim_by(store, shard, claimant()).await;
                model.fences.insert(shard.get(), fence);
                coupons
                    .iter_mut()
                    .filter(|owned| *is_known && owned.id().shard() == shard)
                    .for_each(|owned| owned.fence = fence);
            }
            Step::Write(parts) => write(store, &mut model, &coupons, parts).await?,
        }
    }
    for owned in &coupons {
        let expected: Vec<Issuance> = model
            .rows
            .remove(&owned.id())
            .unwrap_or_default()
            .into_values()
            .collect();
        prop_assert_eq!(&listed(store, owned.id()).await, &expected);
        // An owner accepts rows that continue its own, and no others.
        match issued(owned.id(), &expected) {
            Ok(_) => prop_assert_eq!(loaded(store, owned.id(), 0).await, expected),
            Err(why) => match store.load(owned.id(), None).await {
                Err(StoreError::Unreadable(_)) => {}
                other => return Err(TestCaseError::fail(format!("{why}: {other:?}"))),
            },
        }
    }
    Ok(())
}

async fn write(
    store: &dyn CouponStore,
    model: &mut Model,
    coupons: &[Owned],
    parts: &[Part],
) -> Result<(), TestCaseError> {
    let mut portions: Vec<Portion> = Vec::new();
    let (mut passing, mut clash) = (Vec::new(), false);
    for part in parts {
        let owned = &coupons[part.coupon];
        if portions.iter().any(|portion| portion.id == owned.id()) {
            continue;
        }
        let rows = model.rows_of(owned, part);
        let mut portion = owned.portion(rows.clone());
        if part.forged {
            portion.fence.owner = Incarnation::random();
        }
        if model.guards_hold(owned, &portion, &rows) {
            clash |= model.clashes(&rows);
            passing.extend(rows);
        }
        portions.push(portion);
    }
    let sent = batch(portions);
    match store.write(&sent).await {
        Ok(stored) => {
            prop_assert!(!clash, "a clash was stored: {:?}", sent);
            prop_assert_eq!(stored, passing.len() as u64);
            for row in passing {
                model
                    .rows
                    .entry(row.id.coupon)
                    .or_default()
                    .insert(row.id.sequence.get(), row);
            }
        }
        Err(StoreError::Clash(_)) => prop_assert!(clash, "no clash was expected: {:?}", sent),
        Err(other) => return Err(TestCaseError::fail(other.to_string())),
    }
    for portion in sent.portions {
        let stored = model.rows.get(&portion.id);
        let same = |row: &Issuance| stored.and_then(|rows| rows.get(&row.id.sequence.get())) == Some(row);
        let (_, stands) = found(store, &batch([portion.clone()])).await;
        let whole = crate::support::issuances(&portion).iter().all(same);
        prop_assert_eq!(stands == FoundRows::Stored, whole);
    }
    Ok(())
}
