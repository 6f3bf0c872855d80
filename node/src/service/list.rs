//! Pages of lists, and the cursors between them.

use actors::coupon::ids::{CouponId, IssuanceId, Sequence};
use actors::coupon::record::ChangeRow;
use actors::coupon::uses::{Use, UseNumber, UsedIssuance};
use actors::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::engine::{CouponView, UserCursor};

/// Number of items on a page if the request names no limit.
pub(crate) const LIMIT_DEFAULT: u32 = 50;
/// Maximum number of items on a page: as many as are read and written quickly.
pub(crate) const LIMIT_MAX: u32 = 200;

/// Maximum size of a page, unless it has one item: half a mebibyte, which fits into what one address may have
/// of the least `limits.unsent_bytes_max`. Only texts of administrators, which each item may have 80 KiB of,
/// make a page end before its limit.
pub(crate) const PAGE_BYTES_MAX: usize = 512 * 1024;

/// One page of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page<T, C = CouponId> {
    /// The items.
    pub(crate) items: Vec<T>,
    /// Where the next page begins; `None` at the end of the list.
    pub(crate) next: Option<C>,
}

impl<T, C> Page<T, C> {
    /// Makes a page that is continued at `next`.
    pub(crate) fn new(items: Vec<T>, next: Option<C>) -> Self {
        Self { items, next }
    }

    /// Cuts rows to `limit`. The caller has read one row more, which shows whether there is a next page.
    pub(super) fn cut(mut rows: Vec<T>, limit: u32) -> Self
    where
        T: Row<C>,
    {
        let limit = limit as usize;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| has_more).map(Row::cursor);
        Self { items: rows, next }
    }
}

/// A row of a list whose cursors are `C`.
pub(crate) trait Row<C> {
    /// Returns the cursor of the page that begins after this row.
    fn cursor(&self) -> C;
}

impl Row<CouponId> for &CouponView {
    fn cursor(&self) -> CouponId {
        self.coupon.id
    }
}

impl Row<Sequence> for UsedIssuance {
    fn cursor(&self) -> Sequence {
        self.issuance.id.sequence
    }
}

impl Row<UserCursor> for UsedIssuance {
    fn cursor(&self) -> UserCursor {
        UserCursor {
            issued_at: self.issuance.issued_at,
            id: self.issuance.id,
        }
    }
}

impl Row<UseNumber> for Use {
    fn cursor(&self) -> UseNumber {
        self.number
    }
}

impl Row<ChangeCursor> for ChangeRow {
    fn cursor(&self) -> ChangeCursor {
        ChangeCursor(self.version)
    }
}

/// A place in a list. A cursor is encoded for clients, so that they do not construct cursors themselves.
pub(crate) trait Cursor: Sized {
    /// Prefix of all cursors of this list, so that no list accepts a cursor of another list.
    const LIST: &'static str;

    /// Returns the place as text.
    fn write(&self) -> String;

    /// Parses what [`Self::write`] wrote.
    fn read(text: &str) -> Option<Self>;

    /// Returns the cursor as clients get it.
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}{}", Self::LIST, self.write()))
    }

    /// Parses a client's cursor.
    fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        Self::read(std::str::from_utf8(&bytes).ok()?.strip_prefix(Self::LIST)?)
    }
}

/// Coupons, by descending id.
impl Cursor for CouponId {
    const LIST: &'static str = "coupons:";

    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }
}

/// Issuances of a coupon, by ascending sequence.
impl Cursor for Sequence {
    const LIST: &'static str = "issuances:";

    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Option<Self> {
        whole_number(text).map(Self::new)
    }
}

/// Uses of an issuance, oldest first.
impl Cursor for UseNumber {
    const LIST: &'static str = "uses:";

    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Option<Self> {
        whole_number(text).map(Self::new)
    }
}

/// A place in a coupon's changes, which are in the order of versions: after this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChangeCursor(pub(crate) u64);

impl Cursor for ChangeCursor {
    const LIST: &'static str = "changes:";

    fn write(&self) -> String {
        self.0.to_string()
    }

    fn read(text: &str) -> Option<Self> {
        whole_number(text).map(Self)
    }
}

/// Issuances of a user, newest first.
impl Cursor for UserCursor {
    const LIST: &'static str = "mine:";

    fn write(&self) -> String {
        format!("{}:{}", self.issued_at.as_micros(), self.id)
    }

    fn read(text: &str) -> Option<Self> {
        let (micros, id) = text.split_once(':')?;
        Some(Self {
            issued_at: Timestamp::from_micros(micros.parse().ok()?)?,
            id: IssuanceId::parse(id).ok()?,
        })
    }
}

/// Parses a number that consists of digits only, up to the largest number that every JSON client reads
/// exactly.
pub(crate) fn whole_number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|number| digits && *number <= actors::ids::ID_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Row<Sequence> for u64 {
        fn cursor(&self) -> Sequence {
            Sequence::new(*self)
        }
    }

    #[test]
    fn a_cursor_is_accepted_by_its_own_list_only() {
        let page = Page::cut(vec![1_u64, 2, 3], 2);
        assert_eq!(page.items, [1, 2]);
        let text: String = page.next.map(|next: Sequence| next.encode()).unwrap();
        assert_eq!(Sequence::decode(&text), Some(Sequence::new(2)));
        assert!(CouponId::decode(&text).is_none() && UserCursor::decode(&text).is_none());
        assert!(Sequence::decode("2").is_none());
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let page = Page::<u64, Sequence>::cut(vec![1, 2], 2);
        assert_eq!((page.items, page.next), (vec![1, 2], None));
    }

    #[test]
    fn a_user_cursor_is_the_same_after_encoding_and_decoding() {
        let cursor = UserCursor {
            issued_at: Timestamp::from_micros(-5).unwrap(),
            id: IssuanceId::parse("42-17").unwrap(),
        };
        assert_eq!(UserCursor::decode(&cursor.encode()), Some(cursor));
    }
}
