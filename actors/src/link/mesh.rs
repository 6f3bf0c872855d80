//! Decides which peers to dial, and when: a state machine over the peers that membership names.
//!
//! Of two nodes, the node with the smaller id dials. If both dialled, each pair would make two sessions at
//! once. Both sides would have to choose the same session, although either session may be lost. With one
//! fixed dialler there is one attempt at a time, and the number of the attempt is the link's generation.

use std::collections::BTreeMap;
use std::time::Duration;

use backon::ExponentialBackoff;
use rand::Rng;

use crate::backoff::backoff;
use crate::ids::{Incarnation, NodeId, PEERS_MAX, PeerAddress};
use crate::time::Moment;

/// Pause after the first failed attempt. It doubles, with jitter, so that nodes that were cut off together do
/// not come back together.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause, and so the longest time that links need to return after the network has healed.
const PAUSE_LONGEST: Duration = Duration::from_secs(3);
/// Pause after one side refused the other's hello. Only a restart can change that, and a restart makes a new
/// peer.
const PAUSE_MISMATCH: Duration = Duration::from_secs(30);
/// After a link that lasted this long, pauses begin again with the first one.
const STEADY: Duration = Duration::from_secs(10);
/// Maximum number of concurrent dials, so that a large cluster does not link all at once.
const DIALS_MAX: usize = 16;
/// Interval at which a peer without a link is probed for refused connections. It is shorter than the interval
/// of beats, because each beat relies on recent probes.
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// Time for which a refused connection counts.
const REFUSAL_HOLDS: Duration = Duration::from_secs(1);
/// Time for which a peer is kept although membership does not name it. The peer may have linked before its
/// row was read.
const UNNAMED_AFTER: Duration = Duration::from_secs(10);

/// Steps that the hub carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Dials this peer, for a link of this generation.
    Dial {
        /// The peer.
        peer: PeerAddress,
        /// The new link's generation.
        generation: u64,
        /// True if the peer was dialled before.
        again: bool,
    },
    /// Probes whether the peer's operating system refuses a connection.
    Probe(PeerAddress),
    /// Closes the link to this incarnation, if there is one: membership no longer names it.
    Forget(Incarnation),
}

/// Why a peer lost its link, as far as redialling is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The peer may be back at any time.
    Failed,
    /// The nodes do not fit each other.
    Mismatch,
}

#[derive(Debug)]
enum DialStage {
    Down { dial_at: Moment },
    Dialling,
    Up { since: Moment },
}

#[derive(Debug)]
struct Peer {
    /// `None` if membership does not name the peer at present. Then the peer is neither dialled nor probed,
    /// because another incarnation may be at its address.
    address: Option<PeerAddress>,
    named_at: Moment,
    stage: DialStage,
    dialled: bool,
    backoff: Option<ExponentialBackoff>,
    probing: bool,
    probe_at: Moment,
    refused_at: Option<Moment>,
}

/// The peers.
#[derive(Debug)]
pub struct Mesh {
    node: NodeId,
    peers: BTreeMap<Incarnation, Peer>,
    generation: u64,
}

