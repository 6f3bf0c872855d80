//! A node in this process, on a free port, with a data directory that is removed with the node.

use std::time::Duration;

use node::config::{Config, Sources};
use node::wiring::RunningNode;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::contract;

/// The admin token of test nodes.
pub const ADMIN_TOKEN: &str = "token-of-the-administrators";

/// Timeout of everything that a test waits for.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A ready node.
pub struct TestNode {
    pub service: RunningNode,
    client: Client,
    data: TempDir,
}

/// A response with its body.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl TestNode {
    /// Starts an empty node.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts an empty node with these keys set.
    pub async fn start_with(keys: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), keys).await
    }

    async fn start_in(data: TempDir, keys: &[(&str, &str)]) -> Self {
        let config = config(&data, keys);
        let service = RunningNode::start(&config).await.unwrap();
        tokio::time::timeout(LIMIT, service.ready())
            .await
            .expect("the node is ready within the limit");
        contract::learn(service.address()).await;
        Self {
            service,
            client: Client::new(),
            data,
        }
    }

    /// Stops the node and starts another node over the same data.
    pub async fn restart(self) -> Self {
        self.service.stop().await.unwrap();
        Self::start_in(self.data, &[]).await
    }

    /// Returns the file of the node's database.
    pub fn database(&self) -> std::path::PathBuf {
        self.data.path().join("firstcome.db")
    }

    /// Returns a request to the node.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.service.address()))
    }

    /// Sends a read without credentials.
    pub async fn get(&self, path: &str) -> Reply {
        send(self.request(Method::GET, path)).await
    }

    /// Sends a read as a user.
    pub async fn get_as(&self, user: &str, path: &str) -> Reply {
        send(self.request(Method::GET, path).header("X-User-Id", user)).await
    }

    /// Returns a request of an administrator.
    pub fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).bearer_auth(ADMIN_TOKEN)
    }

    /// Sends a read as an administrator.
    pub async fn admin_get(&self, path: &str) -> Reply {
        send(self.admin(Method::GET, path)).await
    }

    /// Sends a `POST` without a body as an administrator.
    pub async fn admin_post(&self, path: &str) -> Reply {
        send(self.admin(Method::POST, path)).await
    }

    /// Sends a request to create a coupon.
    pub async fn create(&self, body: Value) -> Reply {
        send(self.admin(Method::POST, "/v1/coupons").json(&body)).await
    }

    /// Creates a coupon with this body and a title, unlimited unless the body says otherwise, and returns its
    /// id.
    pub async fn coupon(&self, mut body: Value) -> u64 {
        body["title"] = json!("Black Friday");
        let fields = body.as_object_mut().unwrap();
        fields.entry("total_quantity").or_insert(Value::Null);
        let reply = self.create(body).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.body["id"].as_u64().unwrap()
    }

    /// Sends a patch of a coupon.
    pub async fn patch(&self, coupon: u64, body: Value) -> Reply {
        send(
            self.admin(Method::PATCH, &format!("/v1/coupons/{coupon}"))
                .json(&body),
        )
        .await
    }

    /// Returns an issue request of a user.
    pub fn issue_request(&self, user: &str, coupon: u64) -> RequestBuilder {
        self.request(Method::POST, &format!("/v1/coupons/{coupon}/issuances"))
            .header("X-User-Id", user)
    }

    /// Sends an issue request of a user.
    pub async fn issue(&self, user: &str, coupon: u64) -> Reply {
        send(self.issue_request(user, coupon)).await
    }
}

/// Returns the configuration of a test node.
pub fn config(data: &TempDir, keys: &[(&str, &str)]) -> Config {
    let own = [
        ("data_dir", data.path().to_str().unwrap()),
        ("http.listen", "127.0.0.1:0"),
        ("auth.admin_token", ADMIN_TOKEN),
    ];
    let flags = own
        .iter()
        .chain(keys)
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    Sources { file: None, flags }.load().unwrap()
}

/// Sends a request, reads the response, and checks what every response must have.
pub async fn send(request: RequestBuilder) -> Reply {
    let (client, request) = request.timeout(LIMIT).build_split();
    let request = request.unwrap();
    let (method, path) = (request.method().clone(), request.url().path().to_owned());
    let sent = request
        .body()
        .and_then(|body| body.as_bytes())
        .map(<[u8]>::to_vec);
    let response = client.execute(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    };
    let reply = Reply {
        status,
        headers,
        body,
    };
    assert!(
        (1..=64).contains(&reply.header("x-request-id").len()),
        "{reply:?}"
    );
    if status >= 400 && reply.header("content-type") != "application/json" {
        reply.assert_is_problem();
    }
    contract::check(&method, &path, sent.as_deref(), &reply);
    reply
}

impl Reply {
    /// Returns the value of a header; empty if the header is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts a problem with this status and code that changed nothing.
    pub fn assert_refused(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.body["code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
        assert_eq!(self.body.get("applied"), Some(&Value::Bool(false)), "{self:?}");
    }

    /// Asserts that these fields are named as invalid.
    pub fn assert_invalid(&self, fields: &[&str]) {
        self.assert_refused(422, "INVALID");
        let named: Vec<&str> = self.body["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["field"].as_str().unwrap())
            .collect();
        assert_eq!(named, fields, "{self:?}");
        assert!(
            self.body["errors"]
                .as_array()
                .unwrap()
                .iter()
                .all(|error| !error["message"].as_str().unwrap().is_empty())
        );
    }

    /// Asserts a list with these values of a field, with or without a next page.
    pub fn assert_list(&self, field: &str, values: &[Value], has_next: bool) {
        assert_eq!(self.status, 200, "{self:?}");
        let items: Vec<Value> = self.body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item[field].clone())
            .collect();
        assert_eq!(items, values, "{self:?}");
        assert_eq!(self.body["next_cursor"].is_string(), has_next, "{self:?}");
        assert!(
            has_next || self.body.as_object().unwrap()["next_cursor"].is_null(),
            "{self:?}"
        );
    }

    /// Returns the cursor of the next page.
    pub fn next_cursor(&self) -> &str {
        self.body["next_cursor"].as_str().unwrap()
    }

    fn assert_is_problem(&self) {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        for field in ["type", "title", "code"] {
            assert!(self.body[field].is_string(), "{field} of {self:?}");
        }
        assert_eq!(self.body["status"], self.status, "{self:?}");
    }
}
