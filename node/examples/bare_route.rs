//! Serves a bare route: warp behind the accept loop of the node. It answers an issue request at once, with as
//! many bytes as a real response has. Nothing is decided or stored, so this measures the rate of HTTP alone.
//! `firstcome-bench compare` compares other rates with this rate.
//!
//! ```sh
//! cargo run --release --example bare_route -- --listen 127.0.0.1:8081 --body-bytes 190
//! ```

use std::error::Error;
use std::net::SocketAddr;

use clap::Parser;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, StatusCode};
use mimalloc::MiMalloc;
use node::listener::{Listener, Options};
use tokio::net::TcpListener;
use warp::reply::Response;
use warp::{Filter, Rejection};

/// The node's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[derive(Debug, Parser)]
struct Arguments {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// The length of the body.
    #[arg(long, default_value_t = 190, value_parser = clap::value_parser!(u32).range(..=65_536))]
    body_bytes: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let body = bytes::Bytes::from("x".repeat(arguments.body_bytes as usize));
    let route =
        warp::path!("v1" / "coupons" / String / "issuances").map(move |_: String| answer(body.clone()));
    let routes = route
        .recover(|_: Rejection| async { Ok::<_, std::convert::Infallible>(not_found()) })
        .unify();
    let listener = Listener::serve(
        TcpListener::bind(arguments.listen).await?,
        routes,
        Options {
            is_hot: |_, _| true,
            ..Options::default()
        },
    )?;
    println!("http://{}", listener.address());
    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// A response with the headers of a real one.
fn answer(body: bytes::Bytes) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::CREATED;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
        .headers_mut()
        .insert(LOCATION, HeaderValue::from_static("/v1/issuances/42-1234567"));
    response
}

fn not_found() -> Response {
    let mut response = Response::new("".into());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
