//! Free ports of loopback.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports below those that the system gives to connections, so that none of these is taken while the program
/// that is to listen there has not started.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// Returns a port of loopback where nothing listens, each one once in this process.
///
/// Processes begin at different ports, consecutive ones far apart, so that two of them hardly ever choose the
/// same.
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
