//! What this node says to peers and hears of them besides requests and answers: what is sold out, what
//! changes made untrue, who has a shard now.
//!
//! Hands requests of peers to the shards here, and what doors and hand-offs have to say to those concerned.
//! Nothing here waits.

use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;

use crate::cluster::lease::Lease;
use crate::cluster::ownership::{Entry, Owner, Ownership};
use crate::ids::{CouponId, Epoch, Fence, Incarnation, ShardId};
use crate::link::frame::{NOTICE_BYTES_MAX, Unreadable};
use crate::link::{Notices, Requests};
use crate::metrics::{peer_handles, shard_moved};
use crate::owning::door::board::{Changes, NOTICE_AROUND_BYTES, WITHDRAWN_MAX};
use crate::owning::door::notice::WRITTEN_BYTES_MAX;
use crate::owning::door::peers::Acquaintances;
use crate::owning::door::{Board, Door, Notice};
use crate::owning::message::{Request, Setback};
use crate::owning::shard::ShardHandle;
use crate::time::{self, Moment};

/// Room for notices in an answer: what withdrawals and numbers leave. At least one notice always has room.
const ANSWER_NOTICES_BYTES_MAX: usize = NOTICE_BYTES_MAX - 10 * WITHDRAWN_MAX - 1024;
const _: () = assert!(ANSWER_NOTICES_BYTES_MAX > WRITTEN_BYTES_MAX + NOTICE_AROUND_BYTES);

/// News for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// The shard is owned under this fence now.
    Moved {
        /// Which.
        shard: ShardId,
        /// By whom, and in which epoch.
        to: Fence,
    },
    /// What was to be loaded ahead of the shard is.
    LoadedAhead {
        /// Of which.
        shard: ShardId,
    },
    /// Nothing below this version of the coupon counts any more.
    Widened {
        /// Which.
        coupon: CouponId,
        /// Its version since.
        version: u64,
    },
}

impl News {
    /// As they go to a peer.
    pub(crate) fn write(&self) -> Vec<u8> {
        let kind = match *self {
            Self::Moved { shard, to } => Kind::Moved(Moved {
                shard: u32::from(shard.get()),
                epoch: to.epoch.get(),
                owner: to.owner.get(),
            }),
            Self::LoadedAhead { shard } => Kind::LoadedAhead(u32::from(shard.get())),
            Self::Widened { coupon, version } => Kind::Widened(Widened {
                coupon: coupon.get(),
                version,
            }),
        };
        WireNews { kind: Some(kind) }.encode_to_vec()
    }

