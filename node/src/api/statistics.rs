//! `GET /v1/coupons/{id}/statistics`: how often something happened, in all and by time.

use actors::coupon::rows::StatisticsCounts;
use actors::ids::ID_MAX;
use actors::time::Timestamp;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::coupons::coupon_id;
use super::{Answer, principal};
use crate::http::call::Call;
use crate::http::json::{self, Text};
use crate::http::problem::RequestError;
use crate::service::Service;
use crate::service::engine::StatisticsQuery;
use crate::service::statistics::CouponStatistics;

/// The longest bucket, in seconds: a day.
const BUCKET_SECONDS_MAX: u32 = 86_400;

/// Statistics of a coupon as the API writes them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Statistics)]
pub(super) struct StatisticsBody {
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_usize)]
    coupon_id: u64,
    /// The length of each bucket. Buckets begin at multiples of it since 1970 in UTC.
    #[schema(minimum = 1, maximum = 86_400)]
    bucket_seconds: u32,
    /// Only what happened then or later is counted.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    from: Option<Text<Timestamp>>,
    /// Only what happened before is counted.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    to: Option<Text<Timestamp>>,
    /// The moment that all figures show, at most 5 s ago.
    #[schema(value_type = String, format = DateTime)]
    as_of: Text<Timestamp>,
    total: TallyBody,
    /// By time; buckets in which nothing happened are left out. Of more than 1,000, the newest 1,000.
    #[schema(max_items = 1000)]
    buckets: Vec<TallyBody>,
    /// If earlier buckets are left out: a request with this `to` has them. Else null.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    next_to: Option<Text<Timestamp>>,
}

/// How often something happened. A use counts even if another one followed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tally)]
pub(super) struct TallyBody {
    /// When the bucket begins; absent in the total.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = String, format = DateTime)]
    at: Option<Text<Timestamp>>,
    /// Issuances.
    #[schema(minimum = 0)]
    issued: u64,
    /// Reservations, without redemptions that reserve and redeem at once.
    #[schema(minimum = 0)]
    reserved: u64,
    /// Redemptions.
    #[schema(minimum = 0)]
    redeemed: u64,
    /// Reservations that were given back, without holds that lapsed.
    #[schema(minimum = 0)]
    released: u64,
    /// Redemptions that were given back.
    #[schema(minimum = 0)]
    refunded: u64,
    /// Revocations.
    #[schema(minimum = 0)]
    revoked: u64,
    /// The sum of the discounts of the redemptions, also of those that were refunded later.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_usize)]
    discount_given: u64,
    /// The sum of the discounts of the refunds.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_usize)]
    discount_refunded: u64,
}

impl From<StatisticsCounts> for TallyBody {
    fn from(counts: StatisticsCounts) -> Self {
        // Clients read numbers up to this one exactly.
        let amount = |sum: u128| u64::try_from(sum).unwrap_or(ID_MAX).min(ID_MAX);
        Self {
            at: None,
            issued: counts.issued,
            reserved: counts.reserved,
            redeemed: counts.redeemed,
            released: counts.released,
            refunded: counts.refunded,
            revoked: counts.revoked,
            discount_given: amount(counts.discount_given),
            discount_refunded: amount(counts.discount_refunded),
        }
    }
}

impl StatisticsBody {
    fn new(query: &StatisticsQuery, bucket_seconds: u32, computed: &CouponStatistics) -> Self {
        let CouponStatistics { statistics, as_of } = computed;
        let begin = |bucket: i64| Timestamp::from_micros(bucket.saturating_mul(query.bucket_micros));
        let buckets = statistics.buckets.iter().filter_map(|(bucket, counts)| {
            Some(TallyBody {
                at: Some(Text(begin(*bucket)?)),
                ..TallyBody::from(*counts)
            })
        });
        Self {
            coupon_id: query.coupon.get(),
            bucket_seconds,
            from: query.from.map(Text),
            to: query.to.map(Text),
            as_of: Text(*as_of),
            total: statistics.total().into(),
            buckets: buckets.collect(),
            next_to: statistics.first_after_dropped().and_then(begin).map(Text),
        }
    }
}

/// Parses the length of a bucket: a number of seconds, minutes, hours or days.
fn bucket(text: &str) -> Option<u32> {
    let seconds = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = number.parse().ok().filter(|_| is_number)?;
    let length = number.checked_mul(seconds)?;
    (1..=BUCKET_SECONDS_MAX).contains(&length).then_some(length)
}

/// `GET /v1/coupons/{id}/statistics`
pub(super) async fn read(service: &Service, call: &Call) -> Answer {
    principal(service, call)?.require_reader()?;
    let coupon = coupon_id(call.parameter())?;
    let (bucket_seconds, from, to) = call.query(|query| {
        let bucket = query.get("bucket", "must be from 1s to 1d, like 30s, 5m or 1h", bucket);
        let mut time = |name| query.get(name, "must be a time of RFC 3339", Timestamp::parse);
        (bucket.unwrap_or(BUCKET_SECONDS_MAX), time("from"), time("to"))
    })?;
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err(RequestError::invalid("to", "must be after from").into());
    }
    let query = StatisticsQuery {
        coupon,
        bucket_micros: i64::from(bucket_seconds) * 1_000_000,
        from,
        to,
    };
    let computed = service.statistics(call.head.client, query).await?;
    let body = StatisticsBody::new(&query, bucket_seconds, &computed);
    Ok(json::response(StatusCode::OK, &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_bucket_is_from_a_second_to_a_day() {
        let long = [
            ("1s", 1),
            ("90s", 90),
            ("86400s", 86_400),
            ("5m", 300),
            ("24h", 86_400),
            ("1d", 86_400),
        ];
        for (text, seconds) in long {
            assert_eq!(bucket(text), Some(seconds), "{text}");
        }
        let wrong = [
            "", "s", "1", "0s", "86401s", "25h", "2d", "1w", "-1s", "+1s", "1.5h", "1 s", "1S", "1ß",
        ];
        for text in wrong
            .into_iter()
            .chain(["4294967296s", "99999999999999999999d", "71582789m"])
        {
            assert_eq!(bucket(text), None, "{text}");
        }
    }
}
