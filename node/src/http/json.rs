//! JSON in and out. Strict in: what a client sends and we do not know is a mistake that it wants to hear of.

use std::fmt;
use std::marker::PhantomData;

use actors::time::Timestamp;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use smallvec::SmallVec;
use warp::reply::Response;

use super::problem::Problem;

/// Anything that is written as its text.
#[derive(Debug)]
pub(crate) struct Text<T>(pub(crate) T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// One page of a list.
#[derive(Debug, Serialize)]
pub(crate) struct Page<T> {
    /// What is on it.
    pub(crate) items: Vec<T>,
    /// Where the next one begins, if there is one.
    pub(crate) next_cursor: Option<String>,
}

/// A response with this body.
pub(crate) fn response(status: StatusCode, body: &impl Serialize) -> Response {
    let mut text = Written::new();
    let written = serde_json::to_writer(&mut text, body).map(|()| text);
    response_of_text("application/json", status, written)
}

/// A response with this text, of a media type that is JSON; an empty 500 if it was not written.
pub(crate) fn response_of_text(
    media_type: &'static str,
    status: StatusCode,
    written: serde_json::Result<Written>,
) -> Response {
    let text = match written {
        Ok(text) if text.spilled() => Bytes::from(text.into_vec()),
        Ok(text) => Bytes::copy_from_slice(&text),
        Err(error) => {
            // Our bodies have text keys only, so this would be a mistake in a `Serialize`.
            tracing::error!(%error, "an answer cannot be written");
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

/// An answer's text while it is written: on the stack, where there is room for a usual answer to an issue
/// request; lists grow beyond it.
pub(crate) type Written = SmallVec<[u8; 384]>;

/// Reads a body: 400 if it is no JSON object, 422 with the field's path if it is one that does not fit.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let no_json = |error: &serde_json::Error| Problem::Malformed(format!("the body is not JSON: {error}"));
    // Whether it is JSON at all comes first, or half an object with a wrong field would be called a whole
    // one.
    serde_json::from_slice::<IgnoredAny>(body).map_err(|error| no_json(&error))?;
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Problem::Malformed("the body is not a JSON object".to_owned()));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        match error.into_inner() {
            error if error.is_data() => {
                let message = message(&error);
                Problem::invalid(field(path, &message), message)
            }
            error => no_json(&error),
        }
    })
}

/// The field that is meant. The path of one that is missing, or there twice, ends at what it is (not) in; the
/// message has its name.
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

/// What is wrong, without the place in the text, which the field's path tells better.
fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    text.chars()
        .take(MESSAGE_CHARS_MAX)
        .take(text[..end].chars().count())
        .collect()
}

/// Messages may quote the client's own text, which can be as long as the body.
const MESSAGE_CHARS_MAX: usize = 200;

/// Tells *absent* (keep) from *null* (clear) in a merge patch: an absent field is never asked, and stays
/// `None` by default.
pub(crate) fn clearable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A field that is there, whatever it holds; also null.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// A `T` written as an object: what is derived would take a list of its values as well.
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

/// A time as clients write it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(pub(crate) Timestamp);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let timestamp = Timestamp::parse(&text);
        timestamp
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("must be a time in RFC 3339, like 2026-11-27T00:00:00Z"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only that it is read matters")]
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
    fn absent_null_and_a_value_are_three_things() {
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
    fn what_is_no_json_object_is_malformed() {
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
                matches!(parse::<Outer>(body.as_bytes()), Err(Problem::Malformed(_))),
                "{body}"
            );
        }
        assert!(matches!(
            parse::<Outer>(b"{\"at\": \"\xff\"}"),
            Err(Problem::Malformed(_))
        ));
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_path() {
        for (body, path) in [
            (r#"{"other": 1}"#, "other"),
            (r#"{"inner": {"value": -1}}"#, "inner.value"),
            (r#"{"inner": {"value": "1"}}"#, "inner.value"),
            (r#"{"inner": {"value": 1, "more": 2}}"#, "inner.more"),
            (r#"{"inner": {}}"#, "inner.value"),
            (r#"{"inner": [1]}"#, "inner"),
            (r#"{"at": "yesterday"}"#, "at"),
            (r#"{"at": 5}"#, "at"),
            (r#"{"at": null, "at": null}"#, "at"),
        ] {
            let Err(Problem::Invalid(errors)) = parse::<Outer>(body.as_bytes()) else {
                panic!("{body}")
            };
            assert_eq!(errors[0].field, path, "{body}: {}", errors[0].message);
            assert!(!errors[0].message.contains(" at line "), "{}", errors[0].message);
        }
    }
}
