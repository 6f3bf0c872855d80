//! HTTP, apart from coupons: the accept loop, connections, requests and responses.
//!
//! [`listener`] starts the accept loop. `accept` admits as many connections as `open_files` leaves room for,
//! and from one address as many as `clients` allows. `connection` serves one client: `pace` has the timeouts,
//! `stream` reads and writes, `outgoing` recognizes responses that hyper makes itself, and `tls` encrypts.
//! `response_body` hands a response over in portions, `streamed` makes one while it is sent, and `unsent`
//! bounds what all of them hold. `framing` checks each head, and `request` does what is common to all
//! requests, with the help of `client_address` and `trace`. A handler sees a request through `head`, `body`
//! and `call`. `refuse` makes the responses that come from no route.

mod accept;
pub(crate) mod body;
pub(crate) mod call;
mod client_address;
mod clients;
mod connection;
mod cors;
mod framing;
pub(crate) mod head;
pub(crate) mod json;
pub mod listener;
mod open_files;
mod outgoing;
mod pace;
pub(crate) mod problem;
mod progress;
pub(crate) mod query;
mod refuse;
mod request;
pub(crate) mod response_body;
pub(crate) mod route_metrics;
mod stream;
pub(crate) mod streamed;
pub(crate) mod template;
pub mod tls;
pub(crate) mod trace;
pub mod unsent;
