//! Query parameters. A parameter that the operation does not have is an error, like an unknown field of a
//! body, because it is a mistake of the client.

use std::collections::BTreeMap;

use super::head::Head;
use super::problem::{FieldError, RequestError};

/// Maximum number of parameters that one response names. A query of 16 KiB could have thousands, and the
/// response would be many times as long as the request.
const NAMED_MAX: usize = 16;

/// Maximum number of characters of a name that a response repeats.
const NAME_CHARS_MAX: usize = 100;

/// Checks that the query has only parameters with these names, and each only once. The error names each
/// parameter that is unknown or repeated.
pub(crate) fn check_names<'a>(
    query: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), RequestError> {
    if query.is_empty() {
        return Ok(());
    }
    let mut occurrences = BTreeMap::<_, usize>::new();
    for (name, _) in form_urlencoded::parse(query.as_bytes()) {
        *occurrences.entry(name).or_default() += 1;
    }
    let error = |(name, count): (&_, &usize)| {
        let message = if !known.clone().any(|known| known == name) {
            unknown(known.clone())
        } else if *count > 1 {
            "must occur only once".to_owned()
        } else {
            return None;
        };
        let name: String = AsRef::<str>::as_ref(name).chars().take(NAME_CHARS_MAX).collect();
        Some(FieldError::new(name, message))
    };
    let errors: Vec<FieldError> = occurrences.iter().filter_map(error).take(NAMED_MAX).collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(RequestError::Invalid(errors))
    }
}

/// Returns the message about an unknown parameter.
fn unknown<'a>(known: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = known.map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "unknown parameter, expected none".to_owned(),
        [name] => format!("unknown parameter, expected {name}"),
        names => format!("unknown parameter, expected one of {}", names.join(", ")),
    }
}

/// The decoded query of a request, whose names have been checked.
#[derive(Debug)]
pub(crate) struct Query {
    values: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl Query {
    /// Returns what `read` reads from the query of a request. The error names each parameter whose value is
    /// not valid.
    pub(crate) fn read<T>(head: &Head, read: impl FnOnce(&mut Self) -> T) -> Result<T, RequestError> {
        let mut query = Self {
            values: form_urlencoded::parse(head.query.as_bytes())
                .into_owned()
                .collect(),
            errors: Vec::new(),
        };
        let read = read(&mut query);
        if query.errors.is_empty() {
            Ok(read)
        } else {
            Err(RequestError::Invalid(query.errors))
        }
    }

    /// Parses a parameter; `message` says what its value must be. Returns `None` if it is absent or not
    /// valid.
    pub(crate) fn get<T>(
        &mut self,
        name: &str,
        message: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let (_, value) = self.values.iter().find(|(known, _)| known == name)?;
        let parsed = parse(value);
        if parsed.is_none() {
            self.errors.push(FieldError::new(name, message));
        }
        parsed
    }

    /// Parses a parameter that must be there. Returns `None` if it is absent or not valid.
    pub(crate) fn required<T>(
        &mut self,
        name: &str,
        message: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        if !self.values.iter().any(|(known, _)| known == name) {
            self.errors.push(FieldError::new(name, "is missing"));
        }
        self.get(name, message, parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Method};
    use std::net::Ipv4Addr;

    fn named(checked: Result<(), RequestError>) -> Vec<(String, String)> {
        let Err(RequestError::Invalid(errors)) = checked else {
            return Vec::new();
        };
        errors
            .into_iter()
            .map(|error| (error.field, error.message))
            .collect()
    }

    #[test]
    fn unknown_and_repeated_parameters_are_named() {
        let check = |query: &str| named(check_names(query, ["limit", "cursor"].into_iter()));
        for fine in ["", "&", "limit=1", "cursor=&limit=x", "limit"] {
            assert_eq!(check(fine), [], "{fine}");
        }
        let unknown = "unknown parameter, expected one of `limit`, `cursor`".to_owned();
        assert_eq!(
            check("utm=1&limit=2&Limit=3&utm=4&limit=5&%C3%A4"),
            [
                ("Limit".to_owned(), unknown.clone()),
                ("limit".to_owned(), "must occur only once".to_owned()),
                ("utm".to_owned(), unknown.clone()),
                ("ä".to_owned(), unknown),
            ]
        );
        let none = named(check_names("x", std::iter::empty()));
        assert_eq!(none[0].1, "unknown parameter, expected none");
    }

    #[test]
    fn a_response_names_a_bounded_number_of_parameters_with_a_bounded_length() {
        let many: String = (0..1_000).map(|number| format!("p{number}&")).collect();
        assert_eq!(named(check_names(&many, std::iter::empty())).len(), NAMED_MAX);
        let long = named(check_names(&"ä".repeat(3_000), std::iter::empty()));
        assert_eq!(long[0].0.chars().count(), NAME_CHARS_MAX);
    }

    #[test]
    fn every_parameter_with_a_wrong_value_is_named() {
        let head = Head::new(
            Method::GET,
            "one=1&two=x&three=y".to_owned(),
            HeaderMap::new(),
            Ipv4Addr::LOCALHOST.into(),
        );
        let number = |text: &str| text.parse::<u8>().ok();
        let read = Query::read(&head, |query| {
            let one = query.required("one", "must be a number", number);
            assert_eq!(one, Some(1));
            query.get("two", "must be a number", number);
            query.get("three", "must be a number", number);
            query.required("four", "must be a number", number);
            query.get("five", "must be a number", number);
        });
        let fields: Vec<String> = named(read).into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["two", "three", "four"]);
    }
}
