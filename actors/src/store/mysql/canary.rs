//! The canary: the last beat that the database confirmed. A database without this beat went backwards in time
//! (a restore, or a fail-over to a server that had less). Until the node has noticed that and joined again,
//! no batch may be written. The fence would not refuse the batch, because the older rows still carry the same
//! fence. The batch would follow rows that are gone, and leave a gap.
//!
//! A server can go back only between connections. So each new connection of a lane checks that the beat is
//! there. A batch is also refused if a beat of an incarnation that owns one of its portions has shown that
//! the database went backwards.

use std::sync::{Mutex, PoisonError};

use sqlx::MySqlConnection;

use super::error::on_connect;
use crate::ids::{Incarnation, NodeId};
use crate::store::columns::integer;
use crate::store::{Result, StoreError};

const BEAT: &str = "SELECT beat FROM nodes WHERE node_id = ? AND incarnation = ?";

/// What is remembered of this node's beats.
#[derive(Debug, Default)]
pub(crate) struct Canary {
    remembered: Mutex<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    confirmed: Option<Confirmed>,
    /// Incarnations during which the database went backwards.
    void: Vec<Incarnation>,
}

#[derive(Debug, Clone)]
struct Confirmed {
    node: NodeId,
    incarnation: Incarnation,
    beat: u64,
}

impl Canary {
    /// Records a beat that the database has counted. If the beat is not higher than the last one of the same
    /// incarnation, the database went backwards.
    pub(crate) fn counted(&self, node: &NodeId, incarnation: Incarnation, beat: u64) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let before = remembered
            .confirmed
            .as_ref()
            .filter(|confirmed| confirmed.incarnation == incarnation);
        if before.is_some_and(|confirmed| beat <= confirmed.beat) {
            remembered.void.push(incarnation);
        } else {
            remembered.confirmed = Some(Confirmed {
                node: node.clone(),
                incarnation,
                beat,
            });
        }
    }

    /// Fails if a beat of this incarnation showed that the database went backwards. Batches of this
    /// incarnation must then not be stored.
    pub(crate) fn check_incarnation(&self, incarnation: Incarnation) -> Result<()> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        match remembered.void.contains(&incarnation) {
            false => Ok(()),
            true => Err(StoreError::NotStored(
                "decided before the database went backwards".to_owned(),
            )),
        }
    }

    /// Checks that a new connection reaches a database that still has the last beat that it confirmed.
    pub(crate) async fn check_server(&self, connection: &mut MySqlConnection) -> Result<()> {
        let confirmed = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .confirmed
            .clone();
        let Some(Confirmed {
            node,
            incarnation,
            beat,
        }) = confirmed
        else {
            return Ok(());
        };
        let found: Option<i64> = sqlx::query_scalar(BEAT)
            .bind(node.as_str())
            .bind(integer(incarnation.get()))
            .fetch_optional(connection)
            .await
            .map_err(on_connect)?;
        match found.is_some_and(|found| found >= integer(beat)) {
            true => Ok(()),
            false => Err(StoreError::NotStored(
                "the database does not have the last beat that it confirmed".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incarnation_whose_beat_went_back_stores_nothing_more() {
        let (canary, node) = (Canary::default(), NodeId::parse("a").unwrap());
        let [first, second] = [1, 2].map(|number| Incarnation::new(number).unwrap());
        canary.counted(&node, first, 5);
        canary.counted(&node, first, 6);
        assert!(canary.check_incarnation(first).is_ok());
        canary.counted(&node, first, 6);
        assert!(canary.check_incarnation(first).is_err());
        // The next incarnation counts from 1 again.
        canary.counted(&node, second, 1);
        assert!(canary.check_incarnation(second).is_ok() && canary.check_incarnation(first).is_err());
    }
}
