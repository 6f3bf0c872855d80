//! A whole node in this process, on a port of its own, over a data directory that goes with it.

use std::time::{Duration, Instant};

use node::config::{Config, Sources};
use node::wiring::Service;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::contract;

/// What administrators of test nodes show.
pub const ADMIN_TOKEN: &str = "token-of-the-administrators";

/// Longer than anything here takes, shorter than patience.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A node that is ready.
pub struct TestNode {
    pub service: Service,
    client: Client,
    data: TempDir,
}

/// A response, read.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl TestNode {
    /// A node with nothing in it.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with these keys set.
    pub async fn start_with(keys: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), keys).await
    }

    async fn start_in(data: TempDir, keys: &[(&str, &str)]) -> Self {
        let config = config(&data, keys);
        let service = Service::start(&config).await.unwrap();
        tokio::time::timeout(LIMIT, service.ready())
            .await
            .expect("the node is ready in time");
        contract::learn(service.address()).await;
        Self {
            service,
            client: Client::new(),
            data,
        }
    }

    /// Stops the node and starts another over the same data.
    pub async fn restart(self) -> Self {
        self.service.stop().await.unwrap();
        Self::start_in(self.data, &[]).await
    }

    /// Its database.
    pub fn database(&self) -> std::path::PathBuf {
        self.data.path().join("firstcome.db")
    }

    /// A request to the node.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.service.address()))
    }

    /// Anybody's read.
    pub async fn get(&self, path: &str) -> Reply {
        send(self.request(Method::GET, path)).await
    }

    /// A user's read.
    pub async fn get_as(&self, user: &str, path: &str) -> Reply {
        send(self.request(Method::GET, path).header("X-User-Id", user)).await
    }

    /// An administrator's request.
    pub fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).bearer_auth(ADMIN_TOKEN)
    }

    /// An administrator's read.
    pub async fn admin_get(&self, path: &str) -> Reply {
        send(self.admin(Method::GET, path)).await
    }

    /// An administrator's `POST` without a body.
    pub async fn admin_post(&self, path: &str) -> Reply {
        send(self.admin(Method::POST, path)).await
    }

    /// An attempt to make a coupon.
    pub async fn create(&self, body: Value) -> Reply {
        send(self.admin(Method::POST, "/v1/coupons").json(&body)).await
    }

    /// A coupon with this body besides its title; its id.
    pub async fn coupon(&self, mut body: Value) -> u64 {
        body["title"] = json!("Black Friday");
        let reply = self.create(body).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.body["id"].as_u64().unwrap()
    }

    /// A change of a coupon.
    pub async fn patch(&self, coupon: u64, body: Value) -> Reply {
        send(
            self.admin(Method::PATCH, &format!("/v1/coupons/{coupon}"))
                .json(&body),
        )
        .await
    }

    /// A user's request for a coupon.
    pub fn issue_request(&self, user: &str, coupon: u64) -> RequestBuilder {
        self.request(Method::POST, &format!("/v1/coupons/{coupon}/issuances"))
            .header("X-User-Id", user)
    }

    /// The same, sent.
    pub async fn issue(&self, user: &str, coupon: u64) -> Reply {
        send(self.issue_request(user, coupon)).await
    }
}

/// The configuration of a test node.
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

/// Sends the request and reads the response, and looks at what every response must have.
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
    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Says no with this status and code, having changed nothing.
    pub fn assert_refused(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.body["code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
        assert_eq!(self.body.get("applied"), Some(&Value::Bool(false)), "{self:?}");
    }

    /// Says no to these fields.
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

    /// Is a list with these values of a field, and leads on or not.
    pub fn assert_list(&self, field: &str, values: &[Value], leads_on: bool) {
        assert_eq!(self.status, 200, "{self:?}");
        let items: Vec<Value> = self.body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item[field].clone())
            .collect();
        assert_eq!(items, values, "{self:?}");
        assert_eq!(self.body["next_cursor"].is_string(), leads_on, "{self:?}");
        assert!(
            leads_on || self.body.as_object().unwrap()["next_cursor"].is_null(),
            "{self:?}"
        );
    }

    /// The cursor of the next page.
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

/// Looks until it holds, within a limit.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