impl Mesh {
    /// Makes a mesh without peers, as seen from this node.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            peers: BTreeMap::new(),
            generation: 0,
        }
    }

    /// Takes the list of all peers.
    pub fn know(&mut self, now: Moment, peers: Vec<PeerAddress>) {
        self.peers.values_mut().for_each(|peer| peer.address = None);
        for address in peers {
            if address.node == self.node
                || (self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&address.incarnation))
            {
                continue;
            }
            let peer = self.peer(now, address.incarnation);
            peer.named_at = now;
            peer.address = Some(address);
        }
    }

    /// Returns true if membership names this incarnation.
    pub fn is_named(&self, incarnation: Incarnation) -> bool {
        self.peers
            .get(&incarnation)
            .is_some_and(|peer| peer.address.is_some())
    }

    /// Returns the steps that are due.
    pub fn tick(&mut self, now: Moment) -> Vec<Step> {
        let mut steps = Vec::new();
        let unnamed = |peer: &Peer| peer.address.is_none() && now.since(peer.named_at) >= UNNAMED_AFTER;
        steps.extend(
            self.peers
                .extract_if(.., |_, peer| unnamed(peer))
                .map(|(incarnation, _)| Step::Forget(incarnation)),
        );
        let mut dialling = self
            .peers
            .values()
            .filter(|peer| matches!(peer.stage, DialStage::Dialling))
            .count();
        for peer in self.peers.values_mut() {
            let Some(address) = &peer.address else { continue };
            if matches!(peer.stage, DialStage::Up { .. }) {
                continue;
            }
            if !peer.probing && now >= peer.probe_at {
                (peer.probing, peer.probe_at) = (true, now + PROBE_EVERY);
                steps.push(Step::Probe(address.clone()));
            }
            let due = matches!(peer.stage, DialStage::Down { dial_at } if now >= dial_at);
            if due && self.node < address.node && dialling < DIALS_MAX {
                dialling += 1;
                self.generation += 1;
                let step = Step::Dial {
                    peer: address.clone(),
                    generation: self.generation,
                    again: peer.dialled,
                };
                (peer.stage, peer.dialled) = (DialStage::Dialling, true);
                steps.push(step);
            }
        }
        steps
    }

    /// Notes that a link is up.
    pub fn up(&mut self, now: Moment, incarnation: Incarnation) {
        let peer = self.peer(now, incarnation);
        (peer.stage, peer.refused_at) = (DialStage::Up { since: now }, None);
    }

    /// Notes that a link, or the attempt to make one, ended.
    pub fn down(&mut self, now: Moment, incarnation: Incarnation, cause: Cause) {
        let Some(peer) = self.peers.get_mut(&incarnation) else {
            return;
        };
        if matches!(peer.stage, DialStage::Up { since } if now.since(since) >= STEADY) {
            peer.backoff = None;
        }
        let pause = match cause {
            Cause::Failed => peer.next_pause(),
            Cause::Mismatch => PAUSE_MISMATCH.mul_f64(rand::rng().random_range(1.0..1.5)),
        };
        peer.stage = DialStage::Down { dial_at: now + pause };
    }

    /// Notes whether the peer's operating system refused a connection just now. Anything else, even a
    /// time-out, is not a refusal.
    pub fn probed(&mut self, now: Moment, incarnation: Incarnation, refused: bool) {
        if let Some(peer) = self.peers.get_mut(&incarnation) {
            peer.probing = false;
            let down = !matches!(peer.stage, DialStage::Up { .. });
            peer.refused_at = (refused && down).then_some(now);
        }
    }

    /// Returns which peers are linked, and which of the other peers recently refused a connection.
    pub fn view(&self) -> MeshView {
        let up = |peer: &Peer| matches!(peer.stage, DialStage::Up { .. });
        let linked = self
            .peers
            .iter()
            .filter(|(_, peer)| up(peer))
            .map(|(incarnation, _)| *incarnation)
            .collect();
        let refusing = self
            .peers
            .iter()
            .filter_map(|(incarnation, peer)| Some((*incarnation, peer.refused_at? + REFUSAL_HOLDS)))
            .collect();
        MeshView { linked, refusing }
    }

    fn peer(&mut self, now: Moment, incarnation: Incarnation) -> &mut Peer {
        self.peers.entry(incarnation).or_insert_with(|| Peer {
            address: None,
            named_at: now,
            stage: DialStage::Down { dial_at: now },
            dialled: false,
            backoff: None,
            probing: false,
            // A peer that was just named is likely to be linked soon, and is not probed before.
            probe_at: now + PROBE_EVERY,
            refused_at: None,
        })
    }
}

impl Peer {
    fn next_pause(&mut self) -> Duration {
        let backoff = self
            .backoff
            .get_or_insert_with(|| backoff(PAUSE_FIRST, PAUSE_LONGEST));
        backoff.next().unwrap_or(PAUSE_LONGEST)
    }
}

/// A view of the mesh for other parts of the node.
#[derive(Debug, Clone, Default)]
pub struct MeshView {
    /// The linked peers.
    pub linked: Vec<Incarnation>,
    refusing: Vec<(Incarnation, Moment)>,
}

impl MeshView {
    /// Returns true if the operating system of this incarnation recently refused a connection.
    pub fn refuses(&self, now: Moment, incarnation: Incarnation) -> bool {
        self.refusing
            .iter()
            .any(|(refusing, until)| *refusing == incarnation && now < *until)
    }
}

#[cfg(test)]
mod tests;