    /// What a peer wrote.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let shard_id = |number: u32| {
            u16::try_from(number)
                .ok()
                .and_then(ShardId::new)
                .ok_or(Unreadable::Wrong("shard"))
        };
        match WireNews::decode(bytes)?.kind.ok_or(Unreadable::Wrong("news"))? {
            Kind::Moved(Moved { shard, epoch, owner }) => {
                let owner = Incarnation::new(owner).ok_or(Unreadable::Wrong("owner"))?;
                Ok(Self::Moved {
                    shard: shard_id(shard)?,
                    to: Fence {
                        epoch: Epoch::new(epoch),
                        owner,
                    },
                })
            }
            Kind::LoadedAhead(shard) => Ok(Self::LoadedAhead {
                shard: shard_id(shard)?,
            }),
            Kind::Widened(Widened { coupon, version }) => Ok(Self::Widened {
                coupon: CouponId::new(coupon).ok_or(Unreadable::Wrong("coupon id"))?,
                version,
            }),
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireNews {
    #[prost(oneof = "Kind", tags = "1, 2, 3")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Moved(Moved),
    #[prost(message, tag = "2")]
    Widened(Widened),
    #[prost(uint32, tag = "3")]
    LoadedAhead(u32),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Moved {
    #[prost(uint32, tag = "1")]
    shard: u32,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(uint64, tag = "3")]
    owner: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Widened {
    #[prost(uint64, tag = "1")]
    coupon: u64,
    #[prost(uint64, tag = "2")]
    version: u64,
}

/// What a door asks with a heartbeat.
#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    /// Up to which of its changes the door knows the peer's board.
    #[prost(uint64, tag = "1")]
    upto: u64,
}

/// What owners tell it. Empty, if they may not say that what they told still holds.
#[derive(Clone, PartialEq, prost::Message)]
struct Told {
    #[prost(uint64, tag = "1")]
    since: u64,
    #[prost(uint64, tag = "2")]
    upto: u64,
    #[prost(uint64, repeated, tag = "3")]
    withdrawn: Vec<u64>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    posted: Vec<Vec<u8>>,
}

impl Told {
    fn of(changes: &Changes) -> Self {
        let withdrawn = changes.withdrawn.iter().map(|coupon| coupon.get()).collect();
        let posted = changes
            .posted
            .iter()
            .map(|notice| notice.written().to_vec())
            .collect();
        Self {
            since: changes.since,
            upto: changes.upto,
            withdrawn,
            posted,
        }
    }

    fn changes(self) -> Result<Changes, Unreadable> {
        let coupon = |number: u64| CouponId::new(number).ok_or(Unreadable::Wrong("coupon id"));
        Ok(Changes {
            since: self.since,
            upto: self.upto,
            withdrawn: self.withdrawn.into_iter().map(coupon).collect::<Result<_, _>>()?,
            posted: self
                .posted
                .iter()
                .map(|bytes| Ok(Arc::new(Notice::read(bytes)?)))
                .collect::<Result<_, Unreadable>>()?,
        })
    }
}

/// Whom the links of a node talk for.
pub struct Talk {
    shards: Arc<[ShardHandle]>,
    ownership: Ownership,
    door: Arc<Door>,
    board: Arc<Board>,
    lease: Lease,
    acquaintances: Mutex<Acquaintances>,
}

impl Talk {
    /// For these shards, by number, and this door; `acquaintances` of a node that has read no rows yet.
    pub(crate) fn new(
        shards: Arc<[ShardHandle]>,
        ownership: Ownership,
        (door, board): (Arc<Door>, Arc<Board>),
        lease: Lease,
        acquaintances: Acquaintances,
    ) -> Self {
        Self {
            shards,
            ownership,
            door,
            board,
            lease,
            acquaintances: Mutex::new(acquaintances),
        }
    }

    /// These are the peers that live, by rows read after `asked_at`.
    pub(crate) fn know(&self, asked_at: Moment, living: Vec<Incarnation>) {
        self.with_acquaintances(|acquaintances| acquaintances.know(asked_at, time::moment(), living));
    }

    pub(crate) fn with_acquaintances<T>(&self, read: impl FnOnce(&mut Acquaintances) -> T) -> T {
        read(&mut self.acquaintances.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn shard(&self, id: ShardId) -> &ShardHandle {
        &self.shards[usize::from(id.get())]
    }

    fn moved(&self, peer: Incarnation, shard: ShardId, to: Fence) {
        if self.ownership.is_of(to.owner) && self.ownership.entry(shard).epoch < to.epoch {
            shard_moved("received");
            tracing::info!(%shard, epoch = %to.epoch, from = %peer, "was handed a shard");
            // Before anybody can read of it: whoever asks is served.
            self.shard(shard).claimed(to);
        }
        self.ownership.learn(shard, to);
    }

    fn unreadable(&self, peer: Incarnation, error: &Unreadable) {
        peer_handles().refuse("notice");
        tracing::warn!(%peer, %error, "what a peer said makes no sense");
    }
}

impl Requests for Talk {
    fn ask(&self, coupon: CouponId, epoch: Epoch, request: Request) {
        let shard = coupon.shard();
        let is_ours = self.ownership.entry(shard)
            == (Entry {
                epoch,
                owner: Owner::Here,
            });
        // Without a lease nobody decides here any more, and others are about to: whoever asks waits for them,
        // rather than hear that the store is away.
        if is_ours && self.lease.holds(time::moment()) {
            self.shard(shard).ask(coupon, request);
        } else {
            request.set_back(Setback::Moved);
        }
    }
}

impl Notices for Talk {
    fn heartbeat(&self, peer: Incarnation) -> Vec<u8> {
        Question {
            upto: self.door.upto(peer),
        }
        .encode_to_vec()
    }

    fn answer(&self, peer: Incarnation, asked: Vec<u8>) -> Vec<u8> {
        let question = match Question::decode(asked.as_slice()) {
            Ok(question) => question,
            Err(error) => {
                self.unreadable(peer, &error.into());
                return Vec::new();
            }
        };
        let now = time::moment();
        let Some(me) = self.lease.holder(now) else {
            return Vec::new();
        };
        if !self.with_acquaintances(|acquaintances| acquaintances.may_confirm(now, peer)) {
            return Vec::new();
        }
        let changes = self.board.changes(me, question.upto, ANSWER_NOTICES_BYTES_MAX);
        // What was read is true only if nobody else could decide meanwhile.
        if !self.lease.holds_for(me, time::moment()) {
            return Vec::new();
        }
        Told::of(&changes).encode_to_vec()
    }

    fn answered(&self, peer: Incarnation, sent_at: Moment, answer: Vec<u8>) {
        if answer.is_empty() {
            return;
        }
        match Told::decode(answer.as_slice())
            .map_err(Unreadable::from)
            .and_then(Told::changes)
        {
            Ok(changes) => self.door.hear_peer(peer, sent_at, changes),
            Err(error) => self.unreadable(peer, &error),
        }
    }

    fn news(&self, peer: Incarnation, news: Vec<u8>) -> bool {
        let read = News::read(&news);
        match &read {
            Ok(News::Moved { shard, to }) => self.moved(peer, *shard, *to),
            Ok(News::LoadedAhead { shard }) => self.shard(*shard).was_loaded_ahead(peer),
            Ok(News::Widened { coupon, version }) => self.door.raise_floor(*coupon, *version, time::moment()),
            Err(error) => self.unreadable(peer, error),
        }
        read.is_ok()
    }

    fn preload(&self, peer: Incarnation, shard: ShardId, coupons: Vec<CouponId>) {
        self.shard(shard).expect(peer, coupons);
    }
}

#[cfg(test)]
mod tests;
