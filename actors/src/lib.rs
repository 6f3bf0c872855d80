//! The engine: owns, places, moves and stores what is limited. It contains no HTTP.
//!
//! The main idea: everything that is limited has exactly one owner, an actor, and its mailbox is the queue.
//! The owner decides from memory, in order of arrival. Its decisions are written to the database afterwards,
//! in batches, and no answer is sent before everything on which it is based is stored.
//!
//! What is owned is a *kind* ([`owning::kind::Kind`]). The engine knows no kind: owners, gate, batches,
//! fence, placement, hand-off, doors and links are compiled for the kind, or the [`owning::pair::Pair`] of
//! kinds, that a program chooses. [`coupon`] is such a kind.
//!
//! # A request, read straight down
//!
//! 1. [`coupon::client`] takes the request from the HTTP side, with a request key and a deadline.
//! 2. [`owning::door`] refuses the request here if everything is given out and this user certainly has none.
//! 3. [`owning::router`] finds the owner of the shard, and sends the request to it. It retries with the same
//!    key while the outcome is unknown. While a shard moves, the request waits. A request for another node
//!    goes over a link of [`link`]; [`engine`]'s exchange hands it to the shard there, if the shard is served
//!    in this epoch, under a lease.
//! 4. [`owning::shard`] has the owner, or loads it while requests wait. These requests already have places
//!    ([`admission`]).
//! 5. [`owning::owner::actor`] is the owner's mailbox; its requests are in [`owning::inbox`].
//!    [`owning::owner::driver`] says in which order things are done, and [`owning::owner`] what is done. The
//!    kind decides ([`coupon::issue`], [`coupon::change`]): the request is known, refused, or entered.
//! 6. If no portion of this owner is in flight, everything undelivered goes to a lane. If a portion is in
//!    flight, the undelivered entries wait for it. So batches grow with load. A small portion waits until the
//!    callers just answered have had their turn, because they may send their next request at once.
//! 7. [`owning::write_back`] joins the portions of many owners, and [`owning::write_back::lane`] brings each
//!    portion to one fate.
//! 8. [`store`] commits the portions with one guarded statement of the kind ([`coupon::rows`]).
//! 9. At the owner, [`owning::gate`] releases every answer up to what is stored.
//!
//! `docs/architecture.md` has this walk as a picture.
//!
//! # What decides and what acts
//!
//! Everything that decides is a state machine, `(event, now) → effects`, without clock, task or IO: kinds,
//! [`owning::owner`], [`owning::gate`], [`owning::write_back::lane`], [`owning::shard::lifecycle`],
//! [`cluster::membership::member`], [`cluster::group`], [`cluster::placement`], [`cluster::claim`],
//! [`owning::door::Knowledge`], [`owning::router::attempts`], [`link::end`], [`link::mesh`]. How actors
//! handle mail and effects is in drivers ([`owning::owner::driver`], [`owning::shard::driver`]). Actors and
//! tasks are thin shells around both. The simulation in `tests/suite` runs the same machines and drivers with
//! its own scheduler, which follows a seed.
//!
//! # Ownership
//!
//! Ownership is stored in the database. [`cluster::membership`] joins, beats and ends dead nodes. From the
//! nodes' rows, every node computes the same [`cluster::group`] and the same [`cluster::placement`].
//! [`cluster::claim`] says what to claim, drop and hand off. A claim raises the shard's epoch and is
//! committed before anything is read. A hand-off is committed in the same way, after the old owner has stored
//! everything and stopped. The new owner has loaded ahead, and reads only the rest. Epoch and incarnation
//! together ([`ids::Fence`]) are in every write, and the store refuses a write whose epoch and incarnation
//! are not those of the shard. [`cluster::lease`] bounds the time for which a node may decide from memory.
//! [`cluster::ownership`] holds what a node knows of owners.
//!
//! # Links
//!
//! [`link`] is transport between nodes; it does not read what it carries. [`engine::links`] holds a node's
//! links through all its incarnations. Heartbeats carry the questions of doors and the notices of owners
//! ([`owning::door::board`]). News say which node owns a shard now, and which notices a change made untrue.
//! The engine waits for the acknowledgement of such news before it answers the change.

pub mod admission;
mod backoff;
pub mod cluster;
pub mod coupon;
pub mod critical;
pub mod engine;
pub mod ids;
pub mod link;
pub mod log_limit;
pub mod metrics;
pub mod owning;
mod peer_names;
pub mod store;
mod summary;
pub mod time;
pub mod trace;
