//! Query parameters.

use super::head::Head;
use super::problem::RequestError;

/// The decoded query of a request. Unknown parameters are ignored: proxies and browsers add some.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes the query of a request.
    pub(crate) fn of(head: &Head) -> Self {
        Self(
            form_urlencoded::parse(head.query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// Parses a parameter; `message` says what its value must be.
    pub(crate) fn get<T>(
        &self,
        name: &str,
        message: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, RequestError> {
        let mut values = self.0.iter().filter(|(known, _)| known == name);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some((_, value)), None) => parse(value)
                .map(Some)
                .ok_or_else(|| RequestError::invalid(name, message)),
            (Some(_), Some(_)) => Err(RequestError::invalid(name, "must occur only once")),
        }
    }
}
