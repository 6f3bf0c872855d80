//! News: messages between nodes that are not requests, answers or heartbeats.

use prost::Message;

use crate::ids::{Epoch, Fence, Incarnation, ShardId};
use crate::link::frame::FrameError;
use crate::owning::kind::Kind;

/// Maximum number of ids that a node is told to load ahead. The rest is loaded on demand.
pub(crate) const IDS_MAX: usize = 4_096;

/// News for a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News<K: Kind> {
    /// The shard is owned under this fence now.
    Owned {
        /// The shard.
        shard: ShardId,
        /// Its owner and epoch.
        to: Fence,
    },
    /// The shard will be handed to the peer, which should load these ids ahead.
    LoadAhead {
        /// The shard.
        shard: ShardId,
        /// The ids loaded on the shard's present node.
        ids: Vec<K::Id>,
    },
    /// The sender has loaded ahead what it was asked to load for this shard.
    LoadedAhead {
        /// The shard.
        shard: ShardId,
    },
    /// Notices based on a version below this one are no longer valid.
    Widened {
        /// The id to which this applies.
        id: K::Id,
        /// The new version.
        version: u64,
    },
    /// The sender is leaving, and its door refuses nothing any more.
    DoorClosed,
}

impl<K: Kind> News<K> {
    /// Encodes the news for a peer.
    pub(crate) fn write(&self) -> Vec<u8> {
        let number = |shard: &ShardId| u32::from(shard.get());
        let kind = match self {
            Self::Owned { shard, to } => WireNewsKind::Owned(WireOwned {
                shard: number(shard),
                epoch: to.epoch.get(),
                owner: to.owner.get(),
            }),
            Self::LoadAhead { shard, ids } => WireNewsKind::LoadAhead(WireLoadAhead {
                shard: number(shard),
                ids: ids.iter().take(IDS_MAX).map(written::<K>).collect(),
            }),
            Self::LoadedAhead { shard } => WireNewsKind::LoadedAhead(number(shard)),
            Self::Widened { id, version } => WireNewsKind::Widened(WireWidened {
                id: written::<K>(id),
                version: *version,
            }),
            Self::DoorClosed => WireNewsKind::DoorClosed(true),
        };
        WireNews { kind: Some(kind) }.encode_to_vec()
    }

    /// Decodes the news from a peer.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, FrameError> {
        let kind = WireNews::decode(bytes)?.kind.ok_or(FrameError::Wrong("news"))?;
        Ok(match kind {
            WireNewsKind::Owned(WireOwned { shard, epoch, owner }) => {
                let owner = Incarnation::new(owner).ok_or(FrameError::Wrong("owner"))?;
                let epoch = Epoch::new(epoch);
                Self::Owned {
                    shard: shard_id(shard)?,
                    to: Fence { epoch, owner },
                }
            }
            WireNewsKind::LoadAhead(WireLoadAhead { shard, ids }) => {
                if ids.len() > IDS_MAX {
                    return Err(FrameError::Wrong("number of ids"));
                }
                let ids = ids.iter().map(|bytes| Ok(K::decode_id(bytes)?));
                Self::LoadAhead {
                    shard: shard_id(shard)?,
                    ids: ids.collect::<Result<_, FrameError>>()?,
                }
            }
            WireNewsKind::LoadedAhead(shard) => Self::LoadedAhead {
                shard: shard_id(shard)?,
            },
            WireNewsKind::Widened(WireWidened { id, version }) => Self::Widened {
                id: K::decode_id(&id)?,
                version,
            },
            WireNewsKind::DoorClosed(_) => Self::DoorClosed,
        })
    }
}

fn written<K: Kind>(id: &K::Id) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8);
    K::encode_id(*id, &mut bytes);
    bytes
}

fn shard_id(number: u32) -> Result<ShardId, FrameError> {
    let number = u16::try_from(number).ok();
    number.and_then(ShardId::new).ok_or(FrameError::Wrong("shard"))
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireNews {
    #[prost(oneof = "WireNewsKind", tags = "1, 2, 3, 4, 5")]
    kind: Option<WireNewsKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum WireNewsKind {
    #[prost(message, tag = "1")]
    Owned(WireOwned),
    #[prost(message, tag = "2")]
    Widened(WireWidened),
    #[prost(uint32, tag = "3")]
    LoadedAhead(u32),
    #[prost(message, tag = "4")]
    LoadAhead(WireLoadAhead),
    #[prost(bool, tag = "5")]
    DoorClosed(bool),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireOwned {
    #[prost(uint32, tag = "1")]
    shard: u32,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(uint64, tag = "3")]
    owner: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireWidened {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    version: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireLoadAhead {
    #[prost(uint32, tag = "1")]
    shard: u32,
    #[prost(bytes = "vec", repeated, tag = "2")]
    ids: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coupon::CouponKind;
    use crate::coupon::ids::CouponId;

    type News = super::News<CouponKind>;

    fn shard(number: u16) -> ShardId {
        ShardId::new(number).unwrap()
    }

    fn coupon(number: u64) -> CouponId {
        CouponId::new(number).unwrap()
    }

    fn read(kind: WireNewsKind) -> Result<News, FrameError> {
        News::read(&WireNews { kind: Some(kind) }.encode_to_vec())
    }

    #[test]
    fn news_are_read_as_they_were_written() {
        let to = Fence {
            epoch: Epoch::new(9),
            owner: Incarnation::new(7).unwrap(),
        };
        let all = [
            News::Owned {
                shard: shard(255),
                to,
            },
            News::Widened {
                id: coupon(1 << 52),
                version: 3,
            },
            News::DoorClosed,
            News::LoadedAhead { shard: shard(0) },
            News::LoadedAhead { shard: shard(255) },
            News::LoadAhead {
                shard: shard(255),
                ids: Vec::new(),
            },
            News::LoadAhead {
                shard: shard(0),
                ids: (1..=20).map(coupon).collect(),
            },
        ];
        for news in all {
            assert_eq!(News::read(&news.write()), Ok(news));
        }
    }

    #[test]
    fn more_ids_than_the_maximum_are_neither_written_nor_read() {
        let ids = vec![coupon(1); IDS_MAX + 1];
        let news = News::LoadAhead { shard: shard(1), ids };
        let shortened = News::LoadAhead {
            shard: shard(1),
            ids: vec![coupon(1); IDS_MAX],
        };
        assert_eq!(News::read(&news.write()), Ok(shortened));
        let load_ahead = WireLoadAhead {
            shard: 1,
            ids: vec![written::<CouponKind>(&coupon(1)); IDS_MAX + 1],
        };
        assert!(read(WireNewsKind::LoadAhead(load_ahead)).is_err());
    }

    #[test]
    fn bytes_that_are_not_news_are_refused() {
        assert!(read(WireNewsKind::LoadedAhead(256)).is_err());
        for (shard, epoch, owner) in [(256, 1, 1), (70_000, 1, 1), (1, 1, 0)] {
            assert!(read(WireNewsKind::Owned(WireOwned { shard, epoch, owner })).is_err());
        }
        let id = vec![0; 8];
        assert!(read(WireNewsKind::Widened(WireWidened { id, version: 1 })).is_err());
        assert!(News::read(&[]).is_err() && News::read(&[0xff; 40]).is_err());
    }
}
