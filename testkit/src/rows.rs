//! The final rows, as the API returns them: coupons, issuances and uses, one JSON object a line, in any
//! order.
//!
//! A line with a `coupon_id` is an issuance, a line with an `issuance_id` is a use, any other line is a
//! coupon. Other fields are ignored.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::history::InputError;
use crate::ids::{CouponId, IssuanceId, UserId};
use crate::time::Timestamp;

mod discount;
mod uses;

pub use discount::Discount;
pub use uses::{OrderFigures, ShownUse, UseCounts, UseKind, UseRow, UsedIssuance};

/// What administrators allow for a coupon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The coupon may be issued.
    Open,
    /// The coupon is not issued until it is resumed.
    Paused,
    /// The coupon is never issued again.
    Closed,
}

impl Status {
    /// Reads the name of a status in JSON.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Open, Self::Paused, Self::Closed]
            .into_iter()
            .find(|status| status.as_str() == name)
    }

    /// Returns the name of the status in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Closed => "closed",
        }
    }
}

/// The parts of an offer that decide whether a coupon is issued, when it expires and what it takes off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// How many may be issued; `None` means no limit.
    pub total_quantity: Option<u64>,
    /// The first moment at which the coupon is issued.
    pub starts_at: Option<Timestamp>,
    /// The first moment at which the coupon is not issued any more.
    pub ends_at: Option<Timestamp>,
    /// Days from issuing to expiry.
    pub use_within_days: Option<u16>,
    /// The first moment at which the coupon cannot be used any more.
    pub use_until: Option<Timestamp>,
    /// The time zone in which days to expiry end at the end of the local day; without it they have 24 hours.
    pub time_zone: Option<SmolStr>,
    /// What it takes off an order.
    pub discount: Option<Discount>,
    /// The most that a rate takes off.
    pub max_discount: Option<u64>,
    /// The smallest order.
    pub min_order_amount: Option<u64>,
}

/// A coupon as an answer or the final rows show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponRow {
    /// The id.
    pub id: CouponId,
    /// The terms.
    pub terms: Terms,
    /// How many issuances one user may have; [`u32::MAX`] means no limit.
    pub per_user_limit: u32,
    /// What administrators allow.
    pub status: Status,
    /// Number of administrators' changes, from 1.
    pub version: u64,
    /// How many are issued, as the service says.
    pub issued: u64,
    /// Time of the creation, by the clock of the node that made the coupon.
    pub created_at: Timestamp,
    /// How many issuances are in each state, as the service says; `None` if that was not recorded.
    pub uses: Option<UseCounts>,
    /// Time at which the answer with `uses` had arrived, by the clock of the client; `None` if that was not
    /// recorded.
    pub read_at: Option<Timestamp>,
}

/// An issuance as an answer or the final rows show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuanceRow {
    /// The coupon, and the place in the coupon.
    pub id: IssuanceId,
    /// The user who has the issuance.
    pub user: UserId,
    /// Time of the decision, by the clock of the owner.
    pub issued_at: Timestamp,
    /// Time from which the issuance cannot be used.
    pub expires_at: Option<Timestamp>,
}

/// All rows that are stored in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// All coupons.
    pub coupons: Vec<CouponRow>,
    /// All issuances.
    pub issuances: Vec<IssuanceRow>,
    /// All uses.
    pub uses: Vec<UseRow>,
}

impl Rows {
    /// Reads a rows file.
    pub fn read(input: impl BufRead) -> Result<Self, InputError> {
        let mut rows = Self::default();
        for (number, line) in (1..).zip(input.lines()) {
            let line = line.map_err(|error| InputError::new(number, error))?;
            let row: RowLine = serde_json::from_str(&line).map_err(|error| InputError::new(number, error))?;
            let read = match row {
                RowLine {
                    coupon_id: Some(_), ..
                } => serde_json::from_str(&line).map(|issuance| rows.issuances.push(issuance)),
                RowLine {
                    issuance_id: Some(_), ..
                } => serde_json::from_str(&line).map(|one| rows.uses.push(one)),
                RowLine { .. } => serde_json::from_str(&line).map(|coupon| rows.coupons.push(coupon)),
            };
            read.map_err(|error| InputError::new(number, error))?;
        }
        Ok(rows)
    }

    /// Writes a rows file, coupons first.
    pub fn write(&self, mut output: impl Write) -> std::io::Result<()> {
        write_lines(&mut output, &self.coupons)?;
        write_lines(&mut output, &self.issuances)?;
        write_lines(&mut output, &self.uses)?;
        output.flush()
    }
}

fn write_lines(mut output: impl Write, rows: &[impl Serialize]) -> std::io::Result<()> {
    for row in rows {
        serde_json::to_writer(&mut output, row)?;
        output.write_all(b"\n")?;
    }
    Ok(())
}

/// The fields that distinguish issuances, uses and coupons.
#[derive(Debug, Deserialize)]
struct RowLine {
    coupon_id: Option<u64>,
    issuance_id: Option<String>,
}

/// An issuance's JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IssuanceJson {
    pub(crate) id: String,
    pub(crate) coupon_id: u64,
    pub(crate) user_id: String,
    pub(crate) sequence: u64,
    pub(crate) issued_at: String,
    #[serde(default)]
    pub(crate) expires_at: Option<String>,
}

