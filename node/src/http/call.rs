//! One request as its handler sees it: head, parameter of the path, and body.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::Stream;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde::de::DeserializeOwned;
use warp::path::FullPath;

use super::body::{self, BodyError};
use super::head::Head;
use super::json::{self, Checked};
use super::problem::{FieldError, RequestError};
use super::query::{self, Query};

/// A request whose body has been read.
#[derive(Debug)]
pub(crate) struct Call {
    /// Its head.
    pub(crate) head: Arc<Head>,
    path: FullPath,
    parameter: Range<usize>,
    body: Result<Bytes, BodyError>,
    wrong_names: Vec<FieldError>,
}

impl Call {
    /// Reads the body, of up to `bytes_max`. `parameter` is the place of the parameter in the path.
    pub(crate) async fn read<B: Buf>(
        head: Arc<Head>,
        path: FullPath,
        parameter: Range<usize>,
        bytes_max: usize,
        stream: impl Stream<Item = Result<B, warp::Error>>,
    ) -> Self {
        let body = body::read_in_time(&head, bytes_max, stream).await;
        // The connection must know this for every response, including a refusal.
        head.set_body_left_unread(matches!(body, Err(BodyError::TooLarge(_) | BodyError::TimedOut)));
        Self {
            head,
            path,
            parameter,
            body,
            wrong_names: Vec::new(),
        }
    }

    /// Compares the names of the query with those that the operation knows.
    pub(crate) fn compare_names<'a>(&mut self, known: impl Iterator<Item = &'a str> + Clone) {
        self.wrong_names = query::wrong_names(&self.head.query, known);
    }

    /// Returns what `read` reads from the query. The error names each parameter that is wrong, by its name or
    /// by its value.
    pub(crate) fn query<T>(&self, read: impl FnOnce(&mut Query) -> T) -> Result<T, RequestError> {
        Query::read(&self.head.query, &self.wrong_names, read)
    }

    /// Returns the parameter of the path, as it was sent; empty if the route has no parameter.
    pub(crate) fn parameter(&self) -> &str {
        &self.path.as_str()[self.parameter.clone()]
    }

    /// Parses a body that must be there.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, RequestError> {
        let body = self.body()?;
        self.check_form()?;
        json::parse(body)
    }

    /// Parses a body that must be there, and checks its fields.
    pub(crate) fn json_checked<T: Checked>(&self) -> Result<T::Value, RequestError> {
        let body = self.body()?;
        self.check_form()?;
        json::parse_checked::<T>(body)
    }

    /// Parses an optional body. An empty body counts as an empty object, and so does an empty array, because
    /// PHP writes one for an object without fields.
    pub(crate) fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, RequestError> {
        if self.is_without_data()? {
            return Ok(T::default());
        }
        self.json()
    }

    /// Parses an optional body like [`Self::json_or_default`], and checks its fields.
    pub(crate) fn json_checked_or_default<T: Checked>(&self) -> Result<T::Value, RequestError> {
        if self.is_without_data()? {
            return json::parse_checked::<T>(b"{}");
        }
        self.json_checked::<T>()
    }

    /// True if the body is empty, or an empty array.
    fn is_without_data(&self) -> Result<bool, RequestError> {
        let body = self.body()?;
        if body.is_empty() {
            return Ok(true);
        }
        if json::is_empty_array(body) {
            self.check_form()?;
            return Ok(true);
        }
        Ok(false)
    }

    fn body(&self) -> Result<&Bytes, RequestError> {
        self.body.as_ref().map_err(|error| match error {
            BodyError::TooLarge(bytes_max) => RequestError::BodyTooLarge(*bytes_max),
            BodyError::TimedOut => RequestError::TimedOut,
            BodyError::Incomplete => RequestError::Malformed("the body is incomplete".to_owned()),
        })
    }

    /// Checks how the body is written, before it is parsed.
    fn check_form(&self) -> Result<(), RequestError> {
        self.check_content_coding()?;
        self.check_media_type()
    }

    /// Accepts only bodies that are not encoded: a compressed body could exceed its limit.
    fn check_content_coding(&self) -> Result<(), RequestError> {
        let values = self.head.headers.get_all(CONTENT_ENCODING).iter();
        let mut codings = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let is_none = |coding: &[u8]| {
            let coding = coding.trim_ascii();
            coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
        };
        if codings.all(is_none) {
            Ok(())
        } else {
            Err(RequestError::UnsupportedContentCoding)
        }
    }

    /// Accepts JSON and merge patches; a body without a type is taken for JSON.
    fn check_media_type(&self) -> Result<(), RequestError> {
        let Some(value) = self.head.headers.get(CONTENT_TYPE) else {
            return Ok(());
        };
        let essence = value
            .to_str()
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim();
        let known = ["application/json", "application/merge-patch+json"];
        if known.iter().any(|known| essence.eq_ignore_ascii_case(known)) {
            Ok(())
        } else {
            Err(RequestError::UnsupportedMediaType)
        }
    }
}
