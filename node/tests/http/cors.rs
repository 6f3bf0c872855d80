//! CORS: which pages may read responses.

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName};
use serde_json::json;

use crate::support::{Reply, TestNode, send};

const SHOP: &str = "https://shop.example";
const KEYS: [(&str, &str); 1] = [("http.cors_origins", "https://shop.example,http://localhost:3000")];

fn cors_headers(headers: &HeaderMap) -> Vec<&HeaderName> {
    headers
        .keys()
        .filter(|name| name.as_str().starts_with("access-control-"))
        .collect()
}

async fn preflight(node: &TestNode, path: &str, origin: &str, method: &str) -> Reply {
    let request = node
        .request(Method::OPTIONS, path)
        .header("Origin", origin)
        .header("Access-Control-Request-Method", method);
    send(request.header("Access-Control-Request-Headers", "authorization,idempotency-key")).await
}

#[tokio::test]
async fn a_preflight_gets_the_methods_of_its_route() {
    let node = TestNode::start_with(&KEYS).await;
    for (path, methods) in [
        ("/v1/coupons", "GET, HEAD, POST"),
        ("/v1/coupons/1", "GET, HEAD, PATCH"),
        ("/v1/coupons/1/pause", "POST"),
        ("/v1/coupons/1/resume", "POST"),
        ("/v1/coupons/1/close", "POST"),
        ("/v1/coupons/1/issuances", "GET, HEAD, POST"),
        ("/v1/me/issuances", "GET, HEAD"),
        ("/v1/issuances/1-1", "GET, HEAD"),
        ("/v1/cluster", "GET, HEAD"),
        ("/v1/cluster/coupons/1", "GET, HEAD"),
        ("/livez", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
    ] {
        for origin in [SHOP, "http://localhost:3000"] {
            let reply = preflight(&node, path, origin, "POST").await;
            assert_eq!(
                (reply.status, reply.header("access-control-allow-methods")),
                (204, methods),
                "{path}"
            );
            assert_eq!(
                (reply.header("access-control-allow-origin"), reply.header("vary")),
                (origin, "origin"),
                "{path}"
            );
            assert_eq!(reply.header("access-control-max-age"), "600");
            let allowed = reply.header("access-control-allow-headers");
            for header in [
                "authorization",
                "content-type",
                "idempotency-key",
                "if-match",
                "traceparent",
                "x-request-id",
                "x-user-id",
            ] {
                assert!(allowed.split(", ").any(|name| name == header), "{allowed}");
            }
            assert!(reply.body.is_null() && reply.header("content-type").is_empty());
        }
    }
    preflight(&node, "/nowhere", SHOP, "GET")
        .await
        .assert_refused(404, "NOT_FOUND");
}

#[tokio::test]
async fn pages_of_allowed_origins_may_read_responses_and_refusals() {
    let node = TestNode::start_with(&KEYS).await;
    let id = node.coupon(json!({})).await;
    let ask = |request: reqwest::RequestBuilder| send(request.header("Origin", SHOP));
    let replies = [
        (
            200,
            ask(node.request(Method::GET, &format!("/v1/coupons/{id}"))).await,
        ),
        (201, ask(node.issue_request("alice", id)).await),
        (409, ask(node.issue_request("alice", id)).await),
        (401, ask(node.request(Method::GET, "/v1/me/issuances")).await),
        (400, ask(node.request(Method::GET, "/v1/coupons/x")).await),
        (405, ask(node.request(Method::DELETE, "/v1/coupons")).await),
        // This is not a preflight, because the request names no method.
        (405, ask(node.request(Method::OPTIONS, "/v1/coupons")).await),
        (
            413,
            ask(node.admin(Method::POST, "/v1/coupons").body("x".repeat(20_000))).await,
        ),
        (404, ask(node.request(Method::GET, "/nowhere")).await),
    ];
    for (status, reply) in replies {
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), SHOP, "{reply:?}");
        // Private responses vary by credentials as well.
        let mut vary = reply.headers.get_all("vary").iter();
        assert!(vary.any(|vary| vary == "origin"), "{reply:?}");
        let exposed = reply.header("access-control-expose-headers");
        for header in [
            "etag",
            "idempotent-replayed",
            "location",
            "retry-after",
            "traceresponse",
            "www-authenticate",
            "x-request-id",
        ] {
            assert!(exposed.split(", ").any(|name| name == header), "{exposed}");
        }
    }
}

#[tokio::test]
async fn pages_of_other_origins_get_no_headers() {
    let node = TestNode::start_with(&KEYS).await;
    for origin in [
        "https://shop.example.evil",
        "http://shop.example",
        "https://Shop.example",
        "null",
        "https://shop.example:8443",
        "*",
    ] {
        let reply = preflight(&node, "/v1/coupons", origin, "POST").await;
        reply.assert_refused(405, "METHOD_NOT_ALLOWED");
        assert_eq!(
            (cors_headers(&reply.headers), reply.header("vary")),
            (vec![], "origin"),
            "{origin}"
        );
        let reply = send(node.request(Method::GET, "/v1/coupons").header("Origin", origin)).await;
        assert_eq!(
            (reply.status, cors_headers(&reply.headers), reply.header("vary")),
            (200, vec![], "origin"),
            "{origin}"
        );
    }
    let reply = node.get("/v1/coupons").await;
    assert_eq!(
        (cors_headers(&reply.headers), reply.header("vary")),
        (vec![], "origin")
    );
}

#[tokio::test]
async fn without_configured_origins_responses_have_no_headers() {
    let node = TestNode::start().await;
    let reply = preflight(&node, "/v1/coupons", SHOP, "POST").await;
    reply.assert_refused(405, "METHOD_NOT_ALLOWED");
    assert_eq!((cors_headers(&reply.headers), reply.header("vary")), (vec![], ""));
    let reply = send(node.request(Method::GET, "/v1/coupons").header("Origin", SHOP)).await;
    assert_eq!((cors_headers(&reply.headers), reply.header("vary")), (vec![], ""));
}
