//! `/docs`: the contract for people. Swagger UI, whose files are in the binary: no page asks any other server
//! for anything.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use http::HeaderValue;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use utoipa_swagger_ui::{Config, SwaggerFile};
use warp::reply::Response;

use super::{Answer, only_reads};
use crate::http::call::Call;
use crate::http::problem::Problem;

/// Where the document is, seen from the page. No validator elsewhere is told about it.
static CONFIG: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("openapi.json").validator_url("none")));

/// The page asks this server alone, and whatever it shows cannot make it ask another.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
    base-uri 'self'; frame-ancestors 'none'";

/// `/docs`
pub(crate) fn page(path: &str, call: &Call) -> Answer {
    only_reads(call)?;
    let file = find("index.html")?;
    // The page is written to live in a directory. Its links are relative, as a proxy in front may have put us
    // below a path of its own that we do not know.
    let text = String::from_utf8_lossy(&file.bytes)
        .replace("\"./", "\"docs/")
        .replace("href=\"index.css", "href=\"docs/index.css");
    let text = if path.ends_with('/') {
        text.replacen("<head>", "<head><base href=\"../\">", 1)
    } else {
        text
    };
    Ok(show(text.into_bytes(), &file.content_type))
}

/// `/docs/{file}`
pub(crate) fn file(name: &str, call: &Call) -> Answer {
    only_reads(call)?;
    let file = find(name)?;
    Ok(show(file.bytes.into_owned(), &file.content_type))
}

fn find(name: &str) -> Result<SwaggerFile<'static>, Problem> {
    let found = utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG)).map_err(|error| {
        tracing::error!(%error, name, "a file of the documentation cannot be written");
        Problem::Internal { applied: Some(false) }
    })?;
    found.ok_or(Problem::NotFound)
}

fn show(bytes: Vec<u8>, content_type: &str) -> Response {
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
