//! Completes the list of issuances that was loaded before this node owned the shard. Issuances are only
//! added, in order, and never change. So what was read without a fence is the beginning of what is stored,
//! and only the tail is missing. The coupon's own row may have changed and is read again.

use crate::coupon::ids::{CouponId, Sequence};
use crate::coupon::issued::{InconsistentIssuance, Issued, LoadedIssuance};

/// Issuances loaded ahead, and the tail that is read under a fence. The last issuance that was loaded ahead
/// is read once more. If the database went backwards in between, another issuance or none is in its place.
#[derive(Debug)]
pub struct Tail {
    issued: Issued,
    /// True if the next row is a new issuance: the last one loaded ahead has been read again, or none was
    /// loaded ahead.
    begins: bool,
    /// True if another issuance was found in the place of the last one that was loaded ahead.
    differs: bool,
}

impl Tail {
    /// Begins with the issuances that were loaded ahead.
    pub fn of(issued: Issued) -> Self {
        let begins = issued.last() == Sequence::NONE;
        Self {
            issued,
            begins,
            differs: false,
        }
    }

    /// Returns the sequence after which the tail must be read, once the fence is committed.
    pub fn after(&self) -> Sequence {
        self.issued.last().previous()
    }

    /// Returns the coupon.
    pub fn coupon(&self) -> CouponId {
        self.issued.coupon()
    }

    /// Takes the next issuance that was read.
    ///
    /// # Errors
    ///
    /// If the issuance cannot follow the issuance before it.
    pub fn take(&mut self, next: &LoadedIssuance<'_>) -> Result<(), InconsistentIssuance> {
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

    /// Returns all issuances. Returns `None` if the issuances loaded ahead differ from the stored ones. Then
    /// everything must be read again.
    pub fn complete(self) -> Option<Issued> {
        (self.begins && !self.differs).then_some(self.issued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn what_was_loaded_ahead_is_completed_by_reading_only_the_tail() {
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
    fn everything_is_read_again_if_the_database_lost_what_was_loaded_ahead() {
        assert_eq!(completed(ahead(&["ann", "bob"]), &["ann"]), None);
        assert_eq!(completed(ahead(&["ann", "bob"]), &["ann", "cy"]), None);
        assert_eq!(completed(ahead(&["ann", "bob"]), &["ann", "cy", "bob"]), None);
    }

    #[test]
    fn an_issuance_that_does_not_follow_is_refused() {
        let mut tail = ahead(&["ann"]);
        tail.take(&row(1, "ann")).unwrap();
        assert!(matches!(
            tail.take(&row(3, "bob")),
            Err(InconsistentIssuance::Sequence { .. })
        ));
    }
}
