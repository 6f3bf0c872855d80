//! General refusals, request ids, and bodies of every shape.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{ADMIN_TOKEN, LIMIT, TestNode, send};

/// Sends bytes on a new connection and reads the response to its end.
async fn exchange(node: &TestNode, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.service.address()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn unknown_paths_are_not_found() {
    let node = TestNode::start().await;
    for path in [
        "/v1",
        "/v2/coupons",
        "/v1/coupons/1/unknown",
        "/v1/coupons/1/issuances/2",
        "/v1/issuance",
        "/livez/x",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            send(node.admin(method, path))
                .await
                .assert_refused(404, "NOT_FOUND");
        }
    }
}

#[tokio::test]
async fn the_root_and_paths_with_a_slash_at_the_end_are_redirected() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let ask = async |method: Method, path: &str| {
        let url = format!("http://{}{path}", node.service.address());
        let reply = client.request(method, url).send().await.unwrap();
        let header = |name: &str| {
            reply
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        assert!(header("x-request-id").is_some() && header("x-content-type-options").is_some());
        (reply.status().as_u16(), header("location").unwrap_or_default())
    };
    for (method, path, status, location) in [
        (Method::GET, "/", 307, "/docs"),
        (Method::HEAD, "/", 307, "/docs"),
        (Method::GET, "/v1/coupons/", 308, "/v1/coupons"),
        (
            Method::GET,
            "/v1/coupons/?limit=1&phase=live",
            308,
            "/v1/coupons?limit=1&phase=live",
        ),
        (
            Method::POST,
            "/v1/coupons/7/issuances/",
            308,
            "/v1/coupons/7/issuances",
        ),
        (Method::PATCH, "/v1/coupons/7/", 308, "/v1/coupons/7"),
        (Method::GET, "/docs/", 308, "/docs"),
        (Method::GET, "/livez/", 308, "/livez"),
        (Method::GET, "/v1/coupons//", 404, ""),
        (Method::GET, "//mallory.example/", 404, ""),
        (Method::GET, "/nowhere/", 404, ""),
        (Method::POST, "/", 404, ""),
    ] {
        let answer = ask(method.clone(), path).await;
        assert_eq!(answer, (status, location.to_owned()), "{method} {path}");
    }
    // A client that follows sends the same request again.
    let issued = node
        .request(Method::POST, &format!("/v1/coupons/{id}/issuances/"))
        .header("X-User-Id", "alice");
    assert_eq!(send(issued.json(&json!({}))).await.status, 201);
    let page = reqwest::get(format!("http://{}/", node.service.address()))
        .await
        .unwrap();
    assert_eq!((page.status().as_u16(), page.url().path()), (200, "/docs"));
}

#[tokio::test]
async fn private_responses_are_not_stored_and_no_type_is_guessed() {
    let keys = [
        ("auth.mode", "jwt"),
        ("auth.jwt.algorithm", "HS256"),
        ("auth.jwt.key", crate::tokens::SECRET),
    ];
    for (keys, vary) in [
        (&keys[..0], "x-user-id, authorization"),
        (&keys[..], "authorization"),
    ] {
        let node = TestNode::start_with(keys).await;
        let id = node.coupon(json!({})).await;
        let alice = crate::tokens::token("alice", json!({}));
        let as_alice = |method: Method, path: &str| {
            let request = node.request(method, path).header("X-User-Id", "alice");
            send(if keys.is_empty() {
                request
            } else {
                request.bearer_auth(&alice)
            })
        };
        let issuances = format!("/v1/coupons/{id}/issuances");
        for private in [
            as_alice(Method::POST, &issuances).await,
            as_alice(Method::POST, &issuances).await,
            as_alice(Method::GET, "/v1/me/issuances").await,
            as_alice(Method::HEAD, "/v1/me/issuances").await,
            as_alice(Method::GET, &format!("/v1/issuances/{id}-1")).await,
            as_alice(Method::GET, &format!("/v1/issuances/{id}-2")).await,
            as_alice(Method::GET, "/v1/cluster").await,
            node.get("/v1/me/issuances").await,
            node.admin_get(&issuances).await,
            node.patch(id, json!({"title": "T"})).await,
            node.create(json!({})).await,
        ] {
            let headers =
                ["cache-control", "vary", "x-content-type-options"].map(|name| private.header(name));
            assert_eq!(headers, ["no-store", vary, "nosniff"], "{private:?}");
        }
        for open in [
            "/v1/coupons",
            "/livez",
            "/metrics",
            "/docs",
            "/openapi.json",
            "/nowhere",
        ] {
            let open = node.get(open).await;
            let headers = ["cache-control", "vary", "x-content-type-options"].map(|name| open.header(name));
            assert_eq!(headers, ["", "", "nosniff"], "{open:?}");
        }
    }
    // A response outside of any route also has `nosniff`.
    let node = TestNode::start().await;
    let refused = exchange(&node, b"nonsense\r\n\r\n").await.to_lowercase();
    assert!(
        refused.starts_with("http/1.1 400 ") && refused.contains("\r\nx-content-type-options: nosniff\r\n")
    );
}

