//! Hello: what two nodes must agree on before they speak, and the version in which they do.
//!
//! Each release speaks its own version and the one before, so that nodes are replaced one by one. To bring in
//! a version 2, put it in front of [`VERSIONS`], and let items that only it has be sent where
//! [`Hello::agree`] said 2; once no release speaks 1 any more, take 1 away.

use crate::ids::{Incarnation, NodeId, SHARD_HASH, SHARDS};

/// The versions that this release speaks.
pub const VERSIONS: &[u32] = &[2];

/// Who a node is, and what it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The versions of frames that it reads and writes.
    pub versions: Vec<u32>,
    /// Of which cluster it is a member; two clusters may by mistake share a cookie.
    pub cluster: String,
    /// Its name.
    pub node: NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// How many shards its cluster was made with.
    pub shards: u32,
    /// How it maps coupons to shards.
    pub hash: String,
}

/// Why two nodes have no link. None of it heals while both live, so they need not try soon again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// They speak no common version.
    #[error("it speaks the link versions {theirs:?}, this node {ours:?}")]
    Versions {
        /// What this node speaks.
        ours: Vec<u32>,
        /// What the peer speaks.
        theirs: Vec<u32>,
    },
    /// They are of different clusters.
    #[error("it is of the cluster {theirs:?}, this node of {ours:?}")]
    Cluster {
        /// This node's.
        ours: String,
        /// The peer's.
        theirs: String,
    },
    /// They place coupons differently.
    #[error("it has {theirs_shards} shards by {theirs_hash:?}, this node {ours_shards} by {ours_hash:?}")]
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
    /// It is not who its session says it is.
    #[error("it says that it is {said}, but its session is of {expected}")]
    Identity {
        /// As its hello has it.
        said: Incarnation,
        /// As its session has it.
        expected: Incarnation,
    },
}

impl Mismatch {
    /// Its name among the reasons of refused frames.
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
    /// What this release says.
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

    /// The version in which this node and that one speak, which both compute alike; or why they do not.
    pub fn agree(&self, theirs: &Self, expected: Incarnation) -> Result<u32, Mismatch> {
        // First, as all else may mean something new in a version that we do not know.
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
    fn what_does_not_fit_is_refused_by_name() {
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
