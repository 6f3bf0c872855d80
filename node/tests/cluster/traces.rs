//! Traces, as a receiver gets them from real nodes.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use testkit::on_each_server;
use testkit::poll::eventually;
use testkit::servers::{Server, ServerKind};
use tokio::net::TcpListener;

use crate::receiver::{Received, Receiver};
use crate::stage::Stage;

/// The span of the caller.
const CALLER: &str = "00f067aa0ba902b7";
const STATE: &str = "vendor=a,other=b";
const ISSUE: &str = "POST /v1/coupons/{id}/issuances";

/// Starts this many nodes that send their traces to this URL.
async fn stage(kind: ServerKind, nodes: usize, url: &str, keys: &[&str]) -> Stage {
    let endpoint = format!("trace.endpoint={url}");
    let keys: Vec<&str> = [&[endpoint.as_str()], keys].concat();
    let mut stage = Stage::unstarted(Server::shared(kind), nodes, &keys, false).await;
    stage.start(&(0..nodes).collect::<Vec<_>>());
    stage.settled().await;
    stage
}

/// Issues the coupon to a user, in this trace of the caller. Returns the header `traceresponse`.
async fn issue(stage: &Stage, asked: usize, coupon: u64, user: &str, trace: Option<&str>) -> Option<String> {
    let address = &stage.members[asked].address;
    let request = stage
        .client
        .post(format!("http://{address}/v1/coupons/{coupon}/issuances"));
    let request = request.header("X-User-Id", user);
    let request = match trace {
        Some(trace) => request.header("traceparent", trace).header("tracestate", STATE),
        None => request,
    };
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 201);
    let header = response.headers().get("traceresponse");
    header.map(|value| value.to_str().unwrap().to_owned())
}

/// Returns the only span with this name.
fn only<'a>(spans: &'a [Received], name: &str) -> &'a Received {
    let named: Vec<&Received> = spans
        .iter()
        .filter(|received| received.span.name == name)
        .collect();
    assert_eq!(named.len(), 1, "{name} in {spans:#?}");
    named[0]
}

async fn a_forwarded_request_is_one_trace_from_the_gateway_to_the_commit(kind: ServerKind) {
    let receiver = Receiver::start().await;
    let stage = stage(kind, 2, &receiver.url, &["trace.ratio=0"]).await;
    let coupon = stage.coupon_of(1).await;
    let [trace, unrecorded] = [rand::random::<u128>(), rand::random()].map(|id| format!("{id:032x}"));
    let not_sampled = format!("00-{unrecorded}-{CALLER}-00");
    issue(&stage, 0, coupon, "alice", Some(&not_sampled)).await;
    issue(&stage, 0, coupon, "bob", None).await;
    let response = issue(
        &stage,
        0,
        coupon,
        "carol",
        Some(&format!("00-{trace}-{CALLER}-01")),
    )
    .await;

    eventually("both nodes have sent their spans", async || {
        let spans = receiver.of_trace(&trace);
        let has = |name| spans.iter().any(|received| received.span.name == name);
        [ISSUE, "forward", "decide", "batch", "commit"]
            .into_iter()
            .all(has)
    })
    .await;
    let request = check_tree(&stage, &receiver.of_trace(&trace), coupon);
    let own = format!("00-{trace}-{request}-01");
    assert_eq!(response, Some(own));
    // What the caller does not record and what no caller traces is not recorded.
    assert_eq!(receiver.spans().len(), 5, "{:#?}", receiver.spans());
}

