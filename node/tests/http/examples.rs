//! The examples of `/openapi.json`: they work on a fresh node, and fit their schemas.

use reqwest::Method;
use serde_json::{Value, json};

use crate::contract;
use crate::support::{ADMIN_TOKEN, TestNode, send};

/// The operations that a new user would try first, in this order. Others follow in any order.
const FIRST: [&str; 9] = [
    "create_coupon",
    "issue",
    "my_issuances",
    "quote_issuance",
    "reserve_issuance",
    "release_issuance",
    "redeem_issuance",
    "refund_issuance",
    "revoke_issuance",
];
/// The operation after which a coupon is no longer issued.
const LAST: &str = "close_coupon";

/// An operation of the document.
struct Operation {
    name: String,
    method: Method,
    path: String,
    body: Option<Value>,
    scheme: Option<String>,
    media_type: String,
}

/// Reads an operation, with the examples of its path and body.
fn operation(path: &str, method: &str, operation: &Value) -> Operation {
    let name = operation["operationId"].as_str().unwrap().to_owned();
    let mut path = path.to_owned();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let example = parameter.get("example");
        assert_eq!(
            parameter["required"] == true,
            example.is_some(),
            "only required parameters have an example: {name} {parameter}"
        );
        if let Some(example) = example {
            let text = example
                .as_str()
                .map_or_else(|| example.to_string(), str::to_owned);
            let name = parameter["name"].as_str().unwrap();
            match parameter["in"].as_str() {
                Some("query") => path = format!("{path}?{name}={text}"),
                _ => path = path.replace(&format!("{{{name}}}"), &text),
            }
        }
    }
    let body = operation.pointer("/requestBody/content/application~1json");
    let schemes = operation["security"].as_array().unwrap();
    let scheme = schemes[0].as_object().unwrap().keys().next().cloned();
    let responses = operation["responses"].as_object().unwrap();
    let (_, success) = responses
        .iter()
        .find(|(status, _)| status.starts_with('2'))
        .unwrap();
    Operation {
        name,
        method: method.to_uppercase().parse().unwrap(),
        path,
        body: body.map(|content| content["example"].clone()),
        scheme,
        media_type: success["content"]
            .as_object()
            .unwrap()
            .keys()
            .next()
            .unwrap()
            .clone(),
    }
}

fn operations(document: &Value) -> Vec<Operation> {
    let paths = document["paths"].as_object().unwrap();
    let mut all: Vec<Operation> = paths
        .iter()
        .flat_map(|(path, item)| {
            let item = item.as_object().unwrap();
            item.iter().map(|(method, value)| operation(path, method, value))
        })
        .collect();
    let place = |operation: &Operation| {
        let first = FIRST.iter().position(|name| *name == operation.name);
        first.unwrap_or(FIRST.len() + usize::from(operation.name == LAST))
    };
    all.sort_by_key(place);
    all
}

#[tokio::test]
async fn the_examples_of_the_document_work_on_a_fresh_node() {
    let node = TestNode::start().await;
    let document = node.get("/openapi.json").await.body;
    for operation in operations(&document) {
        let mut request = node.request(operation.method.clone(), &operation.path);
        request = match operation.scheme.as_deref() {
            Some("user_id") => request.header("X-User-Id", "alice"),
            Some("admin_token") => request.bearer_auth(ADMIN_TOKEN),
            _ => request,
        };
        if let Some(body) = &operation.body {
            assert!(body.is_object(), "{}: {body}", operation.name);
            request = request.json(body);
        }
        let reply = send(request).await;
        assert!(
            reply.status < 300,
            "{} {}: {reply:?}",
            operation.name,
            operation.path
        );
        assert!(
            operation.media_type == "*/*" || reply.header("content-type").starts_with(&operation.media_type),
            "{reply:?}"
        );
    }
}

#[tokio::test]
async fn the_examples_of_the_document_fit_their_schemas() {
    let node = TestNode::start().await;
    let document = node.get("/openapi.json").await.body;
    let mut checked = 0;
    let mut of_content = |content: &Value, said: &str| {
        let several = content["examples"].as_object().into_iter().flatten();
        let several = several.map(|(_, example)| &example["value"]);
        for example in content.get("example").into_iter().chain(several) {
            contract::assert_example(&content["schema"], example, said);
            checked += 1;
        }
    };
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let said = format!("{method} {path}");
            let contents = operation["responses"]
                .as_object()
                .unwrap()
                .values()
                .chain([&operation["requestBody"]])
                .filter_map(|part| part["content"].as_object());
            for (media_type, content) in contents.flatten() {
                if media_type.ends_with("json") && media_type != "application/x-ndjson" {
                    let has_example = content.get("example").or(content.get("examples")).is_some();
                    assert!(has_example, "{said}: {content}");
                    of_content(content, &said);
                }
            }
        }
    }
    assert!(checked > 100, "{checked}");
}

#[tokio::test]
async fn the_document_is_in_the_order_in_which_it_is_needed() {
    let node = TestNode::start().await;
    let document = node.get("/openapi.json").await.body;
    let tags = document["tags"].as_array().unwrap().iter();
    let tags: Vec<&Value> = tags.map(|tag| &tag["name"]).collect();
    assert_eq!(tags, ["coupons", "issuing", "using", "cluster", "operations"]);
    assert_eq!(document["servers"][0]["url"], "/");
    let refusals = &document["paths"]["/v1/coupons/{id}/issuances"]["post"]["responses"]["409"]["content"]["application/problem+json"]
        ["schema"];
    assert_eq!(refusals["discriminator"]["propertyName"], "code");
    assert_eq!(
        refusals["discriminator"]["mapping"]["ALREADY_ISSUED"],
        json!("#/components/schemas/ProblemAlreadyIssued")
    );
}