#[tokio::test]
async fn a_wrong_method_is_answered_with_the_allowed_methods() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    for (path, allow) in [
        ("/v1/coupons".to_owned(), "GET, HEAD, POST"),
        (format!("/v1/coupons/{id}"), "GET, HEAD, PATCH"),
        (format!("/v1/coupons/{id}/pause"), "POST"),
        (format!("/v1/coupons/{id}/resume"), "POST"),
        (format!("/v1/coupons/{id}/close"), "POST"),
        (format!("/v1/coupons/{id}/issuances"), "GET, HEAD, POST"),
        ("/v1/me/issuances".to_owned(), "GET, HEAD"),
        (format!("/v1/issuances/{id}-1"), "GET, HEAD"),
        ("/v1/cluster".to_owned(), "GET, HEAD"),
        (format!("/v1/cluster/coupons/{id}"), "GET, HEAD"),
        ("/livez".to_owned(), "GET, HEAD"),
        ("/readyz".to_owned(), "GET, HEAD"),
        ("/metrics".to_owned(), "GET, HEAD"),
    ] {
        for method in [Method::DELETE, Method::PUT, Method::OPTIONS] {
            let reply = send(node.request(method, &path)).await;
            reply.assert_refused(405, "METHOD_NOT_ALLOWED");
            assert_eq!(reply.header("allow"), allow, "{path}");
        }
    }
}

#[tokio::test]
async fn invalid_ids_are_malformed() {
    let node = TestNode::start().await;
    for id in ["0", "-1", "x", "1.0", "01", "9007199254740992", "%31"] {
        node.get(&format!("/v1/coupons/{id}"))
            .await
            .assert_refused(400, "MALFORMED");
        node.admin_post(&format!("/v1/coupons/{id}/pause"))
            .await
            .assert_refused(400, "MALFORMED");
        node.admin_get(&format!("/v1/coupons/{id}/issuances"))
            .await
            .assert_refused(400, "MALFORMED");
        node.admin_get(&format!("/v1/cluster/coupons/{id}"))
            .await
            .assert_refused(400, "MALFORMED");
        let issue = node
            .request(Method::POST, &format!("/v1/coupons/{id}/issuances"))
            .header("X-User-Id", "alice");
        send(issue).await.assert_refused(400, "MALFORMED");
    }
}

#[tokio::test]
async fn a_response_has_the_valid_request_id_of_the_client_or_else_a_new_id() {
    let node = TestNode::start().await;
    let with_id =
        async |path: &str, id: &str| send(node.request(Method::GET, path).header("X-Request-Id", id)).await;
    for path in [
        "/livez",
        "/v1/coupons",
        "/nowhere",
        "/v1/me/issuances",
        "/metrics",
    ] {
        assert_eq!(with_id(path, "r-1").await.header("x-request-id"), "r-1");
        assert_eq!(
            with_id(path, &"r".repeat(64)).await.header("x-request-id").len(),
            64
        );
        for invalid in [String::new(), "r".repeat(65), "r 1".to_owned(), "ü".to_owned()] {
            let reply = with_id(path, &invalid).await;
            assert_ne!(reply.header("x-request-id"), invalid);
        }
        let (one, other) = (node.get(path).await, node.get(path).await);
        assert_ne!(one.header("x-request-id"), other.header("x-request-id"));
    }
}

#[tokio::test]
async fn bodies_that_are_not_json_objects_are_malformed() {
    let node = TestNode::start().await;
    for body in [
        "",
        "nonsense",
        "[]",
        "null",
        "\"title\"",
        "1",
        "{",
        r#"{"title": "T"} {}"#,
        r#"{"title": "T",}"#,
    ] {
        let request = node
            .admin(Method::POST, "/v1/coupons")
            .header("Content-Type", "application/json")
            .body(body);
        send(request).await.assert_refused(400, "MALFORMED");
    }
    let binary = node
        .admin(Method::POST, "/v1/coupons")
        .header("Content-Type", "application/json")
        .body(vec![b'{', 0xff, b'}']);
    send(binary).await.assert_refused(400, "MALFORMED");
}

