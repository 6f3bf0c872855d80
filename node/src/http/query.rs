//! Query parameters. A parameter that the operation does not have is an error, like an unknown field of a
//! body, because it is a mistake of the client.

use std::collections::BTreeMap;

use super::json;
use super::problem::{FieldError, RequestError};

/// Maximum number of parameters that one response names. A query of 16 KiB could have thousands, and the
/// response would be many times as long as the request.
const NAMED_MAX: usize = 16;

/// Maximum number of characters of a name that a response repeats.
const NAME_CHARS_MAX: usize = 100;

/// Returns the errors of the parameters of a query that do not have one of these names, or are repeated.
pub(crate) fn wrong_names<'a>(query: &str, known: impl Iterator<Item = &'a str> + Clone) -> Vec<FieldError> {
    if query.is_empty() {
        return Vec::new();
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
    occurrences.iter().filter_map(error).take(NAMED_MAX).collect()
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

/// The decoded query of a request.
#[derive(Debug)]
pub(crate) struct Query {
    values: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl Query {
    /// Returns what `read` reads from a query. The error names each parameter whose value is not valid, after
    /// those with `wrong_names`.
    pub(crate) fn read<T>(
        query: &str,
        wrong_names: &[FieldError],
        read: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, RequestError> {
        let mut query = Self {
            values: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            errors: wrong_names.to_vec(),
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
        // A repeated parameter has its error already.
        if parsed.is_none() && !self.errors.iter().any(|error| error.field == name) {
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
            self.errors.push(FieldError::new(name, json::REQUIRED));
        }
        self.get(name, message, parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(errors: &[FieldError]) -> Vec<(&str, &str)> {
        let named = errors
            .iter()
            .map(|error| (error.field.as_str(), error.message.as_str()));
        named.collect()
    }

    #[test]
    fn unknown_and_repeated_parameters_are_named() {
        let wrong = |query: &str| wrong_names(query, ["limit", "cursor"].into_iter());
        for fine in ["", "&", "limit=1", "cursor=&limit=x", "limit"] {
            assert_eq!(named(&wrong(fine)), [], "{fine}");
        }
        let unknown = "unknown parameter, expected one of `limit`, `cursor`";
        assert_eq!(
            named(&wrong("utm=1&limit=2&Limit=3&utm=4&limit=5&%C3%A4")),
            [
                ("Limit", unknown),
                ("limit", "must occur only once"),
                ("utm", unknown),
                ("ä", unknown),
            ]
        );
        let none = wrong_names("x", std::iter::empty());
        assert_eq!(named(&none), [("x", "unknown parameter, expected none")]);
    }

    #[test]
    fn a_response_names_a_bounded_number_of_parameters_with_a_bounded_length() {
        let many: String = (0..1_000).map(|number| format!("p{number}&")).collect();
        assert_eq!(wrong_names(&many, std::iter::empty()).len(), NAMED_MAX);
        let long = wrong_names(&"ä".repeat(3_000), std::iter::empty());
        assert_eq!(long[0].field.chars().count(), NAME_CHARS_MAX);
    }

    #[test]
    fn every_parameter_with_a_wrong_name_or_value_is_named_once() {
        let text = "one=1&two=x&other=1&three=y&three=z";
        let wrong = wrong_names(text, ["one", "two", "three", "four", "five"].into_iter());
        let number = |text: &str| text.parse::<u8>().ok();
        let read = Query::read(text, &wrong, |query| {
            let one = query.required("one", "must be a number", number);
            assert_eq!(one, Some(1));
            query.get("two", "must be a number", number);
            query.get("three", "must be a number", number);
            query.required("four", "must be a number", number);
            query.get("five", "must be a number", number);
        });
        let Err(RequestError::Invalid(errors)) = read else {
            panic!("{read:?}")
        };
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["other", "three", "two", "four"]);
        // A wrong name alone is an error, too.
        assert!(Query::read("other=1", &wrong, |_| ()).is_err());
        assert!(Query::read("", &[], |_| ()).is_ok());
    }
}
