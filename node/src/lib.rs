//! One node of Firstcome: configuration, wiring, and the HTTP API in front of the engine.
//!
//! [`cli`] parses commands, [`wiring`] starts and stops a node, `http` serves sockets, `api` maps requests to
//! calls of `service`.

mod api;
pub mod cli;
mod client_address;
pub mod config;
mod data_file;
mod healthcheck;
mod http;
pub mod log;
pub mod metrics;
mod service;
mod signals;
pub mod telemetry;
mod welcome;
pub mod wiring;

pub use self::http::listener;
