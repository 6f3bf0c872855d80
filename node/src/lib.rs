//! One node of Firstcome: configuration, wiring, and the HTTP gateway before the engine.

pub mod config;
