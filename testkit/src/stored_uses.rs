//! Uses as the tables of SQLite, MySQL or MariaDB hold them, read without the service.

use sqlx::mysql::MySqlConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::ids::{CouponId, IssuanceId, OrderId, Sequence};
use crate::rows::{OrderFigures, ShownUse, UseCounts, UseKind, UseRow};
use crate::time::Timestamp;

/// The reason why uses cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The database did not answer.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// A row holds a value that no use has.
    #[error("use {0}: a value that no use has")]
    Value(i64),
}

/// The columns of a use, in the order of their fields in [`Columns`].
const COLUMNS: &str = "use_sequence, sequence, kind, order_id, order_amount, discount, hold_until, used_at, \
                       reserved, redeemed, revoked, returned";

/// The values of a row; the last one is 1 if the use gave an issuance back to the quantity.
type Columns = (
    i64,
    i64,
    String,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    i64,
    i64,
    i64,
    i64,
    i64,
    i64,
);

/// Returns all uses of a coupon by number, with the counts that each row has. The URL begins with `sqlite:`
/// or `mysql:`.
pub async fn read(url: &str, coupon: CouponId) -> Result<Vec<UseRow>, StoredError> {
    let id = i64::try_from(coupon.get()).unwrap_or(i64::MAX);
    let (is_file, returns) = match url.starts_with("sqlite:") {
        true => (true, "returns"),
        false => (false, "CAST(returns AS SIGNED)"),
    };
    let sql = format!("SELECT {COLUMNS}, {returns} FROM uses WHERE coupon_id = ? ORDER BY use_sequence");
    let sql = sqlx::AssertSqlSafe(sql);
    let rows: Vec<Columns> = if is_file {
        let options: SqliteConnectOptions = url.parse()?;
        let mut connection = options.read_only(true).connect().await?;
        let rows = sqlx::query_as(sql).bind(id).fetch_all(&mut connection).await?;
        connection.close().await?;
        rows
    } else {
        let options: MySqlConnectOptions = url.parse()?;
        let mut connection = options.connect().await?;
        let rows = sqlx::query_as(sql).bind(id).fetch_all(&mut connection).await?;
        connection.close().await?;
        rows
    };
    let read = |row| {
        let number = row_number(&row);
        use_row(coupon, row).ok_or(StoredError::Value(number))
    };
    rows.into_iter().map(read).collect()
}

fn row_number(row: &Columns) -> i64 {
    row.0
}

fn use_row(coupon: CouponId, row: Columns) -> Option<UseRow> {
    let (
        number,
        sequence,
        kind,
        order,
        amount,
        discount,
        hold,
        at,
        reserved,
        redeemed,
        revoked,
        returned,
        returns,
    ) = row;
    let whole = |number: i64| u64::try_from(number).ok();
    let figures = match (amount, discount) {
        (Some(amount), Some(discount)) => Some(OrderFigures {
            amount: whole(amount)?,
            discount: whole(discount)?,
        }),
        (None, None) => None,
        _ => return None,
    };
    let order = match order {
        Some(order) => Some(OrderId::parse(&order).ok()?),
        None => None,
    };
    let hold_until = match hold {
        Some(hold) => Some(Timestamp::from_micros(hold)?),
        None => None,
    };
    Some(UseRow {
        issuance: IssuanceId {
            coupon,
            sequence: Sequence::new(whole(sequence)?),
        },
        number: whole(number)?,
        shown: ShownUse {
            kind: UseKind::parse(&kind)?,
            order,
            figures,
            hold_until,
            at: Timestamp::from_micros(at)?,
        },
        returns: returns == 1,
        counts: Some(UseCounts {
            reserved: whole(reserved)?,
            redeemed: whole(redeemed)?,
            revoked: whole(revoked)?,
            returned: whole(returned)?,
        }),
    })
}
