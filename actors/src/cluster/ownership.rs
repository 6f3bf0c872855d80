//! Which node owns which shard, as far as this node knows: a table that membership publishes after each beat,
//! and that routers read without waiting.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::ids::{Epoch, Fence, Incarnation, SHARDS, ShardId};
use crate::store::{NodeRow, NodeState, ShardRow};

/// Which node has a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// This node.
    Local,
    /// Another node, which was alive as of the last beat.
    Peer(Incarnation),
    /// Another node, which is alive but not reached by this node.
    Unreachable(Incarnation),
    /// No node, or a node that is not alive.
    Unowned,
}

/// One shard in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardLocation {
    /// The epoch that a request for the shard names.
    pub epoch: Epoch,
    /// The node that has the shard in that epoch.
    pub holder: Holder,
}

/// One version of the table. It never changes; the next version replaces it.
#[derive(Debug, Clone)]
pub struct Table {
    me: Option<Incarnation>,
    /// By shard.
    rows: Vec<(Epoch, Option<Incarnation>)>,
    /// The nodes that were alive as of the last beat.
    living: Vec<Incarnation>,
    /// The live nodes that this node does not reach.
    unreachable: Vec<Incarnation>,
}

impl Table {
    fn unknown(me: Option<Incarnation>) -> Self {
        Self {
            me,
            rows: vec![(Epoch::new(0), None); usize::from(SHARDS)],
            living: Vec::new(),
            unreachable: Vec::new(),
        }
    }

    /// Returns which node has this shard.
    pub fn location(&self, shard: ShardId) -> ShardLocation {
        let (epoch, owner) = self.rows[usize::from(shard.get())];
        let holder = match owner {
            Some(owner) if Some(owner) == self.me => Holder::Local,
            Some(owner) if self.unreachable.contains(&owner) => Holder::Unreachable(owner),
            Some(owner) if self.living.contains(&owner) => Holder::Peer(owner),
            Some(_) | None => Holder::Unowned,
        };
        ShardLocation { epoch, holder }
    }

    /// Takes a row unless a newer epoch is known. A row of the same epoch is taken too, because a released
    /// shard keeps its epoch.
    fn take(&mut self, shard: ShardId, epoch: Epoch, owner: Option<Incarnation>) {
        let known = &mut self.rows[usize::from(shard.get())];
        if epoch >= known.0 {
            *known = (epoch, owner);
        }
    }
}

/// The published table; cheap to clone, and all clones share it.
#[derive(Debug, Clone)]
pub struct Ownership {
    table: Arc<ArcSwap<Table>>,
    /// By shard: wakes the tasks that wait for another owner or a newer epoch.
    news: Arc<[Notify]>,
}

impl Default for Ownership {
    fn default() -> Self {
        let news = ShardId::all().map(|_| Notify::new()).collect();
        Self {
            table: Arc::new(ArcSwap::from_pointee(Table::unknown(None))),
            news,
        }
    }
}

impl Ownership {
    /// Returns the table as it is now.
    #[cfg(test)]
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Returns which node has this shard now.
    pub fn location(&self, shard: ShardId) -> ShardLocation {
        self.table.load().location(shard)
    }

    /// Returns true if this is the present incarnation of this node.
    pub fn is_of(&self, incarnation: Incarnation) -> bool {
        self.table.load().me == Some(incarnation)
    }

    /// Waits until the shard's location differs from `seen`. Cancel safe.
    pub async fn changed(&self, shard: ShardId, seen: ShardLocation) {
        let news = &self.news[usize::from(shard.get())];
        loop {
            let mut told = std::pin::pin!(news.notified());
            // The notification is enabled before the table is read, so that no later change is missed.
            told.as_mut().enable();
            if self.location(shard) != seen {
                return;
            }
            told.await;
        }
    }

    /// Sets the present incarnation of this node. All that was known of shards is forgotten, because the
    /// database may have lost it.
    pub fn live_as(&self, me: Incarnation) {
        let before = self.table.swap(Arc::new(Table::unknown(Some(me))));
        self.tell(&before);
    }

    /// Publishes the rows that were read for this incarnation of this node. A row is ignored if a newer epoch
    /// of its shard was learned meanwhile.
    pub fn publish(&self, me: Incarnation, nodes: &[NodeRow], shards: &[ShardRow]) {
        let living = || {
            nodes
                .iter()
                .filter(|node| node.state != NodeState::Ended)
                .map(|node| node.incarnation)
        };
        let before = self.table.rcu(|table| {
            let mut next = Table::clone(table);
            if next.me == Some(me) {
                next.living = living().collect();
                shards
                    .iter()
                    .for_each(|row| next.take(row.id, row.epoch, row.owner));
            }
            next
        });
        self.tell(&before);
    }

    /// Sets which live peers this incarnation of this node does not reach.
    pub fn know_unreachable(&self, me: Incarnation, peers: &[Incarnation]) {
        let table = self.table.load();
        if table.me != Some(me) || table.unreachable == peers {
            return;
        }
        let before = self.table.rcu(|table| {
            let mut next = Table::clone(table);
            if next.me == Some(me) {
                next.unreachable = peers.to_vec();
            }
            next
        });
        self.tell(&before);
    }

    /// Notes that a shard is owned under this fence: it was handed off, or an owner said so.
    pub fn learn(&self, shard: ShardId, fence: Fence) {
        let before = self.table.rcu(|table| {
            let mut next = Table::clone(table);
            next.take(shard, fence.epoch, Some(fence.owner));
            next
        });
        self.tell(&before);
    }

