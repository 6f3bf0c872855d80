use super::*;

const SAMPLE: &str = r#"{"create":{"call_us":1000,"answer_us":3000,"answer":{"status":201,"body":{"id":42,"title":"x","total_quantity":500,"per_user_limit":1,"starts_at":null,"ends_at":"2026-11-27T09:00:00+09:00","use_within_days":30,"status":"open","phase":"live","issued":0,"version":1,"created_at":"2026-11-21T03:00:00.000000Z"}}}}
{"issue":{"call_us":5000,"answer_us":9000,"coupon":42,"user":"alice","key":"k1","answer":{"status":201,"replayed":true,"body":{"id":"42-17","coupon_id":42,"user_id":"alice","sequence":17,"status":"issued","issued_at":"2026-11-27T00:00:00.012345Z","expires_at":null}}}}
{"issue":{"call_us":6000,"answer_us":8000,"coupon":42,"user":"bob","answer":{"status":409,"body":{"code":"SOLD_OUT","total_quantity":500,"title":"All are given out","status":409}}}}
{"issue":{"call_us":7000,"coupon":42,"user":"eve","key":"k\"2","answer":null}}
{"issue":{"call_us":7000,"answer_us":7001,"coupon":42,"user":"eve","answer":{"status":503,"body":{"code":"OUTCOME_UNKNOWN","applied":null}}}}
{"issue":{"call_us":7000,"answer_us":7001,"coupon":42,"user":"eve","answer":{"status":503,"body":{"code":"OVERLOADED","applied":false}}}}
{"change":{"call_us":9500,"answer_us":9900,"coupon":42,"change":{"patch":{"total_quantity":600,"ends_at":null,"title":"y"}},"if_match":1,"answer":{"status":412,"body":{"code":"VERSION_MISMATCH"}}}}
{"change":{"call_us":9950,"coupon":42,"change":"pause","answer":null}}
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
            Operation::Create(_) | Operation::Change(_) => None,
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
}

#[test]
fn an_invalid_line_is_an_error_with_its_number() {
    let good = SAMPLE.lines().next().unwrap();
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
        let error = read(format!("{good}\n{bad}\n").as_bytes())
            .nth(1)
            .unwrap()
            .unwrap_err();
        assert_eq!(error.line, 2);
        assert!(error.reason.contains(reason), "{bad}: {error}");
    }
}
