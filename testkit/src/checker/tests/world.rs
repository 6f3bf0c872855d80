//! A history and its rows, made by hand. Times are milliseconds after a fixed moment.

use crate::ids::{IssuanceId, RequestKey, Sequence, UserId};
use crate::rows::Status;

use super::super::*;
use crate::history::{Change, ChangeAnswer, ChangeCall, Create, Issue, Patch, Span};
use crate::rows::Terms;

pub(super) fn at(ms: i64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + ms * 1_000).unwrap()
}

pub(super) fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub(super) fn coupon_id() -> CouponId {
    CouponId::new(42).unwrap()
}

pub(super) fn patch(total_quantity: Option<u64>) -> Change {
    Change::Patch(Patch {
        total_quantity: Some(total_quantity),
        ..Patch::default()
    })
}

pub(super) fn span(call: i64, answer: Option<i64>) -> Span {
    Span {
        call: at(call),
        answer: answer.map(at),
    }
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) coupon: CouponRow,
    pub(super) history: Vec<Operation>,
    pub(super) rows: Rows,
    pub(super) options: Options,
    pub(super) issued_offset: u64,
    lost: bool,
}

impl World {
    /// Makes a history with a coupon that was made between 0 and 2 ms.
    pub(super) fn new(total_quantity: Option<u64>, per_user_limit: u32) -> Self {
        let terms = Terms {
            total_quantity,
            ..Terms::default()
        };
        Self::with(terms, per_user_limit)
    }

    /// Makes such a history with these terms.
    pub(super) fn with(terms: Terms, per_user_limit: u32) -> Self {
        let id = coupon_id();
        let coupon = CouponRow {
            id,
            terms,
            per_user_limit,
            status: Status::Open,
            version: 1,
            issued: 0,
            created_at: at(1),
            uses: None,
            read_at: None,
        };
        let answer = CreateAnswer::Created {
            coupon: Box::new(coupon.clone()),
            replayed: false,
        };
        let history = vec![Operation::Create(Create {
            span: span(0, Some(2)),
            answer,
        })];
        Self {
            coupon,
            history,
            rows: Rows::default(),
            options: Options::default(),
            issued_offset: 0,
            lost: false,
        }
    }

    pub(super) fn report(&self) -> Report {
        let mut rows = self.rows.clone();
        if !self.lost {
            rows.coupons.push(CouponRow {
                issued: rows.issuances.len() as u64 + self.issued_offset,
                ..self.coupon.clone()
            });
        }
        check(&self.history, &rows, &self.options)
    }

    pub(super) fn lose_coupon(&mut self) {
        self.lost = true;
    }

    fn issue(
        &mut self,
        call: i64,
        answered: Option<i64>,
        user: &str,
        key: Option<&str>,
        answer: IssueAnswer,
    ) {
        let (user, key) = (
            UserId::parse(user).unwrap(),
            key.map(|key| RequestKey::parse(key).unwrap()),
        );
        self.history.push(Operation::Issue(Issue {
            span: span(call, answered),
            coupon: coupon_id(),
            user,
            key,
            answer,
        }));
    }

    /// Adds a stored row.
    pub(super) fn row(&mut self, name: &str, sequence: u64, issued_at: i64) {
        let id = IssuanceId {
            coupon: coupon_id(),
            sequence: Sequence::new(sequence),
        };
        self.rows.issuances.push(IssuanceRow {
            id,
            user: user(name),
            issued_at: at(issued_at),
            expires_at: self.coupon.terms.use_until,
        });
    }

    /// Adds an issuance that is stored and answered.
    pub(super) fn issued(&mut self, call: i64, answer: i64, user: &str, key: Option<&str>, sequence: u64) {
        self.row(user, sequence, i64::midpoint(call, answer));
        self.answered(call, answer, user, key, sequence, false);
    }

