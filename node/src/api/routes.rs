//! Dispatches requests by the [`table`] of routes. This table is also the source of the OpenAPI document, of
//! the `Allow` header and of the labels of metrics.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::Method;
use utoipa::openapi::HttpMethod;
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Rejection};

mod bulk;
mod coupons;
mod issuances;
mod lists;
mod operators;
mod shared;
mod table;
mod uses;

pub(super) use self::table::ROUTES;

use super::bulk::BULK_BODY_BYTES_MAX;
use super::credentials::{self, mark_private, report_refused_token};
use super::error::Error;
use super::redirect::redirect;
use super::{Answer, openapi, principal};
use crate::http::body::BODY_BYTES_MAX;
use crate::http::call::Call;
use crate::http::head::Head;
use crate::http::problem::RequestError;
use crate::http::route_metrics::RouteMetrics;
use crate::http::template;
use crate::service::auth::{Principal, TokenRefusal};
use crate::service::{self, Service};

/// One path with its operations.
pub(super) struct Route {
    /// Label of metrics and logs: the template of the path.
    pub(super) metrics: RouteMetrics,
    /// One operation per method; `GET` also answers `HEAD`.
    pub(super) operations: &'static [Operation],
}

/// One method of a path.
pub(super) struct Operation {
    /// The method.
    pub(super) method: Verb,
    /// Handles the request.
    pub(super) handler: Handler,
    /// The operation's id in the OpenAPI document.
    pub(super) name: &'static str,
    /// What the operation does.
    pub(super) summary: &'static str,
    /// The credentials that the operation needs.
    pub(super) access: Access,
    /// Parameters of the query and the header, by name.
    pub(super) parameters: &'static [&'static str],
    /// The body that the operation accepts.
    pub(super) body: Option<Body>,
    /// The response if the operation succeeds.
    pub(super) success: Success,
    /// Codes of the problems that the operation responds with, in groups that operations share.
    pub(super) problems: &'static [&'static [&'static str]],
}

/// Handles one request. The future is boxed because the filters and the connection move it several times.
pub(super) type Handler = for<'a> fn(&'a Service, &'a Call) -> BoxFuture<'a, Answer>;

/// Methods that operations have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
    Patch,
}

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Anyone, also without credentials.
    Anyone,
    /// Any user, and any key.
    Known,
    /// Users.
    User,
    /// Users for themselves, and services for others.
    Issuer,
    /// Administrators and operators, who change coupons.
    Admin,
    /// Administrators, operators and services: those that use issuances.
    AdminOrService,
    /// The same; and if `coupon.user_may_reserve` is set, users, for their own issuances.
    Reserver,
    /// Administrators, operators and viewers, who may read everything.
    Reader,
    /// The same, and services.
    ReaderOrService,
}

impl Access {
    /// Fails if an operation with this access refuses the principal.
    fn check(self, service: &Service, principal: &Principal) -> Result<(), service::Error> {
        match self {
            Self::Anyone => Ok(()),
            Self::User => principal.require_user().map(drop),
            Self::Issuer => principal.require_issuer(),
            Self::Admin => principal.require_admin(),
            Self::AdminOrService => principal.require_use(),
            Self::Reserver => service.may_reserve(principal).map(drop),
            Self::Reader => principal.require_reader(),
            Self::ReaderOrService => principal.require_reader_or_service(),
            Self::Known => principal.require_known().map(drop),
        }
    }

    /// Returns who may call the operation: `anyone`, or users and the names of roles. `user_may_reserve` is
    /// the key `coupon.user_may_reserve`.
    pub(super) const fn allowed(self, user_may_reserve: bool) -> &'static [&'static str] {
        match self {
            Self::Reserver if user_may_reserve => &["user", "admin", "operator", "service"],
            Self::Anyone => &["anyone"],
            Self::Known => &["user", "admin", "operator", "service", "viewer"],
            Self::User => &["user"],
            Self::Issuer => &["user", "service"],
            Self::Admin => &["admin", "operator"],
            Self::AdminOrService | Self::Reserver => &["admin", "operator", "service"],
            Self::Reader => &["admin", "operator", "viewer"],
            Self::ReaderOrService => &["admin", "operator", "service", "viewer"],
        }
    }
}

/// The body that an operation accepts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body {
    /// Name of the body's schema.
    pub(super) schema: &'static str,
    /// True if the request must have a body.
    pub(super) required: bool,
}

/// The response of an operation that succeeds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Success {
    pub(super) status: u16,
    pub(super) media_type: &'static str,
    /// Name of the body's schema; `None` for text.
    pub(super) schema: Option<&'static str>,
    /// Headers besides `X-Request-Id`.
    pub(super) headers: &'static [&'static str],
}

impl Verb {
    fn accepts(self, method: &Method) -> bool {
        match self {
            Self::Get => method == Method::GET || method == Method::HEAD,
            Self::Post => method == Method::POST,
            Self::Patch => method == Method::PATCH,
        }
    }

