//! Every role against every operation of the contract.

use std::collections::BTreeSet;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::keys;
use crate::support::{ADMIN_TOKEN, TestNode, send};
use crate::tokens::{SECRET, token};

/// What a principal gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// A success.
    Allowed,
    /// 401
    Unauthenticated,
    /// 403
    Forbidden,
}

use Answer::{Allowed as Yes, Forbidden as No, Unauthenticated as Who};

/// The principals, in the order of the columns of [`TABLE`].
const PRINCIPALS: [&str; 6] = ["", "user", "admin", "operator", "service", "viewer"];

/// What a request without credentials, a user, and keys of all roles get from each operation.
const TABLE: [(&str, [Answer; 6]); 33] = [
    //                    none user admin operator service viewer
    ("coupons", [Yes, Yes, Yes, Yes, Yes, Yes]),
    ("coupon", [Yes, Yes, Yes, Yes, Yes, Yes]),
    ("create_coupon", [Who, No, Yes, Yes, No, No]),
    ("patch_coupon", [Who, No, Yes, Yes, No, No]),
    ("pause_coupon", [Who, No, Yes, Yes, No, No]),
    ("resume_coupon", [Who, No, Yes, Yes, No, No]),
    ("close_coupon", [Who, No, Yes, Yes, No, No]),
    ("issue", [Who, Yes, No, No, Yes, No]),
    ("issue_in_bulk", [Who, No, Yes, Yes, Yes, No]),
    ("export_csv", [Who, No, Yes, Yes, Yes, Yes]),
    ("export_ndjson", [Who, No, Yes, Yes, Yes, Yes]),
    ("coupon_changes", [Who, No, Yes, Yes, No, Yes]),
    ("coupon_issuances", [Who, No, Yes, Yes, No, Yes]),
    ("coupon_statistics", [Who, No, Yes, Yes, No, Yes]),
    ("issuance", [Who, Yes, Yes, Yes, Yes, Yes]),
    ("user_issuances", [Who, No, Yes, Yes, Yes, Yes]),
    ("my_issuances", [Who, Yes, No, No, No, No]),
    ("quote_issuance", [Who, Yes, Yes, Yes, Yes, Yes]),
    ("reserve_issuance", [Who, No, Yes, Yes, Yes, No]),
    ("redeem_issuance", [Who, No, Yes, Yes, Yes, No]),
    ("release_issuance", [Who, No, Yes, Yes, Yes, No]),
    ("refund_issuance", [Who, No, Yes, Yes, Yes, No]),
    ("revoke_issuance", [Who, No, Yes, Yes, No, No]),
    ("issuance_uses", [Who, No, Yes, Yes, Yes, Yes]),
    ("me", [Who, Yes, Yes, Yes, Yes, Yes]),
    ("cluster", [Who, No, Yes, Yes, No, Yes]),
    ("cluster_coupon", [Who, No, Yes, Yes, No, Yes]),
    ("livez", [Yes, Yes, Yes, Yes, Yes, Yes]),
    ("readyz", [Yes, Yes, Yes, Yes, Yes, Yes]),
    ("metrics", [Yes, Yes, Yes, Yes, Yes, Yes]),
    ("openapi", [Yes, Yes, Yes, Yes, Yes, Yes]),
    ("docs", [Yes, Yes, Yes, Yes, Yes, Yes]),
    ("docs_file", [Yes, Yes, Yes, Yes, Yes, Yes]),
];

/// An operation of the document.
struct Operation {
    name: String,
    method: Method,
    template: String,
    needs_body: bool,
    allowed: BTreeSet<String>,
}

async fn operations(node: &TestNode) -> Vec<Operation> {
    let document = node.get("/openapi.json").await.body;
    let mut operations = Vec::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let allowed = operation["x-allowed"].as_array().unwrap().iter();
            operations.push(Operation {
                name: operation["operationId"].as_str().unwrap().to_owned(),
                method: method.to_uppercase().parse().unwrap(),
                template: template.clone(),
                needs_body: operation["requestBody"]["required"] == true,
                allowed: allowed.map(|role| role.as_str().unwrap().to_owned()).collect(),
            });
        }
    }
    operations
}

