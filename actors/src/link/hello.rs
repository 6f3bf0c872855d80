//! Hello: what two nodes must agree on before they exchange frames, and the version of those frames.
//!
//! Each release speaks its own version and that of the previous release, so that nodes can be replaced one by
//! one. This release speaks versions 3 and 2: no release spoke version 1. Version 3 adds requests that an
//! owner of the former build does not know ([`Kind::link_version`](crate::owning::kind::Kind::link_version)).
//! To introduce version 4, put it in front of [`VERSIONS`], and send the items that version 3 does not have
//! only if [`Hello::agree`] returns 4. Once no supported release speaks 2, remove 2.

use crate::ids::{Incarnation, NodeId, SHARD_HASH, SHARDS};

/// The versions that this release speaks, newest first.
pub const VERSIONS: &[u32] = &[3, 2];

/// A node's identity and the versions that it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The versions of frames that the node reads and writes.
    pub versions: Vec<u32>,
    /// The cluster of which the node is a member. Two clusters may share a cookie by mistake.
    pub cluster: String,
    /// Its name.
    pub node: NodeId,
    /// The node's present incarnation.
    pub incarnation: Incarnation,
    /// The number of shards with which its cluster was created.
    pub shards: u32,
    /// The name of the hash that maps coupons to shards.
    pub hash: String,
}

/// Reasons why two nodes cannot have a link. A mismatch does not go away while both processes live, so an
/// early retry is useless.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The nodes have no version in common.
    #[error("it speaks the link versions {theirs:?}, and this node speaks {ours:?}")]
    Versions {
        /// The versions that this node speaks.
        ours: Vec<u32>,
        /// The versions that the peer speaks.
        theirs: Vec<u32>,
    },
    /// The nodes are members of different clusters.
    #[error("it is of the cluster {theirs:?}, and this node is of {ours:?}")]
    Cluster {
        /// The cluster of this node.
        ours: String,
        /// The peer's.
        theirs: String,
    },
    /// The nodes map coupons to shards differently.
    #[error(
        "it has {theirs_shards} shards by {theirs_hash:?}, and this node has {ours_shards} by {ours_hash:?}"
    )]
    Shards {
        /// This node's number of shards.
        ours_shards: u32,
        /// The peer's.
        theirs_shards: u32,
        /// This node's hash.
        ours_hash: String,
        /// The peer's.
        theirs_hash: String,
    },
    /// The incarnation in the peer's hello is not the one in its session.
    #[error("it says that it is {said}, but its session is of {expected}")]
    Identity {
        /// The incarnation in its hello.
        said: Incarnation,
        /// The incarnation in its session.
        expected: Incarnation,
    },
}

impl Mismatch {
    /// Returns the name by which metrics count this reason.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Versions { .. } => "versions",
            Self::Cluster { .. } => "cluster",
            Self::Shards { .. } => "shards",
            Self::Identity { .. } => "identity",
        }
    }
}

impl Hello {
    /// Returns the hello of a node of this release.
    pub fn new(cluster: &str, node: NodeId, incarnation: Incarnation) -> Self {
        let (shards, hash) = (u32::from(SHARDS), SHARD_HASH.to_owned());
        Self {
            versions: VERSIONS.to_vec(),
            cluster: cluster.to_owned(),
            node,
            incarnation,
            shards,
            hash,
        }
    }

    /// Returns the version of the frames, which both nodes compute alike, or the reason why the nodes cannot
    /// have a link.
    pub fn agree(&self, theirs: &Self, expected: Incarnation) -> Result<u32, Mismatch> {
        // The version is checked first, because an unknown version may change the meaning of all other
        // fields.
        let common = self
            .versions
            .iter()
            .filter(|version| theirs.versions.contains(version))
            .max();
        let &version = common.ok_or_else(|| Mismatch::Versions {
            ours: self.versions.clone(),
            theirs: theirs.versions.clone(),
        })?;
        if self.cluster != theirs.cluster {
            return Err(Mismatch::Cluster {
                ours: self.cluster.clone(),
                theirs: theirs.cluster.clone(),
            });
        }
        if (self.shards, &self.hash) != (theirs.shards, &theirs.hash) {
            return Err(Mismatch::Shards {
                ours_shards: self.shards,
                theirs_shards: theirs.shards,
                ours_hash: self.hash.clone(),
                theirs_hash: theirs.hash.clone(),
            });
        }
        if theirs.incarnation != expected {
            return Err(Mismatch::Identity {
                said: theirs.incarnation,
                expected,
            });
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(versions: &[u32], incarnation: u64) -> Hello {
        let node = NodeId::parse("node").unwrap();
        Hello {
            versions: versions.to_vec(),
            ..Hello::new("test", node, Incarnation::new(incarnation).unwrap())
        }
    }

    #[test]
    fn a_release_agrees_with_the_one_before_and_the_one_after() {
        let (this, next, after) = (hello(&[1], 1), hello(&[2, 1], 2), hello(&[3, 2], 3));
        assert_eq!(this.agree(&next, next.incarnation), Ok(1));
        assert_eq!(next.agree(&this, this.incarnation), Ok(1));
        assert_eq!(next.agree(&after, after.incarnation), Ok(2));
        assert_eq!(after.agree(&next, next.incarnation), Ok(2));
        assert_eq!(
            next.agree(&hello(&[1, 2], 4), Incarnation::new(4).unwrap()),
            Ok(2)
        );
        assert!(matches!(
            this.agree(&after, after.incarnation),
            Err(Mismatch::Versions { .. })
        ));
        assert!(matches!(
            this.agree(&hello(&[], 4), this.incarnation),
            Err(Mismatch::Versions { .. })
        ));
    }

    #[test]
    fn a_refusal_names_the_mismatch() {
        let ours = hello(&[1], 1);
        let theirs = hello(&[1], 2);
        assert_eq!(ours.agree(&theirs, theirs.incarnation), Ok(1));
        let names = [
            Hello {
                cluster: "other".to_owned(),
                ..theirs.clone()
            },
            Hello {
                shards: 128,
                ..theirs.clone()
            },
            Hello {
                hash: "fnv".to_owned(),
                ..theirs.clone()
            },
            Hello {
                incarnation: Incarnation::new(3).unwrap(),
                ..theirs.clone()
            },
        ]
        .map(|wrong| ours.agree(&wrong, theirs.incarnation).unwrap_err().name());
        assert_eq!(names, ["cluster", "shards", "shards", "identity"]);
    }
}
