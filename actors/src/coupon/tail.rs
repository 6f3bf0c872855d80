//! Completing what was read ahead of ownership. Issuances are only ever added, in order, and none is changed:
//! so what was read under no fence is the beginning of what is there, and just the tail is missing. The
//! coupon itself may be another by now, and is not kept.

use crate::coupon::issued::{Issued, OutOfLine};
use crate::ids::Sequence;
use crate::store::LoadedIssuance;

/// Takes what is stored from the last issuance on that was read ahead. That one is read once more: a database
/// that went back behind it in between, and may have others in its place, is found out.
#[derive(Debug)]
pub struct Tail {
    issued: Issued,
    /// The last one read ahead is there still, or there is none.
    begins: bool,
    /// Another stands in its place.
    differs: bool,
}

impl Tail {
    /// To these.
    pub fn of(issued: Issued) -> Self {
        let begins = issued.last() == Sequence::NONE;
        Self {
            issued,
            begins,
            differs: false,
        }
    }

    /// After which sequence to read; strictly once the fence is committed.
    pub fn after(&self) -> Sequence {
        self.issued.last().previous()
    }

    /// Takes the next one that was read.
    pub fn take(&mut self, next: &LoadedIssuance<'_>) -> Result<(), OutOfLine> {
        if self.differs {
            return Ok(());
        }
        if self.begins {
            return self.issued.push(next);
        }
        self.begins = true;
        self.differs = !self.issued.ends_with(next);
        Ok(())
    }

    /// All of them; `None` where what was read ahead is not what is stored, so that it must be read whole.
    pub fn complete(self) -> Option<Issued> {
        (self.begins && !self.differs).then_some(self.issued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::CouponId;
    use crate::time::Timestamp;

    fn row(sequence: u64, user: &str) -> LoadedIssuance<'_> {
        let issued_at = Timestamp::from_micros(1_000).unwrap();
        LoadedIssuance {
            sequence: Sequence::new(sequence),
            user,
            nth: 1,
            key: "key",
            issued_at,
            expires_at: None,
        }
    }

    fn ahead(users: &[&str]) -> Tail {
        let mut issued = Issued::new(CouponId::new(7).unwrap());
        for (user, sequence) in users.iter().zip(1..) {
            issued.push(&row(sequence, user)).unwrap();
        }
        Tail::of(issued)
    }

    fn completed(mut tail: Tail, stored: &[&str]) -> Option<Vec<String>> {
        let after = tail.after().get();
        for (user, sequence) in stored.iter().zip(1..).skip(after as usize) {
            tail.take(&row(sequence, user)).unwrap();
        }
        tail.complete()
            .map(|issued| issued.users().map(str::to_owned).collect())
    }

    #[test]
    fn the_tail_alone_is_read_and_completes_what_was_read_ahead() {
        assert_eq!(ahead(&["ann", "bob"]).after(), Sequence::new(1));
        assert_eq!(
            completed(ahead(&["ann", "bob"]), &["ann", "bob", "cy"]).unwrap(),
            ["ann", "bob", "cy"]
        );
        assert_eq!(
            completed(ahead(&["ann", "bob"]), &["ann", "bob"]).unwrap(),
            ["ann", "bob"]
        );
        assert_eq!(completed(ahead(&[]), &["ann"]).unwrap(), ["ann"]);
        assert_eq!(completed(ahead(&[]), &[]).unwrap(), [""; 0]);
    }

    #[test]
    fn a_database_that_went_back_behind_what_was_read_ahead_is_read_whole() {
        assert_eq!(completed(ahead(&["ann", "bob"]), &["ann"]), None);
        assert_eq!(completed(ahead(&["ann", "bob"]), &["ann", "cy"]), None);
        assert_eq!(completed(ahead(&["ann", "bob"]), &["ann", "cy", "bob"]), None);
    }

    #[test]
    fn what_does_not_follow_is_not_taken() {
        let mut tail = ahead(&["ann"]);
        tail.take(&row(1, "ann")).unwrap();
        assert!(matches!(
            tail.take(&row(3, "bob")),
            Err(OutOfLine::Sequence { .. })
        ));
    }
}
