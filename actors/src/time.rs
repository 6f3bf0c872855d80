//! Two clocks, and the pair of their readings that every state machine is given.
//!
//! [`Timestamp`] is for users and rows. [`Moment`] is for leases and limits, and never steps back.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Wall-clock time in whole microseconds since 1970-01-01 UTC; finer parts are cut off, not rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The valid times: from the year 1000, where MySQL's `DATETIME` begins, to 9999-12-30T22:00 (exclusive). A
/// time before that end has a four-digit year at every offset from UTC.
const MICROS: std::ops::RangeInclusive<i64> = -30_610_224_000_000_000..=253_402_207_199_999_999;

impl Timestamp {
    /// The last valid time.
    pub const LAST: Self = Self(*MICROS.end());

    /// Returns the time this many microseconds after the Unix epoch; `None` outside the years 1000 to 9999.
    pub fn from_micros(micros: i64) -> Option<Self> {
        MICROS.contains(&micros).then_some(Self(micros))
    }

    /// Returns the microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns the same time of day this many days (of 24 hours) later, at most the last valid time.
    #[must_use]
    pub fn plus_days(self, days: u16) -> Self {
        Self((self.0 + i64::from(days) * MICROS_PER_DAY).min(*MICROS.end()))
    }

    /// Returns the time this many seconds later, at most the last valid time.
    #[must_use]
    pub fn plus_seconds(self, seconds: u32) -> Self {
        Self((self.0 + i64::from(seconds) * 1_000_000).min(*MICROS.end()))
    }

    /// Reads RFC 3339 with any offset, and nothing else. `jiff` alone reads more: names of time zones in
    /// brackets, a space for the `T`, offsets beyond a day.
    pub fn parse(text: &str) -> Option<Self> {
        let (time, rest) = text.split_at_checked("2026-11-27T00:00:00".len())?;
        let digits = rest.strip_prefix('.').map_or("", |rest| {
            let end = rest.find(|character: char| !character.is_ascii_digit());
            &rest[..end.unwrap_or(rest.len())]
        });
        let offset = if rest.starts_with('.') {
            &rest[1 + digits.len()..]
        } else {
            rest
        };
        let is_rfc_3339 = has_form(time, "dddd-dd-ddTdd:dd:dd")
            && !(rest.starts_with('.') && digits.is_empty())
            && (offset.eq_ignore_ascii_case("z") || is_offset(offset));
        if !is_rfc_3339 {
            return None;
        }
        // Finer parts than microseconds are cut off.
        let digits = &digits[..digits.len().min(6)];
        let point = if digits.is_empty() { "" } else { "." };
        let parsed: jiff::Timestamp = format!("{time}{point}{digits}{offset}").parse().ok()?;
        Self::from_micros(parsed.as_microsecond())
    }
}

/// Returns true if the text has this form, in which `d` stands for a digit, and letters match in either case.
fn has_form(text: &str, form: &str) -> bool {
    let fits = |(byte, form): (u8, u8)| match form {
        b'd' => byte.is_ascii_digit(),
        form => byte.eq_ignore_ascii_case(&form),
    };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(fits)
}

/// Returns true if the text is an offset from UTC, from -23:59 to +23:59.
fn is_offset(text: &str) -> bool {
    (has_form(text, "+dd:dd") || has_form(text, "-dd:dd")) && &text[1..3] <= "23" && &text[4..6] <= "59"
}

/// Microseconds in a day of 24 hours.
pub const MICROS_PER_DAY: i64 = 86_400_000_000;

/// RFC 3339 in UTC with six decimals: `2026-11-27T00:00:00.000000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp:.6}"),
            Err(_) => Err(fmt::Error),
        }
    }
}

