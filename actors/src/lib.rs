//! Everything that owns, places, moves and stores coupons. It knows no HTTP.
//!
//! One idea carries it: every coupon has exactly one owner, an actor, and its mailbox is the queue. The owner
//! decides from memory, in order of arrival; rows are written behind it in batches; and no answer leaves
//! before all that it rests on is stored.
//!
//! # An issue request, read straight down
//!
//! 1. [`engine`] takes it from the gateway, with a request key and a deadline.
//! 2. [`owning::door`]: a coupon known to be sold out, and a user who surely has none: answered here.
//! 3. [`owning::router`] finds who has the shard, asks there, and asks again with the same key while nobody
//!    knows the outcome. While a shard moves it waits. To an owner elsewhere it goes over a link of [`link`],
//!    which hands it to the shard there if that is served in this epoch, under a lease.
//! 4. [`owning::shard`] has the owner, or loads it; requests wait meanwhile. [`owning::admission`] counted
//!    them before they came.
//! 5. [`owning::owner::actor`] is the owner's mailbox, where requests lie in [`owning::inbox`].
//!    [`owning::owner`] is what it does, [`coupon::ledger`] decides: replay, refusal or issuance.
//! 6. If nothing of this coupon is out, all that is undelivered goes to a lane; otherwise it waits for what
//!    is out. So batches grow with load. A few wait until those just answered have had their turn, as these
//!    may ask again at once.
//! 7. [`owning::write_back`] joins the portions of many coupons; [`owning::write_back::lane`] brings each to
//!    one fate.
//! 8. [`store`] commits them in one guarded statement.
//! 9. Back at the owner [`owning::gate`] lets go every answer up to what is stored.
//!
//! ```text
//!            engine
//!              │
//!            door ──── sold out, and surely no winner ──► answer
//!              │
//!           router ◄───────────── moved, unknown: again ─────┐
//!              │ ╲                                           │
//!              │  link ──► epoch, lease ──► a peer's shard ──┤
//!              │                                             │
//!            shard ── not loaded: load, wait ──┐             │
//!              │                               │             │
//!            owner ◄───────────────────────────┘             │
//!      ledger │ ▲ gate ── stored up to here ──► answers ─────┘
//!     entries ▼ │ fates
//!             lane ◄─── again: not stored, unknown
//!              │
//!            store   one guarded statement, checked against shard, epoch, owner and limits
//! ```
//!
//! # Who decides, who acts
//!
//! What decides is a state machine, `(event, now) → effects`, with no clock, no task and no IO:
//! [`owning::owner`] with [`coupon::ledger`] and [`owning::gate`], [`owning::write_back::lane`],
//! [`owning::shard::lifecycle`], [`cluster::membership::member`], [`cluster::group`], [`cluster::placement`],
//! [`owning::door::Knowledge`], [`owning::router::attempts`], [`link::end`], [`link::mesh`]. Actors and tasks
//! feed them and carry their effects out. `tests/simulation.rs` does the same with a scheduler of its own, by
//! a seed.
//!
//! # Ownership
//!
//! Lives in the database. [`cluster::membership`] joins, beats and ends who is dead; from the nodes' rows all
//! compute the same [`cluster::group`] and the same [`cluster::placement`]; [`cluster::claim`] says what to
//! claim, drop and hand over. A claim raises the shard's epoch and is committed before a coupon is read, and
//! so is a hand-over: its old owner has stored all and stopped, its new one may have loaded ahead and
//! completes that ([`coupon::tail`]). Epoch and incarnation together ([`ids::Fence`]) are in every write to
//! an existing coupon, and the store refuses all others. [`cluster::lease`] bounds in time what a node may
//! decide from memory. [`cluster::ownership`] is what a node knows of who owns what.
//!
//! # Links
//!
//! [`link`] links a node with every other, so that a request reaches its owner wherever that is.
//! [`engine::links`] is what the rest of the node holds of them: each incarnation has links of its own.
//! Heartbeats carry what doors ask and owners tell ([`owning::door::board`]); news say who has a shard now,
//! and what a widened coupon made untrue, which the engine waits for before it answers the change.

mod backoff;
pub mod cluster;
pub mod coupon;
mod critical;
pub mod engine;
pub mod ids;
pub mod link;
pub mod metrics;
pub mod owning;
pub mod store;
pub mod time;
