//! One shard of a node, its clients, the database and everything between them, stepped by a seed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actors::admission::Admission;
use actors::coupon::issued::Issued;
use actors::coupon::ledger::Ledger;
use actors::coupon::message::{
    Change, ChangeAnswer, ChangeOutcome, ChangeRequest, IssueAnswer, IssueOutcome, IssueRequest, OwnerCommand, Refusal, Reply, Request,
    Setback,
};
use actors::coupon::owner::{self, Owner};
use actors::door::{Board, Knowledge, Notice};
use actors::ids::{CouponId, Fence, Incarnation, IssuanceId, RequestKey, Sequence, UserId};
use actors::offer::{Coupon, Issuance, Offer, OfferPatch, Status};
use actors::shard::life::{self, Life, Load, Raise};
use actors::store::{LoadedIssuance, StoreError};
use actors::time::{Moment, Now, Timestamp};
use actors::write_back::batch::{Batch, Fate, Found, Settlement};
use actors::write_back::lane::{self, Lane, Submission};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

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
const USERS: usize = 6;

/// A call of the lane to the database, not answered yet.
enum Call {
    Write(Batch),
    ReadBack(Batch),
    Pause,
}

/// A client that waits.
struct Client {
    coupon: CouponId,
    /// How the database stood when it asked: version of the coupon.
    asked_at_version: u64,
    want: Want,
}

enum Want {
    Issue { user: UserId, key: RequestKey, answer: oneshot::Receiver<IssueAnswer> },
    Change { change: Change, answer: oneshot::Receiver<ChangeAnswer> },
}

struct Home {
    owner: Owner,
    mailbox: VecDeque<OwnerCommand>,
    draining: bool,
    /// Told apart from its successors: what was sent to one is not for another.
    number: u64,
}

pub struct World {
    rng: StdRng,
    breakage: Breakage,
    db: Database,
    /// Statements that go on although their connection is lost.
    zombies: Vec<Batch>,
    life: Life,
    shard_mailbox: VecDeque<life::Event>,
    homes: HashMap<CouponId, Home>,
    board: Board,
    door: Knowledge,
    /// What owners told when they were asked, on its way to the door.
    heartbeats: Vec<(Moment, Vec<Arc<Notice>>)>,
    lane: Lane<(CouponId, u64)>,
    call: Option<Call>,
    loads: Vec<CouponId>,
    loaded: Vec<(CouponId, Ledger)>,
    raises: Vec<Fence>,
    me: Incarnation,
    lease: Option<Incarnation>,
    /// Another node owns the shard and writes.
    foreign: bool,
    clients: Vec<Client>,
    told: Vec<Issuance>,
    homes_made: u64,
    keys_made: u64,
    micros: i64,
    faults: bool,
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

    fn is_at_rest(&self) -> bool {
        let quiet_homes = self.homes.values().all(|home| home.mailbox.is_empty() && home.owner.unstored() == 0);
        self.clients.is_empty()
            && quiet_homes
            && self.shard_mailbox.is_empty()
            && self.call.is_none()
            && self.raises.is_empty()
            && self.loads.is_empty()
            && self.loaded.is_empty()
    }