/// A reading of a clock that only goes forward and runs during suspend, as the time since some fixed origin
/// of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The clock's origin, which is before all readings.
    pub const ORIGIN: Self = Self(Duration::ZERO);

    /// Returns the moment at this distance from the origin.
    pub const fn at(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// Returns the time from `earlier` to this moment; zero if this moment is not later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the nanoseconds since the origin, for an atomic.
    pub fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns the moment for which [`Self::as_nanos`] returns `nanos`.
    pub fn from_nanos(nanos: u64) -> Self {
        Self(Duration::from_nanos(nanos))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// The readings of both clocks, as they are handed to a state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The reading for leases and limits.
    pub moment: Moment,
    /// The reading for rows and windows.
    pub timestamp: Timestamp,
}

/// Reads both clocks. State machines never call this.
pub fn now() -> Now {
    Now {
        moment: moment(),
        timestamp: timestamp(),
    }
}

/// Reads the clock of leases and limits.
pub fn moment() -> Moment {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let reading = clock_gettime(CLOCK);
    // Neither clock is ever negative.
    Moment(Duration::new(
        u64::try_from(reading.tv_sec).unwrap_or(0),
        u32::try_from(reading.tv_nsec).unwrap_or(0),
    ))
}

/// Reads the wall clock.
pub fn timestamp() -> Timestamp {
    let reading = clock_gettime(ClockId::Realtime);
    let micros = reading
        .tv_sec
        .saturating_mul(1_000_000)
        .saturating_add(reading.tv_nsec / 1_000);
    Timestamp(micros.clamp(*MICROS.start(), *MICROS.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_written_in_utc_with_microseconds() {
        let timestamp = Timestamp::parse("2026-11-27T09:00:00.0123459+09:00").unwrap();
        assert_eq!(timestamp.to_string(), "2026-11-27T00:00:00.012345Z");
        assert_eq!(Timestamp::parse(&timestamp.to_string()), Some(timestamp));
    }

    #[test]
    fn times_are_read_as_rfc_3339_has_them_and_in_no_other_form() {
        let at = |text: &str| Timestamp::parse(text).map(|time| time.to_string());
        for (text, utc) in [
            ("2026-11-27T09:00:00+09:00", "2026-11-27T00:00:00.000000Z"),
            ("2026-11-27t00:00:00z", "2026-11-27T00:00:00.000000Z"),
            ("2026-11-27T00:00:00-00:00", "2026-11-27T00:00:00.000000Z"),
            ("2026-11-27T00:00:00.5Z", "2026-11-27T00:00:00.500000Z"),
            (
                "2026-11-27T00:00:00.123456789012-23:59",
                "2026-11-27T23:59:00.123456Z",
            ),
            ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(at(text).as_deref(), Some(utc), "{text}");
        }
        for text in [
            "2026-11-27T09:00:00+09:00[Asia/Seoul]",
            "2026-11-27T09:00+09:00[Asia/Seoul]",
            "2026-11-27 09:00:00Z",
            "2026-11-27T09:00:00+25:59",
            "2026-11-27T09:00:00+24:00",
            "2026-11-27T09:00:00+09:60",
            "2026-11-27T09:00:00+0900",
            "2026-11-27T09:00:00+09",
            "2026-11-27T09:00:00+09:00:00",
            "2026-11-27T09:00:00",
            "2026-11-27T09:00Z",
            "2026-11-27T09:00:00,5Z",
            "2026-11-27T09:00:00.Z",
            "2026-11-27T24:00:00Z",
            "2026-11-27T09:60:00Z",
            "2026-02-30T09:00:00Z",
            "20261127T090000Z",
            "+002026-11-27T09:00:00Z",
            "2026-11-27",
            " 2026-11-27T09:00:00Z",
            "2026-11-27T09:00:00Z ",
            "2026-11-27T09:00:00\u{2212}09:00",
            "2026-11-27T09:00:0\u{660}Z",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
    }

    #[test]
    fn days_are_added_up_to_the_last_year() {
        let timestamp = Timestamp::parse("2026-11-27T00:00:00.012345Z").unwrap();
        assert_eq!(timestamp.plus_days(30).to_string(), "2026-12-27T00:00:00.012345Z");
        let late = Timestamp::parse("9999-12-29T00:00:00Z").unwrap();
        assert_eq!(late.plus_days(3650).to_string(), "9999-12-30T21:59:59.999999Z");
    }

    #[test]
    fn moments_go_forward() {
        let first = moment();
        assert!(moment() >= first);
        assert_eq!(Moment::from_nanos(first.as_nanos()), first);
    }
}
