//! Reads the whole numbers of a body. A number that does not fit into a `u64`, for example a negative one,
//! becomes the largest `u64`, which is above every bound. The check of the field refuses it, and its message
//! names the bounds.

use std::fmt;

use actors::ids::ID_MAX;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

/// Reads a number that must be there.
pub(crate) fn required<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Whole::deserialize(deserializer).map(u64::from)
}

/// Reads a number that may be absent or null.
pub(crate) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let number = Option::<Whole>::deserialize(deserializer)?;
    Ok(number.map(u64::from))
}

/// Distinguishes an absent number from null, as [`super::clearable`] does.
pub(crate) fn clearable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    optional(deserializer).map(Some)
}

struct Whole(u64);

impl From<Whole> for u64 {
    fn from(Whole(number): Whole) -> Self {
        number
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Whole, E> {
                Ok(Whole(u64::try_from(number).unwrap_or(u64::MAX)))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Whole, E> {
                // Numbers with more digits than a `u64` has are read as floating point.
                if number.fract() == 0.0 && number.abs() > ID_MAX as f64 {
                    return Ok(Whole(u64::MAX));
                }
                Err(Error::invalid_type(Unexpected::Float(number), &self))
            }
        }

        deserializer.deserialize_u64(Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_that_does_not_fit_is_above_every_bound() {
        let read = |text: &str| {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            optional(&mut deserializer).map_err(|error| error.to_string())
        };
        for (text, number) in [
            ("null", None),
            ("0", Some(0)),
            ("9007199254740992", Some(ID_MAX + 1)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", Some(u64::MAX)),
            ("1e30", Some(u64::MAX)),
            ("-1", Some(u64::MAX)),
            ("-99999999999999999999", Some(u64::MAX)),
        ] {
            assert_eq!(read(text), Ok(number), "{text}");
        }
        for text in ["1.5", "-0.5", "2.0", "\"1\"", "true", "[1]", "{}"] {
            let error = read(text).unwrap_err();
            assert!(error.contains("expected a whole number"), "{text}: {error}");
        }
    }
}
