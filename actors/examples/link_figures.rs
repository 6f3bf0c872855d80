//! Measures a link on this machine: `cargo run --release -p firstcome-actors --example link_figures`.
//!
//! Two processes are linked over loopback, and their owners answer at once. Each caller waits for its answer
//! before it asks again. For 1, 16 and 256 callers, this prints the number of requests per second, the number
//! of requests per frame, and the processor time per request in each process. The processor time includes the
//! link, the library, the sockets and the callers.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::admission::Admission;
use actors::coupon::ids::CouponId;
use actors::coupon::issue::{IssueOutcome, IssueRequest, Refusal};
use actors::coupon::{CouponKind, CouponOutcome};
use actors::engine::payload::{OwnerPayload, RemoteAsk};
use actors::ids::{Epoch, Incarnation, NodeId, PeerAddress, RequestKey, UserId};
use actors::link::hello::Hello;
use actors::link::payload::Outgoing;
use actors::link::{AnswerPath, Handler, Options};
use actors::owning::kind::Kind;
use actors::owning::request::Reply;
use actors::time::{Moment, moment};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use rustix::time::{ClockId, clock_gettime};
use tokio::net::TcpListener;

/// What these links carry.
type Payload = OwnerPayload<CouponKind>;
type Links = actors::link::Links<Payload>;
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The environment variable that gives the child process the port of its parent.
const PARENT: &str = "FIRSTCOME_LINK_FIGURES_PARENT";
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);
/// How long a request may wait. No request should wait so long.
const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<()> {
    match std::env::var(PARENT) {
        Ok(port) => owner(port.parse()?).await,
        Err(_) => asker().await,
    }
}

fn incarnation(number: u64) -> Result<Incarnation> {
    Incarnation::new(number).ok_or_else(|| "an incarnation is from 1 to 2^53 - 1".into())
}

/// Starts the links of a node. Node `a` dials and sends the requests. Node `b` has the owners.
async fn start(name: &str, number: u64, listener: TcpListener) -> Result<Links> {
    let hello = Hello::new("figures", NodeId::parse(name)?, incarnation(number)?);
    let options = Options::new(hello, "crumbs".to_owned());
    Ok(Links::start(options, Arc::new(listener), Arc::new(SoldOut)).await?)
}

/// Lets a node know its peer until the process ends.
fn know(links: Links, name: &str, number: u64, port: u16) -> Result<()> {
    let peer = PeerAddress {
        node: NodeId::parse(name)?,
        incarnation: incarnation(number)?,
        address: format!("127.0.0.1:{port}"),
    };
    tokio::spawn(async move {
        loop {
            links.know(vec![peer.clone()]);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    Ok(())
}

async fn owner(parent: u16) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    know(start("b", 2, listener).await?, "a", 1, parent)?;
    tokio::task::spawn_blocking(|| {
        for line in std::io::stdin().lines() {
            line?;
            println!("{}", processor_time().as_nanos());
        }
        Ok::<(), std::io::Error>(())
    })
    .await??;
    Ok(())
}

async fn asker() -> Result<()> {
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut peer = Peer::start(listener.local_addr()?.port())?;
    let port = peer.line()?.parse()?;
    let links = start("a", 1, listener).await?;
    know(links.clone(), "b", 2, port)?;
    while links.linked().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("callers  requests/s  requests/frame  µs of processor a request: asker  owner");
    for callers in [1, 16, 256] {
        measure(&links, &metrics, &mut peer, callers).await?;
    }
    Ok(())
}

async fn measure(links: &Links, metrics: &PrometheusHandle, peer: &mut Peer, callers: u32) -> Result<()> {
    crowd(links, callers, WARM_UP).await?;
    let (own, theirs, frames) = (processor_time(), peer.processor_time()?, frames(metrics));
    let begun = Instant::now();
    let requests = crowd(links, callers, MEASURED).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let (own, theirs, frames) = (
        processor_time() - own,
        peer.processor_time()? - theirs,
        self::frames(metrics) - frames,
    );
    let each = |time: Duration| time.as_secs_f64() * 1e6 / requests as f64;
    let (rate, together) = (requests as f64 / seconds, requests as f64 / frames);
    println!(
        "{callers:7}  {rate:10.0}  {together:14.1}  {:33.1}  {:5.1}",
        each(own),
        each(theirs)
    );
    Ok(())
}

/// Runs this many callers for this long. Returns how many requests they made.
async fn crowd(links: &Links, callers: u32, how_long: Duration) -> Result<u64> {
    let until = Instant::now() + how_long;
    let tasks: Vec<_> = (0..callers)
        .map(|caller| tokio::spawn(call(links.clone(), caller, until)))
        .collect();
    let mut requests = 0;
    for task in tasks {
        requests += task.await??;
    }
    Ok(requests)
}

async fn call(links: Links, caller: u32, until: Instant) -> std::result::Result<u64, String> {
    let peer = incarnation(2).map_err(|error| error.to_string())?;
    let coupon = CouponId::new(u64::from(caller % 5) + 1).ok_or("no coupon")?;
    let user = UserId::parse(&format!("user-{caller}")).map_err(|error| error.to_string())?;
    // There are two places, because an answer arrives a moment before its place is given back.
    let place = Admission::new(2);
    let mut requests = 0;
    while Instant::now() < until {
        let (reply, answer) = Reply::new(place.admit().map_err(|full| format!("{full:?}"))?);
        let request = IssueRequest {
            user: user.clone(),
            key: RequestKey::random(),
        };
        let ask = RemoteAsk {
            id: coupon,
            epoch: Epoch::new(1),
            ask: request.into(),
            trace: None,
        };
        let request = Outgoing {
            flow: CouponKind::flow(coupon),
            expires: moment() + DEADLINE,
            ask,
            reply,
        };
        links.send(peer, request);
        answer
            .await
            .map_err(|error| error.to_string())?
            .map_err(|setback| setback.to_string())?;
        requests += 1;
    }
    Ok(requests)
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// Returns how many frames with requests were sent so far.
fn frames(metrics: &PrometheusHandle) -> f64 {
    let rendered = metrics.render();
    let line = rendered
        .lines()
        .find_map(|line| line.strip_prefix("coupon_peer_frame_requests_count "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0.0)
}

/// The other process, which ends with this process.
struct Peer {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Peer {
    fn start(port: u16) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = command
            .env(PARENT, port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(process.stdout.take().ok_or("it has no output")?);
        Ok(Self { process, output })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn processor_time(&mut self) -> Result<Duration> {
        self.process
            .stdin
            .as_mut()
            .ok_or("it has no input")?
            .write_all(b"\n")?;
        Ok(Duration::from_nanos(self.line()?.parse()?))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Owners of sold-out coupons, which have nothing to do.
struct SoldOut;

impl Handler<Payload> for SoldOut {
    fn handle(&self, _ask: RemoteAsk<CouponKind>, _expires: Moment, path: AnswerPath<Payload>) {
        path.send(Ok(CouponOutcome::Issue(IssueOutcome::Refused(
            Refusal::SoldOut { total_quantity: 500 },
        ))));
    }

    fn heartbeat(&self, _peer: Incarnation) -> Vec<u8> {
        Vec::new()
    }

    fn heartbeat_answer(&self, _peer: Incarnation, _asked: Vec<u8>) -> Vec<u8> {
        Vec::new()
    }

    fn heartbeat_answered(&self, _peer: Incarnation, _sent_at: Moment, _answer: Vec<u8>) {}

    fn news(&self, _peer: Incarnation, _news: Vec<u8>) -> bool {
        true
    }
}
