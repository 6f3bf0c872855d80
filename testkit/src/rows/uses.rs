//! What became of issuances, as answers and the final rows show it.

use serde::{Deserialize, Serialize};

use super::{IssuanceRow, time};
use crate::ids::{IssuanceId, OrderId};
use crate::time::Timestamp;

/// What a use does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UseKind {
    /// An order holds the issuance for a while.
    Reserved,
    /// An order was paid with it.
    Redeemed,
    /// The order that held it gave it back.
    Released,
    /// The order that was paid with it gave it back.
    Refunded,
    /// It was taken away for ever.
    Revoked,
}

impl UseKind {
    /// Reads the name of a kind in JSON.
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Reserved,
            Self::Redeemed,
            Self::Released,
            Self::Refunded,
            Self::Revoked,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == name)
    }

    /// Returns the name of the kind in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Redeemed => "redeemed",
            Self::Released => "released",
            Self::Refunded => "refunded",
            Self::Revoked => "revoked",
        }
    }
}

/// The figures of an order, in the currency's smallest unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderFigures {
    /// The amount of the order.
    pub amount: u64,
    /// What the coupon takes off.
    pub discount: u64,
}

/// A use as answers show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ShownUseJson", into = "ShownUseJson")]
pub struct ShownUse {
    /// What it does.
    pub kind: UseKind,
    /// The order; `None` if revoked.
    pub order: Option<OrderId>,
    /// The figures of the order; `None` if revoked.
    pub figures: Option<OrderFigures>,
    /// When the hold lapses; `None` unless it is a reservation.
    pub hold_until: Option<Timestamp>,
    /// Time of the decision, by the clock of the owner.
    pub at: Timestamp,
}

/// A use as the final rows show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UseJson", into = "UseJson")]
pub struct UseRow {
    /// The issuance.
    pub issuance: IssuanceId,
    /// Its number among the uses of the coupon, from 1.
    pub number: u64,
    /// What answers show of it.
    pub shown: ShownUse,
    /// True if a revocation gave the issuance back to the quantity.
    pub returns: bool,
    /// The counts of the coupon after this use, as the row has them; `None` if they were not read.
    pub counts: Option<UseCounts>,
}

/// An issuance with its latest use, as answers show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedIssuance {
    /// The issuance.
    #[serde(flatten)]
    pub row: IssuanceRow,
    /// Its latest use, if there is one.
    #[serde(rename = "use", default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<ShownUse>,
}

/// How many issuances of a coupon are in each state, as the service says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UseCounts {
    /// Reserved issuances. In a row, a hold that has lapsed counts until the next use of its issuance.
    pub reserved: u64,
    /// Redeemed issuances.
    pub redeemed: u64,
    /// Revoked issuances.
    pub revoked: u64,
    /// Revoked issuances that were given back to the quantity.
    pub returned: u64,
}

/// The JSON of [`ShownUse`].
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ShownUseJson {
    kind: String,
    order_id: Option<String>,
    order_amount: Option<u64>,
    discount: Option<u64>,
    hold_until: Option<String>,
    at: String,
}

impl TryFrom<ShownUseJson> for ShownUse {
    type Error = String;

    fn try_from(json: ShownUseJson) -> Result<Self, String> {
        let order = json.order_id.as_deref().map(OrderId::parse).transpose();
        let figures = match (json.order_amount, json.discount) {
            (Some(amount), Some(discount)) => Some(OrderFigures { amount, discount }),
            (None, None) => None,
            _ => return Err("a use has one of order_amount and discount".to_owned()),
        };
        Ok(Self {
            kind: UseKind::parse(&json.kind).ok_or_else(|| format!("{:?} is no kind of use", json.kind))?,
            order: order.map_err(|error| error.to_string())?,
            figures,
            hold_until: json
                .hold_until
                .as_deref()
                .map(|text| time("hold_until", text))
                .transpose()?,
            at: time("at", &json.at)?,
        })
    }
}

impl From<ShownUse> for ShownUseJson {
    fn from(shown: ShownUse) -> Self {
        Self {
            kind: shown.kind.as_str().to_owned(),
            order_id: shown.order.map(|order| order.to_string()),
            order_amount: shown.figures.map(|figures| figures.amount),
            discount: shown.figures.map(|figures| figures.discount),
            hold_until: shown.hold_until.map(|time| time.to_string()),
            at: shown.at.to_string(),
        }
    }
}

/// The JSON of [`UseRow`]: an item of the list of uses, with the id of its issuance.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct UseJson {
    issuance_id: String,
    number: u64,
    #[serde(flatten)]
    shown: ShownUse,
    #[serde(default)]
    return_quantity: bool,
    /// Not in the service's lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counts: Option<UseCounts>,
}

impl TryFrom<UseJson> for UseRow {
    type Error = String;

    fn try_from(json: UseJson) -> Result<Self, String> {
        Ok(Self {
            issuance: IssuanceId::parse(&json.issuance_id).map_err(|error| error.to_string())?,
            number: json.number,
            shown: json.shown,
            returns: json.return_quantity,
            counts: json.counts,
        })
    }
}

impl From<UseRow> for UseJson {
    fn from(row: UseRow) -> Self {
        Self {
            issuance_id: row.issuance.to_string(),
            number: row.number,
            shown: row.shown,
            return_quantity: row.returns,
            counts: row.counts,
        }
    }
}
