use super::*;
use actors::coupon::ids::IssuanceId;
use actors::coupon::offer::Issuance;
use actors::ids::{RequestKey, UserId};
use actors::store::StoreError;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::service::Error as E;
use crate::service::store_calls::{read_error, write_error};

async fn respond(error: service::Error) -> (u16, Value, Option<u64>) {
    respond_with(error, &Codes::default()).await
}

async fn respond_with(error: service::Error, codes: &Codes) -> (u16, Value, Option<u64>) {
    let response = Error::from(error).into_response(codes);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .map(|seconds| seconds.to_str().unwrap().parse().unwrap());
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(body["status"], status);
    (status, body, retry_after)
}

fn issuance(at: Timestamp) -> Issuance {
    Issuance {
        id: IssuanceId::parse("7-1").unwrap(),
        user: UserId::parse("alice").unwrap(),
        nth: 1,
        key: RequestKey::parse("key").unwrap(),
        issued_at: at,
        expires_at: None,
    }
}

/// Refusals, with their codes and extra members.
fn refusals(codes: &Codes) -> Vec<(service::Error, &'static str, Value)> {
    let at = Timestamp::parse("2026-11-27T00:00:00Z").unwrap();
    let time = json!("2026-11-27T00:00:00.000000Z");
    let issuance = issuance(at);
    let existing = serde_json::to_value(IssuanceBody::issued(&issuance, codes)).unwrap();
    let (starts_at, ends_at, server_time) = (at, at, at);
    vec![
        (Refusal::UnknownCoupon.into(), "UNKNOWN_COUPON", json!({})),
        (Refusal::Closed.into(), "CLOSED", json!({})),
        (Refusal::Paused.into(), "PAUSED", json!({})),
        (
            Refusal::SoldOut { total_quantity: 500 }.into(),
            "SOLD_OUT",
            json!({"total_quantity": 500}),
        ),
        (
            Refusal::NotStarted {
                starts_at,
                server_time,
            }
            .into(),
            "NOT_STARTED",
            json!({"starts_at": time, "server_time": time}),
        ),
        (
            Refusal::Ended { ends_at, server_time }.into(),
            "ENDED",
            json!({"ends_at": time, "server_time": time}),
        ),
        (
            Refusal::AlreadyIssued(Box::new(issuance.into())).into(),
            "ALREADY_ISSUED",
            json!({"issuance": existing}),
        ),
        (
            ChangeRefusal::VersionMismatch { version: 3 }.into(),
            "VERSION_MISMATCH",
            json!({"version": 3}),
        ),
        (
            ChangeRefusal::QuantityBelowIssued {
                issued: 9,
                returned: 2,
            }
            .into(),
            "QUANTITY_BELOW_ISSUED",
            json!({"issued": 9, "returned": 2}),
        ),
    ]
}

#[tokio::test]
async fn a_problem_has_exactly_the_expected_members() {
    let codes = Codes::default();
    let mut cases = refusals(&codes);
    cases.extend([
        (
            E::Unauthenticated(MissingCredentials::Token),
            "UNAUTHENTICATED",
            json!({}),
        ),
        (
            E::Unauthenticated(MissingCredentials::UserHeader),
            "UNAUTHENTICATED",
            json!({"detail": "the header X-User-Id is missing, or no trusted gateway has set it"}),
        ),
        (
            E::InvalidToken(TokenRefusal::Expired),
            "UNAUTHENTICATED",
            json!({}),
        ),
        (
            E::InvalidUser("is empty".into()),
            "MALFORMED",
            json!({"detail": "X-User-Id: is empty"}),
        ),
        (E::Forbidden("no"), "FORBIDDEN", json!({"detail": "no"})),
        (E::UnknownIssuance, "UNKNOWN_ISSUANCE", json!({})),
        (
            E::KeyReused,
            "INVALID",
            json!({"errors": [{"field": "Idempotency-Key", "message": "was used for another coupon"}]}),
        ),
    ]);
    for (error, code, members) in cases {
        let (status, mut body, _) = respond_with(error, &codes).await;
        let title = body.as_object_mut().unwrap().remove("title");
        assert!(
            title.is_some_and(|title| title.as_str().is_some_and(|title| !title.is_empty())),
            "{code}"
        );
        let urn = format!("urn:firstcome:problem:{code}");
        let mut expected = json!({"type": urn, "status": status, "code": code, "applied": false});
        expected
            .as_object_mut()
            .unwrap()
            .extend(members.as_object().unwrap().clone());
        assert_eq!(body, expected);
    }
}

