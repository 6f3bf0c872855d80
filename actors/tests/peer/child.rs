//! A node of the tests, which carries out the commands of its parent. Each node has a process of its own,
//! because a node's actors are statics of the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actors::admission::Admission;
use actors::coupon::change::{Change, ChangeRequest};
use actors::coupon::ids::{CouponId, IssuanceId, Sequence};
use actors::coupon::issue::{IssueOutcome, IssueRequest};
use actors::coupon::offer::Issuance;
use actors::coupon::{CouponAsk, CouponKind, CouponOutcome};
use actors::engine::payload::{OwnerPayload, RemoteAsk};
use actors::ids::{Epoch, Incarnation, NodeId, PeerAddress, RequestKey, UserId};
use actors::link::frame::{Header, Writer};
use actors::link::hello::{Hello, VERSIONS};
use actors::link::payload::Outgoing;
use actors::link::{AnswerPath, Handler, Options, TlsFiles};
use actors::owning::kind::Kind;
use actors::owning::request::{Reply, Setback};
use actors::time::{Moment, moment, timestamp};
use futures_util::future::join_all;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use ractor::ActorCell;
use serde_json::{Value, json};
use testkit::{prometheus, worker};
use tokio::net::TcpListener;
use tracing::Level;

/// The payload of these links.
type Payload = OwnerPayload<CouponKind>;
type Links = actors::link::Links<Payload>;

/// The epoch that owners of these tests have.
pub const EPOCH: u64 = 7;

pub async fn run(configuration: &Value) {
    let logs_all = configuration["logs_all_of_links"] == true;
    worker::log_to_stderr(if logs_all { Level::WARN } else { Level::ERROR });
    let metrics = PrometheusBuilder::new().install_recorder().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let owners = Arc::new(Owners::default());
    let options = options(configuration);
    let links = Links::start(options, Arc::new(listener), Arc::clone(&owners) as _).await;
    let links = match links {
        Ok(links) => links,
        Err(error) => return worker::started(&json!({"error": error.to_string()})),
    };
    worker::started(&json!({"port": port}));
    worker::serve(|command| {
        // The futures below may finish in any order. This command is carried out here, so that the latest
        // list of peers applies.
        let is_done = command["do"] == "know";
        if is_done {
            links.know(peers(&command["peers"]));
        }
        let (links, owners, metrics) = (links.clone(), Arc::clone(&owners), metrics.clone());
        async move {
            if is_done {
                return Value::Null;
            }
            carry_out(&command, &links, &owners, &metrics).await
        }
    })
    .await;
}

fn options(configuration: &Value) -> Options {
    let text = |key: &str| configuration[key].as_str().unwrap();
    let incarnation = Incarnation::new(configuration["incarnation"].as_u64().unwrap()).unwrap();
    let mut hello = Hello::new(text("cluster"), NodeId::parse(text("node")).unwrap(), incarnation);
    if let Some(shards) = configuration["shards"].as_u64() {
        hello.shards = u32::try_from(shards).unwrap();
    }
    if let Some(versions) = configuration["versions"].as_array() {
        hello.versions = versions
            .iter()
            .map(|version| u32::try_from(version.as_u64().unwrap()).unwrap())
            .collect();
    }
    let mut options = Options::new(hello, text("cookie").to_owned());
    // If a busy machine does not run a node for four heartbeats, the node counts as silent. So heartbeats are
    // not more frequent.
    options.heartbeat = Duration::from_millis(500);
    if let Some(places) = configuration["flow_places"].as_u64() {
        options.flow_places = usize::try_from(places).unwrap();
    }
    options.tls = configuration["tls"].as_array().map(|files| {
        let path = |place: usize| files[place].as_str().unwrap().into();
        TlsFiles {
            authority: path(0),
            certificate: path(1),
            key: path(2),
        }
    });
    options
}

fn peers(peers: &Value) -> Vec<PeerAddress> {
    let peer = |peer: &Value| PeerAddress {
        node: NodeId::parse(peer["node"].as_str().unwrap()).unwrap(),
        incarnation: incarnation(peer),
        address: peer["address"].as_str().unwrap().to_owned(),
    };
    peers.as_array().unwrap().iter().map(peer).collect()
}

fn incarnation(command: &Value) -> Incarnation {
    Incarnation::new(command["incarnation"].as_u64().unwrap()).unwrap()
}

fn coupon(command: &Value) -> CouponId {
    CouponId::new(command["coupon"].as_u64().unwrap()).unwrap()
}

