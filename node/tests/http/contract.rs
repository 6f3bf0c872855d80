//! Compares `/openapi.json` with the responses of a node: [`check`] examines every response that a test gets.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::support::{Reply, TestNode, send};

/// The document, and validators of its schemas.
struct Document {
    root: Value,
    validators: Mutex<HashMap<String, &'static jsonschema::Validator>>,
}

static DOCUMENT: OnceLock<Document> = OnceLock::new();

/// Reads the document from a node, once.
pub async fn learn(address: std::net::SocketAddr) {
    if DOCUMENT.get().is_none() {
        let root: Value = reqwest::get(format!("http://{address}/openapi.json"))
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let _ = DOCUMENT.set(Document {
            root,
            validators: Mutex::default(),
        });
    }
}

/// Asserts that the document has this response, with its status, headers and fields.
pub fn check(method: &Method, path: &str, request: Option<&[u8]>, reply: &Reply) {
    // Preflights are not in the document.
    if *method == Method::OPTIONS && reply.status == 204 {
        return;
    }
    let document = DOCUMENT.get().unwrap();
    let said = format!("{method} {path}: {reply:?}");
    let known_template = document.template(path);
    let name = if *method == Method::HEAD {
        "get".to_owned()
    } else {
        method.as_str().to_lowercase()
    };
    let responses = match known_template {
        _ if [307, 308].contains(&reply.status) && path.ends_with('/') => {
            "/components/responses/Redirect".to_owned()
        }
        None => "/components/responses/NotFound".to_owned(),
        Some(template) if document.root["paths"][template].get(&name).is_none() => {
            "/components/responses/MethodNotAllowed".to_owned()
        }
        Some(template) => format!("/paths/{}/{name}/responses/{}", escape(template), reply.status),
    };
    let response = document
        .root
        .pointer(&responses)
        .unwrap_or_else(|| panic!("not in the document: {said}"));
    document.check_headers(response, reply, &said);
    if *method != Method::HEAD {
        document.check_body(response, reply, &said);
    }
    // A body that was accepted matches its schema.
    if let (Some(body), Some(template), 200..300) = (
        // An empty array counts as no body, which the document says in words.
        request.filter(|body| !body.is_empty() && *body != b"[]"),
        known_template,
        reply.status,
    ) {
        let body: Value = serde_json::from_slice(body).unwrap();
        let schema =
            &document.root["paths"][template][&name]["requestBody"]["content"]["application/json"]["schema"];
        document.assert_valid(schema, &body, &format!("the body {body} of {said}"));
    }
}

/// Asserts that an example fits its schema.
pub fn assert_example(schema: &Value, example: &Value, said: &str) {
    DOCUMENT.get().unwrap().assert_valid(schema, example, said);
}

impl Document {
    /// Returns the template in the document that matches this path.
    fn template(&self, path: &str) -> Option<&str> {
        let fits = |template: &str| {
            // The client follows the redirect from a path with a slash at its end.
            let (mut wanted, mut given) = (
                template.split('/'),
                path.strip_suffix('/').unwrap_or(path).split('/'),
            );
            loop {
                match (wanted.next(), given.next()) {
                    (None, None) => return true,
                    (Some(wanted), Some(given))
                        if wanted == given || wanted.starts_with('{') && !given.is_empty() => {}
                    _ => return false,
                }
            }
        };
        let mut fitting: Vec<&str> = self.root["paths"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .filter(|path| fits(path))
            .collect();
        fitting.sort_by_key(|template| template.contains('{'));
        fitting.first().copied()
    }

    fn check_headers(&self, response: &Value, reply: &Reply, said: &str) {
        let headers = response["headers"].as_object().unwrap();
        for known in [
            "etag",
            "location",
            "idempotent-replayed",
            "retry-after",
            "allow",
            "www-authenticate",
            "content-disposition",
            "x-request-id",
        ] {
            let described = headers.keys().any(|name| name.eq_ignore_ascii_case(known));
            // This header is only present in responses to retries.
            let may_lack = known == "idempotent-replayed";
            let is_there = reply.headers.contains_key(known);
            assert!(
                described == is_there || described && may_lack,
                "{known} of {said}"
            );
        }
        for (name, header) in headers {
            let value = reply.header(name);
            assert!(
                value.is_empty() || self.validator(&header["schema"]).is_valid(&json!(value)),
                "{name} of {said}"
            );
        }
    }

    fn check_body(&self, response: &Value, reply: &Reply, said: &str) {
        let Some(content) = response["content"].as_object() else {
            assert!(reply.body.is_null(), "a body of {said}");
            return;
        };
        let given = reply.header("content-type").split(';').next().unwrap();
        let (_, content) = content
            .iter()
            .find(|(name, _)| *name == given || *name == "*/*")
            .unwrap_or_else(|| panic!("{said}"));
        if given.ends_with("json") && given != "application/x-ndjson" {
            self.assert_valid(&content["schema"], &reply.body, said);
        }
    }

    fn assert_valid(&self, schema: &Value, value: &Value, said: &str) {
        let errors: Vec<String> = self
            .validator(schema)
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:?} in {said}");
    }

