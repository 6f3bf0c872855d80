use super::*;

const SAMPLE: &str = r#"{"create":{"call_us":1000,"answer_us":3000,"answer":{"status":201,"body":{"id":42,"title":"x","total_quantity":500,"per_user_limit":1,"starts_at":null,"ends_at":"2026-11-27T09:00:00+09:00","use_within_days":30,"status":"open","phase":"live","issued":0,"version":1,"created_at":"2026-11-21T03:00:00.000000Z"}}}}
{"issue":{"call_us":5000,"answer_us":9000,"coupon":42,"user":"alice","key":"k1","answer":{"status":201,"replayed":true,"body":{"id":"42-17","coupon_id":42,"user_id":"alice","sequence":17,"status":"issued","issued_at":"2026-11-27T00:00:00.012345Z","expires_at":null}}}}
{"issue":{"call_us":6000,"answer_us":8000,"coupon":42,"user":"bob","answer":{"status":409,"body":{"code":"SOLD_OUT","total_quantity":500,"title":"All are given out","status":409}}}}
{"issue":{"call_us":7000,"coupon":42,"user":"eve","key":"k\"2","answer":null}}
{"issue":{"call_us":7000,"answer_us":7001,"coupon":42,"user":"eve","answer":{"status":503,"body":{"code":"OUTCOME_UNKNOWN","applied":null}}}}
{"issue":{"call_us":7000,"answer_us":7001,"coupon":42,"user":"eve","answer":{"status":503,"body":{"code":"OVERLOADED","applied":false}}}}
{"change":{"call_us":9500,"answer_us":9900,"coupon":42,"change":{"patch":{"total_quantity":600,"ends_at":null,"title":"y"}},"if_match":1,"answer":{"status":412,"body":{"code":"VERSION_MISMATCH"}}}}
{"change":{"call_us":9950,"coupon":42,"change":"pause","answer":null}}
{"change":{"call_us":9960,"coupon":42,"change":{"patch":{"use_until":"2027-01-01T00:00:00Z","time_zone":"Asia/Seoul","discount":{"kind":"rate","value":15},"max_discount":null,"min_order_amount":100}},"answer":null}}
{"step":{"call_us":9970,"answer_us":9990,"issuance":"42-17","step":"reserve","body":{"order_id":"A-1","order_amount":45000,"hold":60},"answer":{"status":200,"replayed":false,"body":{"id":"42-17","coupon_id":42,"user_id":"alice","sequence":17,"status":"reserved","issued_at":"2026-11-27T00:00:00.012345Z","expires_at":null,"use":{"kind":"reserved","order_id":"A-1","order_amount":45000,"discount":10000,"hold_until":"2026-11-27T00:01:00Z","at":"2026-11-27T00:00:00Z"}}}}}
{"step":{"call_us":9970,"answer_us":9990,"issuance":"42-17","step":"redeem","body":{"order_id":"A-2","order_amount":7},"answer":{"status":409,"body":{"code":"RESERVED","hold_until":"2026-11-27T00:01:00Z"}}}}
{"step":{"call_us":9970,"answer_us":9990,"issuance":"42-17","step":"reserve","body":{"order_id":"A-1","order_amount":7},"answer":{"status":422,"body":{"code":"ORDER_MISMATCH","use":{"kind":"reserved","order_id":"A-1","order_amount":45000,"discount":10000,"hold_until":"2026-11-27T00:01:00Z","at":"2026-11-27T00:00:00Z"}}}}}
{"step":{"call_us":9970,"answer_us":9990,"issuance":"42-17","step":"refund","body":{"order_id":"A-2"},"answer":{"status":503,"body":{"code":"OVERLOADED","applied":false}}}}
{"step":{"call_us":9970,"issuance":"42-17","step":"revoke","body":{"reason":"fraud","return_quantity":true},"answer":null}}
{"quote":{"call_us":9970,"answer_us":9990,"issuance":"42-17","order_amount":45000,"answer":{"status":200,"body":{"order_amount":45000,"discount":0,"payable":45000,"usable":false,"code":"RESERVED"}}}}
{"quote":{"call_us":9970,"issuance":"42-17","order_amount":45000,"answer":null}}
"#;

