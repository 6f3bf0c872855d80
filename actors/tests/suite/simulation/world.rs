//! A few nodes that share one shard, their clients, the database, and the messages between them. A seed picks
//! the steps.

use std::time::Duration;

use actors::coupon::change::Change;
use actors::coupon::ids::{CouponId, IssuanceId};
use actors::coupon::offer::{Coupon, Issuance, Offer, Status};
use actors::coupon::uses::{LatestUse, UseRequest};
use actors::ids::{Fence, Incarnation, RequestKey, UserId};
use actors::owning::request::Answer;
use actors::store::Claim;
use actors::store::batch::Batch;
use actors::time::{Moment, Now, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;

use super::database::Database;
use super::node::{Both, Node};
use crate::tally::{Add, Addition, TallyHead, TallyId};

/// The mechanism that is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breakage {
    None,
    AnswersBeforeStored,
    NoFence,
    LoadBeforeClaim,
    NoLease,
    StaleDoor,
    /// A node is ended although it has beaten since its row was read.
    EndsBlindly,
    /// The nodes are read before the shards: an owner that joined in between is taken for dead.
    NodesReadFirst,
    /// The next owner serves before the hand-off is committed.
    HandedOffBeforeStored,
    /// The rows loaded ahead are served without their tail.
    NoTail,
    /// A hand-off names the next owner in the same epoch.
    HandOffKeepsEpoch,
    /// Reservations are loaded as if they had lapsed.
    ForgetsHolds,
    /// Releases and refunds are loaded without the orders by which their repetitions are recognised.
    ForgetsRepeats,
    /// Uses are stored under any fence.
    NoFenceForUses,
    /// An owner without a lease decides while a hold of its coupon has lapsed.
    LapsesWithoutLease,
    /// Rows do not say what the leases of their nodes are, so that each node judges others by its own.
    LeaseUnknown,
}

/// Duration of a step. What a door knows is valid for a hundred steps.
const STEP: Duration = Duration::from_millis(20);

pub(super) const NODES: usize = 3;
/// Number of steps with faults, about ten leases. Steps without faults follow, until everything is at rest.
const STEPS: usize = 700;
const STEPS_TO_REST: usize = 20_000;
const COUPONS: usize = 2;
const TALLIES: usize = 1;
pub(super) const USERS: usize = 6;

/// A client that waits for an answer.
pub(super) struct Client {
    /// What the coupon was when the request was sent.
    pub(super) since: Since,
    pub(super) want: Want,
    pub(super) answer: oneshot::Receiver<Answer<Both>>,
}

/// What a coupon was when a request was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Since {
    pub(super) version: u64,
    /// How many issuances had been given back.
    pub(super) returned: u64,
    /// How many uses were stored.
    pub(super) uses: usize,
    /// When that was.
    pub(super) at: Timestamp,
}

pub(super) enum Want {
    Use {
        coupon: CouponId,
        request: Box<UseRequest>,
    },
    Issue {
        coupon: CouponId,
        user: UserId,
        key: RequestKey,
    },
    Change {
        coupon: CouponId,
        change: Change,
    },
    Add {
        tally: TallyId,
        add: Add,
    },
}

pub struct World {
    pub(super) rng: StdRng,
    pub(super) breakage: Breakage,
    pub(super) db: Database,
    /// The nodes by place; `None` if the process does not run.
    pub(super) nodes: Vec<Option<Node>>,
    /// Statements that go on although their connection is lost.
    pub(super) zombies: Vec<Batch<Both>>,
    pub(super) late_hand_offs: Vec<(Fence, Option<Incarnation>)>,
    pub(super) late_claims: Vec<Claim>,
    /// Two nodes that do not reach each other.
    pub(super) link_down: Option<(usize, usize)>,
    pub(super) clients: Vec<Client>,
    /// Issuances and additions in answers to clients.
    pub(super) answered: Vec<Issuance>,
    pub(super) added: Vec<Addition>,
    /// Uses in answers to clients, with their issuances.
    pub(super) used: Vec<(IssuanceId, LatestUse)>,
    pub(super) incarnations: u64,
    pub(super) owners_made: u64,
    pub(super) keys_made: u64,
    pub(super) micros: i64,
    pub(super) faults: bool,
}

fn offer(total_quantity: u64, per_user_limit: u8) -> Offer {
    Offer {
        total_quantity: Some(total_quantity),
        per_user_limit: Some(per_user_limit),
        use_within_days: Some(7),
        ..Offer::titled("simulated")
    }
}

