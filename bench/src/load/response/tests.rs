use proptest::prelude::*;

use super::*;

fn whole(bytes: &[u8]) -> (Response, Vec<u8>) {
    let mut scratch = Vec::new();
    let response = parse(bytes, false, &mut scratch).unwrap().unwrap();
    let body = response.body(bytes, &scratch).to_vec();
    (response, body)
}

fn error(bytes: &[u8]) -> Malformed {
    parse(bytes, false, &mut Vec::new()).unwrap_err()
}

/// Checks that every prefix is incomplete and the whole is complete, so that the result does not depend on
/// where packets are cut.
fn holds_at_every_cut(bytes: &[u8]) {
    let mut scratch = Vec::new();
    for cut in 0..bytes.len() {
        assert_eq!(
            parse(&bytes[..cut], false, &mut scratch),
            Ok(None),
            "cut at {cut}"
        );
        assert_eq!(
            parse(&bytes[..cut], true, &mut scratch),
            Err(Malformed::Cut),
            "ended at {cut}"
        );
    }
    assert_eq!(whole(bytes).0.length, bytes.len());
}

#[test]
fn an_answer_is_whole_at_its_last_byte_and_not_before() {
    holds_at_every_cut(
        b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\nIdempotent-Replayed: true\r\n\r\n{\"a\"}",
    );
    holds_at_every_cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n0\r\n\r\n");
    holds_at_every_cut(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n",
    );
    holds_at_every_cut(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
}

#[test]
fn bytes_of_the_next_answer_are_not_consumed() {
    let one = b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\n{}";
    let two = [one.as_slice(), one].concat();
    let (response, body) = whole(&two);
    assert_eq!(
        (response.length, body.as_slice(), response.status),
        (one.len(), b"{}".as_slice(), 409)
    );
    let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    assert_eq!(whole(&[chunks.as_slice(), one].concat()).0.length, chunks.len());
}

#[test]
fn the_connection_is_kept_only_if_the_answer_allows_it() {
    let kept = |head: &str| {
        whole(format!("{head}\r\nContent-Length: 0\r\n\r\n").as_bytes())
            .0
            .keep_alive
    };
    assert!(kept("HTTP/1.1 200 OK"));
    assert!(!kept("HTTP/1.1 200 OK\r\nConnection: Close"));
    assert!(!kept("HTTP/1.1 200 OK\r\nConnection: x, close"));
    assert!(!kept("HTTP/1.0 200 OK"));
    assert!(kept("HTTP/1.0 200 OK\r\nconnection: keep-alive"));
    let both =
        whole(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").0;
    assert!(!both.keep_alive, "two framings at once");
}

#[test]
fn without_a_length_the_body_ends_with_the_connection() {
    let bytes = b"HTTP/1.1 200 OK\r\n\r\nall there is";
    let mut scratch = Vec::new();
    assert_eq!(parse(bytes, false, &mut scratch), Ok(None));
    let response = parse(bytes, true, &mut scratch).unwrap().unwrap();
    assert_eq!(
        (response.body(bytes, &scratch), response.keep_alive),
        (b"all there is".as_slice(), false)
    );
}

#[test]
fn a_contradictory_answer_is_malformed() {
    let field = |field: &str| error(format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n").as_bytes());
    assert_eq!(error(b"SSH-2.0-x\r\n\r\n"), Malformed::Head);
    assert_eq!(
        error(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        Malformed::Head
    );
    assert_eq!(field("Content-Length: 1\r\nContent-Length: 2"), Malformed::Length);
    assert_eq!(field("Content-Length: +1"), Malformed::Length);
    assert_eq!(field("Content-Length:"), Malformed::Length);
    assert_eq!(field("Content-Length: 1048577"), Malformed::TooLong);
    assert_eq!(
        field("Content-Length: 99999999999999999999999"),
        Malformed::TooLong
    );
    assert_eq!(field("Transfer-Encoding: gzip, chunked"), Malformed::Coding);
    assert_eq!(
        whole(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\nContent-Length: 1\r\n\r\nx").1,
        b"x"
    );
    let chunks = |chunks: &str| {
        error(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}").as_bytes())
    };
    assert_eq!(chunks("2\r\nabc\r\n"), Malformed::Chunk);
    assert_eq!(chunks("x\r\n"), Malformed::Chunk);
    assert_eq!(chunks("fffffff\r\n"), Malformed::TooLong);
    assert_eq!(
        error(format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_BYTES_MAX)).as_bytes()),
        Malformed::TooLong
    );
}

/// An answer as a server may write it, and its body.
fn answers() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, u16)> {
    let chunks = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6);
    (200_u16..600, chunks, any::<bool>(), any::<bool>()).prop_filter_map(
        "a body where none may be",
        |(status, chunks, chunked, hinted)| {
            if matches!(status, 204 | 304) {
                return None;
            }
            let body = chunks.concat();
            let mut bytes = if hinted {
                b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()
            } else {
                Vec::new()
            };
            bytes.extend_from_slice(format!("HTTP/1.1 {status} Some Words\r\nServer: x\r\n").as_bytes());
            if chunked {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in &chunks {
                    bytes.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            } else {
                bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(&body);
            }
            Some((bytes, body, status))
        },
    )
}

proptest! {
    #[test]
    fn every_answer_is_read_as_it_was_written((bytes, body, status) in answers(), rest in proptest::collection::vec(any::<u8>(), 0..20)) {
        holds_at_every_cut(&bytes);
        let (response, read) = whole(&[bytes.as_slice(), &rest].concat());
        prop_assert_eq!((response.status, response.length, read), (status, bytes.len(), body));
    }

    #[test]
    fn no_input_causes_a_panic(
        head in prop_oneof![Just(""), Just("HTTP/1.1 200 OK\r\n"), Just("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")],
        bytes in prop_oneof![proptest::collection::vec(any::<u8>(), 0..200), "[0-9a-f;\r\n]{0,60}".prop_map(String::into_bytes)],
        ended: bool,
    ) {
        let bytes = [head.as_bytes(), &bytes].concat();
        let mut scratch = Vec::new();
        if let Ok(Some(response)) = parse(&bytes, ended, &mut scratch) {
            prop_assert!(response.length <= bytes.len());
            prop_assert!(response.body(&bytes, &scratch).len() <= bytes.len());
        }
    }
}
