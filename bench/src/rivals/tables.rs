//! The tables of the rivals, and the statements that several of them use.
//!
//! The key on user and coupon keeps the limit of one for each user. A second key on coupon and sequence is
//! there if the rival gives each sequence once; a way that does not could store nothing with that key.

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection};
use testkit::ids::{CouponId, IssuanceId, Sequence, UserId};
use testkit::rows::{CouponRow, IssuanceRow, Rows, Status, Terms};
use testkit::time::Timestamp;

use super::database::is_duplicate;
use super::rival::{Failure, Issuance, IssueRequest, Outcome};

/// How issuances are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// A row for each issuance, with a key on coupon and sequence.
    BySequence,
    /// A row for each issuance, with a number of its own, so that a sequence may be stored twice.
    ByRow,
    /// A row for each issuance that is possible, made with the coupon.
    Places,
}

const COUPONS: &str = "CREATE TABLE IF NOT EXISTS coupons (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    title VARCHAR(200) NOT NULL,
    total_quantity BIGINT,
    issued BIGINT NOT NULL DEFAULT 0,
    version BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4";

impl Layout {
    const fn issuances(self) -> &'static str {
        match self {
            Self::BySequence => {
                "CREATE TABLE IF NOT EXISTS issuances (
                    coupon_id BIGINT NOT NULL,
                    sequence BIGINT NOT NULL,
                    user_id VARCHAR(128) NOT NULL,
                    request_key VARCHAR(255) NOT NULL,
                    issued_at BIGINT NOT NULL,
                    PRIMARY KEY (coupon_id, sequence),
                    UNIQUE KEY by_user (user_id, coupon_id)
                ) ENGINE = InnoDB DEFAULT CHARACTER SET ascii COLLATE ascii_bin"
            }
            Self::ByRow => {
                "CREATE TABLE IF NOT EXISTS issuances (
                    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
                    coupon_id BIGINT NOT NULL,
                    sequence BIGINT NOT NULL,
                    user_id VARCHAR(128) NOT NULL,
                    request_key VARCHAR(255) NOT NULL,
                    issued_at BIGINT NOT NULL,
                    UNIQUE KEY by_user (user_id, coupon_id)
                ) ENGINE = InnoDB DEFAULT CHARACTER SET ascii COLLATE ascii_bin"
            }
            // Free places are the rows without a user, which come first in the key, by sequence.
            Self::Places => {
                "CREATE TABLE IF NOT EXISTS issuances (
                    coupon_id BIGINT NOT NULL,
                    sequence BIGINT NOT NULL,
                    user_id VARCHAR(128),
                    request_key VARCHAR(255),
                    issued_at BIGINT,
                    PRIMARY KEY (coupon_id, sequence),
                    UNIQUE KEY by_user (coupon_id, user_id)
                ) ENGINE = InnoDB DEFAULT CHARACTER SET ascii COLLATE ascii_bin"
            }
        }
    }

    /// Makes the tables, if they are not there.
    pub(super) async fn make(self, connection: &mut MySqlConnection) -> Result<(), Failure> {
        sqlx::raw_sql(COUPONS).execute(&mut *connection).await?;
        sqlx::raw_sql(self.issuances()).execute(connection).await?;
        Ok(())
    }
}

/// Stores a new coupon.
pub(super) async fn make_coupon(
    connection: &mut MySqlConnection,
    title: &str,
    total_quantity: Option<u64>,
) -> Result<CouponRow, Failure> {
    let created_at = Timestamp::now();
    let made = sqlx::query("INSERT INTO coupons (title, total_quantity, created_at) VALUES (?, ?, ?)")
        .bind(title)
        .bind(total_quantity)
        .bind(created_at.as_micros())
        .execute(connection)
        .await?;
    coupon_row(made.last_insert_id(), total_quantity, 0, created_at.as_micros())
}

/// What is stored of a coupon, as one user's request sees it.
#[derive(Debug)]
pub(super) struct CouponState {
    pub(super) total_quantity: Option<u64>,
    pub(super) issued: u64,
    pub(super) version: u64,
    /// The user's issuance.
    pub(super) existing: Option<Issuance>,
}

impl CouponState {
    /// Returns the refusal that follows, if any.
    pub(super) fn refusal(&mut self) -> Option<Outcome> {
        if let Some(existing) = self.existing.take() {
            return Some(Outcome::Exists(existing));
        }
        self.total_quantity
            .filter(|total_quantity| self.issued >= *total_quantity)
            .map(|total_quantity| Outcome::SoldOut { total_quantity })
    }
}

