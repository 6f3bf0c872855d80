//! Searches for coupons: filters, and the statements that select the coupons to which a filter is applied.
//!
//! A phase depends on the clock and on what is issued, so it cannot be indexed. The index `by_phase` has the
//! columns on which phases depend, in the order of the list. So a statement examines the coupons of one
//! status without reading their rows. One call examines a bounded number of coupons, however few it finds.

use crate::coupon::ids::CouponId;
use crate::coupon::offer::{CouponView, Phase, Status};
use crate::time::Timestamp;

/// Which coupons a list contains.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct CouponFilter {
    /// Only coupons in this phase.
    pub phase: Option<Phase>,
    /// Only coupons whose title contains this text. The letters A to Z match in either case; all other
    /// characters match only themselves.
    pub title: Option<String>,
}

impl CouponFilter {
    /// Returns true if the filter admits all coupons.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns true if the filter admits this coupon at `now`. Only this function decides. Statements may
    /// select more coupons, because databases do not agree on upper and lower case.
    pub fn admits(&self, view: &CouponView, now: Timestamp) -> bool {
        self.phase
            .is_none_or(|phase| view.coupon.phase(now, view.taken()) == phase)
            && self
                .title
                .as_ref()
                .is_none_or(|text| contains(&view.coupon.offer.title, text))
    }
}

fn contains(title: &str, text: &str) -> bool {
    title
        .to_ascii_lowercase()
        .contains(text.to_ascii_lowercase().as_str())
}

/// One step of a search for coupons, newest (highest id) first.
#[derive(Debug, Clone)]
pub struct CouponQuery {
    /// Only these coupons.
    pub filter: CouponFilter,
    /// The time at which phases are computed and holds are counted.
    pub now: Timestamp,
    /// Only coupons with a lower id.
    pub before: Option<CouponId>,
    /// Maximum number of coupons to return.
    pub limit: u32,
    /// Maximum number of coupons to examine, at least 1.
    pub examine: u32,
}

impl CouponQuery {
    /// Returns a query for up to `limit` coupons, without a filter.
    pub fn all(before: Option<CouponId>, limit: u32) -> Self {
        Self {
            filter: CouponFilter::default(),
            now: crate::time::timestamp(),
            before,
            limit,
            examine: limit,
        }
    }
}

/// The result of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponPage {
    /// The coupons found.
    pub coupons: Vec<CouponView>,
    /// The search goes on before this coupon; `None` if there are no further coupons.
    pub next: Option<CouponId>,
}

/// The parts of a search's statements that differ between dialects.
pub(crate) struct SearchDialect {
    /// Makes a statement use the index `by_phase`, or the primary key.
    pub(crate) by_phase: &'static str,
    pub(crate) by_id: &'static str,
    /// Joins the rows of the coupons that were found, and the columns that are read of each.
    pub(crate) join: &'static str,
    pub(crate) columns: &'static str,
    /// How many places for the present time these columns have.
    pub(crate) columns_times: usize,
    /// A subquery for the last issuance of a coupon with a quantity; null if that is not issued yet.
    pub(crate) last_issuance: &'static str,
    /// The condition that a title contains a text; it may also match letters beyond A to Z in either case.
    pub(crate) title: &'static str,
}

/// A statement and its values, in their order.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) text: String,
    pub(crate) values: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Integer(i64),
    Text(String),
}

impl CouponQuery {
    /// Returns the statement that reads the id of the last coupon that this step examines. The statement
    /// reads no row if fewer coupons are left. Returns `None` if every coupon of the status matches, because
    /// then the limit bounds the step.
    pub(crate) fn last_examined(&self, dialect: &SearchDialect) -> Option<Statement> {
        let is_open = !matches!(self.filter.phase, None | Some(Phase::Closed | Phase::Paused));
        (is_open || self.filter.title.is_some()).then(|| Statement {
            text: format!(
                "SELECT c.id FROM coupons AS c {} WHERE {}c.id < ? ORDER BY c.id DESC LIMIT 1 OFFSET ?",
                self.index(dialect),
                self.of_status(),
            ),
            values: vec![
                Value::Integer(self.before()),
                Value::Integer(i64::from(self.examine) - 1),
            ],
        })
    }

