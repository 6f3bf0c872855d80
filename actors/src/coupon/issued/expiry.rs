//! Expiries of issuances in two bytes each.
//!
//! Nearly all issuances of a coupon expire a whole number of days after they were issued, or at one of few
//! times: the end of use that administrators set, or the end of a local day.

use std::collections::HashMap;

use crate::coupon::offer::USE_WITHIN_DAYS_MAX;
use crate::time::{MICROS_PER_DAY, Timestamp};

/// Maximum number of times that are kept once for all issuances. A coupon has a time for each day on which it
/// was issued and for each change of its end of use. Further times are kept for each issuance by itself.
const TIMES_MAX: usize = 4_096;

/// An expiry as its issuance has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expiry(u16);

impl Expiry {
    const NEVER: Self = Self(0);
    const SINGLE: Self = Self(u16::MAX);
    const FIRST_TIME: u16 = USE_WITHIN_DAYS_MAX + 1;
}

const _: () = assert!(Expiry::FIRST_TIME as usize + TIMES_MAX < u16::MAX as usize);

/// The expiries that are not days.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    times: Vec<Timestamp>,
    single: HashMap<u32, Timestamp>,
}

impl Expiries {
    /// Takes the expiry of the issuance with this number.
    pub(super) fn enter(
        &mut self,
        index: u32,
        issued_at: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Expiry {
        let Some(expires_at) = expires_at else {
            return Expiry::NEVER;
        };
        if let Some(days) = days_between(issued_at, expires_at) {
            return Expiry(days);
        }
        // Nearly always it is the time of the issuance before.
        let place = self.times.iter().rposition(|time| *time == expires_at);
        let place = place.or_else(|| {
            (self.times.len() < TIMES_MAX).then(|| {
                self.times.push(expires_at);
                self.times.len() - 1
            })
        });
        match place.and_then(|place| u16::try_from(place).ok()) {
            Some(place) => Expiry(Expiry::FIRST_TIME + place),
            None => {
                self.single.insert(index, expires_at);
                Expiry::SINGLE
            }
        }
    }

    /// Returns the expiry of the issuance with this number.
    pub(super) fn read(&self, index: u32, issued_at: Timestamp, expiry: Expiry) -> Option<Timestamp> {
        match expiry {
            Expiry::NEVER => None,
            Expiry::SINGLE => self.single.get(&index).copied(),
            Expiry(days) if days < Expiry::FIRST_TIME => Some(issued_at.plus_days(days)),
            Expiry(place) => self.times.get(usize::from(place - Expiry::FIRST_TIME)).copied(),
        }
    }

    /// Returns how many bytes of memory they take.
    pub(super) fn bytes(&self) -> usize {
        self.times.capacity() * size_of::<Timestamp>()
            + self.single.capacity() * size_of::<(u32, Timestamp)>()
    }
}

/// Returns the whole days from issuing to expiry, if there are whole days.
fn days_between(issued_at: Timestamp, expires_at: Timestamp) -> Option<u16> {
    let micros = expires_at.as_micros() - issued_at.as_micros();
    // The days are rounded up: if the expiry was capped at the last possible time, its last day is not whole.
    let days = u16::try_from((micros + MICROS_PER_DAY - 1).div_euclid(MICROS_PER_DAY))
        .ok()
        .filter(|days| (1..=USE_WITHIN_DAYS_MAX).contains(days))?;
    (issued_at.plus_days(days) == expires_at).then_some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_different_expiries_than_are_kept_once_come_back() {
        let at = |micros| Timestamp::from_micros(micros).unwrap();
        let mut expiries = Expiries::default();
        let count = 2 * TIMES_MAX as u32;
        let entered: Vec<_> = (0..count)
            .map(|index| expiries.enter(index, at(0), Some(at(index.into()))))
            .collect();
        for (index, expiry) in (0..).zip(entered) {
            assert_eq!(expiries.read(index, at(0), expiry), Some(at(index.into())));
        }
        assert_eq!(expiries.times.len(), TIMES_MAX);
        let days = expiries.enter(count, at(5), Some(at(5).plus_days(USE_WITHIN_DAYS_MAX)));
        assert_eq!(days, Expiry(USE_WITHIN_DAYS_MAX));
        assert_eq!(expiries.read(count, at(5), Expiry::NEVER), None);
    }
}