    fn validator(&self, schema: &Value) -> &'static jsonschema::Validator {
        let mut validators = self.validators.lock().unwrap();
        validators.entry(schema.to_string()).or_insert_with(|| {
            let mut root = Map::from_iter([("components".to_owned(), self.root["components"].clone())]);
            root.insert("allOf".to_owned(), json!([schema]));
            let mut root = Value::Object(root);
            close(&mut root);
            let validator = jsonschema::options()
                .should_validate_formats(true)
                .build(&root)
                .unwrap();
            Box::leak(Box::new(validator))
        })
    }
}

/// Forbids fields that the schema does not have: clients ignore unknown fields, but the document must have
/// all fields.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// Escapes a part of a JSON pointer.
fn escape(text: &str) -> String {
    text.replace('~', "~0").replace('/', "~1")
}

#[tokio::test]
async fn a_response_that_differs_from_the_document_is_noticed() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    node.issue("alice", id).await;
    let coupon = format!("/v1/coupons/{id}");
    let again = format!("/v1/coupons/{id}/issuances");
    let cases = [
        (Method::GET, coupon.as_str(), node.get(&coupon).await),
        (Method::GET, "/v1/coupons", node.get("/v1/coupons").await),
        (Method::POST, again.as_str(), node.issue("alice", id).await),
    ];
    let is_noticed = |method: &Method, path: &str, reply: &Reply| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(method, path, None, reply))).is_err()
    };
    for (method, path, good) in &cases {
        assert!(!is_noticed(method, path, good));
        let spoilt = |spoil: &dyn Fn(&mut Reply)| {
            let mut reply = Reply {
                status: good.status,
                headers: good.headers.clone(),
                body: good.body.clone(),
            };
            spoil(&mut reply);
            is_noticed(method, path, &reply)
        };
        assert!(
            spoilt(&|reply| reply.body["more"] = json!(1)),
            "an added field: {path}"
        );
        for field in good.body.as_object().unwrap().keys() {
            let is_lacking = spoilt(&|reply| drop(reply.body.as_object_mut().unwrap().remove(field)));
            // Only the member `detail` is optional.
            assert!(is_lacking || field == "detail", "without {field}: {path}");
        }
        assert!(spoilt(&|reply| reply.status = 418), "another status: {path}");
        assert!(
            spoilt(&|reply| drop(reply.headers.insert("retry-after", "1".parse().unwrap()))),
            "an added header: {path}"
        );
        assert!(
            spoilt(&|reply| drop(reply.headers.remove("x-request-id"))),
            "a missing header: {path}"
        );
    }
    // An added field is noticed in nested objects as well.
    let mut list = node.get("/v1/coupons").await;
    list.body["items"][0]["discount"] = json!({"kind": "amount", "value": 1, "more": 1});
    assert!(is_noticed(&Method::GET, "/v1/coupons", &list));
}

/// Returns a body for an operation that needs one.
fn needed_body(template: &str) -> Value {
    match template.rsplit('/').next() {
        Some("reserve" | "redeem") => json!({"order_id": "a", "order_amount": 5}),
        Some("release" | "refund") => json!({"order_id": "a"}),
        Some("bulk") => json!({"user_ids": ["bob"]}),
        _ => json!({"title": "T", "total_quantity": 5}),
    }
}

