//! One node of Firstcome: configuration, wiring, and the HTTP gateway before the engine.
//!
//! `cli` says what can be asked of the program, [`wiring`] puts a node together and takes it apart, `http` and
//! `api` answer requests.

mod api;
pub mod cli;
pub mod config;
mod data_file;
mod healthcheck;
mod http;
mod service;
mod signals;
pub mod telemetry;
mod welcome;
pub mod wiring;

pub use self::http::listener;
