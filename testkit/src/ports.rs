//! Free ports of loopback.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports below those that the system gives to connections, so that no connection takes a port before the
/// program that will listen there has started.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// Returns a port of loopback where nothing listens. No port is returned twice in this process.
///
/// Each process begins at another port, far from the ports of processes that start just before or after it.
/// So two processes hardly ever choose the same port.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const STRIDE: u64 = 7_919;
    let count = PORTS.end - PORTS.start;
    let first = u16::try_from(u64::from(std::process::id()) * STRIDE % u64::from(count))
        .expect("a remainder is less than its divisor");
    loop {
        let port = PORTS.start + (first + NEXT.fetch_add(1, Ordering::Relaxed) % count) % count;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
