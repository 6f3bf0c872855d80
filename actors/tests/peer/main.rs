//! Links between real processes on loopback.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod child;
mod garbage;
mod links;
mod node;
mod proxy;
mod refusals;
mod secrets;

/// Not a test, but the nodes of the others: it is this program again, told so by its environment.
#[test]
fn a_node() {
    if let Ok(configuration) = std::env::var(child::CONFIGURATION) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(child::run(&configuration));
        // Standard input is read by a thread that would wait for it for ever.
        std::process::exit(0);
    }
}
