//! A row for each issuance that is possible, made with the coupon. A request takes a free row that no other
//! request has locked (`FOR UPDATE SKIP LOCKED`), so requests do not wait for each other. The price is that
//! places are not taken in the order of arrival: a place whose request is rolled back is taken later.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;
use testkit::ids::CouponId;
use testkit::rows::IssuanceRow;
use testkit::time::Timestamp;

use super::database::{Database, is_conflict, is_duplicate};
use super::rival::{Failure, Issuance, IssueRequest, Outcome, Rival};
use super::tables::{issuance_row, run};

/// Places of a coupon without a limit. A row must be there for each issuance, so this way knows no coupon
/// without a limit.
const PLACES: u64 = 100_000;
/// Places that one statement makes.
const CHUNK: u64 = 10_000;
/// Time before another attempt, if other requests hold all places that are left, or if the server rolled the
/// request back because of others.
const RETRY: Duration = Duration::from_millis(2);
/// How long a request is attempted.
const WAIT_LIMIT: Duration = Duration::from_secs(10);

pub(super) struct SkipLocked {
    database: Database,
    /// Coupons of which a request has found no free place. A hint to read first, which costs one round trip
    /// instead of a transaction; the answer is what is read.
    exhausted: Mutex<HashSet<CouponId>>,
}

impl SkipLocked {
    pub(super) fn new(database: Database) -> Self {
        Self {
            database,
            exhausted: Mutex::default(),
        }
    }

    fn exhausted(&self) -> MutexGuard<'_, HashSet<CouponId>> {
        self.exhausted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides a request; `None` if other requests hold all places that are left. They may give them up.
    async fn attempt(&self, request: &IssueRequest) -> Result<Option<Outcome>, Failure> {
        let mut connection = self.database.take().await?;
        let seems_sold_out = self.exhausted().contains(&request.coupon);
        let refused = match seems_sold_out {
            true => look(&mut connection, request).await?.refusal(),
            false => None,
        };
        let outcome = match refused {
            Some(refused) => Some(refused),
            None => match take_place(&mut connection, request).await? {
                Place::Taken(row) => Some(Outcome::Issued(row)),
                Place::Duplicate => Some(look(&mut connection, request).await?.existing()?),
                Place::NoneFree => {
                    self.exhausted().insert(request.coupon);
                    look(&mut connection, request).await?.refusal()
                }
            },
        };
        connection.keep();
        Ok(outcome)
    }
}

#[async_trait]
impl Rival for SkipLocked {
    async fn prepare(&self, coupon: CouponId, total_quantity: Option<u64>) -> Result<(), Failure> {
        let places = total_quantity.unwrap_or(PLACES);
        let mut connection = self.database.take().await?;
        for first in (1..=places).step_by(CHUNK as usize) {
            let last = (first + CHUNK - 1).min(places);
            let statement = format!(
                "INSERT /*+ SET_VAR(cte_max_recursion_depth = {CHUNK}) */ INTO issuances (coupon_id, sequence) \
                 WITH RECURSIVE places (sequence) AS \
                 (SELECT {first} UNION ALL SELECT sequence + 1 FROM places WHERE sequence < {last}) \
                 SELECT {coupon}, sequence FROM places"
            );
            run(&mut connection, statement).await?;
        }
        connection.keep();
        Ok(())
    }