type StateColumns = (Option<i64>, i64, i64, Option<i64>, Option<String>, Option<i64>);

/// Reads a coupon and the user's issuance, without a lock.
pub(super) async fn look(
    connection: &mut MySqlConnection,
    request: &IssueRequest,
) -> Result<Option<CouponState>, Failure> {
    let found: Option<StateColumns> = sqlx::query_as(
        "SELECT c.total_quantity, c.issued, c.version, i.sequence, i.request_key, i.issued_at \
         FROM coupons c LEFT JOIN issuances i ON i.user_id = ? AND i.coupon_id = c.id WHERE c.id = ?",
    )
    .bind(request.user.as_str())
    .bind(request.coupon.get())
    .fetch_optional(connection)
    .await?;
    let Some((total_quantity, issued, version, sequence, key, issued_at)) = found else {
        return Ok(None);
    };
    let existing = match (sequence, key, issued_at) {
        (Some(sequence), Some(key), Some(issued_at)) => {
            let row = issuance_row(request.coupon, number(sequence)?, request.user.clone(), issued_at)?;
            Some(Issuance { row, key })
        }
        _ => None,
    };
    Ok(Some(CouponState {
        total_quantity: total_quantity.map(number).transpose()?,
        issued: number(issued)?,
        version: number(version)?,
        existing,
    }))
}

/// Reads without a lock whether a request must be refused. Most requests for a coupon that is sold out end
/// here, so that they do not wait for the lock of the coupon.
pub(super) async fn refusal(
    connection: &mut MySqlConnection,
    request: &IssueRequest,
) -> Result<Result<CouponState, Outcome>, Failure> {
    Ok(match look(connection, request).await? {
        None => Err(Outcome::UnknownCoupon),
        Some(mut state) => match state.refusal() {
            Some(refused) => Err(refused),
            None => Ok(state),
        },
    })
}

