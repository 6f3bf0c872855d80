//! Everything that owns, places, moves and stores. It knows no HTTP.
//!
//! One idea carries it: everything that is limited has exactly one owner, an actor, and its mailbox is the queue.
//! The owner decides from memory, in order of arrival; rows are written behind it in batches; and no answer leaves
//! before all that it rests on is stored.
//!
//! What is owned is a *kind* ([`owning::kind::Kind`]). The engine knows none: owners, gate, batches, fence, placement,
//! hand-off, doors and links are compiled for the kind, or the [`owning::pair::Pair`] of kinds, that a program
//! chooses. [`coupon`] is one.
//!
//! # A request, read straight down
//!
//! 1. [`coupon::client`] takes it from the gateway, with a request key and a deadline.
//! 2. [`owning::door`]: all is given out, and this user certainly has none: answered here.
//! 3. [`owning::router`] finds the owner of the shard, and sends the request there; again with the same key while the
//!    outcome is unknown. While a shard moves it waits. A request for another node goes over a link of [`link`];
//!    [`engine`]'s exchange hands it to the shard there, if that is served in this epoch, under a lease.
//! 4. [`owning::shard`] has the owner, or loads it; requests wait meanwhile. [`admission`] counted them before.
//! 5. [`owning::owner::actor`] is the owner's mailbox, where requests lie in [`owning::inbox`].
//!    [`owning::owner::driver`] says in which order things are done, [`owning::owner`] what; the kind decides
//!    ([`coupon::issue`], [`coupon::change`]): known, refused, or to be entered.
//! 6. If nothing of this owner is out, all that is undelivered goes to a lane; otherwise it waits for what is out. So
//!    batches grow with load. A small portion waits until the callers just answered have had their turn, as they may
//!    ask again at once.
//! 7. [`owning::write_back`] joins the portions of many owners; [`owning::write_back::lane`] brings each to one fate.
//! 8. [`store`] commits them by one guarded statement of the kind ([`coupon::rows`]).
//! 9. Back at the owner [`owning::gate`] releases every answer up to what is stored.
//!
//! ```text
//!            client ── engine
//!              │
//!            door ──── all given out, and surely none of it to this user ──► answer
//!              │
//!           router ◄───────────── moved, unknown: again ─────┐
//!              │ ╲                                           │
//!              │  link ──► epoch, lease ──► a peer's shard ──┤
//!              │                                             │
//!            shard ── not loaded: load, wait ──┐             │
//!              │                               │             │
//!            owner ◄───────────────────────────┘             │
//!       kind   │ ▲ gate ── stored up to here ──► answers ────┘
//!     entries  ▼ │ fates
//!             lane ◄─── again: not stored, unknown
//!              │
//!            store   one guarded statement, checked against shard, epoch, owner and the kind's limits
//! ```
//!
//! # What decides and what acts
//!
//! What decides is a state machine, `(event, now) → effects`, without clock, task or IO: kinds, [`owning::owner`],
//! [`owning::gate`], [`owning::write_back::lane`], [`owning::shard::lifecycle`], [`cluster::membership::member`],
//! [`cluster::group`], [`cluster::placement`], [`cluster::claim`], [`owning::door::Knowledge`],
//! [`owning::router::attempts`], [`link::end`], [`link::mesh`]. What actors do with mail and effects is in drivers
//! ([`owning::owner::driver`], [`owning::shard::driver`]). Actors and tasks are thin shells around both. The simulation
//! in `tests/suite` runs the same machines and drivers with a scheduler of its own, by a seed.
//!
//! # Ownership
//!
//! It lives in the database. [`cluster::membership`] joins, beats and ends dead nodes; from the nodes' rows every node
//! computes the same [`cluster::group`] and the same [`cluster::placement`]; [`cluster::claim`] says what to claim,
//! drop and hand off. A claim raises the shard's epoch and is committed before anything is read. So is a hand-off: the
//! old owner has stored all and stopped, and the new one has loaded ahead and reads only the rest. Epoch and
//! incarnation together ([`ids::Fence`]) are in every write, and the store refuses all others. [`cluster::lease`]
//! bounds in time what a node may decide from memory. [`cluster::ownership`] is what a node knows of owners.
//!
//! # Links
//!
//! [`link`] is transport between nodes; it knows nothing of what it carries. [`engine::links`] is a node's links through
//! all its incarnations. Heartbeats carry what doors ask and what owners post ([`owning::door::board`]); news say which
//! node owns a shard now, and what a change made untrue, which the engine waits for before it answers the change.

pub mod admission;
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
