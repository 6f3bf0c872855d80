//! The names of nodes, for the log. The engine tells nodes apart by their incarnations, which mean nothing to
//! an operator.
//!
//! A process has one log, so it has one table of names.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::{Incarnation, NodeId};

/// Number of names that are kept, also of incarnations that ended: more than a cluster has in a day of
/// restarts.
const NAMES_MAX: usize = 256;

#[derive(Debug)]
struct Names(VecDeque<(Incarnation, NodeId)>);

impl Names {
    fn learn(&mut self, incarnation: Incarnation, name: &NodeId) {
        if self.of(incarnation).is_some() {
            return;
        }
        if self.0.len() >= NAMES_MAX {
            self.0.pop_back();
        }
        self.0.push_front((incarnation, name.clone()));
    }

    fn of(&self, incarnation: Incarnation) -> Option<&NodeId> {
        let known = self.0.iter().find(|(known, _)| *known == incarnation);
        known.map(|(_, name)| name)
    }
}

static NAMES: Mutex<Names> = Mutex::new(Names(VecDeque::new()));

fn names() -> MutexGuard<'static, Names> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Learns the name of a node.
pub(crate) fn learn(incarnation: Incarnation, name: &NodeId) {
    names().learn(incarnation, name);
}

/// Returns the name of a node, or its incarnation if the name is not known.
pub(crate) fn of(incarnation: Incarnation) -> String {
    let name = names().of(incarnation).map(ToString::to_string);
    name.unwrap_or_else(|| incarnation.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_names_are_kept() {
        let mut names = Names(VecDeque::new());
        let incarnation = |number| Incarnation::new(number).unwrap();
        for number in 1..=NAMES_MAX as u64 + 1 {
            let name = NodeId::parse(&format!("node-{number}")).unwrap();
            names.learn(incarnation(number), &name);
            names.learn(incarnation(number), &name);
        }
        assert_eq!(names.0.len(), NAMES_MAX);
        assert_eq!(names.of(incarnation(1)), None);
        assert_eq!(
            names.of(incarnation(2)).map(ToString::to_string).as_deref(),
            Some("node-2")
        );
    }
}
