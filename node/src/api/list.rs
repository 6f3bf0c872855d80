//! Lists in the API: `limit` and `cursor` of the request, `items` and `next_cursor` of the response.

use serde::Serialize;

use crate::http::query::Query;
use crate::service::list::{Cursor, LIMIT_DEFAULT, LIMIT_MAX, Page, whole_number};

/// A page as the API writes it.
#[derive(Debug, Serialize)]
pub(super) struct PageBody<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

impl<T> PageBody<T> {
    /// Makes the body of a page; `item` makes the body of each item.
    pub(super) fn new<'a, R, C: Cursor>(page: &'a Page<R, C>, item: impl Fn(&'a R) -> T) -> Self {
        Self {
            items: page.items.iter().map(item).collect(),
            next_cursor: page.next.as_ref().map(Cursor::encode),
        }
    }
}

/// The number of items that the page may have.
pub(super) fn limit(query: &mut Query) -> u32 {
    let within = |text: &str| {
        whole_number(text)
            .and_then(|limit| u32::try_from(limit).ok())
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
    };
    query
        .get("limit", "must be a whole number from 1 to 200", within)
        .unwrap_or(LIMIT_DEFAULT)
}

/// Where the page begins.
pub(super) fn cursor<C: Cursor>(query: &mut Query) -> Option<C> {
    query.get("cursor", "must be a next_cursor of this list", C::decode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::Head;
    use crate::http::problem::RequestError;
    use actors::coupon::ids::{CouponId, Sequence};
    use http::{HeaderMap, Method};
    use std::net::Ipv4Addr;

    fn read<T>(text: &str, read: impl FnOnce(&mut Query) -> T) -> Result<T, RequestError> {
        let peer = Ipv4Addr::LOCALHOST.into();
        Query::read(
            &Head::new(Method::GET, text.to_owned(), HeaderMap::new(), peer),
            read,
        )
    }

    #[test]
    fn limits_are_within_bounds() {
        assert_eq!(read("", limit).unwrap(), 50);
        assert_eq!(read("limit=200", limit).unwrap(), 200);
        for text in [
            "limit=0",
            "limit=201",
            "limit=-1",
            "limit=",
            "limit=ten",
            "limit=99999999999",
        ] {
            assert!(
                matches!(read(text, limit), Err(RequestError::Invalid(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_query_accepts_cursors_of_its_own_list() {
        let next = format!("cursor={}", Sequence::new(2).encode());
        assert_eq!(read(&next, cursor).unwrap(), Some(Sequence::new(2)));
        assert!(read(&next, cursor::<CouponId>).is_err());
        assert!(read("cursor=2", cursor::<Sequence>).is_err());
    }
}