#[tokio::test]
async fn every_operation_of_the_document_is_answered_as_the_document_says() {
    let node = TestNode::start().await;
    let document = node.get("/openapi.json").await.body;
    let mut asked = 0;
    for (template, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            // Each operation gets a new coupon, because some operations close the coupon.
            let id = node.coupon(json!({})).await;
            node.issue("alice", id).await;
            let place = if template.starts_with("/v1/issuances") {
                format!("{id}-1")
            } else {
                id.to_string()
            };
            let path = template
                .replace("{id}", &place)
                .replace("{file}", "swagger-ui.css");
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let path = match parameters
                .into_iter()
                .find(|one| one["required"] == true && one["in"] == "query")
            {
                Some(one) if one["name"] == "order_amount" => format!("{path}?order_amount=5"),
                Some(one) => format!("{path}?{}=alice", one["name"].as_str().unwrap()),
                None => path,
            };
            let method: Method = method.to_uppercase().parse().unwrap();
            let wanted: Vec<&String> = operation["security"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|scheme| scheme.as_object().unwrap().keys())
                .collect();
            let mut request = node.request(method.clone(), &path);
            if operation["requestBody"]["required"] == true {
                request = request.json(&needed_body(template));
            }
            // Each operation is called once without credentials, and once with the credentials of the first
            // scheme.
            let bare = send(request.try_clone().unwrap()).await;
            assert_eq!(
                bare.status == 401,
                !wanted.is_empty(),
                "{method} {path}: {bare:?}"
            );
            let request = match wanted.first().map(|name| name.as_str()) {
                Some("user_id") => request.header("X-User-Id", "bob"),
                Some("admin_token") => request.bearer_auth(crate::support::ADMIN_TOKEN),
                _ => request,
            };
            let status = send(request).await.status;
            assert!(
                (200..300).contains(&status)
                    || template.starts_with("/v1/issuances/") && [404, 409].contains(&status),
                "{method} {path}: {status}"
            );
            asked += 1;
        }
    }
    assert_eq!(asked, 33);
}

#[tokio::test]
async fn the_document_names_all_credentials() {
    let node = TestNode::start().await;
    let document = node.get("/openapi.json").await.body;
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(
        (&schemes["user_id"]["in"], &schemes["user_id"]["name"]),
        (&json!("header"), &json!("X-User-Id"))
    );
    for name in ["jwt", "admin_token", "key"] {
        assert_eq!(
            (&schemes[name]["type"], &schemes[name]["scheme"]),
            (&json!("http"), &json!("bearer")),
            "{name}"
        );
    }
    assert_eq!(document["openapi"], "3.1.0");
}

#[tokio::test]
async fn the_document_says_what_the_items_of_a_list_must_be() {
    let node = TestNode::start().await;
    let document = node.get("/openapi.json").await.body;
    let schemas = &document["components"]["schemas"];
    let bulk = &schemas["BulkIssueRequest"];
    assert_eq!(bulk["required"], json!(["user_ids"]));
    let users = &bulk["properties"]["user_ids"];
    assert_eq!(
        (&users["minItems"], &users["maxItems"]),
        (&json!(1), &json!(1_000))
    );
    assert_eq!(
        users["items"]["pattern"],
        schemas["Issuance"]["properties"]["user_id"]["pattern"]
    );
    assert!(users["items"]["pattern"].is_string(), "{users}");
}

#[tokio::test]
async fn the_page_of_the_document_uses_no_other_server() {
    let node = TestNode::start().await;
    // Resolves a link as a browser does, behind a proxy that serves the node below a path.
    let follow = |link: &str| {
        reqwest::Url::parse("https://shop.example/behind/a/path/docs")
            .unwrap()
            .join(link)
            .unwrap()
            .path()
            .strip_prefix("/behind/a/path")
            .unwrap_or_else(|| panic!("{link} leads out"))
            .to_owned()
    };
    let page = node.get("/docs").await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    assert!(
        page.header("content-security-policy")
            .contains("default-src 'none'"),
        "{page:?}"
    );
    let text = page.body.as_str().unwrap();
    let marks = [
        "script src=\"",
        "link rel=\"icon\" type=\"image/png\" href=\"",
        "link rel=\"stylesheet\" type=\"text/css\" href=\"",
    ];
    let links = marks
        .iter()
        .flat_map(|mark| text.split(mark).skip(1))
        .map(|rest| rest.split('"').next().unwrap());
    let links: Vec<String> = links.map(follow).collect();
    assert!(links.len() >= 6, "{links:?}");
    assert_eq!(follow("openapi.json"), "/openapi.json");
    for link in links {
        assert!(link.starts_with("/docs/"), "{link}");
        let file = node.get(&link).await;
        assert_eq!(file.status, 200, "{link}");
        let kind = file.header("content-type");
        let wanted = if link.ends_with(".js") {
            "text/javascript"
        } else if link.ends_with(".css") {
            "text/css"
        } else {
            "image/png"
        };
        assert!(kind.starts_with(wanted), "{link}: {kind}");
    }
}

#[tokio::test]
async fn the_page_loads_the_document_and_no_other_file() {
    let node = TestNode::start().await;
    let begin = node.get("/docs/swagger-initializer.js").await.body;
    let begin = begin.as_str().unwrap();
    assert!(
        begin.contains("\"openapi.json\"")
            && begin.contains("\"validatorUrl\": \"none\"")
            && !begin.contains("{{"),
        "{begin}"
    );
    for path in ["/docs/nothing.js", "/docs/..%2fCargo.toml", "/docs/x/y"] {
        node.get(path).await.assert_refused(404, "NOT_FOUND");
    }
}
