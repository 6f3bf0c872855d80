//! The canary: the last beat that the database confirmed. A database that has forgotten it went backwards (a
//! restore, a fail-over to a server that had less), and must be given no batch before the node has noticed
//! and joined anew: in the rows as they were, the old fence still holds, and what was decided after rows that
//! are gone would leave a gap.
//!
//! A server goes back only between connections. So each new connection of a lane looks for the beat, and a
//! batch looks whether its incarnation is one for which a beat has shown it.

use std::sync::{Mutex, PoisonError};

use sqlx::MySqlConnection;

use super::columns::integer;
use super::error::on_connect;
use crate::ids::{Incarnation, NodeId};
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
    /// Incarnations in whose life the database went backwards: one for each time it did.
    void: Vec<Incarnation>,
}

#[derive(Debug, Clone)]
struct Confirmed {
    node: NodeId,
    incarnation: Incarnation,
    beat: u64,
}

impl Canary {
    /// The database has counted a beat.
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

    /// Whether a batch of this incarnation may be stored: its database did not go backwards.
    pub(crate) fn lives(&self, incarnation: Incarnation) -> Result<()> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        match remembered.void.contains(&incarnation) {
            false => Ok(()),
            true => Err(StoreError::NotStored(
                "decided before the database went backwards".to_owned(),
            )),
        }
    }

    /// Whether a new connection reaches a database that still has what it confirmed.
    pub(crate) async fn look(&self, connection: &mut MySqlConnection) -> Result<()> {
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
                "the database has not the last beat that it confirmed".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incarnation_whose_beat_went_back_stores_nothing_any_more() {
        let (canary, node) = (Canary::default(), NodeId::parse("a").unwrap());
        let [first, second] = [1, 2].map(|number| Incarnation::new(number).unwrap());
        canary.counted(&node, first, 5);
        canary.counted(&node, first, 6);
        assert!(canary.lives(first).is_ok());
        canary.counted(&node, first, 6);
        assert!(canary.lives(first).is_err());
        // Its successor begins to count anew.
        canary.counted(&node, second, 1);
        assert!(canary.lives(second).is_ok() && canary.lives(first).is_err());
    }
}