/// Returns a request that succeeds with every right: on a coupon of its own, of which Alice has one.
async fn request(node: &TestNode, operation: &Operation, principal: &str) -> RequestBuilder {
    let coupon = node.coupon(json!({"per_user_limit": 2})).await;
    let issued = node.coupon_of_alice(coupon).await;
    let id = if operation.template.starts_with("/v1/issuances") {
        issued
    } else {
        coupon.to_string()
    };
    let mut path = operation
        .template
        .replace("{id}", &id)
        .replace("{file}", "swagger-ui.css");
    if operation.name == "user_issuances" {
        path.push_str("?user_id=alice");
    }
    let order = json!({"order_id": "a", "order_amount": 5});
    for (name, step) in [("release_issuance", "reserve"), ("refund_issuance", "redeem")] {
        if operation.name == name {
            let before = node.admin(Method::POST, &format!("/v1/issuances/{id}/{step}"));
            assert_eq!(send(before.json(&order)).await.status, 200);
        }
    }
    if operation.name == "quote_issuance" {
        path.push_str("?order_amount=5");
    }
    let request = node.request(operation.method.clone(), &path);
    match operation.name.as_str() {
        "reserve_issuance" | "redeem_issuance" => request.json(&order),
        "release_issuance" | "refund_issuance" => request.json(&json!({"order_id": "a"})),
        "issue_in_bulk" => request.json(&json!({"user_ids": ["bob", "carol"]})),
        "patch_coupon" => request.json(&json!({"title": "T"})),
        _ if operation.needs_body => request.json(&json!({"title": "T", "total_quantity": 5})),
        "issue" if principal == "service" => request.json(&json!({"user_id": "alice"})),
        _ => request,
    }
}

impl TestNode {
    /// Issues a coupon to Alice, whatever the mode of authentication is. Returns the id of the issuance.
    async fn coupon_of_alice(&self, coupon: u64) -> String {
        let request = self.issue_request("alice", coupon);
        let reply = send(request.bearer_auth(token("alice", json!({})))).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.body["id"].as_str().unwrap().to_owned()
    }
}

async fn answer(request: RequestBuilder) -> Answer {
    let reply = send(request).await;
    match reply.status {
        200..300 => Answer::Allowed,
        401 => Answer::Unauthenticated,
        403 => Answer::Forbidden,
        _ => panic!("{reply:?}"),
    }
}

/// True if users may do this where `coupon.user_may_reserve` says so.
fn is_reserving(name: &str) -> bool {
    ["reserve_issuance", "release_issuance"].contains(&name)
}

#[tokio::test]
async fn every_role_may_call_the_operations_that_the_table_says_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let roles = &PRINCIPALS[3..];
    let text: String = roles.iter().map(|role| keys::entry(role, role)).collect();
    let file = keys::write(directory.path(), &text);
    for may_reserve in ["false", "true"] {
        let keys = [
            ("auth.keys_file", file.to_str().unwrap()),
            ("coupon.user_may_reserve", may_reserve),
        ];
        let node = TestNode::start_with(&keys).await;
        let mut left: BTreeSet<&str> = TABLE.iter().map(|(name, _)| *name).collect();
        for operation in operations(&node).await {
            let (name, row) = TABLE
                .iter()
                .find(|(name, _)| *name == operation.name)
                .unwrap_or_else(|| panic!("{} has no row in the table", operation.name));
            left.remove(name);
            let mut row = *row;
            if may_reserve == "true" && is_reserving(name) {
                row[1] = Yes;
            }
            is_answered_to_each(&node, &operation, row).await;
        }
        assert!(left.is_empty(), "the document lacks {left:?}");
    }
}

