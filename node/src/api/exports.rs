//! `/v1/coupons/{id}/issuances.csv` and `.ndjson`: all issuances of a coupon, by sequence.

mod csv;

use std::future::ready;

use actors::coupon::ids::Sequence;
use actors::coupon::uses::UsedIssuance;
use actors::time::{self, Timestamp};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::Method;
use http::header::CONTENT_DISPOSITION;

use super::coupons::coupon_id;
use super::issuances::IssuanceBody;
use super::list::WHOLE_NUMBER;
use super::{Answer, principal, set_header};
use crate::http::call::Call;
use crate::http::streamed::{self, BrokenOff};
use crate::service::Service;
use crate::service::codes::Codes;
use crate::service::exports::{Export, PORTION_ROWS};
use crate::service::list::whole_number;

/// Maximum length of a line.
const LINE_BYTES_MAX: usize = 1_280;

/// Maximum size of a portion: half a mebibyte, which fits into what one address may have of the least
/// `limits.unsent_bytes_max`.
const PORTION_BYTES_MAX: usize = PORTION_ROWS as usize * LINE_BYTES_MAX;

/// A format of exports.
#[derive(Debug, Clone, Copy)]
enum Format {
    /// RFC 4180, with a header line.
    Csv,
    /// A JSON object on each line.
    Ndjson,
}

impl Format {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// The end of the file's name.
    const fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    /// What comes before the first line.
    const fn header(self) -> &'static str {
        match self {
            Self::Csv => csv::HEADER,
            Self::Ndjson => "",
        }
    }

    /// Writes the lines of a portion.
    fn lines(self, portion: &[UsedIssuance], codes: &Codes, now: Timestamp) -> Result<Bytes, BrokenOff> {
        let mut text = Vec::with_capacity(portion.len() * LINE_BYTES_MAX / 4);
        for used in portion {
            let body = IssuanceBody::new(used, codes, now);
            match self {
                Self::Csv => csv::write(&mut text, &body),
                Self::Ndjson => {
                    // All bodies have string keys, so a failure would be a bug in a `Serialize`.
                    serde_json::to_writer(&mut text, &body).map_err(|_bug| BrokenOff)?;
                    text.push(b'\n');
                }
            }
        }
        Ok(text.into())
    }
}

/// `GET /v1/coupons/{id}/issuances.csv`
pub(super) async fn csv(service: &Service, call: &Call) -> Answer {
    export(service, call, Format::Csv).await
}

/// `GET /v1/coupons/{id}/issuances.ndjson`
pub(super) async fn ndjson(service: &Service, call: &Call) -> Answer {
    export(service, call, Format::Ndjson).await
}

async fn export(service: &Service, call: &Call, format: Format) -> Answer {
    principal(service, call)?.require_reader_or_service()?;
    let coupon = coupon_id(call.parameter())?;
    let after = call.query(|query| query.get("after_sequence", WHOLE_NUMBER, whole_number))?;
    let mut export = service.export(coupon, Sequence::new(after.unwrap_or(0))).await?;
    // The first portion is read before the response begins, so that a database that is away is answered as
    // usual. The response to HEAD has no body.
    let first = if call.head.method == Method::HEAD {
        None
    } else {
        export.next().await?
    };
    let mut response = streamed::response(
        &call.head,
        format.media_type(),
        PORTION_BYTES_MAX,
        stream::once(ready(Ok(Bytes::from_static(format.header().as_bytes())))).chain(lines(
            format,
            service.codes().clone(),
            export,
            first,
        )),
    );
    let extension = format.extension();
    set_header(
        &mut response,
        CONTENT_DISPOSITION,
        format_args!("attachment; filename=\"coupon-{coupon}-issuances.{extension}\""),
    );
    Ok(response)
}

/// Returns the lines of an export, of which the first portion is given.
fn lines(
    format: Format,
    codes: Codes,
    export: Export,
    first: Option<Vec<UsedIssuance>>,
) -> impl futures_util::Stream<Item = Result<Bytes, BrokenOff>> + Send + 'static {
    stream::try_unfold(
        (codes, export, first),
        move |(codes, mut export, first)| async move {
            let portion = match first {
                Some(first) => Some(first),
                // The failure has been logged.
                None => export.next().await.map_err(|_failed| BrokenOff)?,
            };
            match portion {
                Some(portion) => {
                    let lines = format.lines(&portion, &codes, time::timestamp())?;
                    Ok(Some((lines, (codes, export, None))))
                }
                None => Ok(None),
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use actors::coupon::ids::{CouponId, IssuanceId};
    use actors::coupon::offer::Issuance;
    use actors::coupon::uses::{Figures, LatestUse, UseKind};
    use actors::ids::{ID_MAX, OrderId, RequestKey, UserId};

    #[test]
    fn the_longest_line_is_within_its_bound() {
        let latest = Timestamp::parse("2999-12-31T23:59:59.999999Z").unwrap();
        let used = UsedIssuance {
            issuance: Issuance {
                id: IssuanceId {
                    coupon: CouponId::new(ID_MAX).unwrap(),
                    sequence: Sequence::new(ID_MAX),
                },
                user: UserId::parse(&"\"".repeat(128)).unwrap(),
                nth: 1,
                key: RequestKey::random(),
                issued_at: latest,
                expires_at: Some(latest),
            },
            latest: Some(LatestUse {
                kind: UseKind::Reserved,
                order: Some(OrderId::parse(&"\"".repeat(64)).unwrap()),
                figures: Some(Figures {
                    amount: ID_MAX,
                    discount: ID_MAX,
                }),
                hold_until: Some(latest),
                returns: false,
                at: latest,
            }),
        };
        for format in [Format::Csv, Format::Ndjson] {
            let line = format
                .lines(std::slice::from_ref(&used), &Codes::default(), latest)
                .unwrap();
            assert!(line.len() <= LINE_BYTES_MAX, "{format:?}: {}", line.len());
            // The bound is for such lines, and not many times as long.
            assert!(line.len() * 3 > LINE_BYTES_MAX, "{format:?}: {}", line.len());
        }
    }
}