    /// Returns the statement that reads the coupons found down to `last`.
    pub(crate) fn found(&self, dialect: &SearchDialect, last: Option<CouponId>) -> Statement {
        let now = |times| (0..times).map(|_| Value::Integer(self.now.as_micros()));
        let mut values: Vec<Value> = now(dialect.columns_times).collect();
        values.extend([Value::Integer(self.before()), Value::Integer(last.map_or(0, id))]);
        let (condition, times) = self.of_phase(dialect);
        values.extend(now(times));
        let title = match &self.filter.title {
            Some(text) => {
                values.push(Value::Text(text.clone()));
                format!(" AND {}", dialect.title)
            }
            None => String::new(),
        };
        values.push(Value::Integer(self.limit.into()));
        let text = format!(
            "SELECT {} FROM (SELECT c.id FROM coupons AS c {} WHERE {}c.id < ? AND c.id >= ?{condition}{title} \
             ORDER BY c.id DESC LIMIT ?) AS found {} ON c.id = found.id",
            dialect.columns,
            self.index(dialect),
            self.of_status(),
            dialect.join,
        );
        Statement { text, values }
    }

    /// Makes a page of the rows that the statement of [`Self::found`] read.
    pub(crate) fn page(&self, mut rows: Vec<CouponView>, last: Option<CouponId>) -> CouponPage {
        rows.sort_by_key(|view| std::cmp::Reverse(view.coupon.id));
        let is_full = rows.len() >= self.limit as usize;
        let next = if is_full {
            rows.last().map(|view| view.coupon.id)
        } else {
            last
        };
        rows.retain(|view| self.filter.admits(view, self.now));
        CouponPage { coupons: rows, next }
    }

    fn before(&self) -> i64 {
        self.before.map_or(i64::MAX, id)
    }

    fn index(&self, dialect: &SearchDialect) -> &'static str {
        if self.filter.phase.is_some() {
            dialect.by_phase
        } else {
            dialect.by_id
        }
    }

    fn of_status(&self) -> String {
        let status = match self.filter.phase {
            None => return String::new(),
            Some(Phase::Closed) => Status::Closed,
            Some(Phase::Paused) => Status::Paused,
            Some(Phase::Scheduled | Phase::Ended | Phase::SoldOut | Phase::Live) => Status::Open,
        };
        format!("c.status = '{}' AND ", status.as_str())
    }

    /// Returns the condition for the phase among the coupons of its status, and how many places for the
    /// present time the condition has.
    fn of_phase(&self, dialect: &SearchDialect) -> (String, usize) {
        let has_begun = "(c.starts_at IS NULL OR c.starts_at <= ?)";
        let has_not_ended = "(c.ends_at IS NULL OR c.ends_at > ?)";
        // Sequences have no gaps, so a coupon is sold out if its issuance number `total_quantity` plus the
        // number of those given back exists.
        let last = dialect.last_issuance;
        match self.filter.phase {
            None | Some(Phase::Closed | Phase::Paused) => (String::new(), 0),
            Some(Phase::Scheduled) => (" AND c.starts_at > ?".to_owned(), 1),
            Some(Phase::Ended) => (format!(" AND {has_begun} AND c.ends_at <= ?"), 2),
            Some(Phase::SoldOut) => (
                format!(" AND {has_begun} AND {has_not_ended} AND {last} IS NOT NULL"),
                2,
            ),
            Some(Phase::Live) => (
                format!(" AND {has_begun} AND {has_not_ended} AND {last} IS NULL"),
                2,
            ),
        }
    }
}

fn id(coupon: CouponId) -> i64 {
    crate::store::columns::integer(coupon.get())
}
