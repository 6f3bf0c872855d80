//! Completes the lists of issuances and uses that were loaded before this node owned the shard. Both are only
//! added, in order, and never change. So what was read without a fence is the beginning of what is stored,
//! and only the tail is missing. The coupon's own row may have changed and is read again.

use crate::coupon::ids::{CouponId, Sequence};
use crate::coupon::issued::{InconsistentIssuance, LoadedIssuance};
use crate::coupon::ledger::LedgerRows;
use crate::coupon::uses::UseNumber;
use crate::coupon::uses::latest::{InconsistentUse, LoadedUse};

/// Rows loaded ahead, and the tail that is read under a fence. The last row of each list that was loaded
/// ahead is read once more. If the database went backwards in between, another row or none is in its place.
#[derive(Debug)]
pub struct Tail {
    rows: LedgerRows,
    /// True if rows were loaded ahead, so that only the tail is read.
    is_rest: bool,
    issuances: Progress,
    uses: Progress,
}

/// How far a list was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The next row is the last one that was loaded ahead.
    Known,
    /// The next row is a new one: the last one loaded ahead has been read again, or none was loaded ahead.
    New,
    /// Another row was found in the place of the last one that was loaded ahead.
    Differs,
}

impl Progress {
    fn of(is_empty: bool) -> Self {
        if is_empty { Self::New } else { Self::Known }
    }

    /// Returns true if the next row is new. If it is not, checks it.
    fn is_at_new(&mut self, is_same: impl FnOnce() -> bool) -> bool {
        if *self == Self::Known {
            *self = if is_same() { Self::New } else { Self::Differs };
            return false;
        }
        *self == Self::New
    }
}

/// The place where a page of rows begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailCursor {
    /// After this issuance; `None` if all issuances were read.
    pub issuances_after: Option<Sequence>,
    /// After this use.
    pub uses_after: UseNumber,
}

impl Tail {
    /// Begins with the rows that were loaded ahead.
    pub fn of(rows: LedgerRows) -> Self {
        let (issuances, uses) = (
            Progress::of(rows.issued.last() == Sequence::NONE),
            Progress::of(rows.uses.last() == UseNumber::NONE),
        );
        Self {
            rows,
            is_rest: (issuances, uses) != (Progress::New, Progress::New),
            issuances,
            uses,
        }
    }

    /// Returns where the tail begins, which must be read once the fence is committed.
    pub fn after(&self) -> TailCursor {
        TailCursor {
            issuances_after: Some(self.rows.issued.last().previous()),
            uses_after: self.rows.uses.last().previous(),
        }
    }

    /// Returns the coupon.
    pub fn coupon(&self) -> CouponId {
        self.rows.issued.coupon()
    }

    /// Takes the next issuance that was read.
    ///
    /// # Errors
    ///
    /// If the issuance cannot follow the issuance before it.
    pub fn take(&mut self, next: &LoadedIssuance<'_>) -> Result<(), InconsistentIssuance> {
        let issued = &mut self.rows.issued;
        if self.issuances.is_at_new(|| issued.ends_with(next)) {
            return issued.push(next);
        }
        Ok(())
    }

    /// Takes the next use that was read.
    ///
    /// # Errors
    ///
    /// If the use cannot follow the use before it.
    pub fn take_use(&mut self, next: &LoadedUse<'_>) -> Result<(), InconsistentUse> {
        let uses = &mut self.rows.uses;
        if self.uses.is_at_new(|| uses.ends_with(next)) {
            return uses.push(next);
        }
        Ok(())
    }

    /// Returns all rows. Returns `None` if those loaded ahead differ from the stored ones. Then everything
    /// must be read again.
    pub fn complete(self) -> Option<LedgerRows> {
        let is_complete = self.issuances == Progress::New && self.uses == Progress::New;
        // An issuance is stored before its uses. But without a fence, uses of later issuances may have been
        // stored after the issuances were read.
        let is_whole = !self.is_rest || self.rows.uses.highest() <= self.rows.issued.last();
        (is_complete && is_whole).then_some(self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coupon::issued::Issued;
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
        Tail::of(issued.into())
    }

    fn completed(mut tail: Tail, stored: &[&str]) -> Option<Vec<String>> {
        let after = tail.after().issuances_after.unwrap().get();
        for (user, sequence) in stored.iter().zip(1..).skip(after as usize) {
            tail.take(&row(sequence, user)).unwrap();
        }
        tail.complete().map(|rows| {
            rows.issued
                .users_after(Sequence::NONE)
                .map(str::to_owned)
                .collect()
        })
    }

    #[test]
    fn what_was_loaded_ahead_is_completed_by_reading_only_the_tail() {
        assert_eq!(
            ahead(&["ann", "bob"]).after().issuances_after,
            Some(Sequence::new(1))
        );
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

    fn used(number: u64, order: &str) -> LoadedUse<'_> {
        LoadedUse {
            number: UseNumber::new(number),
            sequence: Sequence::new(1),
            kind: crate::coupon::uses::UseKind::Released,
            order: Some(order),
            figures: Some(crate::coupon::uses::Figures {
                amount: 1,
                discount: 1,
            }),
            hold_until: None,
            returns: false,
            at: Timestamp::from_micros(1_000).unwrap(),
        }
    }

    #[test]
    fn uses_of_issuances_that_were_stored_while_loading_ahead_are_kept_for_the_tail() {
        let mut ahead = Tail::of(Issued::new(CouponId::new(7).unwrap()).into());
        ahead.take(&row(1, "ann")).unwrap();
        // Meanwhile the owner issued another one and stored its use.
        let of_second = LoadedUse {
            sequence: Sequence::new(2),
            ..used(1, "a")
        };
        ahead.take_use(&of_second).unwrap();
        let rows = ahead.complete().unwrap();
        let mut tail = Tail::of(rows);
        tail.take(&row(1, "ann")).unwrap();
        tail.take_use(&of_second).unwrap();
        assert!(tail.complete().is_none(), "the second issuance is missing");

        let mut issued = Issued::new(CouponId::new(7).unwrap());
        issued.push(&row(1, "ann")).unwrap();
        let mut rows = LedgerRows::from(issued);
        rows.uses.push(&of_second).unwrap();
        let mut tail = Tail::of(rows);
        tail.take(&row(1, "ann")).unwrap();
        tail.take(&row(2, "bob")).unwrap();
        tail.take_use(&of_second).unwrap();
        assert!(tail.complete().is_some());
    }

    #[test]
    fn uses_that_were_loaded_ahead_are_completed_or_read_again_like_issuances() {
        let completed = |stored: &[&str]| {
            let mut issued = Issued::new(CouponId::new(7).unwrap());
            issued.push(&row(1, "ann")).unwrap();
            let mut rows = LedgerRows::from(issued);
            for (number, order) in (1..).zip(["a", "b"]) {
                rows.uses.push(&used(number, order)).unwrap();
            }
            let mut tail = Tail::of(rows);
            assert_eq!(tail.after().uses_after, UseNumber::new(1));
            tail.take(&row(1, "ann")).unwrap();
            for (number, order) in (1..).zip(stored).skip(1) {
                tail.take_use(&used(number, order)).unwrap();
            }
            tail.complete().map(|rows| rows.uses.last().get())
        };
        assert_eq!(completed(&["a", "b", "c"]), Some(3));
        assert_eq!(completed(&["a", "b"]), Some(2));
        assert_eq!(completed(&["a"]), None);
        assert_eq!(completed(&["a", "c"]), None);
    }
}
