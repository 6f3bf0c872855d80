//! How much one user may ask.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::InvalidConfig;

/// `limits.…`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Issue requests a second that a user may send in the long run, like 5 or 0.2; by default there is no
    /// limit.
    pub user_rate: Option<f64>,
    /// How many a user may send at once; by default as many as in one second, and at least one.
    pub user_burst: Option<NonZeroU32>,
}

impl Limits {
    /// Slowest and fastest rate there is reason for: one request in a quarter of an hour, and more than a
    /// node serves.
    const RATES: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;

    /// How many a user may send at once where there is a rate.
    pub(crate) fn burst(&self, rate: f64) -> NonZeroU32 {
        // A rate is within bounds that fit.
        self.user_burst
            .or_else(|| NonZeroU32::new(rate.ceil() as u32))
            .unwrap_or(NonZeroU32::MIN)
    }

    pub(super) fn check(&self) -> Result<(), InvalidConfig> {
        match self.user_rate {
            None if self.user_burst.is_some() => Err(InvalidConfig(
                "limits.user_burst says nothing without limits.user_rate".to_owned(),
            )),
            Some(rate) if !Self::RATES.contains(&rate) => Err(InvalidConfig(
                "limits.user_rate must be 0.001 to 1000000 requests a second".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}
