//! Reads and writes JSON. Reading is strict: an unknown field is an error, because the client made a mistake.

mod field_errors;
pub(crate) mod numbers;
mod words;

use std::fmt;
use std::marker::PhantomData;

use actors::time::Timestamp;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use warp::reply::Response;

pub(crate) use self::words::REQUIRED;

use self::field_errors::InvalidFields;
use super::problem::{FieldError, RequestError};

/// Serializes a value as the string that `Display` makes of it.
#[derive(Debug)]
pub(crate) struct Text<T>(pub(crate) T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Returns a response with this body.
pub(crate) fn response(status: StatusCode, body: &impl Serialize) -> Response {
    let mut text = new_text();
    let written = serde_json::to_writer(&mut text, body).map(|()| text);
    response_of_text("application/json", status, written)
}

/// Returns a response with this JSON text, or an empty 500 if the text could not be written.
pub(crate) fn response_of_text(
    media_type: &'static str,
    status: StatusCode,
    written: serde_json::Result<JsonText>,
) -> Response {
    let text = match written {
        Ok(text) => Bytes::from(text),
        Err(error) => {
            // All bodies have string keys, so this would be a bug in a `Serialize`.
            tracing::error!(%error, "failed to serialize a response");
            let mut response = Response::default();
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return response;
        }
    };
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// The text of a response while it is written. It is a `Vec` because serializing calls its `write_all` more
/// than a hundred times per issuance, and that of `Vec` is inlined.
pub(crate) type JsonText = Vec<u8>;

/// Returns an empty text. The response to an issue request fits without a reallocation.
pub(crate) fn new_text() -> JsonText {
    Vec::with_capacity(512)
}

/// A body whose fields must be consistent with each other, or must be within bounds that their types do not
/// express.
pub(crate) trait Checked: DeserializeOwned {
    /// What the body becomes.
    type Value;

    /// Checks the fields and adds their errors. A field that already has an error in `errors` is absent from
    /// `self`. The value is used only if there is no error.
    fn check(self, errors: &mut Vec<FieldError>) -> Self::Value;
}

/// Parses and checks a body. Fails like [`parse`], with the errors of parsing and of the check.
pub(crate) fn parse_checked<T: Checked>(body: &[u8]) -> Result<T::Value, RequestError> {
    let (read, mut errors) = match read::<T>(body)? {
        Ok(read) => (Some(read), Vec::new()),
        Err(InvalidFields { errors, rest }) => (rest, errors),
    };
    let known = errors.len();
    let value = read.map(|read| read.check(&mut errors));
    // A field that does not fit is absent, so the check may report it as missing. Such errors are dropped.
    let is_part_of = |whole: &str, field: &str| field.split('.').next() == whole.split('.').next();
    let found: Vec<FieldError> = errors.drain(known..).collect();
    for error in found {
        if !errors[..known]
            .iter()
            .any(|known| is_part_of(&known.field, &error.field))
        {
            errors.push(error);
        }
    }
    match value {
        Some(value) if errors.is_empty() => Ok(value),
        _ => Err(RequestError::Invalid(errors)),
    }
}

/// Parses a body. Fails with `MALFORMED` if the body is not a JSON object. Fails with `INVALID` and the paths
/// of the fields that do not fit.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, RequestError> {
    read(body)?.map_err(|InvalidFields { errors, .. }| RequestError::Invalid(errors))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<Result<T, InvalidFields<T>>, RequestError> {
    let not_json =
        |error: &serde_json::Error| RequestError::Malformed(format!("the body is not JSON: {error}"));
    // The syntax is checked first: an incomplete object with a wrong field is malformed, not invalid.
    serde_json::from_slice::<IgnoredAny>(body).map_err(|error| not_json(&error))?;
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(RequestError::Malformed(
            "the body is not a JSON object".to_owned(),
        ));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let error = match serde_path_to_error::deserialize(&mut deserializer) {
        Ok(read) => return Ok(Ok(read)),
        Err(error) if error.inner().is_data() => error,
        Err(error) => return Err(not_json(error.inner())),
    };
    Ok(Err(field_errors::find(body, field_error(&error))))
}

/// True if the body is an array without elements.
pub(crate) fn is_empty_array(body: &[u8]) -> bool {
    serde_json::from_slice::<[IgnoredAny; 0]>(body).is_ok()
}

/// Returns the error of the field that the deserializer stopped at.
fn field_error(error: &serde_path_to_error::Error<serde_json::Error>) -> FieldError {
    let message = message(error.inner());
    let field = field(error.path().to_string(), &message);
    FieldError::new(field, words::in_words_of_the_api(&message))
}

/// Returns the path of the field. For a missing or duplicate field serde reports the path of its object, and
/// names the field in the message.
fn field(path: String, message: &str) -> String {
    let named = message
        .strip_prefix("missing field `")
        .or_else(|| message.strip_prefix("duplicate field `"));
    match named.and_then(|rest| rest.strip_suffix('`')) {
        Some(name) if path == "." => name.to_owned(),
        Some(name) => format!("{path}.{name}"),
        None => path,
    }
}

/// Returns the error without its position in the text, because the path of the field says more.
fn message(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    // An error of a value that was read before has no position.
    if error.line() > 0 {
        text.truncate(text.rfind(" at line ").unwrap_or(text.len()));
    }
    text
}

/// Distinguishes an absent field (`None`, by the default) from null (`Some(None)`). In a merge patch an
/// absent field keeps its value and null clears it.
pub(crate) fn clearable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Reads a field that may be absent but, if it is there, may not be null.
pub(crate) fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads a field that is present. Any value is allowed, including null.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Accepts a `T` only as an object: a derived `Deserialize` would also accept an array of its fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// A time in RFC 3339.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(pub(crate) Timestamp);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a time in RFC 3339, like 2026-11-27T00:00:00Z";
        parsed(deserializer, expected, |text| Timestamp::parse(text).map(Self))
    }
}

