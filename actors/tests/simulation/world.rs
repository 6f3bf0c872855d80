//! One shard of a node, its clients, the database and everything between them, stepped by a seed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actors::coupon::ledger::Ledger;
use actors::coupon::message::{Change, ChangeAnswer, IssueAnswer, OwnerCommand};
use actors::coupon::owner::Owner;
use actors::door::{Board, Knowledge, Notice};
use actors::ids::{CouponId, Fence, Incarnation, RequestKey, UserId};
use actors::offer::{Coupon, Issuance, Offer, Status};
use actors::shard::life::{self, Life};
use actors::time::{Moment, Now, Timestamp};
use actors::write_back::batch::Batch;
use actors::write_back::lane::Lane;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;

use super::database::Database;

/// Which mechanism is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breakage {
    None,
    AnswersBeforeStored,
    NoFence,
    LoadBeforeClaim,
    NoLease,
    StaleDoor,
}

/// What a step takes: so a hundred of them pass while the door's knowledge counts.
const STEP: Duration = Duration::from_millis(20);

/// Steps with faults; after them come steps without, until nothing is under way.
const STEPS: usize = 250;
const STEPS_TO_REST: usize = 20_000;
const COUPONS: usize = 2;
pub(super) const USERS: usize = 6;

/// A call of the lane to the database, not answered yet.
pub(super) enum Call {
    Write(Batch),
    ReadBack(Batch),
    Pause,
}

/// A client that waits.
pub(super) struct Client {
    pub(super) coupon: CouponId,
    /// How the database stood when it asked: version of the coupon.
    pub(super) asked_at_version: u64,
    pub(super) want: Want,
}

pub(super) enum Want {
    Issue { user: UserId, key: RequestKey, answer: oneshot::Receiver<IssueAnswer> },
    Change { change: Change, answer: oneshot::Receiver<ChangeAnswer> },
}

pub(super) struct Home {
    pub(super) owner: Owner,
    pub(super) mailbox: VecDeque<OwnerCommand>,
    pub(super) draining: bool,
    /// Told apart from its successors: what was sent to one is not for another.
    pub(super) number: u64,
}

pub struct World {
    pub(super) rng: StdRng,
    pub(super) breakage: Breakage,
    pub(super) db: Database,
    /// Statements that go on although their connection is lost.
    pub(super) zombies: Vec<Batch>,
    pub(super) life: Life,
    pub(super) shard_mailbox: VecDeque<life::Event>,
    pub(super) homes: HashMap<CouponId, Home>,
    pub(super) board: Board,
    pub(super) door: Knowledge,
    /// What owners told when they were asked, on its way to the door.
    pub(super) heartbeats: Vec<(Moment, Vec<Arc<Notice>>)>,
    pub(super) lane: Lane<(CouponId, u64)>,
    pub(super) call: Option<Call>,
    pub(super) loads: Vec<CouponId>,
    pub(super) loaded: Vec<(CouponId, Ledger)>,
    pub(super) raises: Vec<Fence>,
    pub(super) me: Incarnation,
    pub(super) lease: Option<Incarnation>,
    /// Another node owns the shard and writes.
    pub(super) foreign: bool,
    pub(super) clients: Vec<Client>,
    pub(super) told: Vec<Issuance>,
    pub(super) homes_made: u64,
    pub(super) keys_made: u64,
    pub(super) micros: i64,
    pub(super) faults: bool,
}

fn offer(total_quantity: u64, per_user_limit: u8) -> Offer {
    Offer {
        title: "simulated".to_owned(),
        discount: None,
        min_order_amount: None,
        total_quantity: Some(total_quantity),
        per_user_limit,
        starts_at: None,
        ends_at: None,
        use_within_days: Some(7),
    }
}

impl World {
    pub fn new(seed: u64, breakage: Breakage) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let me = Incarnation::new(1).unwrap();
        let shard = CouponId::new(1).unwrap().shard();
        let ids = (1..).filter_map(CouponId::new).filter(|id| id.shard() == shard).take(COUPONS);
        let coupons = ids.map(|id| Coupon {
            id,
            offer: offer(rng.random_range(1..=8), rng.random_range(1..=2)),
            status: Status::Open,
            version: 1,
            created_at: Timestamp::from_micros(0).unwrap(),
            updated_at: Timestamp::from_micros(0).unwrap(),
        });
        let mut db = Database::new(coupons.collect(), me);
        db.unfenced = breakage == Breakage::NoFence;
        let mut life = Life::default();
        life.handle(life::Event::Claimed(db.fence), &mut Vec::new());
        Self {
            rng,
            breakage,
            db,
            zombies: Vec::new(),
            life,
            shard_mailbox: VecDeque::new(),
            homes: HashMap::new(),
            board: Board::default(),
            door: Knowledge::default(),
            heartbeats: Vec::new(),
            lane: Lane::default(),
            call: None,
            loads: Vec::new(),
            loaded: Vec::new(),
            raises: Vec::new(),
            me,
            lease: Some(me),
            foreign: false,
            clients: Vec::new(),
            told: Vec::new(),
            homes_made: 0,
            keys_made: 0,
            micros: 0,
            faults: true,
        }
    }

    /// Runs the seed; the error says what was told and is not so.
    pub fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step()?;
        }
        self.faults = false;
        if self.foreign {
            self.come_back();
        }
        for _ in 0..STEPS_TO_REST {
            if self.is_at_rest() {
                return self.check_end();
            }
            self.step()?;
        }
        Err(format!("not at rest: {} clients wait", self.clients.len()))
    }

    pub(super) fn is_at_rest(&self) -> bool {
        let quiet_homes = self.homes.values().all(|home| home.mailbox.is_empty() && home.owner.unstored() == 0);
        self.clients.is_empty()
            && quiet_homes
            && self.shard_mailbox.is_empty()
            && self.call.is_none()
            && self.raises.is_empty()
            && self.loads.is_empty()
            && self.loaded.is_empty()
    }

    pub(super) fn step(&mut self) -> Result<(), String> {
        self.micros += 1;
        match self.rng.random_range(0..100) {
            0..12 if self.faults => self.ask()?,
            12..15 if self.faults => self.ask_change(),
            15..45 => self.step_owner()?,
            45..65 => self.step_shard(),
            65..80 => self.step_call()?,
            80..86 => self.step_load(),
            86..90 => self.step_raise(),
            90..92 if !self.zombies.is_empty() => self.step_zombie(),
            92 if self.faults => self.panic_owner(),
            93 if self.faults => self.passivate(),
            94 if self.faults => self.step_foreign(),
            95..100 => self.step_door(),
            _ => {}
        }
        self.hear_answers()
    }

    pub(super) fn lease_holds(&self, owner: Incarnation) -> bool {
        self.breakage == Breakage::NoLease || self.lease == Some(owner)
    }

    pub(super) fn now(&self) -> Now {
        let moment = Moment::at(STEP * u32::try_from(self.micros).unwrap());
        Now { moment, timestamp: Timestamp::from_micros(self.micros).unwrap() }
    }
}
