//! HTTP, apart from coupons: the accept loop, connections, requests and responses.
//!
//! [`listener`] starts the accept loop. `accept` admits as many connections as `open_files` has room for.
//! `connection` serves one client: `pace` has the timeouts, `stream` reads and writes, and `tls` encrypts.
//! `request` does what is common to all requests, with the help of `client_address` and `trace`. A handler
//! sees a request through `head`, `body` and `call`. `refuse` makes the responses that come from no route.

mod accept;
pub(crate) mod body;
pub(crate) mod call;
mod client_address;
mod connection;
mod cors;
mod framing;
pub(crate) mod head;
pub(crate) mod json;
pub mod listener;
mod open_files;
mod pace;
pub(crate) mod problem;
pub(crate) mod query;
mod refuse;
mod request;
pub(crate) mod route_metrics;
mod stream;
pub(crate) mod template;
pub mod tls;
mod trace;