impl World {
    pub fn new(seed: u64, breakage: Breakage) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let shard = CouponId::new(1).unwrap().shard();
        let ids = (1..)
            .filter_map(CouponId::new)
            .filter(|id| id.shard() == shard)
            .take(COUPONS);
        let coupons = ids.map(|id| Coupon {
            id,
            offer: offer(rng.random_range(1..=8), rng.random_range(1..=2)),
            status: Status::Open,
            version: 1,
            created_at: Timestamp::from_micros(0).unwrap(),
            updated_at: Timestamp::from_micros(0).unwrap(),
        });
        let coupons = coupons.collect();
        let tallies = (0..TALLIES as u64).map(|_| TallyHead {
            id: TallyId::on(shard),
            bound: rng.random_range(1..=20),
        });
        let mut db = Database::new(shard, coupons, tallies.collect());
        db.unfenced = breakage == Breakage::NoFence;
        db.ends_blindly = breakage == Breakage::EndsBlindly;
        db.forgets_holds = breakage == Breakage::ForgetsHolds;
        db.forgets_repeats = breakage == Breakage::ForgetsRepeats;
        db.uses_unfenced = breakage == Breakage::NoFenceForUses;
        db.keeps_epoch = breakage == Breakage::HandOffKeepsEpoch;
        let mut world = Self {
            rng,
            breakage,
            db,
            nodes: (0..NODES).map(|_| None).collect(),
            zombies: Vec::new(),
            late_hand_offs: Vec::new(),
            late_claims: Vec::new(),
            link_down: None,
            clients: Vec::new(),
            answered: Vec::new(),
            added: Vec::new(),
            used: Vec::new(),
            incarnations: 0,
            owners_made: 0,
            keys_made: 0,
            micros: 0,
            faults: true,
        };
        // The other nodes start later. The plan may then move the shard to one of them.
        let first = world.rng.random_range(0..NODES);
        world.start(first);
        world
    }

    /// Runs the seed. The error says which answer or state is wrong.
    pub fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step()?;
        }
        self.heal();
        for _ in 0..STEPS_TO_REST {
            if self.is_at_rest() {
                return self.check_end();
            }
            self.step()?;
        }
        let nodes: Vec<_> = self
            .nodes
            .iter()
            .flatten()
            .map(|node| (&node.shard, node.lanes.each_ref().map(|task| &task.lane)))
            .collect();
        Err(format!(
            "not at rest: {} clients wait; {:?}; {:?}; {nodes:?}",
            self.clients.len(),
            self.db.shard,
            self.db.nodes
        ))
    }

    fn is_at_rest(&self) -> bool {
        self.clients.is_empty()
            && self
                .nodes
                .iter()
                .flatten()
                .all(|node| node.is_quiet() && node.member.is_idle())
    }

    fn step(&mut self) -> Result<(), String> {
        self.micros += 1;
        for n in 0..NODES {
            if self.runs(n) && self.rng.random() {
                self.step_member(n);
            }
            if self.runs(n) && self.rng.random_ratio(1, 3) {
                self.step_claims(n);
            }
        }
        if self.faults && self.rng.random_ratio(1, 40) {
            self.step_fault();
        }
        match self.rng.random_range(0..100) {
            0..9 if self.faults => self.ask()?,
            17..23 if self.faults => self.ask_use(),
            9..12 if self.faults => self.ask_change(),
            12..14 => self.step_zombie(),
            14..17 if self.faults => self.ask_addition()?,
            _ => {}
        }
        for n in 0..NODES {
            if self.runs(n) {
                self.step_node(n)?;
            }
        }
        if let Some(broken) = self.db.broken.take() {
            return Err(broken);
        }
        self.take_answers()
    }

    fn step_node(&mut self, n: usize) -> Result<(), String> {
        match self.rng.random_range(0..100) {
            0..30 => self.step_owner(n)?,
            30..55 => self.step_shard(n),
            55..72 => self.step_call(n)?,
            72..82 => self.step_read(n),
            82..86 => self.step_raise(n),
            86..90 => self.step_hand_off(n),
            90 if self.faults => self.panic_owner(n),
            91 if self.faults => self.passivate(n),
            92..97 => self.step_door(n),
            97..100 => self.step_leaving(n),
            _ => {}
        }
        Ok(())
    }

    /// True if the node's process exists and does not hang.
    fn runs(&self, n: usize) -> bool {
        self.nodes[n]
            .as_ref()
            .is_some_and(|node| node.hangs_until <= self.micros)
    }

    /// Returns a node whose process exists.
    pub(super) fn node(&mut self, n: usize) -> &mut Node {
        self.nodes[n]
            .as_mut()
            .expect("the caller has checked that the process exists")
    }

    pub(super) fn now(&self) -> Now {
        let passed = STEP * u32::try_from(self.micros).unwrap();
        let micros = i64::try_from(passed.as_micros()).unwrap();
        Now {
            moment: Moment::at(passed),
            timestamp: Timestamp::from_micros(micros).unwrap(),
        }
    }
}
