//! The exchange of this node with peers: requests and answers, notices, changes that make notices untrue, and
//! news of which node owns a shard.
//!
//! It hands requests of peers to the shards of this node, and messages about notices and hand-offs to the
//! parts of the node that handle them. No call in this module waits.

pub(crate) mod news;

use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;

use crate::admission::Admission;
use crate::cluster::lease::Lease;
use crate::cluster::ownership::{Holder, Ownership, ShardLocation};
use crate::engine::exchange::news::News;
use crate::engine::payload::{OwnerPayload, RemoteAsk};
use crate::ids::{Epoch, Fence, Incarnation, ShardId};
use crate::link::frame::{FrameError, MESSAGE_BYTES_MAX};
use crate::link::{AnswerPath, Handler};
use crate::metrics::{handles, peer_handles, shard_moved};
use crate::owning::door::board::{Changes, NOTICE_AROUND_BYTES, WITHDRAWN_MAX};
use crate::owning::door::notice::NOTICE_BYTES_MAX;
use crate::owning::door::peers::KnownPeers;
use crate::owning::door::{Board, Door, Notice};
use crate::owning::kind::Kind;
use crate::owning::request::{Answer, RemoteCaller, Reply, Request, Setback};
use crate::owning::shard::ShardHandle;
use crate::peer_names;
use crate::store::NodeRow;
use crate::summary::{self, Occurrence};
use crate::time::{self, Moment};
use crate::trace::{Span, SpanKind, Spans, TraceParent};

/// Room for notices in an answer: what is left after the withdrawals and the numbers. There is always room
/// for at least one notice.
const ANSWER_NOTICES_BYTES_MAX: usize = MESSAGE_BYTES_MAX - ID_BYTES_MAX * WITHDRAWN_MAX - 1024;
const _: () = assert!(ANSWER_NOTICES_BYTES_MAX > NOTICE_BYTES_MAX + NOTICE_AROUND_BYTES);

/// Maximum length of a kind's id with its envelope.
const ID_BYTES_MAX: usize = 12;

/// The query of a door, which is sent in a heartbeat.
#[derive(Clone, PartialEq, prost::Message)]
struct WireBoardQuery {
    /// The last of the peer's changes that the door knows.
    #[prost(uint64, tag = "1")]
    upto: u64,
}

/// The answer of a board. It is empty if this node may not confirm that its notices still hold.
#[derive(Clone, PartialEq, prost::Message)]
struct WireBoardChanges {
    #[prost(uint64, tag = "1")]
    since: u64,
    #[prost(uint64, tag = "2")]
    upto: u64,
    #[prost(bytes = "vec", repeated, tag = "3")]
    withdrawn: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    posted: Vec<Vec<u8>>,
}

impl WireBoardChanges {
    fn of<K: Kind>(changes: &Changes<K>) -> Self {
        let written = |id: &K::Id| {
            let mut bytes = Vec::with_capacity(8);
            K::encode_id(*id, &mut bytes);
            bytes
        };
        let posted = changes.posted.iter();
        Self {
            since: changes.since,
            upto: changes.upto,
            withdrawn: changes.withdrawn.iter().map(written).collect(),
            posted: posted.map(|notice| notice.encoded().to_vec()).collect(),
        }
    }

    fn read<K: Kind>(self) -> Result<Changes<K>, FrameError> {
        let ids = self.withdrawn.iter().map(|bytes| Ok(K::decode_id(bytes)?));
        let posted = self
            .posted
            .iter()
            .map(|bytes| Ok(Arc::new(Notice::decode(bytes)?)));
        Ok(Changes {
            since: self.since,
            upto: self.upto,
            withdrawn: ids.collect::<Result<_, FrameError>>()?,
            posted: posted.collect::<Result<_, FrameError>>()?,
        })
    }
}

/// The parts of a node that peers exchange messages with.
pub struct Exchange<K: Kind> {
    shards: Arc<[ShardHandle<K>]>,
    ownership: Ownership,
    door: Arc<Door<K>>,
    board: Arc<Board<K>>,
    lease: Lease,
    /// The node's queue, in which requests of peers take places as well.
    places: Admission,
    peers: Mutex<KnownPeers>,
    spans: Spans,
}

impl<K: Kind> Exchange<K> {
    /// Makes the exchange for this door and these shards. The shards are in order of their numbers. `peers`
    /// is what the node knows of its peers at its start.
    pub(crate) fn new(
        shards: Arc<[ShardHandle<K>]>,
        ownership: Ownership,
        (door, board): (Arc<Door<K>>, Arc<Board<K>>),
        lease: Lease,
        places: Admission,
        peers: KnownPeers,
    ) -> Self {
        Self {
            shards,
            ownership,
            door,
            board,
            lease,
            places,
            peers: Mutex::new(peers),
            spans: Spans::default(),
        }
    }

    /// Records spans of peers' requests.
    pub(crate) fn recording(self, spans: Spans) -> Self {
        Self { spans, ..self }
    }

    /// Begins the span of a peer's request.
    fn span(&self, id: K::Id, epoch: Epoch, trace: Option<&TraceParent>) -> Span {
        let Some(trace) = trace else {
            return Span::default();
        };
        let span = self.spans.continued(trace, "decide", SpanKind::Server);
        span.edit(|record| {
            record.note("firstcome.id", id.to_string());
            record.note("firstcome.shard", u64::from(K::shard(id).get()));
            record.note("firstcome.epoch", epoch.get());
        });
        span
    }