/// Reads a string that `parse` accepts. `expected` says what it is.
pub(crate) fn parsed<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error> {
    struct Parsed<F> {
        expected: &'static str,
        parse: F,
    }

    impl<T, F: FnOnce(&str) -> Option<T>> Visitor<'_> for Parsed<F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expected)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            let expected = self.expected;
            (self.parse)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &expected))
        }
    }

    deserializer.deserialize_str(Parsed { expected, parse })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "the test only reads it")]
        value: u64,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(default, deserialize_with = "clearable")]
        inner: Option<Option<Object<Inner>>>,
        #[serde(default)]
        at: Option<Time>,
    }

    #[test]
    fn absent_null_and_a_value_are_distinguished() {
        assert!(parse::<Outer>(b"{}").unwrap().inner.is_none());
        assert!(
            parse::<Outer>(br#"{"inner": null}"#)
                .unwrap()
                .inner
                .unwrap()
                .is_none()
        );
        assert!(
            parse::<Outer>(br#"{"inner": {"value": 1}}"#)
                .unwrap()
                .inner
                .unwrap()
                .is_some()
        );
        assert!(
            parse::<Outer>(br#"{"at": "2026-11-27T09:00:00+09:00"}"#)
                .unwrap()
                .at
                .is_some()
        );
    }

    #[test]
    fn a_body_that_is_not_a_json_object_is_malformed() {
        for body in [
            "",
            "nonsense",
            "[]",
            "1",
            "null",
            "\"x\"",
            "{",
            "{} {}",
            r#"{"other": 1"#,
            r#"{"inner": 1} x"#,
        ] {
            assert!(
                matches!(parse::<Outer>(body.as_bytes()), Err(RequestError::Malformed(_))),
                "{body}"
            );
        }
        assert!(matches!(
            parse::<Outer>(b"{\"at\": \"\xff\"}"),
            Err(RequestError::Malformed(_))
        ));
    }

    #[test]
    fn only_an_array_without_elements_is_an_empty_array() {
        for body in ["[]", " [ ]\n"] {
            assert!(is_empty_array(body.as_bytes()), "{body}");
        }
        for body in ["", "[", "{}", "[1]", "[[]]", "[] []", "null"] {
            assert!(!is_empty_array(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn an_invalid_field_is_reported_with_its_path() {
        for (body, path) in [
            (r#"{"other": 1}"#, "other"),
            (r#"{"inner": {"value": -1}}"#, "inner.value"),
            (r#"{"inner": {"value": "1"}}"#, "inner.value"),
            (r#"{"inner": {"value": 1, "more": 2}}"#, "inner.more"),
            (r#"{"inner": {}}"#, "inner.value"),
            (r#"{"inner": [1]}"#, "inner"),
            (r#"{"at": "yesterday"}"#, "at"),
            (r#"{"at": 5}"#, "at"),
            (r#"{"at": "2026-11-27 09:00:00Z"}"#, "at"),
            (r#"{"at": null, "at": null}"#, "at"),
        ] {
            let Err(RequestError::Invalid(errors)) = parse::<Outer>(body.as_bytes()) else {
                panic!("{body}")
            };
            assert_eq!(errors[0].field, path, "{body}: {}", errors[0].message);
            assert!(!errors[0].message.contains(" at line "), "{}", errors[0].message);
        }
    }

    #[test]
    fn all_fields_that_do_not_fit_are_reported() {
        for (body, paths) in [
            (
                r#"{"at": 5, "inner": 7, "other": 1}"#,
                vec!["at", "inner", "other"],
            ),
            (
                r#"{"other": 1, "inner": {"value": "x", "more": 2, "most": 3}, "at": "x"}"#,
                vec!["other", "at", "inner.more", "inner.most", "inner.value"],
            ),
            (
                r#"{"inner": {"more": 1}, "at": 5}"#,
                vec!["inner.more", "at", "inner.value"],
            ),
            (
                r#"{"inner": {"value": 1, "value": 2}, "at": 5}"#,
                vec!["inner.value", "at"],
            ),
            (
                r#"{"inner": {"value": [1]}, "at": {}}"#,
                vec!["inner.value", "at"],
            ),
        ] {
            let Err(RequestError::Invalid(errors)) = parse::<Outer>(body.as_bytes()) else {
                panic!("{body}")
            };
            let named: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(named, paths, "{body}");
        }
    }

    #[test]
    fn a_body_of_wrong_fields_costs_a_bounded_number_of_readings() {
        let fields: Vec<String> = (0..1_000).map(|number| format!("\"f{number}\": 1")).collect();
        let body = format!("{{{}}}", fields.join(","));
        let Err(RequestError::Invalid(errors)) = parse::<Outer>(body.as_bytes()) else {
            panic!("{body}")
        };
        assert_eq!(errors.len(), 16);
    }
}