    const fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Post => Method::POST,
            Self::Patch => Method::PATCH,
        }
    }

    const fn allow(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
            Self::Patch => "PATCH",
        }
    }

    /// The method in the OpenAPI document.
    pub(super) const fn openapi(self) -> HttpMethod {
        match self {
            Self::Get => HttpMethod::Get,
            Self::Post => HttpMethod::Post,
            Self::Patch => HttpMethod::Patch,
        }
    }
}

impl Route {
    /// Returns the template of the route's path.
    pub(super) const fn template(&self) -> &'static str {
        self.metrics.label()
    }

    /// Returns the value of `Allow`.
    fn allow(&self) -> String {
        let verbs: Vec<&str> = self
            .operations
            .iter()
            .map(|operation| operation.method.allow())
            .collect();
        verbs.join(", ")
    }

    /// Returns the operation for the method.
    fn operation(&self, method: &Method) -> Result<&Operation, RequestError> {
        let mut operations = self.operations.iter();
        operations
            .find(|operation| operation.method.accepts(method))
            .ok_or_else(|| RequestError::MethodNotAllowed(self.allow()))
    }
}

impl Operation {
    /// The names of the query parameters. Names of headers have capitals, and names of query parameters have
    /// none.
    fn query_parameters(&self) -> impl Iterator<Item = &'static str> + Clone {
        let is_lowercase = |name: &&str| !name.contains(|letter: char| letter.is_ascii_uppercase());
        self.parameters.iter().copied().filter(is_lowercase)
    }

    /// Calls the handler. If it refused a token because no keys are known, or not the token's, or another one
    /// under its name (a provider may replace a key and keep its `kid`, or give none), calls it again once
    /// there are newer keys: the handler has done nothing else before.
    async fn answer(&self, service: &Service, call: &Call) -> Answer {
        let generation = service.authenticator().key_generation();
        let answer = self.attempt(service, call).await;
        if !is_for_newer_keys(&answer) {
            return answer;
        }
        // What is rare has a future of its own, because the futures of requests are moved several times.
        let again = async {
            match service.authenticator().renew_keys(generation).await {
                true => self.attempt(service, call).await,
                false => answer,
            }
        };
        Box::pin(again).await
    }

    /// Returns the maximum size of the body of this request. A large body is read only from a principal that
    /// may call the operation. So others make a connection hold no more than by any other request.
    async fn body_bytes_max(&self, service: &Service, head: &Head) -> usize {
        let is_permitted = || {
            let principal = credentials::principal(service.authenticator(), head)?;
            Ok(self.access.check(service, &principal)?)
        };
        let generation = service.authenticator().key_generation();
        let mut permitted = is_permitted();
        if is_for_newer_keys(&permitted) && service.authenticator().renew_keys(generation).await {
            permitted = is_permitted();
        }
        match permitted {
            Ok(()) => BULK_BODY_BYTES_MAX,
            // The handler gives the reason.
            Err(_) => BODY_BYTES_MAX,
        }
    }

    /// True if the body may be larger than [`BODY_BYTES_MAX`].
    fn has_large_body(&self) -> bool {
        self.body.is_some_and(|body| body.schema == "BulkIssueRequest")
    }

    /// Calls the handler, which reads the query if the operation has parameters there.
    async fn attempt(&self, service: &Service, call: &Call) -> Answer {
        if self.query_parameters().next().is_none()
            && let Err(error) = call.query(|_| ())
        {
            // A missing right is reported first, as for any other mistake in a request.
            if self.access != Access::Anyone {
                self.access.check(service, &principal(service, call)?)?;
            }
            return Err(error.into());
        }
        (self.handler)(service, call).await
    }

    /// Returns the handler's response, or the response to its error.
    async fn respond(&self, service: &Service, mut call: Call) -> Response {
        call.compare_names(self.query_parameters());
        let mut response = self.answer(service, &call).await.unwrap_or_else(|error| {
            report_refused_token(&call.head, &error);
            error.into_response(service.codes())
        });
        if self.access != Access::Anyone {
            mark_private(service.authenticator(), &mut response);
        }
        response
    }
}

/// True if a token was refused that may be valid by newer keys.
fn is_for_newer_keys<T>(answer: &Result<T, Error>) -> bool {
    matches!(
        answer,
        Err(Error::Service(service::Error::InvalidToken(
            TokenRefusal::NoKeys | TokenRefusal::UnknownKey | TokenRefusal::Signature
        )))
    )
}

/// Returns the route with this path, and the place of the parameter in the path.
fn find(path: &str) -> Option<(&'static Route, Range<usize>)> {
    ROUTES.iter().find_map(|route| {
        let parameter = template::matches(route.template(), path)?;
        Some((route, parameter))
    })
}

/// True if there is a route with this path.
pub(super) fn is_route(path: &str) -> bool {
    find(path).is_some()
}

/// The most frequent operation: issuing.
static HOT: (&Route, Verb) = (&ROUTES[0], Verb::Post);

/// Paths of requests that may begin a trace, and not those of operators and pages.
pub(crate) const TRACED_PATHS: &str = "/v1/";

