//! The highest rate of this tool: its own loop against a server that only answers, on the same machine with
//! as many connections.
//!
//! Figures near the ceiling measure the tool and not the service, so both are shown together.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use testkit::ids::CouponId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::Failed;
use super::arrivals::{Bounds, Pace};
use super::connection::Target;
use super::drive::{Plan, drive};
use super::virtual_users::VirtualUsers;

/// A figure above this share of the ceiling measures the tool more than the service.
pub const SUSPECT_SHARE: f64 = 0.8;
/// Time until the rate is steady.
const WARM_UP: Duration = Duration::from_millis(200);
/// Maximum length of a request that the server reads.
const REQUEST_BYTES_MAX: usize = 4 << 10;
/// The service's answer for an issuance.
const ANSWER: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\nlocation: /v1/issuances/42-17\r\nx-request-id: 0123456789abcdef0123456789abcdef\r\ncontent-length: 188\r\ndate: Sat, 21 Nov 2026 03:00:00 GMT\r\n\r\n{\"id\":\"42-17\",\"coupon_id\":42,\"user_id\":\"0123456789abcdef.01234567\",\"sequence\":17,\"status\":\"issued\",\"issued_at\":\"2026-11-27T00:00:00.012345Z\",\"expires_at\":\"2026-12-27T00:00:00.012345Z\"}    ";

/// Measures for this long in a closed loop, with the connections and threads of this plan.
pub async fn measure(plan: &Plan, duration: Duration) -> Result<f64, Failed> {
    let server = Server::start(plan.threads)?;
    let target = Target {
        address: server.address,
        host: server.address.to_string(),
    };
    let plan = Plan {
        targets: vec![target],
        coupons: CouponId::new(42).into_iter().collect(),
        checkout: None,
        pace: Pace::Closed,
        bounds: Bounds {
            duration: Some(WARM_UP + duration),
            requests: None,
        },
        warm_up: WARM_UP,
        virtual_users: VirtualUsers::default(),
        ..plan.clone()
    };
    let run = drive(plan, None, |_| ()).await?;
    // A rate with errors is not a ceiling.
    if run.tally.errors() > 0 || run.tally.ended() == 0 {
        return Err(format!(
            "the ceiling cannot be measured: {} errors among {} answers",
            run.tally.errors(),
            run.tally.ended()
        )
        .into());
    }
    Ok(run.rate())
}

/// A server that gives every request the same answer at once.
struct Server {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    fn start(threads: usize) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .enable_io()
            .build()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
        Ok(Self {
            address,
            runtime: Some(runtime),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server's threads only wait for requests, and no more requests come.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Serves a connection until it ends. Requests come one at a time and without a body.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; REQUEST_BYTES_MAX];
    let mut filled = 0;
    loop {
        match stream.read(&mut request[filled..]).await? {
            0 => return Ok(()),
            read => filled += read,
        }
        if request[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            stream.write_all(ANSWER).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::crowd::{Crowd, Users};
    use crate::load::drive::GIVE_UP;
    use crate::load::response::parse;

    #[tokio::test]
    async fn the_ceiling_is_measured_without_an_error() {
        let plan = Plan {
            targets: Vec::new(),
            coupons: Vec::new(),
            crowd: Crowd {
                name: "x".into(),
                repeats_ppm: 0,
                users: Users::New,
                seed: 0,
            },
            checkout: None,
            pace: Pace::Spike,
            bounds: Bounds {
                duration: None,
                requests: None,
            },
            warm_up: Duration::ZERO,
            connections: 4,
            virtual_users: VirtualUsers::default(),
            threads: 2,
            limit: Duration::from_secs(10),
            gives_up_after: GIVE_UP,
            gives_way: true,
        };
        assert!(measure(&plan, Duration::from_millis(100)).await.unwrap() > 0.0);
    }

    #[test]
    fn the_answer_of_the_server_is_complete() {
        let response = parse(ANSWER, false, &mut Vec::new()).unwrap().unwrap();
        assert_eq!(
            (response.status, response.length, response.keep_alive),
            (201, ANSWER.len(), true)
        );
        let body: serde_json::Value = serde_json::from_slice(response.body(ANSWER, &[])).unwrap();
        assert_eq!(body["sequence"], 17);
    }
}