fn sample() -> Vec<Operation> {
    read(SAMPLE.as_bytes()).collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_history_is_read_as_it_was_written() {
    let mut writer = Writer::new(Vec::new());
    for operation in &sample() {
        writer.write(operation).unwrap();
    }
    writer.flush().unwrap();
    let again: Vec<Operation> = read(&writer.0[..]).collect::<Result<_, _>>().unwrap();
    assert_eq!(again, sample());
}

#[test]
fn answers_mean_what_the_contract_says() {
    let meanings: Vec<String> = sample()
        .iter()
        .filter_map(|operation| match operation {
            Operation::Issue(issue) => Some(format!("{:?}", issue.answer)),
            _ => None,
        })
        .collect();
    for (meaning, beginning) in meanings.iter().zip([
        "Issued",
        "Refused(SoldOut",
        "Unknown",
        "Unknown",
        "NotApplied(\"OVERLOADED\")",
    ]) {
        assert!(meaning.starts_with(beginning), "{meaning}");
    }
    let history = sample();
    let codes: Vec<&str> = history
        .iter()
        .filter_map(|operation| match operation {
            Operation::Step(call) => Some(call.answer.code()),
            Operation::Quote(quote) => Some(quote.answer.code()),
            _ => None,
        })
        .collect();
    let steps = ["done", "RESERVED", "ORDER_MISMATCH", "OVERLOADED", "unknown"];
    assert_eq!(codes, [&steps[..], &["RESERVED", "unknown"]].concat());
}

#[test]
fn an_invalid_line_is_an_error_with_its_number() {
    for (bad, reason) in [
        ("", "EOF"),
        ("{\"issue\":{\"call_us\":1", "EOF"),
        (r#"{"take":{}}"#, "unknown variant"),
        (
            r#"{"issue":{"call_us":1,"coupon":1,"user":"a b"}}"#,
            "is not a user id",
        ),
        (
            r#"{"issue":{"call_us":1,"coupon":0,"user":"a"}}"#,
            "not a coupon id",
        ),
        (
            r#"{"issue":{"call_us":1,"coupon":1,"user":"a","extra":1}}"#,
            "unknown field",
        ),
        (
            r#"{"issue":{"call_us":1,"coupon":1,"user":"a","answer":{"status":503,"body":null}}}"#,
            "lacks answer_us",
        ),
        (
            r#"{"issue":{"call_us":2,"answer_us":1,"coupon":1,"user":"a"}}"#,
            "before call_us",
        ),
        (
            r#"{"issue":{"call_us":1,"answer_us":2,"coupon":1,"user":"a","answer":{"status":409,"body":{"code":"SOLD_OUT"}}}}"#,
            "lacks total_quantity",
        ),
        (
            r#"{"issue":{"call_us":1,"answer_us":2,"coupon":1,"user":"a","answer":{"status":201,"body":{"id":"1-2"}}}}"#,
            "lacks coupon_id",
        ),
        (
            r#"{"issue":{"call_us":1,"answer_us":2,"coupon":1,"user":"a","answer":{"status":200,"body":null}}}"#,
            "status 200 is no answer",
        ),
        (
            r#"{"create":{"call_us":1,"answer_us":2,"answer":{"status":201,"body":{"id":1}}}}"#,
            "missing field",
        ),
    ] {
        assert_invalid(bad, reason);
    }
}

#[test]
fn an_invalid_line_of_a_step_or_a_quote_is_an_error() {
    for (bad, reason) in [
        (
            r#"{"step":{"call_us":1,"issuance":"1-1","step":"keep"}}"#,
            "unknown variant",
        ),
        (
            r#"{"step":{"call_us":1,"issuance":"1-1","step":"redeem","body":{}}}"#,
            "lacks order_id",
        ),
        (
            r#"{"step":{"call_us":1,"answer_us":2,"issuance":"1-1","step":"refund","body":{"order_id":"o"},"answer":{"status":409,"body":{"code":"RESERVED"}}}}"#,
            "lacks hold_until",
        ),
        (
            r#"{"quote":{"call_us":1,"answer_us":2,"issuance":"1-1","order_amount":5,"answer":{"status":200,"body":{"order_amount":5,"discount":1,"payable":4,"usable":false}}}}"#,
            "has a code",
        ),
    ] {
        assert_invalid(bad, reason);
    }
}

/// Checks that this line after a good one is an error for this reason.
#[track_caller]
fn assert_invalid(bad: &str, reason: &str) {
    let good = SAMPLE.lines().next().unwrap();
    let error = read(format!("{good}\n{bad}\n").as_bytes())
        .nth(1)
        .unwrap()
        .unwrap_err();
    assert_eq!(error.line, 2);
    assert!(error.reason.contains(reason), "{bad}: {error}");
}