    /// Wakes the tasks that wait for shards whose location has changed.
    fn tell(&self, before: &Table) {
        let now = self.table.load();
        for (shard, news) in ShardId::all().zip(self.news.iter()) {
            if before.location(shard) != now.location(shard) {
                news.notify_waiters();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incarnation(number: u64) -> Incarnation {
        Incarnation::new(number).unwrap()
    }

    fn node(number: u64, state: NodeState) -> NodeRow {
        NodeRow {
            state,
            ..NodeRow::ready(number, 1)
        }
    }

    fn row(id: u16, epoch: u64, owner: Option<u64>) -> ShardRow {
        ShardRow {
            id: ShardId::new(id).unwrap(),
            epoch: Epoch::new(epoch),
            owner: owner.map(incarnation),
        }
    }

    fn fence(epoch: u64, owner: u64) -> Fence {
        Fence {
            epoch: Epoch::new(epoch),
            owner: incarnation(owner),
        }
    }

    fn location(ownership: &Ownership, id: u16) -> (u64, Holder) {
        let ShardLocation { epoch, holder } = ownership.location(ShardId::new(id).unwrap());
        (epoch.get(), holder)
    }

    fn nodes() -> [NodeRow; 3] {
        [
            node(1, NodeState::Ready),
            node(2, NodeState::Leaving),
            node(3, NodeState::Ended),
        ]
    }

    fn published() -> Ownership {
        let ownership = Ownership::default();
        ownership.live_as(incarnation(1));
        ownership.publish(
            incarnation(1),
            &nodes(),
            &[
                row(0, 4, Some(1)),
                row(1, 5, Some(2)),
                row(2, 6, Some(3)),
                row(3, 7, None),
            ],
        );
        ownership
    }

    #[test]
    fn a_shard_is_on_this_node_on_a_peer_or_unowned() {
        let ownership = published();
        assert_eq!(location(&ownership, 0), (4, Holder::Local));
        assert_eq!(location(&ownership, 1), (5, Holder::Peer(incarnation(2))));
        assert_eq!(location(&ownership, 2), (6, Holder::Unowned), "the owner ended");
        assert_eq!(location(&ownership, 3), (7, Holder::Unowned));
        assert_eq!(location(&ownership, 4), (0, Holder::Unowned), "no row");
    }

    #[tokio::test]
    async fn a_wait_for_a_shard_ends_when_its_owner_is_not_reached_any_more() {
        let ownership = published();
        let shard = ShardId::new(1).unwrap();
        let seen = ownership.location(shard);
        let mut waiting = std::pin::pin!(ownership.changed(shard, seen));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        ownership.know_unreachable(incarnation(9), &[incarnation(2)]);
        assert_eq!(ownership.location(shard), seen, "of another incarnation");
        ownership.know_unreachable(incarnation(1), &[incarnation(2)]);
        assert!(futures_util::poll!(waiting.as_mut()).is_ready());
        assert_eq!(location(&ownership, 1), (5, Holder::Unreachable(incarnation(2))));
        ownership.know_unreachable(incarnation(1), &[]);
        assert_eq!(ownership.location(shard), seen);
    }

    #[tokio::test]
    async fn a_wait_for_a_shard_ends_when_its_owner_changes_and_not_when_others_change() {
        let ownership = published();
        let shard = ShardId::new(0).unwrap();
        let seen = ownership.location(shard);
        let mut waiting = std::pin::pin!(ownership.changed(shard, seen));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        ownership.learn(ShardId::new(1).unwrap(), fence(6, 2));
        ownership.learn(shard, fence(4, 1));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        ownership.learn(shard, fence(5, 2));
        tokio::time::timeout(std::time::Duration::from_secs(5), waiting)
            .await
            .unwrap();
        // If the owner changed before the call, the wait ends at once.
        ownership.changed(shard, seen).await;
    }

    #[test]
    fn a_learned_owner_replaces_older_rows_and_is_replaced_by_newer_rows() {
        let ownership = published();
        let shard = ShardId::new(0).unwrap();
        ownership.learn(shard, fence(5, 2));
        assert_eq!(location(&ownership, 0), (5, Holder::Peer(incarnation(2))));
        // These rows were read before the hand-off and are published after it.
        ownership.publish(incarnation(1), &nodes(), &[row(0, 4, Some(1))]);
        assert_eq!(location(&ownership, 0), (5, Holder::Peer(incarnation(2))));
        ownership.learn(shard, fence(4, 1));
        assert_eq!(location(&ownership, 0), (5, Holder::Peer(incarnation(2))));
        ownership.publish(incarnation(1), &nodes(), &[row(0, 6, Some(1))]);
        assert_eq!(location(&ownership, 0), (6, Holder::Local));
    }

    #[test]
    fn a_released_shard_is_unowned_in_the_same_epoch() {
        let ownership = published();
        ownership.publish(incarnation(1), &nodes(), &[row(1, 5, None)]);
        assert_eq!(location(&ownership, 1), (5, Holder::Unowned));
    }

    #[test]
    fn a_fresh_incarnation_begins_with_an_empty_table_and_ignores_rows_of_its_predecessor() {
        let ownership = published();
        let before = ownership.table();
        ownership.live_as(incarnation(9));
        ownership.publish(incarnation(1), &nodes(), &[row(0, 4, Some(1))]);
        assert_eq!(location(&ownership, 0), (0, Holder::Unowned));
        // The rows of a database that went backwards replace what was known.
        ownership.publish(incarnation(9), &nodes(), &[row(0, 2, Some(9))]);
        assert_eq!(location(&ownership, 0), (2, Holder::Local));
        // A table that a reader still holds does not change.
        assert_eq!(before.location(ShardId::new(0).unwrap()).holder, Holder::Local);
    }
}