    fn step(&mut self) -> Result<(), String> {
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

    // --- clients ---

    fn any_coupon(&mut self) -> CouponId {
        let mut ids: Vec<CouponId> = self.db.coupons.keys().copied().collect();
        ids.sort_unstable();
        *ids.choose(&mut self.rng).unwrap()
    }

    fn ask(&mut self) -> Result<(), String> {
        let coupon = self.any_coupon();
        let user = UserId::parse(&format!("user-{}", self.rng.random_range(0..USERS))).unwrap();
        // Now and then a client repeats an earlier key of its own.
        let key = if self.keys_made > 0 && self.rng.random_ratio(1, 4) {
            self.rng.random_range(0..self.keys_made)
        } else {
            self.keys_made += 1;
            self.keys_made
        };
        let key = RequestKey::parse(&format!("key-{key}")).unwrap();
        if let Some(refusal) = self.door.answer(coupon, &user, self.now()) {
            let since = self.db.coupons[&coupon].version;
            return self.check_issue(coupon, since, &user, &key, IssueOutcome::Refused(refusal));
        }
        self.send_issue(coupon, user, key, None);
        Ok(())
    }

    /// Owners are asked under the lease; what they say arrives later, in any order, or never.
    fn step_door(&mut self) {
        match self.rng.random_range(0..3) {
            0 if self.lease.is_some() => self.heartbeats.push((self.now().moment, self.board.read())),
            1 if !self.heartbeats.is_empty() => {
                let (asked_at, notices) = self.heartbeats.remove(self.rng.random_range(0..self.heartbeats.len()));
                self.door.hear(asked_at, notices);
            }
            2 if self.heartbeats.len() > 3 => drop(self.heartbeats.remove(0)),
            _ => {}
        }
    }

    fn send_issue(&mut self, coupon: CouponId, user: UserId, key: RequestKey, since: Option<u64>) {
        let (reply, answer) = Reply::new(Admission::new(1).admit().unwrap());
        let request = IssueRequest { user: user.clone(), key: key.clone(), expires: Moment::at(Duration::from_secs(1_000_000)) };
        self.send(coupon, Request::Issue(request, reply));
        let asked_at_version = since.unwrap_or(self.db.coupons[&coupon].version);
        self.clients.push(Client { coupon, asked_at_version, want: Want::Issue { user, key, answer } });
    }

    fn ask_change(&mut self) {
        let coupon = self.any_coupon();
        let change = match self.rng.random_range(0..4) {
            0 => Change::Pause,
            1 | 2 => Change::Resume,
            _ => {
                let total = Some(Some(self.rng.random_range(1..12)));
                Change::Patch(Box::new(OfferPatch { total_quantity: total, ..OfferPatch::default() }))
            }
        };
        self.send_change(coupon, change);
    }

    fn send_change(&mut self, coupon: CouponId, change: Change) {
        let (reply, answer) = Reply::new(Admission::new(1).admit().unwrap());
        let request = ChangeRequest { change: change.clone(), if_version: None, expires: Moment::at(Duration::from_secs(1_000_000)) };
        self.send(coupon, Request::Change(request, reply));
        let asked_at_version = self.db.coupons[&coupon].version;
        self.clients.push(Client { coupon, asked_at_version, want: Want::Change { change, answer } });
    }

    /// As the router does: straight to the owner, or by way of the shard.
    fn send(&mut self, coupon: CouponId, request: Request) {
        match self.homes.get_mut(&coupon) {
            Some(home) if !home.draining => home.mailbox.push_back(OwnerCommand::Decide(request)),
            _ => self.shard_mailbox.push_back(life::Event::Asked(coupon, request)),
        }
    }

    fn hear_answers(&mut self) -> Result<(), String> {
        for client in std::mem::take(&mut self.clients) {
            let Client { coupon, asked_at_version, want } = client;
            match want {
                Want::Issue { user, key, mut answer } => match answer.try_recv() {
                    Err(TryRecvError::Empty) => {
                        self.clients.push(Client { coupon, asked_at_version, want: Want::Issue { user, key, answer } });
                    }
                    Ok(Ok(outcome)) => self.check_issue(coupon, asked_at_version, &user, &key, outcome)?,
                    // As the router does: the same key again, until an owner says what became of it.
                    Ok(Err(_)) | Err(TryRecvError::Closed) => self.send_issue(coupon, user, key, Some(asked_at_version)),
                },
                Want::Change { change, mut answer } => match answer.try_recv() {
                    Err(TryRecvError::Empty) => {
                        self.clients.push(Client { coupon, asked_at_version, want: Want::Change { change, answer } });
                    }
                    Ok(Ok(outcome)) => self.check_change(coupon, outcome)?,
                    Ok(Err(Setback::Moved)) => self.send_change(coupon, change),
                    Ok(Err(_)) | Err(TryRecvError::Closed) => {}
                },
            }
        }
        Ok(())
    }

    // --- what is told must be so ---

    fn check_issue(&mut self, id: CouponId, since: u64, user: &UserId, key: &RequestKey, outcome: IssueOutcome) -> Result<(), String> {
        let stored = &self.db.issuances[&id];
        let versions: Vec<&Coupon> = self.db.history[&id].iter().filter(|coupon| coupon.version >= since).collect();
        let so = match &outcome {
            IssueOutcome::Issued(issuance) | IssueOutcome::Replayed(issuance) => {
                stored.contains(issuance) && issuance.user == *user && issuance.key == *key
            }
            IssueOutcome::Refused(Refusal::AlreadyIssued(latest)) => stored.contains(latest) && latest.user == *user,
            IssueOutcome::Refused(Refusal::SoldOut { total_quantity }) => {
                stored.len() as u64 >= *total_quantity && versions.iter().any(|coupon| coupon.offer.total_quantity == Some(*total_quantity))
            }
            IssueOutcome::Refused(Refusal::Paused) => versions.iter().any(|coupon| coupon.status == Status::Paused),
            IssueOutcome::Refused(_) => false,
        };
        if let IssueOutcome::Issued(issuance) | IssueOutcome::Replayed(issuance) = &outcome {
            self.told.push(issuance.clone());
        }
        if so { Ok(()) } else { Err(format!("told {outcome:?}; stored: {stored:?}; versions since the call: {versions:?}")) }
    }

    fn check_change(&self, id: CouponId, outcome: ChangeOutcome) -> Result<(), String> {
        match outcome {
            ChangeOutcome::Done(done) if !self.db.history[&id].contains(&done.coupon) => {
                Err(format!("told of a change that is not stored: {done:?}"))
            }
            ChangeOutcome::Done(_) | ChangeOutcome::Refused(_) => Ok(()),
        }
    }

    fn check_end(&self) -> Result<(), String> {
        for (id, rows) in &self.db.issuances {
            let coupon = &self.db.coupons[id];
            let dense = rows.iter().enumerate().all(|(place, row)| row.id.sequence.get() == place as u64 + 1);
            let within = coupon.offer.total_quantity.is_none_or(|total| rows.len() as u64 <= total);
            let mut counts: HashMap<&UserId, u8> = HashMap::new();
            rows.iter().for_each(|row| *counts.entry(&row.user).or_default() += 1);
            let fair = counts.values().all(|count| *count <= coupon.offer.per_user_limit);
            if !(dense && within && fair) {
                return Err(format!("dense {dense}, within quantity {within}, within limit {fair}: {rows:?}"));
            }
        }
        match self.told.iter().find(|told| !self.db.issuances[&told.id.coupon].contains(told)) {
            Some(lost) => Err(format!("told and lost: {lost:?}")),
            None => Ok(()),
        }
    }

    // --- the node ---

    fn lease_holds(&self, owner: Incarnation) -> bool {
        self.breakage == Breakage::NoLease || self.lease == Some(owner)
    }

    fn now(&self) -> Now {
        let moment = Moment::at(STEP * u32::try_from(self.micros).unwrap());
        Now { moment, timestamp: Timestamp::from_micros(self.micros).unwrap() }
    }

    fn step_owner(&mut self) -> Result<(), String> {
        let mut ready: Vec<CouponId> = self.homes.iter().filter(|(_, home)| !home.mailbox.is_empty()).map(|(id, _)| *id).collect();
        ready.sort_unstable();
        let Some(&id) = ready.choose(&mut self.rng) else { return Ok(()) };
        let (now, mut effects) = (self.now(), Vec::new());
        let holds = self.homes.get(&id).is_some_and(|home| self.lease_holds(home.owner.incarnation()));
        if let Some(home) = self.homes.get_mut(&id)
            && let Some(command) = home.mailbox.pop_front()
        {
            home.owner.handle(command, now, holds, &mut effects);
        }
        self.carry_out_owner(id, effects)
    }

    fn carry_out_owner(&mut self, id: CouponId, effects: Vec<owner::Effect>) -> Result<(), String> {
        for effect in effects {
            match effect {
                owner::Effect::Answer(answer) => answer.send(),
                owner::Effect::Submit(portion) => {
                    let home = (id, self.homes[&id].number);
                    if self.breakage == Breakage::AnswersBeforeStored {
                        let settlement = Settlement { fence: portion.fence, fate: Fate::Stored };
                        if let Some(home) = self.homes.get_mut(&id) {
                            home.mailbox.push_front(OwnerCommand::Settle(settlement));
                        }
                    }
                    self.lane_event(lane::Event::Submitted(Submission { portion, home }))?;
                }
                owner::Effect::Post(notice) => self.board.post(notice),
                owner::Effect::Withdraw { .. } if self.breakage == Breakage::StaleDoor => {}
                owner::Effect::Withdraw { floor } => {
                    self.board.withdraw(id);
                    if let Some(version) = floor {
                        self.door.raise_floor(id, version, self.now().moment);
                    }
                }
                owner::Effect::ReportFenced(epoch) => self.shard_mailbox.push_back(life::Event::Fenced(epoch)),
                owner::Effect::CloseIfEmpty => {
                    if let Some(home) = self.homes.get_mut(&id)
                        && home.mailbox.is_empty()
                    {
                        home.draining = true;
                        home.mailbox.push_back(OwnerCommand::Stop);
                    }
                }
                owner::Effect::Stop { unsettled } => {
                    if let Some(mut home) = self.homes.remove(&id) {
                        // As a drained mailbox: whoever is in it is sent on.
                        let mut rest = Vec::new();
                        for command in home.mailbox.drain(..) {
                            home.owner.handle(
                                command,
                                Now { moment: Moment::ORIGIN, timestamp: Timestamp::from_micros(0).unwrap() },
                                true,
                                &mut rest,
                            );
                        }
                        self.shard_mailbox.push_back(life::Event::Stopped { coupon: id, epoch: home.owner.epoch(), unsettled });
                        for effect in rest {
                            if let owner::Effect::Answer(answer) = effect {
                                answer.send();
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn step_shard(&mut self) {
        let Some(event) = self.shard_mailbox.pop_front() else { return };
        self.shard_event(event, None);
    }

    fn shard_event(&mut self, event: life::Event, mut read: Option<Ledger>) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            self.life.handle(event, &mut effects);
            for effect in effects {
                match effect {
                    life::Effect::Load(id) => self.loads.push(id),
                    life::Effect::Activate(id, fence) => {
                        let ledger = read.take().expect("only what was read is activated");
                        self.homes_made += 1;
                        let owner = Owner::new(ledger, fence, Duration::ZERO, Moment::ORIGIN);
                        let mailbox = VecDeque::from([OwnerCommand::Announce]);
                        let home = Home { owner, mailbox, draining: false, number: self.homes_made };
                        self.homes.insert(id, home);
                    }
                    life::Effect::Deliver(id, request) => match self.homes.get_mut(&id) {
                        Some(home) if !home.draining => home.mailbox.push_back(OwnerCommand::Decide(request)),
                        _ => events.push(life::Event::Bounced(id, request)),
                    },
                    life::Effect::SetBack(request, setback) => request.set_back(setback),
                    life::Effect::UnknownCoupon(request) => request.unknown_coupon(),
                    life::Effect::Refence(id, epoch) => self.tell(id, OwnerCommand::Refence(epoch)),
                    life::Effect::Stop(id) => self.tell(id, OwnerCommand::Stop),
                    life::Effect::Drain(id) => self.tell(id, OwnerCommand::Drain),
                    life::Effect::Raise { from, .. } => self.raises.push(from),
                    life::Effect::Drained(_) => {}
                }
            }
        }
    }

    fn tell(&mut self, id: CouponId, command: OwnerCommand) {
        if let Some(home) = self.homes.get_mut(&id) {
            home.mailbox.push_back(command);
        }
    }

    fn step_load(&mut self) {
        if !self.loaded.is_empty() && self.rng.random() {
            let (id, ledger) = self.loaded.remove(0);
            self.shard_event(life::Event::Loaded(id, Load::Read), Some(ledger));
        } else if !self.loads.is_empty() {
            let id = self.loads.remove(0);
            if self.faults && self.rng.random_ratio(1, 10) {
                self.shard_event(life::Event::Loaded(id, Load::Failed), None);
                return;
            }
            let mut issued = Issued::new(id);
            for row in &self.db.issuances[&id] {
                let (user, key) = (row.user.as_str(), row.key.as_str());
                let Issuance { nth, issued_at, expires_at, .. } = *row;
                let loaded = LoadedIssuance { sequence: row.id.sequence, user, nth, key, issued_at, expires_at };
                issued.push(&loaded).expect("the database is dense");
            }
            self.loaded.push((id, Ledger::new(self.db.coupons[&id].clone(), issued)));
        }
    }

    fn step_raise(&mut self) {
        if self.raises.is_empty() {
            return;
        }
        let from = self.raises.remove(self.rng.random_range(0..self.raises.len()));
        let raise = if self.faults && self.rng.random_ratio(1, 4) {
            // The answer is lost; the claim may have been made.
            if self.db.fence == from && self.rng.random() {
                self.db.claim(from.owner);
            }
            Raise::Failed
        } else if self.breakage == Breakage::LoadBeforeClaim {
            Raise::Ours(Fence { epoch: from.epoch.next(), ..from })
        } else if self.db.fence.owner != from.owner {
            Raise::Lost
        } else {
            Raise::Ours(if self.db.fence.epoch > from.epoch { self.db.fence } else { self.db.claim(from.owner) })
        };
        if self.breakage == Breakage::LoadBeforeClaim && self.db.fence == from {
            // Committed only after the coupon may have been read.
            self.shard_event(life::Event::Raised { from, raise }, None);
            while !self.loads.is_empty() {
                self.step_load();
            }
            self.zombies.drain(..).for_each(|batch| drop(self.db.write(&batch)));
            self.db.claim(from.owner);
        } else {
            self.shard_event(life::Event::Raised { from, raise }, None);
        }
    }

    // --- the lane and the database ---

    fn lane_event(&mut self, event: lane::Event<(CouponId, u64)>) -> Result<(), String> {
        let mut effects = Vec::new();
        self.lane.handle(event, &mut effects);
        for effect in effects {
            match effect {
                lane::Effect::Write(batch) => self.call = Some(Call::Write(batch)),
                lane::Effect::ReadBack(batch) => self.call = Some(Call::ReadBack(batch)),
                lane::Effect::Pause(_) => self.call = Some(Call::Pause),
                lane::Effect::Settle(submission, Fate::Contradicted) => return Err(format!("contradicted: {:?}", submission.portion)),
                lane::Effect::Settle(submission, fate) => {
                    let settlement = Settlement { fence: submission.portion.fence, fate };
                    if self.breakage != Breakage::AnswersBeforeStored {
                        self.tell_home(submission.home, OwnerCommand::Settle(settlement));
                    }
                }
                lane::Effect::Delay(submission) => self.tell_home(submission.home, OwnerCommand::Delayed),
                lane::Effect::Die(why) => return Err(why),
            }
        }
        Ok(())
    }

    fn tell_home(&mut self, (id, number): (CouponId, u64), command: OwnerCommand) {
        if let Some(home) = self.homes.get_mut(&id).filter(|home| home.number == number) {
            home.mailbox.push_back(command);
        }
    }

    fn step_call(&mut self) -> Result<(), String> {
        let Some(call) = self.call.take() else { return Ok(()) };
        let event = match call {
            Call::Pause => lane::Event::RetryDue { lease_holds: self.lease.is_some() },
            Call::Write(batch) => lane::Event::Written(self.answer_write(batch)),
            Call::ReadBack(batch) => lane::Event::ReadBack(self.answer_read_back(&batch)),
        };
        self.lane_event(event)
    }

    fn answer_write(&mut self, batch: Batch) -> Result<u64, StoreError> {
        if !self.faults {
            return self.db.write(&batch);
        }
        match self.rng.random_range(0..10) {
            0 => Err(StoreError::NotStored("a lock".to_owned())),
            1 => {
                // Done, and the answer is lost.
                drop(self.db.write(&batch));
                Err(StoreError::Unknown("cut off after the commit".to_owned()))
            }
            2 => {
                self.zombies.push(batch);
                Err(StoreError::Unknown("cut off before the commit".to_owned()))
            }
            _ => self.db.write(&batch),
        }
    }

    fn answer_read_back(&mut self, batch: &Batch) -> Result<Vec<Found>, StoreError> {
        if self.faults && self.rng.random_ratio(1, 5) {
            return Err(StoreError::NotStored("refused".to_owned()));
        }
        Ok(self.db.read_back(batch))
    }

    fn step_zombie(&mut self) {
        let batch = self.zombies.remove(0);
        drop(self.db.write(&batch));
    }

    // --- faults ---

    fn panic_owner(&mut self) {
        let id = self.any_coupon();
        // Its mailbox and its gate go with it; every reply in them answers by being dropped.
        if self.homes.remove(&id).is_some() {
            self.board.withdraw(id);
            self.shard_mailbox.push_back(life::Event::Panicked(id));
        }
    }

    fn passivate(&mut self) {
        let id = self.any_coupon();
        self.tell(id, OwnerCommand::Passivate);
    }

    fn step_foreign(&mut self) {
        if self.foreign {
            self.come_back();
            return;
        }
        // Our lease ends first, and this incarnation is ended; then the other claims, and issues.
        self.foreign = true;
        self.lease = None;
        // What the other widens it answers only once our door has forgotten.
        self.door = Knowledge::default();
        self.heartbeats.clear();
        let other = Incarnation::new(1_000).unwrap();
        self.db.claim(other);
        let id = self.any_coupon();
        self.write_as_another(id);
    }

    fn write_as_another(&mut self, id: CouponId) {
        let coupon = self.db.coupons[&id].clone();
        let rows = &self.db.issuances[&id];
        let user = UserId::parse(&format!("user-{}", self.rng.random_range(0..USERS))).unwrap();
        let nth = rows.iter().filter(|row| row.user == user).count() as u8 + 1;
        if coupon.status == Status::Open && !coupon.is_sold_out(Sequence::new(rows.len() as u64)) && nth <= coupon.offer.per_user_limit {
            let issued_at = Timestamp::from_micros(self.micros).unwrap();
            let row = Issuance {
                id: IssuanceId { coupon: id, sequence: Sequence::new(rows.len() as u64 + 1) },
                user,
                nth,
                key: RequestKey::parse(&format!("other-{}", self.micros)).unwrap(),
                issued_at,
                expires_at: Some(issued_at.plus_days(7)),
            };
            self.db.issuances.entry(id).or_default().push(row);
        }
        // And its administrator pauses or resumes there.
        let status = if coupon.status == Status::Open { Status::Paused } else { Status::Open };
        let changed = Coupon { status, version: coupon.version + 1, ..coupon };
        self.db.history.entry(id).or_default().push(changed.clone());
        self.db.coupons.insert(id, changed);
    }

    /// We join anew and get the shard back: what was lost is said before the new claim is, and the lease is the new incarnation's.
    fn come_back(&mut self) {
        self.foreign = false;
        self.me = Incarnation::new(self.me.get() + 1).unwrap();
        self.shard_mailbox.push_back(life::Event::Lost);
        let fence = self.db.claim(self.me);
        self.shard_mailbox.push_back(life::Event::Claimed(fence));
        self.lease = Some(self.me);
    }
}
