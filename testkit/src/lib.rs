//! What tests and measurements share: private database [`servers`] and the [`proxy`] in front of them.

pub mod proxy;
pub mod servers;