/// True if a request with this method and path is for the most frequent operation.
pub(crate) fn is_hot(method: &Method, path: &str) -> bool {
    let (route, verb) = HOT;
    verb.accepts(method) && template::matches(route.template(), path).is_some()
}

/// Creates the metrics of all routes. Only the hot route, which is the first, has histograms of failures from
/// the start, because a histogram has many series.
pub(crate) fn register_metrics() {
    for route in &ROUTES {
        for operation in route.operations {
            let codes = operation.problems.iter().copied().flatten();
            let mut statuses: Vec<u16> = codes.map(|code| openapi::status(code)).collect();
            statuses.push(operation.success.status);
            let is_hot = std::ptr::eq(route, HOT.0) && operation.method == HOT.1;
            let classes: &[usize] = match (is_hot, route.template().starts_with("/v1/")) {
                (true, _) => &[2, 4, 5],
                (false, true) => &[2],
                (false, false) => &[],
            };
            route
                .metrics
                .register(&operation.method.method(), &statuses, classes);
        }
    }
}

/// Returns the filter that answers all requests.
///
/// The filter compares the path with the entries of the table in order. The first entry is the hot route. The
/// body is read only if a route matches.
pub(crate) fn routes(
    service: Arc<Service>,
) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
    warp::path::full()
        .and(warp::ext::get::<Arc<Head>>())
        .and(warp::body::stream())
        .then(move |path: FullPath, head: Arc<Head>, stream| {
            let service = Arc::clone(&service);
            async move {
                let Some((route, parameter)) = find(path.as_str()) else {
                    return redirect(&head, path.as_str())
                        .unwrap_or_else(|| RequestError::NotFound.into_response());
                };
                head.set_route(&route.metrics);
                let operation = route.operation(&head.method);
                let bytes_max = match &operation {
                    Ok(operation) if operation.has_large_body() => {
                        Box::pin(operation.body_bytes_max(&service, &head)).await
                    }
                    _ => BODY_BYTES_MAX,
                };
                let call = Call::read(head, path, parameter, bytes_max, stream).await;
                match operation {
                    Ok(operation) => operation.respond(&service, call).await,
                    Err(error) => error.into_response(),
                }
            }
        })
        .recover(|_: Rejection| async { Ok::<_, Infallible>(RequestError::NotFound.into_response()) })
        .unify()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    #[test]
    fn every_route_is_reached_by_its_own_path() {
        let first = |path: &str| {
            ROUTES
                .iter()
                .position(|route| template::matches(route.template(), path).is_some())
        };
        for (index, route) in ROUTES.iter().enumerate() {
            let path = route
                .template()
                .replace("{id}", "7")
                .replace("{file}", "index.css");
            assert_eq!(first(&path), Some(index), "{path}");
        }
    }

    #[test]
    fn operations_have_distinct_names_and_methods() {
        let mut names = BTreeSet::new();
        for route in &ROUTES {
            let mut methods = BTreeSet::new();
            for operation in route.operations {
                assert!(names.insert(operation.name), "{}", operation.name);
                assert!(methods.insert(operation.method.allow()), "{}", operation.name);
            }
        }
    }

    #[test]
    fn the_hot_route_is_first() {
        assert_eq!(ROUTES[0].template(), "/v1/coupons/{id}/issuances");
        assert!(is_hot(&Method::POST, "/v1/coupons/7/issuances"));
        assert!(!is_hot(&Method::GET, "/v1/coupons/7/issuances"));
        assert!(!is_hot(&Method::POST, "/v1/coupons/7/pause") && !is_hot(&Method::POST, "/issuances"));
    }

    /// Files of the HTTP room, with their code apart from comments and unit tests.
    fn http_room() -> Vec<(PathBuf, String)> {
        let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
        let mut folders = vec![room.clone()];
        let mut files = vec![room.with_extension("rs")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path);
                }
            }
        }
        let code = |path: PathBuf| {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            (path, lines.collect::<Vec<_>>().join("\n"))
        };
        files.into_iter().map(code).collect()
    }

    #[test]
    fn the_http_room_knows_no_route() {
        let segments: BTreeSet<&str> = ROUTES
            .iter()
            .flat_map(|route| route.template().split('/'))
            .filter(|segment| !segment.is_empty() && !segment.contains(['{', '.']))
            .collect();
        assert!(segments.contains("issuances"), "{segments:?}");
        let files = http_room();
        assert!(files.len() > 20, "{} files", files.len());
        for (path, code) in files {
            let is_of_a_path = |(at, segment): (usize, &str)| {
                let (before, after) = (&code[..at], &code[at + segment.len()..]);
                before.ends_with(['/', '"'])
                    && !after.starts_with(|next: char| next.is_alphanumeric() || next == '_')
            };
            let text = |segment: &&&str| code.match_indices(**segment).any(is_of_a_path);
            let known: Vec<&&str> = segments.iter().filter(text).collect();
            assert!(known.is_empty(), "{} knows {known:?}", path.display());
            for room in ["crate::api", "crate::service"] {
                assert!(!code.contains(room), "{} imports {room}", path.display());
            }
        }
    }
}