    /// Adds an answer with a stored issuance.
    pub(super) fn answered(
        &mut self,
        call: i64,
        answer: i64,
        user: &str,
        key: Option<&str>,
        sequence: u64,
        replayed: bool,
    ) {
        let issuance = self
            .rows
            .issuances
            .iter()
            .find(|row| row.id.sequence.get() == sequence)
            .unwrap()
            .clone();
        self.issue(
            call,
            Some(answer),
            user,
            key,
            IssueAnswer::Issued { issuance, replayed },
        );
    }

    pub(super) fn refused(&mut self, call: i64, answer: i64, user: &str, refusal: Refusal) {
        self.refused_with(call, answer, user, None, refusal);
    }

    pub(super) fn refused_with(
        &mut self,
        call: i64,
        answer: i64,
        user: &str,
        key: Option<&str>,
        refusal: Refusal,
    ) {
        self.issue(call, Some(answer), user, key, IssueAnswer::Refused(refusal));
    }

    pub(super) fn unknown(&mut self, call: i64, user: &str, key: Option<&str>) {
        self.issue(call, None, user, key, IssueAnswer::Unknown);
    }

    pub(super) fn not_applied(&mut self, call: i64, answer: i64, user: &str, key: Option<&str>) {
        self.issue(
            call,
            Some(answer),
            user,
            key,
            IssueAnswer::NotApplied("OVERLOADED".to_owned()),
        );
    }

    /// Changes the time of a row, both in the row and in the answers that show the row.
    pub(super) fn restamp(&mut self, sequence: u64, time: Timestamp) {
        let told = self.history.iter_mut().filter_map(|operation| match operation {
            Operation::Issue(Issue {
                answer: IssueAnswer::Issued { issuance, .. },
                ..
            }) => Some(issuance),
            _ => None,
        });
        for row in self
            .rows
            .issuances
            .iter_mut()
            .chain(told)
            .filter(|row| row.id.sequence.get() == sequence)
        {
            row.issued_at = time;
        }
    }

    fn changed(
        &mut self,
        call: i64,
        answered: Option<i64>,
        change: Change,
        if_match: Option<u64>,
        answer: ChangeAnswer,
    ) {
        let call = ChangeCall {
            span: span(call, answered),
            coupon: coupon_id(),
            change,
            if_match,
            answer,
        };
        self.history.push(Operation::Change(Box::new(call)));
    }

    fn make(&mut self, change: &Change) {
        self.coupon.version += 1;
        match change {
            Change::Patch(patch) => {
                let terms = &mut self.coupon.terms;
                terms.total_quantity = patch.total_quantity.unwrap_or(terms.total_quantity);
                terms.starts_at = patch.starts_at.unwrap_or(terms.starts_at);
                terms.ends_at = patch.ends_at.unwrap_or(terms.ends_at);
                terms.use_within_days = patch.use_within_days.unwrap_or(terms.use_within_days);
                terms.discount = patch.discount.map_or(terms.discount, Option::flatten);
            }
            Change::Pause => self.coupon.status = Status::Paused,
            Change::Resume => self.coupon.status = Status::Open,
            Change::Close => self.coupon.status = Status::Closed,
        }
    }

    /// Adds a change that is made and answered.
    pub(super) fn change(&mut self, call: i64, answer: i64, change: Change) {
        self.make(&change);
        self.done(call, answer, change);
    }

    /// Adds the answer to a change.
    pub(super) fn done(&mut self, call: i64, answer: i64, change: Change) {
        let done = ChangeAnswer::Done(Box::new(self.coupon.clone()));
        self.changed(call, Some(answer), change, None, done);
    }

    /// Adds a change without an answer. The change is made if `made` is true.
    pub(super) fn lost_change(&mut self, call: i64, change: Change, made: bool) {
        if made {
            self.make(&change);
        }
        self.changed(call, None, change, None, ChangeAnswer::Unknown);
    }

    pub(super) fn refused_change(
        &mut self,
        call: i64,
        answer: i64,
        change: Change,
        if_match: Option<u64>,
        code: &str,
    ) {
        self.changed(
            call,
            Some(answer),
            change,
            if_match,
            ChangeAnswer::NotApplied(code.to_owned()),
        );
    }
}
