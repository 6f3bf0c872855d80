//! Lists in the API: `limit` and `cursor` of the request, `items` and `next_cursor` of the response.

use http::StatusCode;
use serde::Serialize;
use warp::reply::Response;

use crate::http::json::{self, JsonText};
use crate::http::query::Query;
use crate::service::list::{Cursor, LIMIT_DEFAULT, LIMIT_MAX, PAGE_BYTES_MAX, Page, Row, whole_number};

/// Returns the response with a page; `item` makes the body of each item. Items beyond [`PAGE_BYTES_MAX`] are
/// left to the next page.
pub(super) fn response<'a, R: Row<C>, C: Cursor, T: Serialize>(
    page: &'a Page<R, C>,
    item: impl Fn(&'a R) -> T,
) -> Response {
    let written = text(page, item, PAGE_BYTES_MAX);
    json::response_of_text("application/json", StatusCode::OK, written)
}

/// Writes a page item by item, so that no more than one item is written in vain.
fn text<'a, R: Row<C>, C: Cursor, T: Serialize>(
    page: &'a Page<R, C>,
    item: impl Fn(&'a R) -> T,
    bytes_max: usize,
) -> serde_json::Result<JsonText> {
    let mut text = json::new_text();
    text.extend_from_slice(br#"{"items":["#);
    let mut next = page.next.as_ref().map(Cursor::encode);
    let mut last: Option<&R> = None;
    for row in &page.items {
        let end = text.len();
        if last.is_some() {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, &item(row))?;
        if let Some(last) = last.filter(|_| text.len() > bytes_max) {
            text.truncate(end);
            next = Some(last.cursor().encode());
            break;
        }
        last = Some(row);
    }
    text.extend_from_slice(br#"],"next_cursor":"#);
    serde_json::to_writer(&mut text, &next)?;
    text.push(b'}');
    Ok(text)
}

/// What the value of a parameter must be that [`whole_number`] parses.
pub(super) const WHOLE_NUMBER: &str = "must be a whole number from 0 to 2^53 - 1";

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
    use crate::http::problem::RequestError;
    use actors::coupon::ids::{CouponId, Sequence};

    fn read<T>(text: &str, read: impl FnOnce(&mut Query) -> T) -> Result<T, RequestError> {
        Query::read(text, &[], read)
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

    /// Returns the page that has these items of three digits, as it is written within so many bytes.
    fn written(items: Vec<u64>, bytes_max: usize) -> (Vec<u64>, Option<Sequence>) {
        let next = Some(Sequence::new(999));
        let text = text(&Page::new(items, next), |item: &u64| *item, bytes_max).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let items = body["items"].as_array().unwrap().iter();
        let cursor = body["next_cursor"].as_str().and_then(Sequence::decode);
        (items.map(|item| item.as_u64().unwrap()).collect(), cursor)
    }

    #[test]
    fn a_page_ends_before_the_item_that_does_not_fit_and_has_at_least_one() {
        let begin = br#"{"items":["#.len();
        for (bytes_max, items, next) in [
            (begin + 11, vec![101, 102, 103], 999),
            (begin + 10, vec![101, 102], 102),
            (begin + 7, vec![101, 102], 102),
            (begin + 6, vec![101], 101),
            (0, vec![101], 101),
        ] {
            let written = written(vec![101, 102, 103], bytes_max);
            assert_eq!(written, (items, Some(Sequence::new(next))), "{bytes_max}");
        }
        assert_eq!(written(Vec::new(), 0), (Vec::new(), Some(Sequence::new(999))));
    }

    #[test]
    fn a_query_accepts_cursors_of_its_own_list() {
        let next = format!("cursor={}", Sequence::new(2).encode());
        assert_eq!(read(&next, cursor).unwrap(), Some(Sequence::new(2)));
        assert!(read(&next, cursor::<CouponId>).is_err());
        assert!(read("cursor=2", cursor::<Sequence>).is_err());
    }
}