#[tokio::test]
async fn bodies_of_other_media_types_are_refused() {
    let node = TestNode::start().await;
    let create = |content_type: &str| {
        send(
            node.admin(Method::POST, "/v1/coupons")
                .header("Content-Type", content_type)
                .body(r#"{"title": "T", "total_quantity": 5}"#),
        )
    };
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "json",
    ] {
        create(content_type)
            .await
            .assert_refused(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
    ] {
        assert_eq!(create(content_type).await.status, 201);
    }
}

#[tokio::test]
async fn bodies_above_sixteen_kib_are_refused_whether_chunked_or_not() {
    let node = TestNode::start().await;
    let body = |bytes: usize| {
        let coupon = r#"{"title": "T", "total_quantity": 5}"#;
        format!("{coupon}{}", " ".repeat(bytes - coupon.len()))
    };
    let create = |body: String| {
        send(
            node.admin(Method::POST, "/v1/coupons")
                .header("Content-Type", "application/json")
                .body(body),
        )
    };
    assert_eq!(create(body(16 * 1024)).await.status, 201);
    create(body(16 * 1024 + 1)).await.assert_refused(413, "TOO_LARGE");
    create(body(500_000)).await.assert_refused(413, "TOO_LARGE");

    let chunked = |bytes: usize| {
        let head = format!(
            "POST /v1/coupons HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n"
        );
        let body = body(bytes);
        let chunks: String = [&body[..10_000], &body[10_000..]]
            .iter()
            .map(|part| format!("{:x}\r\n{part}\r\n", part.len()))
            .collect();
        format!("{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
    };
    assert!(
        exchange(&node, chunked(16 * 1024).as_bytes())
            .await
            .starts_with("HTTP/1.1 201 ")
    );
    let refused = exchange(&node, chunked(16 * 1024 + 1).as_bytes()).await;
    assert!(
        refused.starts_with("HTTP/1.1 413 ") && refused.contains("TOO_LARGE"),
        "{refused}"
    );
    // A body that is declared but not sent is refused at once.
    let announced = "POST /v1/coupons HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 20000";
    let refused = exchange(
        &node,
        format!("{announced}\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n").as_bytes(),
    )
    .await;
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
}

#[tokio::test]
async fn credentials_are_checked_before_the_rest_of_a_request() {
    let node = TestNode::start().await;
    send(node.request(Method::POST, "/v1/coupons").body("nonsense"))
        .await
        .assert_refused(401, "UNAUTHENTICATED");
    send(node.request(Method::POST, "/v1/coupons/x/issuances"))
        .await
        .assert_refused(401, "UNAUTHENTICATED");
    node.get_as("not a user", "/v1/coupons")
        .await
        .assert_refused(400, "MALFORMED");
}

#[tokio::test]
async fn a_head_request_gets_the_headers_of_get_and_no_body() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    for path in [
        format!("/v1/coupons/{id}"),
        "/v1/coupons".to_owned(),
        "/livez".to_owned(),
        "/readyz".to_owned(),
    ] {
        let (head, get) = (
            send(node.request(Method::HEAD, &path)).await,
            node.get(&path).await,
        );
        assert_eq!(
            (head.status, head.header("etag"), head.body.is_null()),
            (get.status, get.header("etag"), true)
        );
        assert_eq!(head.header("content-length"), get.header("content-length"));
    }
}

#[tokio::test]
async fn nothing_internal_reaches_a_client() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    for reply in [
        node.create(json!({"title": 5})).await,
        node.patch(id, json!({"starts_at": 5})).await,
        node.get("/v1/coupons/x").await,
        node.get("/v1/coupons?cursor=x").await,
        node.issue("x y", id).await,
    ] {
        let text = reply.body.to_string();
        for trace in ["Some(", "Err(", "::", "line ", "SELECT", ".rs"] {
            assert!(!text.contains(trace), "{text}");
        }
    }
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let node = TestNode::start().await;
    let mut stream = TcpStream::connect(node.service.address()).await.unwrap();
    for _ in 0..3 {
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = vec![0; 1024];
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && !answer.to_lowercase().contains("connection: close"),
            "{answer}"
        );
    }
}