async fn carry_out(
    command: &Value,
    links: &Links,
    owners: &Arc<Owners>,
    metrics: &PrometheusHandle,
) -> Value {
    let limit = Duration::from_millis(command["limit_ms"].as_u64().unwrap_or(15_000));
    match command["do"].as_str().unwrap() {
        "linked" => links.linked().into_iter().map(Incarnation::get).collect(),
        "refuses" => links.refuses(incarnation(command)).into(),
        "ask" => ask(command, links, limit).await,
        "crowd" => crowd(command, links, limit).await,
        "change" => change(command, links, limit).await,
        "release" => owners.release(coupon(command)).into(),
        "asked" => owners.times_asked(command["key"].as_str().unwrap()).into(),
        "tell_all" => tell_all(command, links, limit).await,
        "said" => owners.said.lock().unwrap().clone().into(),
        "metric" => prometheus::value(&metrics.render(), command["name"].as_str().unwrap()).into(),
        _ => {
            carry_out_without_answer(command, links, owners).await;
            Value::Null
        }
    }
}

/// Carries out a command that has no answer.
async fn carry_out_without_answer(command: &Value, links: &Links, owners: &Arc<Owners>) {
    match command["do"].as_str().unwrap() {
        "hold" => owners.hold(coupon(command)),
        "say_to" => {
            let news = command["news"].as_str().unwrap();
            links.say_to(incarnation(command), news.as_bytes().to_vec());
        }
        "send_bytes" => send_bytes(command),
        "send_frame" => send_frame(command),
        "kill_hub" => kill_hub(),
        "stop" => links.stop().await,
        other => panic!("{other}"),
    }
}

/// Tells the news to all linked peers. Returns the peers that acknowledged the news.
async fn tell_all(command: &Value, links: &Links, limit: Duration) -> Value {
    let news = command["news"].as_str().unwrap().as_bytes();
    let told = links
        .linked()
        .into_iter()
        .map(async |peer| links.tell(peer, news.to_vec(), limit).await.then_some(peer));
    let acknowledged = join_all(told).await.into_iter().flatten();
    acknowledged.map(Incarnation::get).collect()
}

fn send_bytes(command: &Value) {
    let byte = |byte: &Value| u8::try_from(byte.as_u64().unwrap()).unwrap();
    send(command["bytes"].as_array().unwrap().iter().map(byte).collect());
}

/// Sends an empty frame with the header of the command.
fn send_frame(command: &Value) {
    let number = |key: &str| command[key].as_u64().unwrap();
    let [from, to] = ["from", "to"].map(|key| Incarnation::new(number(key)).unwrap());
    let header = Header {
        version: VERSIONS[0],
        from,
        to,
        generation: number("generation"),
        number: number("number"),
    };
    send(Writer::new(header).finish());
}

/// Kills the actor of this node that supervises its ingresses.
fn kill_hub() {
    let ours = ingress(|ingress| ingress.get_id().is_local());
    ours.try_get_supervisor().unwrap().kill();
}

/// Sends bytes to one of the peer's ingresses without using the link.
fn send(bytes: Vec<u8>) {
    let theirs = ingress(|ingress| !ingress.get_id().is_local());
    theirs.send_message(bytes).unwrap();
}

/// Returns one of the ingresses that this node sees.
fn ingress(is_wanted: impl Fn(&ActorCell) -> bool) -> ActorCell {
    let ingresses = ractor::pg::get_scoped_members(&"firstcome".to_owned(), &"ingress".to_owned());
    ingresses.into_iter().find(is_wanted).unwrap()
}

async fn ask(command: &Value, links: &Links, limit: Duration) -> Value {
    let (user, key) = (
        UserId::parse("alice").unwrap(),
        RequestKey::parse(command["key"].as_str().unwrap()).unwrap(),
    );
    let (reply, answer) = Reply::new(Admission::new(1).admit().unwrap());
    let expires = moment() + Duration::from_millis(command["expires_ms"].as_u64().unwrap_or(60_000));
    let ask = RemoteAsk {
        id: coupon(command),
        epoch: Epoch::new(command["epoch"].as_u64().unwrap_or(EPOCH)),
        ask: IssueRequest { user, key }.into(),
        trace: None,
    };
    links.send(incarnation(command), outgoing(ask, expires, reply));
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(Ok(CouponOutcome::Issue(IssueOutcome::Issued(issuance))))) => {
            json!({"sequence": issuance.id.sequence.get(), "key": issuance.key.as_str()})
        }
        Ok(Ok(other)) => format!("{other:?}").into(),
        Ok(Err(_)) => "dropped".into(),
        Err(_) => "nothing".into(),
    }
}

fn outgoing(ask: RemoteAsk<CouponKind>, expires: Moment, reply: Reply<CouponKind>) -> Outgoing<Payload> {
    Outgoing {
        flow: CouponKind::flow(ask.id),
        expires,
        ask,
        reply,
    }
}