/// Checks the spans of a request that node 0 forwarded to node 1. Returns the id of the first.
fn check_tree(stage: &Stage, spans: &[Received], coupon: u64) -> String {
    assert_eq!(spans.len(), 5, "{spans:#?}");
    let [request, forward, decide, batch, commit] =
        [ISSUE, "forward", "decide", "batch", "commit"].map(|name| only(spans, name));
    assert_eq!(hex(&request.span.parent_span_id), CALLER);
    for (part, whole) in [
        (forward, request),
        (decide, forward),
        (batch, decide),
        (commit, batch),
    ] {
        assert!(part.is_part_of(whole), "{part:#?} is no part of {whole:#?}");
        assert!(part.span.start_time_unix_nano >= whole.span.start_time_unix_nano);
        assert!(part.span.end_time_unix_nano >= part.span.start_time_unix_nano);
    }
    assert!(batch.links_to(decide) && decide.links_to(batch), "{spans:#?}");
    let (gateway, owner) = (&stage.members[0].name, &stage.members[1].name);
    for (span, node, kind) in [
        (request, gateway, SpanKind::Server),
        (forward, gateway, SpanKind::Client),
        (decide, owner, SpanKind::Server),
        (batch, owner, SpanKind::Internal),
        (commit, owner, SpanKind::Client),
    ] {
        assert_eq!((&span.node, span.span.kind), (node, kind as i32), "{span:#?}");
        assert_eq!(span.span.trace_state, STATE, "{span:#?}");
    }
    assert_eq!(decide.events(), ["queued", "decided"]);
    assert_eq!(decide.attribute("firstcome.id"), Some(coupon.to_string()));
    assert_eq!(decide.attribute("firstcome.refused").as_deref(), Some("false"));
    assert_eq!(forward.attribute("firstcome.peer").as_ref(), Some(owner));
    assert_eq!(
        request.attribute("http.response.status_code").as_deref(),
        Some("201")
    );
    hex(&request.span.span_id)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn a_batch_links_to_the_requests_of_all_traces_in_it(kind: ServerKind) {
    let receiver = Receiver::start().await;
    // Requests that belong to no trace begin one.
    let stage = stage(kind, 1, &receiver.url, &["trace.ratio=1"]).await;
    let coupon = stage.coupon(None).await;
    let mut round = 0;
    eventually("several requests share a batch", async || {
        round += 1;
        let users: Vec<String> = (0..50).map(|user| format!("user-{round}-{user}")).collect();
        let requests = users.iter().map(|user| issue(&stage, 0, coupon, user, None));
        let responses = futures_util::future::join_all(requests).await;
        assert!(responses.iter().all(Option::is_some), "{responses:?}");
        // A trace's spans may be sent in several batches.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let spans = receiver.spans();
        let shared = spans
            .iter()
            .find(|received| received.span.name == "batch" && received.span.links.len() > 1);
        let Some(batch) = shared else { return false };
        let decided: Vec<&Received> = spans
            .iter()
            .filter(|received| received.span.name == "decide" && batch.links_to(received))
            .collect();
        assert_eq!(decided.len(), batch.span.links.len(), "{batch:#?}");
        assert!(decided.iter().all(|decide| decide.links_to(batch)));
        assert!(decided.iter().any(|decide| batch.is_part_of(decide)));
        let rows = batch.attribute("firstcome.rows").unwrap();
        assert_eq!(rows, decided.len().to_string());
        true
    })
    .await;
}

/// Each request has four spans or more, so these fill the smallest queue and the batch before it.
const REQUESTS: usize = 400;

async fn a_receiver_that_hangs_delays_neither_answers_nor_the_stop(kind: ServerKind) {
    // Connections wait in the queue of the socket.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let keys = ["trace.ratio=1", "trace.queue_max=512", "trace.timeout=1h"];
    let mut stage = stage(kind, 1, &url, &keys).await;
    let coupon = stage.coupon(None).await;
    for user in 0..REQUESTS {
        issue(&stage, 0, coupon, &format!("user-{user}"), None).await;
    }
    let dropped = r#"coupon_trace_spans_dropped_total{reason="queue_full"}"#;
    assert!(stage.metric(0, dropped).await > 0.0);
    assert_eq!(
        stage.metric(0, r#"coupon_queue_length{queue="spans"}"#).await,
        512.0
    );
    let begun = Instant::now();
    stage.stop(0);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

async fn spans_for_a_receiver_that_is_away_are_dropped_and_counted(kind: ServerKind) {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let stage = stage(kind, 1, &url, &["trace.ratio=1"]).await;
    let coupon = stage.coupon(None).await;
    issue(&stage, 0, coupon, "alice", None).await;
    eventually("dropped spans are counted", async || {
        let not_sent = r#"coupon_trace_spans_dropped_total{reason="not_sent"}"#;
        stage.metric(0, not_sent).await > 0.0
    })
    .await;
    let log = stage.members[0].log();
    assert!(log.contains("a batch of spans was not sent"), "{log}");
}

on_each_server! {
    a_forwarded_request_is_one_trace_from_the_gateway_to_the_commit
    a_batch_links_to_the_requests_of_all_traces_in_it
    a_receiver_that_hangs_delays_neither_answers_nor_the_stop
    spans_for_a_receiver_that_is_away_are_dropped_and_counted
}
