//! Time zones by their IANA names, with the data of this program and not of its machine: all nodes of one
//! build agree on them.

use jiff::ToSpan;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use std::sync::LazyLock;

use crate::time::Timestamp;

static DATABASE: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Returns true if this is the name of a time zone, in the usual letters.
pub fn is_known(name: &str) -> bool {
    find(name).is_some()
}

/// Returns the end of the day that is this many days after the day of `at` in the time zone: the first
/// microsecond of the next day, which may not be midnight where clocks change then. Returns `None` if the
/// time zone is not known.
pub fn end_of_day(at: Timestamp, days: u16, name: &str) -> Option<Timestamp> {
    let zone = find(name)?;
    let at = jiff::Timestamp::from_microsecond(at.as_micros()).ok()?;
    let last = zone.to_datetime(at).date();
    let end = last
        .checked_add(i64::from(days).days())
        .and_then(|last| last.tomorrow())
        .and_then(|next| zone.to_timestamp(next.at(0, 0, 0, 0)));
    // Days are counted up to the last valid time.
    let end = end.map_or(i64::MAX, |end| end.as_microsecond());
    Some(Timestamp::from_micros(end).unwrap_or(Timestamp::LAST))
}

fn find(name: &str) -> Option<TimeZone> {
    // The database has names in either case. It does not know names that are empty or have spaces.
    let zone = DATABASE.get(name).ok()?;
    (zone.iana_name() == Some(name)).then_some(zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(at: &str, days: u16, name: &str) -> String {
        let at = Timestamp::parse(at).unwrap();
        end_of_day(at, days, name).unwrap().to_string()
    }

    #[test]
    fn the_last_day_ends_by_the_clock_of_the_time_zone() {
        for (at, days, zone, expected) in [
            (
                "2026-11-27T10:00:00+09:00",
                30,
                "Asia/Seoul",
                "2026-12-27T15:00:00.000000Z",
            ),
            // In Seoul it is the 28th already.
            (
                "2026-11-27T15:00:00Z",
                1,
                "Asia/Seoul",
                "2026-11-29T15:00:00.000000Z",
            ),
            (
                "2026-11-27T14:59:59.999999Z",
                1,
                "Asia/Seoul",
                "2026-11-28T15:00:00.000000Z",
            ),
            ("2026-11-27T15:00:00Z", 1, "UTC", "2026-11-29T00:00:00.000000Z"),
            // Clocks go forward and back between the two days.
            (
                "2026-03-28T12:00:00Z",
                1,
                "Europe/Berlin",
                "2026-03-29T22:00:00.000000Z",
            ),
            (
                "2026-03-27T12:00:00Z",
                1,
                "Europe/Berlin",
                "2026-03-28T23:00:00.000000Z",
            ),
            (
                "2026-10-24T12:00:00Z",
                1,
                "Europe/Berlin",
                "2026-10-25T23:00:00.000000Z",
            ),
            (
                "2026-11-01T04:30:00Z",
                1,
                "America/New_York",
                "2026-11-03T05:00:00.000000Z",
            ),
            // The next day begins at one o'clock, because clocks go forward at midnight.
            (
                "2027-04-22T12:00:00Z",
                7,
                "Africa/Cairo",
                "2027-04-29T22:00:00.000000Z",
            ),
            (
                "9999-12-30T00:00:00Z",
                3650,
                "Asia/Seoul",
                "9999-12-30T21:59:59.999999Z",
            ),
        ] {
            assert_eq!(end(at, days, zone), expected, "{at} {days} {zone}");
        }
    }

    #[test]
    fn names_are_those_of_the_iana_in_its_own_letters() {
        assert!(
            ["Asia/Seoul", "UTC", "America/Argentina/Buenos_Aires", "Etc/GMT+5"]
                .into_iter()
                .all(is_known)
        );
        for name in [
            "",
            "asia/seoul",
            "Asia/Nowhere",
            "Asia/Seoul ",
            "+09:00",
            "../etc/passwd",
            "local",
            "\0",
        ] {
            assert!(!is_known(name), "{name:?}");
        }
        assert_eq!(
            end_of_day(Timestamp::from_micros(0).unwrap(), 1, "Asia/Nowhere"),
            None
        );
    }
}