    /// Learns which peers are alive, from the rows of all others, which were read after `asked_at`.
    pub(crate) fn know(&self, asked_at: Moment, others: &[NodeRow]) {
        self.with_peers(|peers| peers.know(asked_at, time::moment(), others));
    }

    pub(crate) fn with_peers<T>(&self, read: impl FnOnce(&mut KnownPeers) -> T) -> T {
        read(&mut self.peers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn shard(&self, id: ShardId) -> &ShardHandle<K> {
        &self.shards[usize::from(id.get())]
    }

    fn owned(&self, peer: Incarnation, shard: ShardId, to: Fence) {
        if self.ownership.is_of(to.owner) && self.ownership.location(shard).epoch < to.epoch {
            shard_moved("received");
            tracing::debug!(%shard, epoch = %to.epoch, from = %peer, "received a shard");
            summary::count(Occurrence::ShardReceived, Some(peer), None);
            // The shard is served before any request can be routed by this knowledge.
            self.shard(shard).claimed(to);
        }
        self.ownership.learn(shard, to);
    }

    fn unreadable(&self, peer: Incarnation, error: &FrameError) {
        peer_handles().refuse("notice");
        let peer = peer_names::of(peer);
        tracing::warn!(peer, %error, "message of a peer cannot be read");
    }
}

impl<K: Kind> Handler<OwnerPayload<K>> for Exchange<K> {
    fn handle(&self, ask: RemoteAsk<K>, expires: Moment, path: AnswerPath<OwnerPayload<K>>) {
        let RemoteAsk {
            id,
            epoch,
            ask,
            trace,
        } = ask;
        let now = time::moment();
        if now >= expires {
            return path.send(Err(Setback::Expired));
        }
        let Ok(place) = self.places.admit() else {
            handles().refused_by_node.increment(1);
            return path.send(Err(Setback::Overloaded));
        };
        let reply = Reply::remote(place, Box::new(PeerCaller(Some(path)))).traced(self.span(
            id,
            epoch,
            trace.as_deref(),
        ));
        let request = Request { ask, expires, reply };
        let shard = K::shard(id);
        let here = ShardLocation {
            epoch,
            holder: Holder::Local,
        };
        // Without a lease this node decides nothing, and another node is about to take over. The caller waits
        // for that node instead of being told that the store is unavailable.
        if self.ownership.location(shard) == here && self.lease.holds(now) {
            self.shard(shard).deliver(id, request);
        } else {
            request.set_back(Setback::Moved);
        }
    }

    fn heartbeat(&self, peer: Incarnation) -> Vec<u8> {
        let upto = self.door.upto(peer);
        WireBoardQuery { upto }.encode_to_vec()
    }

    fn heartbeat_answer(&self, peer: Incarnation, content: Vec<u8>) -> Vec<u8> {
        let query = match WireBoardQuery::decode(content.as_slice()) {
            Ok(query) => query,
            Err(error) => {
                self.unreadable(peer, &error.into());
                return Vec::new();
            }
        };
        let now = time::moment();
        let Some(me) = self.lease.holder(now) else {
            return Vec::new();
        };
        if !self.with_peers(|peers| peers.may_confirm(now, peer)) {
            return Vec::new();
        }
        let changes = self.board.changes(me, query.upto, ANSWER_NOTICES_BYTES_MAX);
        // The notices that were read are true only if no other node could decide meanwhile.
        if !self.lease.holds_for(me, time::moment()) {
            return Vec::new();
        }
        WireBoardChanges::of(&changes).encode_to_vec()
    }

    fn heartbeat_answered(&self, peer: Incarnation, sent_at: Moment, content: Vec<u8>) {
        if content.is_empty() {
            return;
        }
        let changes = WireBoardChanges::decode(content.as_slice()).map_err(FrameError::from);
        match changes.and_then(WireBoardChanges::read) {
            Ok(changes) => self.door.hear_peer(peer, sent_at, changes),
            Err(error) => self.unreadable(peer, &error),
        }
    }

    fn news(&self, peer: Incarnation, news: Vec<u8>) -> bool {
        match News::<K>::read(&news) {
            Ok(News::Owned { shard, to }) => self.owned(peer, shard, to),
            Ok(News::LoadAhead { shard, ids }) => self.shard(shard).load_ahead(peer, ids),
            Ok(News::LoadedAhead { shard }) => self.shard(shard).was_loaded_ahead(peer),
            Ok(News::Widened { id, version }) => self.door.raise_floor(id, version, time::moment()),
            Ok(News::DoorClosed) => self.with_peers(|peers| peers.close(peer)),
            Err(error) => {
                self.unreadable(peer, &error);
                return false;
            }
        }
        true
    }
}

/// A caller on a peer.
#[derive(Debug)]
struct PeerCaller<K: Kind>(Option<AnswerPath<OwnerPayload<K>>>);

impl<K: Kind> RemoteCaller<K> for PeerCaller<K> {
    fn is_waiting(&self) -> bool {
        self.0.as_ref().is_some_and(AnswerPath::is_waiting)
    }

    fn send(mut self: Box<Self>, answer: Answer<K>) {
        if let Some(path) = self.0.take() {
            path.send(answer);
        }
    }
}

impl<K: Kind> Drop for PeerCaller<K> {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            path.send(Err(Setback::Unknown));
        }
    }
}

#[cfg(test)]
mod tests;