#[tokio::test]
async fn a_sold_out_response_has_exactly_these_bytes() {
    let error = service::Error::from(Refusal::SoldOut { total_quantity: 500 });
    let body = Error::from(error).into_response(&Codes::default()).into_body();
    let text = concat!(
        r#"{"type":"urn:firstcome:problem:SOLD_OUT","title":"The coupon is sold out","status":409,"#,
        r#""code":"SOLD_OUT","applied":false,"total_quantity":500}"#
    );
    assert_eq!(body.collect().await.unwrap().to_bytes(), text);
}

#[tokio::test]
async fn a_setback_says_when_to_retry_and_whether_anything_was_applied() {
    for (setback, code, applied) in [
        (Setback::Overloaded, "OVERLOADED", json!(false)),
        (Setback::Expired, "OVERLOADED", json!(false)),
        (Setback::Moved, "OWNER_MOVING", json!(false)),
        (Setback::StoreUnavailable, "STORE_UNAVAILABLE", json!(false)),
        (Setback::Unknown, "OUTCOME_UNKNOWN", Value::Null),
    ] {
        let (status, body, retry_after) = respond(setback.into()).await;
        assert_eq!((status, &body["code"]), (503, &json!(code)));
        assert_eq!(body.as_object().unwrap().get("applied"), Some(&applied), "{code}");
        assert!((1..=4).contains(&retry_after.unwrap()), "{code}");
    }
}

#[tokio::test]
async fn an_unknown_outcome_says_which_request_tells_it() {
    for (error, expected, other) in [
        (Setback::Unknown.into(), "Idempotency-Key", "same order"),
        (
            E::UseUnknown,
            "the same step for the same order",
            "Idempotency-Key",
        ),
    ] {
        let (status, body, retry_after) = respond(error).await;
        assert_eq!(
            (status, &body["code"], &body["applied"]),
            (503, &json!("OUTCOME_UNKNOWN"), &Value::Null)
        );
        assert!((1..=4).contains(&retry_after.unwrap()));
        let said = format!("{} {}", body["title"], body["detail"]);
        assert!(said.contains(expected) && !said.contains(other), "{said}");
    }
}

#[tokio::test]
async fn a_token_that_nothing_can_verify_yet_is_no_reason_for_a_401() {
    let (status, body, retry_after) = respond(E::InvalidToken(TokenRefusal::NoKeys)).await;
    assert_eq!(
        (status, &body["code"], &body["applied"]),
        (503, &json!("KEYS_UNAVAILABLE"), &json!(false))
    );
    assert!((1..=4).contains(&retry_after.unwrap()));
}

#[tokio::test]
async fn retry_after_varies_between_clients() {
    let mut waits = std::collections::BTreeSet::new();
    for _ in 0..200 {
        waits.insert(respond(Setback::Overloaded.into()).await.2);
    }
    assert!(waits.len() > 1, "{waits:?}");
}

#[tokio::test]
async fn retry_after_of_a_rate_limit_is_the_wait_plus_up_to_two_seconds() {
    for (wait, shortest) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (59_999, 60)] {
        let mut waits = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let (status, body, retry_after) = respond(E::RateLimited(Duration::from_millis(wait))).await;
            assert_eq!(
                (status, &body["code"], &body["applied"]),
                (429, &json!("RATE_LIMITED"), &json!(false))
            );
            waits.insert(retry_after.unwrap());
        }
        assert_eq!(Vec::from_iter(waits), [shortest, shortest + 1, shortest + 2]);
    }
}

#[tokio::test]
async fn messages_of_the_store_do_not_reach_clients() {
    let text = || "SELECT secret FROM /var/lib".to_owned();
    let (unavailable, internal) = ("STORE_UNAVAILABLE", "INTERNAL");
    for (error, read_code, write_code, applied) in [
        (
            StoreError::NotStored(text()),
            unavailable,
            unavailable,
            json!(false),
        ),
        (
            StoreError::Unknown(text()),
            unavailable,
            "OUTCOME_UNKNOWN",
            Value::Null,
        ),
        (StoreError::Clash(text()), internal, internal, json!(false)),
        (StoreError::Unreadable(text()), internal, internal, Value::Null),
        (StoreError::Fatal(text()), internal, internal, Value::Null),
    ] {
        let (_, read, _) = respond(read_error(&error)).await;
        let (_, written, _) = respond(write_error(&error)).await;
        assert_eq!(
            (&read["code"], &read["applied"]),
            (&json!(read_code), &json!(false)),
            "{error}"
        );
        assert_eq!(
            (&written["code"], &written["applied"]),
            (&json!(write_code), &applied),
            "{error}"
        );
        assert!(!read.to_string().contains("secret") && !written.to_string().contains("secret"));
    }
}
