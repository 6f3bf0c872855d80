//! Redirects to the path that was probably meant.

use http::header::LOCATION;
use http::{HeaderValue, Method, StatusCode};
use warp::reply::Response;

use super::routes::is_route;
use crate::http::head::Head;

/// Path of the page to which `/` leads.
const PAGE: &str = "/docs";

/// Returns the redirect of a request whose path no route matches, if there is one: from `/` to the page, and
/// from a path with a slash at its end to the route without it, with the same method and query.
///
/// Only routes are redirected to. So the target never begins with two slashes, which would lead to another
/// server.
pub(super) fn redirect(head: &Head, path: &str) -> Option<Response> {
    if path == "/" {
        // `/` may get a page of its own later, so this redirect is temporary.
        let is_read = [Method::GET, Method::HEAD].contains(&head.method);
        return is_read.then(|| to(StatusCode::TEMPORARY_REDIRECT, HeaderValue::from_static(PAGE)));
    }
    let target = path.strip_suffix('/').filter(|path| is_route(path))?;
    let target = if head.query.is_empty() {
        HeaderValue::try_from(target)
    } else {
        HeaderValue::try_from(format!("{target}?{}", head.query))
    };
    Some(to(StatusCode::PERMANENT_REDIRECT, target.ok()?))
}

fn to(status: StatusCode, target: HeaderValue) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    response.headers_mut().insert(LOCATION, target);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use std::net::Ipv4Addr;

    fn target(method: Method, path: &str, query: &str) -> Option<(u16, String)> {
        let peer = Ipv4Addr::LOCALHOST.into();
        let response = redirect(&Head::new(method, query.to_owned(), HeaderMap::new(), peer), path)?;
        let location = response.headers()[LOCATION].to_str().unwrap().to_owned();
        Some((response.status().as_u16(), location))
    }

    #[test]
    fn a_slash_at_the_end_of_a_route_is_dropped_and_the_query_is_kept() {
        for (path, query, location) in [
            ("/v1/coupons/", "", "/v1/coupons"),
            (
                "/v1/coupons/",
                "limit=1&cursor=a%2Fb/",
                "/v1/coupons?limit=1&cursor=a%2Fb/",
            ),
            ("/v1/coupons/42/issuances/", "", "/v1/coupons/42/issuances"),
            ("/docs/", "", "/docs"),
            ("/livez/", "", "/livez"),
        ] {
            for method in [Method::GET, Method::POST, Method::DELETE] {
                let redirected = target(method, path, query);
                assert_eq!(redirected, Some((308, location.to_owned())), "{path}");
            }
        }
    }

    #[test]
    fn the_root_leads_to_the_page() {
        assert_eq!(target(Method::GET, "/", ""), Some((307, "/docs".to_owned())));
        assert_eq!(target(Method::HEAD, "/", "x=1"), Some((307, "/docs".to_owned())));
        assert_eq!(target(Method::POST, "/", ""), None);
    }

    #[test]
    fn nothing_leads_to_another_server_or_to_a_path_that_does_not_exist() {
        for path in [
            "//",
            "//mallory.example/",
            "//mallory.example//",
            "/v1/",
            "/v1/coupons//",
            "/v1/coupons/42/issuances//",
            "/nowhere/",
            "",
            "*",
        ] {
            assert_eq!(target(Method::GET, path, ""), None, "{path}");
        }
    }
}