/// Stores an issuance; `None` if the user has one already.
pub(super) async fn store(
    connection: &mut MySqlConnection,
    request: &IssueRequest,
    sequence: u64,
) -> Result<Option<IssuanceRow>, Failure> {
    let issued_at = Timestamp::now();
    let stored = sqlx::query(
        "INSERT INTO issuances (coupon_id, sequence, user_id, request_key, issued_at) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(request.coupon.get())
    .bind(sequence)
    .bind(request.user.as_str())
    .bind(request.key.as_str())
    .bind(issued_at.as_micros())
    .execute(connection)
    .await;
    match stored {
        Ok(_) => issuance_row(
            request.coupon,
            sequence,
            request.user.clone(),
            issued_at.as_micros(),
        )
        .map(Some),
        Err(error) if is_duplicate(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes how many are issued, as a program does that has read the number before.
pub(super) async fn write_issued(
    connection: &mut MySqlConnection,
    coupon: CouponId,
    issued: u64,
) -> Result<(), Failure> {
    sqlx::query("UPDATE coupons SET issued = ? WHERE id = ?")
        .bind(issued)
        .bind(coupon.get())
        .execute(connection)
        .await?;
    Ok(())
}

/// Returns the answer to a request whose user has got the coupon meanwhile by another request. A key that is
/// taken by another user's row means that a sequence was given twice, which no exact rival does.
pub(super) async fn existing(
    connection: &mut MySqlConnection,
    request: &IssueRequest,
) -> Result<Outcome, Failure> {
    match look(connection, request).await?.and_then(|state| state.existing) {
        Some(existing) => Ok(Outcome::Exists(existing)),
        None => Err(Failure::Overloaded("the sequence is taken")),
    }
}

/// Issues in one transaction that reads, decides, and then writes what it decided. It takes no lock before it
/// reads, so it is exact only while no other one runs for the same coupon.
pub(super) async fn read_and_write(
    connection: &mut MySqlConnection,
    request: &IssueRequest,
) -> Result<Outcome, Failure> {
    let mut transaction = connection.begin().await?;
    let state = match refusal(&mut transaction, request).await? {
        Ok(state) => state,
        Err(refused) => {
            transaction.rollback().await?;
            return Ok(refused);
        }
    };
    let sequence = state.issued + 1;
    let Some(row) = store(&mut transaction, request, sequence).await? else {
        transaction.rollback().await?;
        return existing(connection, request).await;
    };
    write_issued(&mut transaction, request.coupon, sequence).await?;
    transaction.commit().await?;
    Ok(Outcome::Issued(row))
}

/// Reads the final rows of these coupons.
pub(super) async fn stored(
    connection: &mut MySqlConnection,
    layout: Layout,
    coupons: &[CouponId],
) -> Result<Rows, Failure> {
    let mut rows = Rows::default();
    for coupon in coupons {
        let issuances: Vec<(i64, String, i64)> = sqlx::query_as(
            "SELECT sequence, user_id, issued_at FROM issuances WHERE coupon_id = ? AND user_id IS NOT NULL",
        )
        .bind(coupon.get())
        .fetch_all(&mut *connection)
        .await?;
        let found: Option<(Option<i64>, i64, i64)> =
            sqlx::query_as("SELECT total_quantity, issued, created_at FROM coupons WHERE id = ?")
                .bind(coupon.get())
                .fetch_optional(&mut *connection)
                .await?;
        if let Some((total_quantity, issued, created_at)) = found {
            // A coupon with places, or one that is counted elsewhere, has no counter that could be wrong.
            let issued = match (layout, issued) {
                (Layout::Places, _) | (Layout::BySequence, 0) => issuances.len() as u64,
                _ => number(issued)?,
            };
            let total_quantity = total_quantity.map(number).transpose()?;
            rows.coupons
                .push(coupon_row(coupon.get(), total_quantity, issued, created_at)?);
        }
        for (sequence, user, issued_at) in issuances {
            let user = UserId::parse(&user).map_err(|error| Failure::Unreadable(error.to_string()))?;
            rows.issuances
                .push(issuance_row(*coupon, number(sequence)?, user, issued_at)?);
        }
    }
    Ok(rows)
}

/// Returns how many issuances of the coupons from `first` to `last` are stored. Reads all of them.
pub(super) async fn count(
    connection: &mut MySqlConnection,
    first: CouponId,
    last: CouponId,
) -> sqlx::Result<u64> {
    // COUNT(user_id) does not count free places.
    let count: i64 =
        sqlx::query_scalar("SELECT COUNT(user_id) FROM issuances WHERE coupon_id BETWEEN ? AND ?")
            .bind(first.get())
            .bind(last.get())
            .fetch_one(connection)
            .await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Returns the highest stored sequence of a coupon, which is the count of its issuances if there is a key on
/// coupon and sequence. Reads one row.
pub(super) async fn highest(connection: &mut MySqlConnection, coupon: CouponId) -> sqlx::Result<u64> {
    let highest: Option<i64> = sqlx::query_scalar("SELECT MAX(sequence) FROM issuances WHERE coupon_id = ?")
        .bind(coupon.get())
        .fetch_one(connection)
        .await?;
    Ok(highest
        .and_then(|highest| u64::try_from(highest).ok())
        .unwrap_or(0))
}

/// Runs a statement that is not prepared.
pub(super) async fn run(connection: &mut MySqlConnection, statement: String) -> Result<(), Failure> {
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(connection)
        .await?;
    Ok(())
}

/// Makes a row as the checker and the answers show it.
pub(super) fn issuance_row(
    coupon: CouponId,
    sequence: u64,
    user: UserId,
    issued_at: i64,
) -> Result<IssuanceRow, Failure> {
    Ok(IssuanceRow {
        id: IssuanceId {
            coupon,
            sequence: Sequence::new(sequence),
        },
        user,
        issued_at: time(issued_at)?,
        expires_at: None,
    })
}

fn coupon_row(
    id: u64,
    total_quantity: Option<u64>,
    issued: u64,
    created_at: i64,
) -> Result<CouponRow, Failure> {
    Ok(CouponRow {
        id: CouponId::new(id).ok_or_else(|| Failure::Unreadable(format!("{id} is no coupon id")))?,
        terms: Terms {
            total_quantity,
            ..Terms::default()
        },
        per_user_limit: 1,
        status: Status::Open,
        version: 1,
        issued,
        created_at: time(created_at)?,
        uses: None,
        read_at: None,
    })
}

fn time(micros: i64) -> Result<Timestamp, Failure> {
    Timestamp::from_micros(micros).ok_or_else(|| Failure::Unreadable(format!("{micros} is no time")))
}

fn number(stored: i64) -> Result<u64, Failure> {
    u64::try_from(stored).map_err(|_| Failure::Unreadable(format!("{stored} is negative")))
}