    async fn issue(&self, request: &IssueRequest) -> Result<Outcome, Failure> {
        let begun = Instant::now();
        loop {
            match self.attempt(request).await {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => {}
                Err(Failure::Database(error)) if is_conflict(&error) => {}
                Err(failure) => return Err(failure),
            }
            if begun.elapsed() > WAIT_LIMIT {
                return Err(Failure::Overloaded(
                    "other requests held all places that are left",
                ));
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// What became of an attempt to take a place.
enum Place {
    Taken(IssuanceRow),
    /// Every place has a user or is locked.
    NoneFree,
    /// The user has a place.
    Duplicate,
}

/// Takes the first place that is free and not locked. With the primary key instead of the key by user, which
/// the server prefers as long as it has no statistics, each request would read all places that are taken.
async fn take_place(connection: &mut MySqlConnection, request: &IssueRequest) -> Result<Place, Failure> {
    let mut transaction = connection.begin().await?;
    let free: Option<i64> = sqlx::query_scalar(
        "SELECT sequence FROM issuances FORCE INDEX (by_user) WHERE coupon_id = ? AND user_id IS NULL \
         ORDER BY sequence LIMIT 1 FOR UPDATE SKIP LOCKED",
    )
    .bind(request.coupon.get())
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(free) = free else {
        transaction.rollback().await?;
        return Ok(Place::NoneFree);
    };
    let issued_at = Timestamp::now().as_micros();
    let written = sqlx::query(
        "UPDATE issuances SET user_id = ?, request_key = ?, issued_at = ? WHERE coupon_id = ? AND sequence = ?",
    )
    .bind(request.user.as_str())
    .bind(request.key.as_str())
    .bind(issued_at)
    .bind(request.coupon.get())
    .bind(free)
    .execute(&mut *transaction)
    .await;
    match written {
        Ok(_) => transaction.commit().await?,
        Err(error) if is_duplicate(&error) => {
            transaction.rollback().await?;
            return Ok(Place::Duplicate);
        }
        Err(error) => return Err(error.into()),
    }
    let row = issuance_row(
        request.coupon,
        free.unsigned_abs(),
        request.user.clone(),
        issued_at,
    )?;
    Ok(Place::Taken(row))
}

/// What is stored of a coupon, as one user's request sees it.
struct Places {
    /// The quantity; `None` if there is no such coupon.
    quantity: Option<u64>,
    existing: Option<Issuance>,
    has_free: bool,
}

impl Places {
    /// Returns the refusal that follows, if any. A place that is held and not committed is free.
    fn refusal(self) -> Option<Outcome> {
        match (self.existing, self.quantity) {
            (Some(existing), _) => Some(Outcome::Exists(existing)),
            (None, Some(total_quantity)) => (!self.has_free).then_some(Outcome::SoldOut { total_quantity }),
            (None, None) => Some(Outcome::UnknownCoupon),
        }
    }

    /// Returns the answer if the user has a place.
    fn existing(self) -> Result<Outcome, Failure> {
        self.existing
            .map(Outcome::Exists)
            .ok_or(Failure::Overloaded("the user's other request was rolled back"))
    }
}

type PlacesColumns = (Option<i64>, Option<i64>, Option<String>, Option<i64>, i64);

/// Reads a coupon, the user's place, and whether a place is free, without a lock.
async fn look(connection: &mut MySqlConnection, request: &IssueRequest) -> Result<Places, Failure> {
    let found: Option<PlacesColumns> = sqlx::query_as(
        "SELECT c.total_quantity, i.sequence, i.request_key, i.issued_at, \
         EXISTS (SELECT 1 FROM issuances f FORCE INDEX (by_user) WHERE f.coupon_id = c.id AND f.user_id IS NULL) \
         FROM coupons c LEFT JOIN issuances i ON i.coupon_id = c.id AND i.user_id = ? WHERE c.id = ?",
    )
    .bind(request.user.as_str())
    .bind(request.coupon.get())
    .fetch_optional(connection)
    .await?;
    let Some((total_quantity, sequence, key, issued_at, has_free)) = found else {
        return Ok(Places {
            quantity: None,
            existing: None,
            has_free: false,
        });
    };
    let existing = match (sequence, key, issued_at) {
        (Some(sequence), Some(key), Some(issued_at)) => {
            let user = request.user.clone();
            let row = issuance_row(request.coupon, sequence.unsigned_abs(), user, issued_at)?;
            Some(Issuance { row, key })
        }
        _ => None,
    };
    Ok(Places {
        quantity: Some(total_quantity.map_or(PLACES, i64::unsigned_abs)),
        existing,
        has_free: has_free != 0,
    })
}