/// Checks what each principal gets, and what the document says of that.
async fn is_answered_to_each(node: &TestNode, operation: &Operation, row: [Answer; 6]) {
    let (name, mut allowed) = (&operation.name, BTreeSet::new());
    for (principal, expected) in PRINCIPALS.into_iter().zip(row) {
        let request = request(node, operation, principal).await;
        let request = match principal {
            "" => request,
            "user" => request.header("X-User-Id", "alice"),
            "admin" => request.bearer_auth(ADMIN_TOKEN),
            role => request.bearer_auth(keys::secret(role)),
        };
        assert_eq!(answer(request).await, expected, "{name} as {principal:?}");
        if expected == Answer::Allowed {
            allowed.insert(if principal.is_empty() { "anyone" } else { principal }.to_owned());
        }
    }
    if allowed.contains("anyone") {
        allowed = BTreeSet::from(["anyone".to_owned()]);
    }
    assert_eq!(operation.allowed, allowed, "x-allowed of {name}");
}

/// A token of a user with a role is both: what users may, and what the role may.
#[tokio::test]
async fn a_token_with_a_role_may_what_users_and_keys_of_the_role_may() {
    let settings = [
        ("auth.mode", "jwt"),
        ("auth.jwt.algorithm", "HS256"),
        ("auth.jwt.key", SECRET),
    ];
    let node = TestNode::start_with(&settings).await;
    for operation in operations(&node).await {
        let (name, row) = TABLE.iter().find(|(name, _)| *name == operation.name).unwrap();
        for (principal, of_role) in PRINCIPALS.into_iter().zip(row) {
            let request = request(&node, &operation, principal).await;
            let (user, more) = match principal {
                "user" => ("alice", json!({})),
                role => ("root", json!({"role": role})),
            };
            let request = match principal {
                "" => request,
                _ => request.bearer_auth(token(user, more)),
            };
            let expected = match (row[1], *of_role) {
                (_, Answer::Allowed) => Answer::Allowed,
                (Answer::Allowed, Answer::Forbidden) => Answer::Allowed,
                (_, of_role) => of_role,
            };
            assert_eq!(answer(request).await, expected, "{name} as {principal:?}");
        }
    }
    let me = async |more: Value| {
        let token = token("root", more);
        send(node.request(Method::GET, "/v1/me").bearer_auth(token))
            .await
            .body
    };
    for role in &PRINCIPALS[2..] {
        assert_eq!(
            me(json!({"role": role})).await,
            json!({"kind": "user", "name": "root", "role": role})
        );
    }
}

#[tokio::test]
async fn user_and_role_stand_in_the_claims_that_the_configuration_names() {
    let settings = [
        ("auth.mode", "jwt"),
        ("auth.jwt.algorithm", "HS256"),
        ("auth.jwt.key", SECRET),
        ("auth.jwt.user_claim", "https://shop.example/customer"),
        ("auth.jwt.role_claim", "realm_access.roles"),
        ("auth.jwt.roles", "shop-admins=admin, tills=service, audit=viewer"),
    ];
    let node = TestNode::start_with(&settings).await;
    let me = async |sub: Value, customer: &str, roles: Value| {
        let more = json!({
            "sub": sub, "https://shop.example/customer": customer, "role": "admin",
            "realm_access": {"roles": roles}
        });
        let token = token("x", more);
        send(node.request(Method::GET, "/v1/me").bearer_auth(token)).await
    };
    for (roles, expected) in [
        (json!(["offline_access", "tills", "audit"]), "service"),
        (json!("shop-admins"), "admin"),
        // With a table of names, ours are those of the identity provider.
        (json!(["admin"]), "user"),
        (json!(null), "user"),
    ] {
        assert_eq!(
            me(json!(null), "alice", roles.clone()).await.body,
            json!({"kind": "user", "name": "alice", "role": expected}),
            "{roles}"
        );
    }
    me(json!("alice"), "", json!([]))
        .await
        .assert_refused(401, "UNAUTHENTICATED");
}
