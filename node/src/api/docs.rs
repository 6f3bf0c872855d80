//! `/docs`: the HTTP contract as a page of Swagger UI. Its files are in the binary, so the page uses no other
//! server.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use utoipa_swagger_ui::{Config, SwaggerFile};
use warp::reply::Response;

use super::Answer;
use super::error::Error;
use crate::http::problem::RequestError;
use crate::http::response_body::SharedBody;
use crate::service;

/// Path of the document, relative to the page. The document is not sent to a validator on another server.
static CONFIG: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("openapi.json").validator_url("none")));

/// Restricts the page to this server, whatever the document contains.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; connect-src 'self'; \
    base-uri 'self'; frame-ancestors 'none'";

/// `GET /docs`
pub(super) fn page() -> Answer {
    let file = find("index.html")?;
    // The page expects to be in a directory. Its links stay relative, because a proxy may serve this node
    // below a path that the node does not know.
    let text = String::from_utf8_lossy(&file.bytes)
        .replace("\"./", "\"docs/")
        .replace("href=\"index.css", "href=\"docs/index.css");
    Ok(response(text.into(), &file.content_type))
}

/// `GET /docs/{file}`
pub(super) fn file(name: &str) -> Answer {
    let file = find(name)?;
    let bytes = match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        // Files into which values of this program are written. They are small.
        Cow::Owned(bytes) => bytes.into(),
    };
    let mut response = response(bytes, &file.content_type);
    response.extensions_mut().insert(SharedBody);
    Ok(response)
}

fn find(name: &str) -> Result<SwaggerFile<'static>, Error> {
    let found = utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG)).map_err(|error| {
        tracing::error!(%error, name, "failed to render a file of the API page");
        service::Error::Internal { applied: Some(false) }
    })?;
    found.ok_or(RequestError::NotFound.into())
}

fn response(bytes: Bytes, content_type: &str) -> Response {
    let mut response = Response::new(bytes.into());
    let with_charset = if content_type.starts_with("text/") {
        Cow::Owned(format!("{content_type}; charset=utf-8"))
    } else {
        content_type.into()
    };
    // Media types are ASCII.
    if let Ok(value) = HeaderValue::from_str(&with_charset) {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
