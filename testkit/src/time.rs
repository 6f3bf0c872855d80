//! Wall-clock times in whole microseconds, as requests, answers and rows have them.

use std::fmt;
use std::time::SystemTime;

/// Years 1000 to 9999 without the last 26 hours, so that the year has four digits with any offset.
const MICROS: std::ops::RangeInclusive<i64> = -30_610_224_000_000_000..=253_402_207_199_999_999;

/// Microseconds in a day of 24 hours.
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Microseconds since 1970-01-01 UTC. Finer parts are cut off, not rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Returns the time now.
    pub fn now() -> Self {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(*MICROS.end()))
    }

    /// Returns the time this many microseconds after 1970; `None` outside the years 1000 to 9999.
    pub fn from_micros(micros: i64) -> Option<Self> {
        MICROS.contains(&micros).then_some(Self(micros))
    }

    /// Returns the microseconds since 1970.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns the time this many days of 24 hours later, at most the last valid time.
    #[must_use]
    pub fn plus_days(self, days: u16) -> Self {
        Self((self.0 + i64::from(days) * MICROS_PER_DAY).min(*MICROS.end()))
    }

    /// Returns the time this many seconds later, at most the last valid time.
    #[must_use]
    pub fn plus_seconds(self, seconds: u32) -> Self {
        Self((self.0 + i64::from(seconds) * 1_000_000).min(*MICROS.end()))
    }

    /// Returns the end of the local day that is this many days after the local day of this time; `None` if
    /// there is no time zone of this name.
    pub fn end_of_day(self, days: u16, time_zone: &str) -> Option<Self> {
        let zone = jiff::tz::TimeZone::get(time_zone).ok()?;
        let local = zone.to_datetime(jiff::Timestamp::from_microsecond(self.0).ok()?);
        let days = jiff::Span::new().days(i64::from(days) + 1);
        let end = local
            .date()
            .checked_add(days)
            .and_then(|next| next.to_zoned(zone));
        let end = end.map_or(*MICROS.end(), |end| end.timestamp().as_microsecond());
        Some(Self(end.min(*MICROS.end())))
    }

    /// Reads RFC 3339 with any offset.
    pub fn parse(text: &str) -> Option<Self> {
        let parsed: jiff::Timestamp = text.parse().ok()?;
        Self::from_micros(parsed.as_microsecond())
    }
}

/// RFC 3339 in UTC with six decimals: `2026-11-27T00:00:00.000000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timestamp = jiff::Timestamp::from_microsecond(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{timestamp:.6}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_utc_and_read_with_any_offset() {
        let time = Timestamp::parse("2026-11-27T09:00:00.0123459+09:00").unwrap();
        assert_eq!(time.to_string(), "2026-11-27T00:00:00.012345Z");
        assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
        assert_eq!(time.plus_days(30).to_string(), "2026-12-27T00:00:00.012345Z");
        assert_eq!(time.plus_seconds(90).to_string(), "2026-11-27T00:01:30.012345Z");
    }

    #[test]
    fn a_local_day_ends_by_the_clock_of_its_time_zone() {
        let end = |at: &str, days, zone| {
            let at = Timestamp::parse(at).unwrap();
            at.end_of_day(days, zone).map(|end| end.to_string())
        };
        let berlin = end("2026-03-28T12:00:00Z", 1, "Europe/Berlin");
        assert_eq!(berlin.as_deref(), Some("2026-03-29T22:00:00.000000Z"));
        let seoul = end("2026-11-27T15:00:00Z", 1, "Asia/Seoul");
        assert_eq!(seoul.as_deref(), Some("2026-11-29T15:00:00.000000Z"));
        assert_eq!(end("2026-11-27T15:00:00Z", 1, "Nowhere/Else"), None);
    }
}
