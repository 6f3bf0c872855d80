//! A node of the tests: an engine in a process of its own. It carries out the commands of its parent.

use std::sync::Arc;
use std::time::Duration;

use actors::cluster::membership::life_record::LifeRecord;
use actors::coupon::change::{Change, ChangeOutcome};
use actors::coupon::client::Coupons;
use actors::coupon::ids::{CouponId, Sequence};
use actors::coupon::issue::IssueOutcome;
use actors::coupon::offer::OfferPatch;
use actors::coupon::uses::decide::Step;
use actors::coupon::uses::{UseOutcome, UseRequest};
use actors::engine::{ClusterOptions, Engine, Options};
use actors::ids::{Author, NodeId, RequestKey, UserId};
use actors::owning::owner::actor::OWNER_PLACES;
use actors::owning::router::REQUESTS_MAX;
use actors::store::mysql::{self, MySqlStore};
use actors::trace::{Span, Spans};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use testkit::{prometheus, worker};
use tokio::net::TcpListener;

pub const LEASE: Duration = Duration::from_secs(3);
const BEAT: Duration = Duration::from_millis(100);
const HEARTBEAT: Duration = Duration::from_millis(250);

pub async fn run(configuration: &Value) {
    worker::log_to_stderr(tracing::Level::ERROR);
    let metrics = PrometheusBuilder::new().install_recorder().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let advertise = listener.local_addr().unwrap().to_string();
    let store = MySqlStore::open(&mysql::Options::new(configuration["url"].as_str().unwrap()))
        .await
        .unwrap();
    let cluster = ClusterOptions {
        name: "test".to_owned(),
        listener: Arc::new(listener),
        advertise,
        cookie: "crumbs".to_owned(),
        tls: None,
        heartbeat: HEARTBEAT,
    };
    let options = Options {
        node: NodeId::parse(configuration["node"].as_str().unwrap()).unwrap(),
        http: String::new(),
        lease: LEASE,
        beat: BEAT,
        idle: Duration::from_secs(60),
        requests_max: REQUESTS_MAX,
        owner_requests_max: OWNER_PLACES,
        record: LifeRecord::default(),
        lanes: 2,
        cluster: Some(cluster),
        spans: Spans::default(),
    };
    let store = Arc::new(store);
    let engine = Engine::start(options, store.clone()).await.unwrap();
    let coupons = Coupons::new(engine, store);
    worker::started(&json!({}));
    worker::serve(|command| {
        let (coupons, metrics) = (coupons.clone(), metrics.clone());
        async move { carry_out(&command, &coupons, &metrics).await }
    })
    .await;
}

async fn carry_out(command: &Value, coupons: &Coupons, metrics: &PrometheusHandle) -> Value {
    let engine = coupons.engine();
    let text = |key: &str| command[key].as_str().unwrap();
    let limit = Duration::from_millis(command["limit_ms"].as_u64().unwrap_or(5_000));
    let coupon = || CouponId::new(command["coupon"].as_u64().unwrap()).unwrap();
    match text("do") {
        "issue" => {
            let (user, key) = (
                UserId::parse(text("user")).unwrap(),
                RequestKey::parse(text("key")).unwrap(),
            );
            match coupons.issue(coupon(), user, key, limit, &Span::default()).await {
                Ok(IssueOutcome::Issued(issuance)) => json!({"issued": issuance.id.sequence.get()}),
                Ok(IssueOutcome::Replayed(used)) => json!({"replayed": used.issuance.id.sequence.get()}),
                Ok(IssueOutcome::Refused(refusal)) => json!({"refused": format!("{refusal:?}")}),
                Err(setback) => json!({"setback": format!("{setback:?}")}),
            }
        }
        "change" => {
            let change = match command["total"].as_u64() {
                Some(total) => Change::Patch(Box::new(OfferPatch {
                    total_quantity: Some(Some(total)),
                    ..OfferPatch::default()
                })),
                None if command["pause"] == true => Change::Pause,
                None => Change::Resume,
            };
            match coupons
                .change(coupon(), change.into(), limit, &Span::default())
                .await
            {
                Ok(ChangeOutcome::Done(done)) => json!({"version": done.coupon.version}),
                other => format!("{other:?}").into(),
            }
        }
        "give_back" => {
            let sequence = Sequence::new(command["sequence"].as_u64().unwrap());
            give_back(coupons, coupon(), sequence, limit).await
        }
        "ready" => engine.not_ready().is_empty().into(),
        "door" => engine.door_notices().into(),
        "metric" => prometheus::value(&metrics.render(), text("name")).into(),
        "hand_off" => engine.hand_off(limit).await.into(),
        "stop" => engine.stop(limit).await.into(),
        other => panic!("{other}"),
    }
}

/// Revokes an issuance, and gives it back to the quantity.
async fn give_back(coupons: &Coupons, coupon: CouponId, sequence: Sequence, limit: Duration) -> Value {
    let request = UseRequest {
        sequence,
        of_user: None,
        author: Author::parse("key:admin").unwrap(),
        step: Step::Revoke {
            reason: None,
            returns: true,
        },
    };
    match coupons
        .use_issuance(coupon, request, limit, &Span::default())
        .await
    {
        Ok(UseOutcome::Done(done)) => json!({"revoked": done.used.issuance.id.sequence.get()}),
        other => format!("{other:?}").into(),
    }
}
