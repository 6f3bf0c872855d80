//! Lines of CSV (RFC 4180).
//!
//! A spreadsheet runs a cell that begins with `=`, `+`, `-` or `@`, also after a tab or a carriage return.
//! User ids and the ids of orders may begin so. Such a cell gets an apostrophe in front, and so does a cell
//! that begins with an apostrophe. So a reader gets every value by removing one apostrophe from the beginning
//! of its cell.

use std::fmt::Display;
use std::io::Write;

use crate::api::issuances::IssuanceBody;

/// The names of the cells, in order.
pub(super) const HEADER: &str = "id,code,coupon_id,sequence,user_id,status,state,issued_at,expires_at,use_kind,\
                                 use_order_id,use_order_amount,use_discount,use_hold_until,use_at\r\n";

/// Appends the line of an issuance.
pub(super) fn write(text: &mut Vec<u8>, issuance: &IssuanceBody<'_>) {
    plain(text, &issuance.id.0);
    next(text, Some(&issuance.code.0));
    next(text, Some(&issuance.coupon_id));
    next(text, Some(&issuance.sequence));
    text.push(b',');
    cell(text, issuance.user_id);
    next(text, Some(&issuance.status));
    next(text, Some(&issuance.state));
    next(text, Some(&issuance.issued_at.0));
    next(text, issuance.expires_at.as_ref().map(|at| &at.0));
    let latest = issuance.latest_use.as_ref();
    next(text, latest.map(|latest| &latest.kind));
    text.push(b',');
    if let Some(order) = latest.and_then(|latest| latest.order_id) {
        cell(text, order);
    }
    next(text, latest.and_then(|latest| latest.order_amount.as_ref()));
    next(text, latest.and_then(|latest| latest.discount.as_ref()));
    let hold = latest.and_then(|latest| latest.hold_until.as_ref());
    next(text, hold.map(|at| &at.0));
    next(text, latest.map(|latest| &latest.at.0));
    text.extend_from_slice(b"\r\n");
}

/// Appends a cell after another one; an empty one if there is no value.
fn next(text: &mut Vec<u8>, value: Option<impl Display>) {
    text.push(b',');
    if let Some(value) = value {
        plain(text, &value);
    }
}

/// Appends a number, a time or a word of ours, which need no quotes.
fn plain(text: &mut Vec<u8>, value: &dyn Display) {
    // Writing to memory does not fail.
    let _ = write!(text, "{value}");
}

/// Appends a cell with a text that a client has chosen.
fn cell(text: &mut Vec<u8>, value: &str) {
    let would_run = value.starts_with(['=', '+', '-', '@', '\t', '\r', '\'']);
    // Some spreadsheets divide a line at semicolons and tabs too, but not within quotes.
    let needs_quotes = value.contains([',', ';', '\t', '"', '\r', '\n']);
    let quote: &[u8] = if needs_quotes { b"\"" } else { b"" };
    text.extend_from_slice(quote);
    if would_run {
        text.push(b'\'');
    }
    for byte in value.bytes() {
        if byte == b'"' {
            text.push(byte);
        }
        text.push(byte);
    }
    text.extend_from_slice(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_quoted_as_rfc_4180_has_it_and_does_not_run() {
        for (value, expected) in [
            ("alice", "alice"),
            ("auth0|507f", "auth0|507f"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\r\nlines", "\"two\r\nlines\""),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("a;=1+1", "\"a;=1+1\""),
            ("\t=1", "\"'\t=1\""),
            ("\r=1", "\"'\r=1\""),
            ("'quoted", "''quoted"),
            ("=HYPERLINK(\"x\",\"y\")", "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\""),
            ("a=1", "a=1"),
            ("", ""),
        ] {
            let mut text = Vec::new();
            cell(&mut text, value);
            assert_eq!(String::from_utf8(text).unwrap(), expected, "{value:?}");
        }
    }
}
