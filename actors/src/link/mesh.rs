//! Whom to dial, and when: a state machine over the peers that membership names.
//!
//! Of two nodes the one with the smaller id dials. Were both to dial, each pair would make two sessions at
//! once and have to choose between them, on both sides alike and while either may be lost; with one fixed
//! side there is one attempt at a time, and its number is the link's generation.

use std::collections::BTreeMap;
use std::time::Duration;

use backon::ExponentialBackoff;
use rand::Rng;

use crate::backoff::backoff;
use crate::ids::{Incarnation, NodeId, PEERS_MAX, PeerAddress};
use crate::time::Moment;

/// Pause after the first attempt that fails; it doubles, with jitter, so that nodes cut off together do not
/// come back together.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause: what a healed network costs at most before its links are back.
const PAUSE_LONGEST: Duration = Duration::from_secs(3);
/// Pause after one side refused the other's hello. Nothing of it heals but by a restart, and a restart is a
/// new peer.
const PAUSE_MISMATCH: Duration = Duration::from_secs(30);
/// A link that held so long begins its pauses anew when it goes.
const STEADY: Duration = Duration::from_secs(10);
/// Dials at the same time, so that a large cluster does not come in one wave.
const DIALS_MAX: usize = 16;
/// How often a peer without a link is asked whether its system refuses connections: more often than beats,
/// which build on it.
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// How long such a refusal counts.
const REFUSAL_HOLDS: Duration = Duration::from_secs(1);
/// How long a peer that membership does not name is kept: it may have linked before its row was read.
const UNNAMED_AFTER: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Dial this peer, for a link of this generation.
    Dial {
        /// Whom.
        peer: PeerAddress,
        /// The new link's generation.
        generation: u64,
        /// Whether it was dialled before.
        again: bool,
    },
    /// See whether the peer's system refuses a connection.
    Probe(PeerAddress),
    /// Close what there is with this incarnation: nobody names it any more.
    Forget(Incarnation),
}

/// Why a peer has no link any more, as far as redialling goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It may be back at any time.
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
    /// Only of those that membership names at present: another incarnation may be at the address of one that
    /// it names no more.
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
    /// Nobody yet, as seen from this node.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            peers: BTreeMap::new(),
            generation: 0,
        }
    }

    /// These are all the peers there are.
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

    /// Whether it is one of them.
    pub fn is_named(&self, incarnation: Incarnation) -> bool {
        self.peers
            .get(&incarnation)
            .is_some_and(|peer| peer.address.is_some())
    }

    /// What is due.
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

    /// A link is up.
    pub fn up(&mut self, now: Moment, incarnation: Incarnation) {
        let peer = self.peer(now, incarnation);
        (peer.stage, peer.refused_at) = (DialStage::Up { since: now }, None);
    }

    /// A link, or the attempt to make one, is over.
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

    /// Whether the peer's system refused a connection just now. Anything else than that refusal, a time-out
    /// too, is none.
    pub fn probed(&mut self, now: Moment, incarnation: Incarnation, refused: bool) {
        if let Some(peer) = self.peers.get_mut(&incarnation) {
            peer.probing = false;
            let down = !matches!(peer.stage, DialStage::Up { .. });
            peer.refused_at = (refused && down).then_some(now);
        }
    }

    /// Who is linked, and until when each of the others is known to refuse connections.
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
            // A peer that has just been named is likely to be linked at once.
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

/// What others are told of the mesh.
#[derive(Debug, Clone, Default)]
pub struct MeshView {
    /// To whom there is a link.
    pub linked: Vec<Incarnation>,
    refusing: Vec<(Incarnation, Moment)>,
}

impl MeshView {
    /// Whether the system of this incarnation refused a connection lately.
    pub fn refuses(&self, now: Moment, incarnation: Incarnation) -> bool {
        self.refusing
            .iter()
            .any(|(refusing, until)| *refusing == incarnation && now < *until)
    }
}

#[cfg(test)]
mod tests;
