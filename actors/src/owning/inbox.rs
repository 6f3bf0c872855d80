//! The requests in an owner's mailbox, in order of arrival.
//!
//! Handling a message costs an actor more than deciding a request. So requests queue here, and one message to
//! the actor stands for all requests that arrived since it last looked.

use std::sync::{Arc, Mutex, PoisonError};

/// A queue for one reader; cheap to clone. The reader is woken when an item arrives while the queue is empty.
/// The queue has no bound of its own, because its writers are bounded.
#[derive(Debug)]
pub struct Inbox<T> {
    items: Arc<Mutex<Vec<T>>>,
}

impl<T> Clone for Inbox<T> {
    fn clone(&self) -> Self {
        Self {
            items: Arc::clone(&self.items),
        }
    }
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self {
            items: Arc::default(),
        }
    }
}

impl<T> Inbox<T> {
    /// Adds an item. Returns true if the queue was empty. The caller must then wake the reader.
    #[must_use]
    pub fn put(&self, item: T) -> bool {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        items.push(item);
        items.len() == 1
    }

    /// Takes all items.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.items.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn only_the_first_item_wakes_the_reader() {
        let inbox = Inbox::default();
        assert_eq!((inbox.put(1), inbox.put(2)), (true, false));
        assert_eq!(inbox.take(), [1, 2]);
        assert!(inbox.put(3));
    }

    /// A reader that looks only when it is woken finds every item, and finds the items of each sender in
    /// their order.
    #[test]
    fn no_item_is_left_behind_or_overtaken() {
        const SENDERS: usize = 4;
        const EACH: usize = 20_000;
        let inbox = Inbox::default();
        let (wake, wakes) = mpsc::channel();
        std::thread::scope(|scope| {
            for sender in 0..SENDERS {
                let (inbox, wake) = (inbox.clone(), wake.clone());
                scope.spawn(move || {
                    for number in 0..EACH {
                        if inbox.put((sender, number)) {
                            wake.send(()).unwrap();
                        }
                    }
                });
            }
            drop(wake);
            let mut next = [0; SENDERS];
            for () in wakes {
                for (sender, number) in inbox.take() {
                    assert_eq!(number, next[sender]);
                    next[sender] += 1;
                }
            }
            assert_eq!(next, [EACH; SENDERS]);
        });
    }
}
