//! Lists: what a query asks for, and where the next page begins.

use actors::ids::{CouponId, IssuanceId, Sequence};
use actors::store::UserCursor;
use actors::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::call::Head;
use super::json::Page;
use super::problem::Problem;

/// Items on a page if nobody says.
const LIMIT_DEFAULT: u32 = 50;
/// Most items on a page: what is quickly read and written.
pub(crate) const LIMIT_MAX: u32 = 200;

/// The query of a request, decoded. Names that we do not know are let pass: proxies and browsers add some.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// The query of this request.
    pub(crate) fn of(head: &Head) -> Self {
        Self(
            form_urlencoded::parse(head.query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// A parameter, read by `parse`; `message` says what it must be.
    pub(crate) fn get<T>(
        &self,
        name: &str,
        message: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let mut values = self.0.iter().filter(|(known, _)| known == name);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some((_, value)), None) => parse(value)
                .map(Some)
                .ok_or_else(|| Problem::invalid(name, message)),
            (Some(_), Some(_)) => Err(Problem::invalid(name, "must be there once")),
        }
    }

    /// How many items the page is to have.
    pub(crate) fn limit(&self) -> Result<u32, Problem> {
        let within = |text: &str| {
            whole_number(text)
                .and_then(|limit| u32::try_from(limit).ok())
                .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        };
        Ok(self
            .get("limit", "must be a whole number from 1 to 200", within)?
            .unwrap_or(LIMIT_DEFAULT))
    }

    /// Where the page begins.
    pub(crate) fn cursor<C: Cursor>(&self) -> Result<Option<C>, Problem> {
        self.get("cursor", "must be a next_cursor of this list", |text| {
            let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
            C::read(std::str::from_utf8(&bytes).ok()?.strip_prefix(C::LIST)?)
        })
    }
}

/// The page of `rows`, which were asked for with one more than `limit` to learn whether there are more.
pub(crate) fn page<'r, R, T, C: Cursor>(
    rows: &'r [R],
    limit: u32,
    cursor: impl FnOnce(&R) -> C,
    item: impl FnMut(&'r R) -> T,
) -> Page<T> {
    let limit = limit as usize;
    let shown = &rows[..rows.len().min(limit)];
    let last = shown.last().filter(|_| rows.len() > limit);
    Page {
        items: shown.iter().map(item).collect(),
        next_cursor: last.map(|last| cursor(last).lead_on()),
    }
}

/// A place in a list. Clients get it in a form that invites nobody to make one up.
pub(crate) trait Cursor: Sized {
    /// Begins every cursor of this list, so that none is taken for another's.
    const LIST: &'static str;

    /// The place as text.
    fn write(&self) -> String;

    /// The inverse of [`Self::write`].
    fn read(text: &str) -> Option<Self>;

    /// The place as clients get it.
    fn lead_on(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}{}", Self::LIST, self.write()))
    }
}

/// Coupons, by falling id.
impl Cursor for CouponId {
    const LIST: &'static str = "coupons:";

    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }
}

/// A coupon's issuances, by rising sequence.
impl Cursor for Sequence {
    const LIST: &'static str = "issuances:";

    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Option<Self> {
        whole_number(text).map(Self::new)
    }
}

/// A user's issuances, newest first.
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

/// Digits alone, at most what every JSON client reads exactly.
pub(crate) fn whole_number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|number| digits && *number <= actors::ids::ID_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Method};
    use std::net::Ipv4Addr;

    fn query(text: &str) -> Query {
        Query::of(&Head::new(
            Method::GET,
            text.to_owned(),
            HeaderMap::new(),
            Ipv4Addr::LOCALHOST.into(),
        ))
    }

    #[test]
    fn limits_are_within_bounds() {
        assert_eq!(query("").limit().unwrap(), 50);
        assert_eq!(query("limit=200&utm=x").limit().unwrap(), 200);
        for text in [
            "limit=0",
            "limit=201",
            "limit=-1",
            "limit=",
            "limit=ten",
            "limit=1&limit=2",
            "limit=99999999999",
        ] {
            assert!(matches!(query(text).limit(), Err(Problem::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn a_cursor_leads_on_in_its_own_list_only() {
        let rows: Vec<u64> = (1..=3).collect();
        let page = page(&rows, 2, |row| Sequence::new(*row), |row| *row);
        assert_eq!(page.items, [1, 2]);
        let next = query(&format!("cursor={}", page.next_cursor.unwrap()));
        assert_eq!(next.cursor::<Sequence>().unwrap(), Some(Sequence::new(2)));
        assert!(next.cursor::<CouponId>().is_err() && next.cursor::<UserCursor>().is_err());
        assert!(query("cursor=2").cursor::<Sequence>().is_err());
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let page = page(&[1_u64, 2], 2, |row| Sequence::new(*row), |row| *row);
        assert_eq!((page.items, page.next_cursor), (vec![1, 2], None));
    }

    #[test]
    fn a_users_cursor_keeps_time_and_place() {
        let cursor = UserCursor {
            issued_at: Timestamp::from_micros(-5).unwrap(),
            id: IssuanceId::parse("42-17").unwrap(),
        };
        assert_eq!(UserCursor::read(&cursor.write()), Some(cursor));
    }
}