/// Sends many requests at once. Returns how often each answer came.
async fn crowd(command: &Value, links: &Links, limit: Duration) -> Value {
    let asked = (0..command["size"].as_u64().unwrap()).map(|number| {
        let mut command = command.clone();
        command["key"] = format!("{}-{number}", command["key"].as_str().unwrap()).into();
        let links = links.clone();
        tokio::spawn(async move { ask(&command, &links, limit).await })
    });
    let mut answers = HashMap::<String, u64>::new();
    for answer in asked.collect::<Vec<_>>() {
        let answer = answer.await.unwrap();
        let name = answer.as_str().map_or_else(|| "Issued".to_owned(), str::to_owned);
        *answers.entry(name).or_default() += 1;
    }
    json!(answers)
}

async fn change(command: &Value, links: &Links, limit: Duration) -> Value {
    let (reply, answer) = Reply::new(Admission::new(1).admit().unwrap());
    let request = ChangeRequest {
        if_versions: vec![2],
        ..Change::Pause.into()
    };
    let ask = RemoteAsk {
        id: coupon(command),
        epoch: Epoch::new(EPOCH),
        ask: request.into(),
        trace: None,
    };
    links.send(incarnation(command), outgoing(ask, moment() + limit, reply));
    format!("{:?}", tokio::time::timeout(limit, answer).await).into()
}

/// A request that is held, and the path of its answer.
type Held = (CouponAsk, AnswerPath<Payload>);

/// Owners that give every request the next sequence, unless a test holds them.
#[derive(Default)]
struct Owners {
    sequences: Mutex<HashMap<CouponId, u64>>,
    held: Mutex<HashMap<CouponId, Vec<Held>>>,
    /// The number of requests with each key.
    asked: Mutex<HashMap<String, u64>>,
    /// What peers said in heartbeats and news.
    said: Mutex<Vec<String>>,
}

impl Owners {
    fn hold(&self, coupon: CouponId) {
        self.held.lock().unwrap().entry(coupon).or_default();
    }

    fn release(&self, coupon: CouponId) -> usize {
        let held = self.held.lock().unwrap().remove(&coupon).unwrap_or_default();
        let count = held.len();
        held.into_iter()
            .for_each(|(ask, path)| self.decide(coupon, ask, path));
        count
    }

    fn decide(&self, coupon: CouponId, ask: CouponAsk, path: AnswerPath<Payload>) {
        match ask {
            CouponAsk::Issue(request) => {
                let sequence = {
                    let mut sequences = self.sequences.lock().unwrap();
                    let sequence = sequences.entry(coupon).or_default();
                    *sequence += 1;
                    Sequence::new(*sequence)
                };
                path.send(Ok(CouponOutcome::Issue(IssueOutcome::Issued(Issuance {
                    id: IssuanceId { coupon, sequence },
                    user: request.user,
                    nth: 1,
                    key: request.key,
                    issued_at: timestamp(),
                    expires_at: None,
                }))));
            }
            CouponAsk::Change(_) | CouponAsk::Use(_) => path.send(Err(Setback::StoreUnavailable)),
        }
    }

    /// Returns the number of requests with this key.
    fn times_asked(&self, key: &str) -> u64 {
        self.asked.lock().unwrap().get(key).copied().unwrap_or(0)
    }

    fn say(&self, what: String) {
        self.said.lock().unwrap().push(what);
    }
}

impl Handler<Payload> for Owners {
    fn handle(&self, ask: RemoteAsk<CouponKind>, _expires: Moment, path: AnswerPath<Payload>) {
        let RemoteAsk {
            id: coupon,
            epoch,
            ask,
            trace: _,
        } = ask;
        if epoch != Epoch::new(EPOCH) {
            return path.send(Err(Setback::Moved));
        }
        if let CouponAsk::Issue(issue) = &ask {
            *self
                .asked
                .lock()
                .unwrap()
                .entry(issue.key.as_str().to_owned())
                .or_default() += 1;
        }
        if let Some(held) = self.held.lock().unwrap().get_mut(&coupon) {
            return held.push((ask, path));
        }
        self.decide(coupon, ask, path);
    }

    fn heartbeat(&self, peer: Incarnation) -> Vec<u8> {
        format!("what is new for {}", peer.get()).into_bytes()
    }

    fn heartbeat_answer(&self, peer: Incarnation, asked: Vec<u8>) -> Vec<u8> {
        format!("{} asked: {}", peer.get(), String::from_utf8(asked).unwrap()).into_bytes()
    }

    fn heartbeat_answered(&self, _peer: Incarnation, sent_at: Moment, answer: Vec<u8>) {
        assert!(sent_at <= moment());
        let answer = String::from_utf8(answer).unwrap();
        let mut said = self.said.lock().unwrap();
        if !said.contains(&answer) {
            said.push(answer);
        }
    }

    fn news(&self, peer: Incarnation, news: Vec<u8>) -> bool {
        let news = String::from_utf8(news).unwrap();
        let makes_sense = news != "nonsense";
        self.say(format!("{} has news: {news}", peer.get()));
        makes_sense
    }
}
