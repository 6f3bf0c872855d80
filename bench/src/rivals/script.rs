//! A script in Redis decides, and the answer follows at once: whether the user has the coupon, how many have
//! it, and then both the user and an entry of a queue. A consumer writes the queue to MySQL in batches.
//!
//! What an answer says is as safe as Redis keeps it (`appendfsync`). MySQL has it later; the keys of the
//! table make it harmless to write a batch twice, which happens if the process ends between a commit and the
//! removal of its entries.

mod consumer;

use async_trait::async_trait;
use redis::aio::ConnectionManager;
use redis::{AsyncCommands as _, Script};
use testkit::ids::CouponId;
use testkit::time::Timestamp;

use super::database::Database;
use super::redis_link;
use super::rival::{Failure, Issuance, IssueRequest, Outcome, Rival};
use super::tables::issuance_row;

/// The queue of all coupons.
const QUEUE: &str = "queue";

/// Decides a request. No text in it has a space.
///
/// Keys: the coupon's quantity, which is empty if there is no limit; its users with their issuances; the
/// queue. Arguments: the coupon, the user, the request's key, the time now.
const ISSUE: &str = r"
    local quantity = redis.call('GET', KEYS[1])
    if not quantity then return {'unknown', ''} end
    local existing = redis.call('HGET', KEYS[2], ARGV[2])
    if existing then return {'exists', existing} end
    local issued = redis.call('HLEN', KEYS[2])
    if quantity ~= '' and issued >= tonumber(quantity) then return {'sold out', quantity} end
    local issuance = string.format('%d', issued + 1) .. ' ' .. ARGV[4] .. ' ' .. ARGV[3]
    redis.call('HSET', KEYS[2], ARGV[2], issuance)
    redis.call('RPUSH', KEYS[3], ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. issuance)
    return {'issued', issuance}";

pub(super) struct ScriptAndQueue {
    redis: ConnectionManager,
    issue: Script,
}

impl ScriptAndQueue {
    /// Connects, and starts the consumer.
    pub(super) async fn new(database: Database, redis_url: &str) -> Result<Self, Failure> {
        let (_, redis) = redis_link::connect(redis_url).await?;
        let (_, of_consumer) = redis_link::connect(redis_url).await?;
        tokio::spawn(consumer::run(database, of_consumer));
        Ok(Self {
            redis,
            issue: Script::new(ISSUE),
        })
    }
}

#[async_trait]
impl Rival for ScriptAndQueue {
    async fn prepare(&self, coupon: CouponId, total_quantity: Option<u64>) -> Result<(), Failure> {
        let quantity = total_quantity.map(|quantity| quantity.to_string());
        let mut redis = self.redis.clone();
        let () = redis
            .set(quantity_key(coupon), quantity.unwrap_or_default())
            .await?;
        Ok(())
    }

    async fn issue(&self, request: &IssueRequest) -> Result<Outcome, Failure> {
        let coupon = request.coupon;
        let (decision, detail): (String, String) = self
            .issue
            .key(quantity_key(coupon))
            .key(format!("coupon:{coupon}:users"))
            .key(QUEUE)
            .arg(coupon.get())
            .arg(request.user.as_str())
            .arg(request.key.as_str())
            .arg(Timestamp::now().as_micros())
            .invoke_async(&mut self.redis.clone())
            .await?;
        match decision.as_str() {
            "issued" => Ok(Outcome::Issued(issuance(request, &detail)?.row)),
            "exists" => Ok(Outcome::Exists(issuance(request, &detail)?)),
            "sold out" => Ok(Outcome::SoldOut {
                total_quantity: detail.parse().map_err(|_| unreadable(&detail))?,
            }),
            "unknown" => Ok(Outcome::UnknownCoupon),
            _ => Err(unreadable(&decision)),
        }
    }
}

fn quantity_key(coupon: CouponId) -> String {
    format!("coupon:{coupon}")
}

/// Reads sequence, time and key.
fn issuance(request: &IssueRequest, text: &str) -> Result<Issuance, Failure> {
    let mut parts = text.splitn(3, ' ');
    let (Some(sequence), Some(issued_at), Some(key)) = (
        parts.next().and_then(|sequence| sequence.parse().ok()),
        parts.next().and_then(|issued_at| issued_at.parse().ok()),
        parts.next(),
    ) else {
        return Err(unreadable(text));
    };
    Ok(Issuance {
        row: issuance_row(request.coupon, sequence, request.user.clone(), issued_at)?,
        key: key.to_owned(),
    })
}

fn unreadable(text: &str) -> Failure {
    Failure::Unreadable(format!("{text:?} is no answer of the script"))
}