impl TryFrom<IssuanceJson> for IssuanceRow {
    type Error = String;

    fn try_from(json: IssuanceJson) -> Result<Self, String> {
        let id = IssuanceId::parse(&json.id).map_err(|error| error.to_string())?;
        if (id.coupon.get(), id.sequence.get()) != (json.coupon_id, json.sequence) {
            return Err(format!(
                "id {id} is not coupon {} and sequence {}",
                json.coupon_id, json.sequence
            ));
        }
        Ok(Self {
            id,
            user: UserId::parse(&json.user_id).map_err(|error| error.to_string())?,
            issued_at: time("issued_at", &json.issued_at)?,
            expires_at: json
                .expires_at
                .as_deref()
                .map(|text| time("expires_at", text))
                .transpose()?,
        })
    }
}

impl Serialize for IssuanceRow {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = IssuanceJson {
            id: self.id.to_string(),
            coupon_id: self.id.coupon.get(),
            user_id: self.user.to_string(),
            sequence: self.id.sequence.get(),
            issued_at: self.issued_at.to_string(),
            expires_at: self.expires_at.map(|time| time.to_string()),
        };
        json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for IssuanceRow {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IssuanceJson::deserialize(deserializer)?
            .try_into()
            .map_err(serde::de::Error::custom)
    }
}

/// The part of a coupon's JSON that the checker needs.
#[derive(Debug, Serialize, Deserialize)]
struct CouponJson {
    id: u64,
    total_quantity: Option<u64>,
    per_user_limit: Option<u32>,
    starts_at: Option<String>,
    ends_at: Option<String>,
    use_within_days: Option<u16>,
    #[serde(default)]
    use_until: Option<String>,
    #[serde(default)]
    time_zone: Option<String>,
    #[serde(default)]
    discount: Option<Discount>,
    #[serde(default)]
    max_discount: Option<u64>,
    #[serde(default)]
    min_order_amount: Option<u64>,
    status: String,
    issued: u64,
    version: u64,
    created_at: String,
    /// Absent in what former versions recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reserved: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redeemed: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    returned: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read_at: Option<String>,
}

impl CouponJson {
    fn uses(&self) -> Option<UseCounts> {
        Some(UseCounts {
            reserved: self.reserved?,
            redeemed: self.redeemed?,
            revoked: self.revoked?,
            returned: self.returned?,
        })
    }
}

impl TryFrom<CouponJson> for CouponRow {
    type Error = String;

    fn try_from(json: CouponJson) -> Result<Self, String> {
        Ok(Self {
            id: coupon_id(json.id)?,
            terms: Terms {
                total_quantity: json.total_quantity,
                starts_at: json
                    .starts_at
                    .as_deref()
                    .map(|text| time("starts_at", text))
                    .transpose()?,
                ends_at: json
                    .ends_at
                    .as_deref()
                    .map(|text| time("ends_at", text))
                    .transpose()?,
                use_within_days: json.use_within_days,
                use_until: json
                    .use_until
                    .as_deref()
                    .map(|text| time("use_until", text))
                    .transpose()?,
                time_zone: json.time_zone.as_deref().map(SmolStr::new),
                discount: json.discount,
                max_discount: json.max_discount,
                min_order_amount: json.min_order_amount,
            },
            per_user_limit: json.per_user_limit.unwrap_or(u32::MAX),
            status: Status::parse(&json.status)
                .ok_or_else(|| format!("status {:?} is none of open, paused, closed", json.status))?,
            version: json.version,
            issued: json.issued,
            created_at: time("created_at", &json.created_at)?,
            uses: json.uses(),
            read_at: json
                .read_at
                .as_deref()
                .map(|text| time("read_at", text))
                .transpose()?,
        })
    }
}

impl Serialize for CouponRow {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = CouponJson {
            id: self.id.get(),
            total_quantity: self.terms.total_quantity,
            per_user_limit: Some(self.per_user_limit).filter(|limit| *limit < u32::MAX),
            starts_at: self.terms.starts_at.map(|time| time.to_string()),
            ends_at: self.terms.ends_at.map(|time| time.to_string()),
            use_within_days: self.terms.use_within_days,
            use_until: self.terms.use_until.map(|time| time.to_string()),
            time_zone: self.terms.time_zone.as_ref().map(SmolStr::to_string),
            discount: self.terms.discount,
            max_discount: self.terms.max_discount,
            min_order_amount: self.terms.min_order_amount,
            status: self.status.as_str().to_owned(),
            issued: self.issued,
            version: self.version,
            created_at: self.created_at.to_string(),
            reserved: self.uses.map(|uses| uses.reserved),
            redeemed: self.uses.map(|uses| uses.redeemed),
            revoked: self.uses.map(|uses| uses.revoked),
            returned: self.uses.map(|uses| uses.returned),
            read_at: self.read_at.map(|time| time.to_string()),
        };
        json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CouponRow {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        CouponJson::deserialize(deserializer)?
            .try_into()
            .map_err(serde::de::Error::custom)
    }
}

/// Reads a coupon id from its JSON number.
pub(crate) fn coupon_id(number: u64) -> Result<CouponId, String> {
    CouponId::new(number).ok_or_else(|| format!("{number} is not a coupon id"))
}

/// Reads a time from its JSON text.
pub(crate) fn time(field: &str, text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| format!("{field} {text:?} is not a time in RFC 3339"))
}
