//! HTTP without coupons: the accept loop and its connections, requests as they come in, answers as they leave.

pub(crate) mod accept;
pub(crate) mod call;
pub(crate) mod client_address;
pub(crate) mod connection;
pub(crate) mod cors;
pub(crate) mod json;
pub mod listener;
pub(crate) mod open_files;
pub(crate) mod pace;
pub(crate) mod problem;
pub(crate) mod query;
pub(crate) mod refuse;
pub(crate) mod request;
pub(crate) mod route;
pub(crate) mod stream;
pub mod tls;
pub(crate) mod trace;
