//! A small crowd of clients that send their next request as soon as the last request is answered.

use actors::coupon::issue::IssueOutcome;
use actors::trace::Span;

use super::fixture::{DEADLINE, TestEngine, key, user};

const CLIENTS: u32 = 8;
const REQUESTS: u32 = 40;

/// Runs on one thread, so that all clients send their next requests in one turn that the owner leaves to
/// other tasks. Without gathering, half of the crowd would wait while the other half is stored, and each
/// round of requests would take two batches.
#[tokio::test(flavor = "current_thread")]
async fn the_next_requests_of_a_small_crowd_are_stored_in_one_batch_and_not_in_two() {
    let (fixture, coupon) = TestEngine::with_coupon(None).await;
    let crowd: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let coupons = fixture.coupons.clone();
            tokio::spawn(async move {
                for number in (client * REQUESTS)..(client + 1) * REQUESTS {
                    let answer = coupons
                        .issue(coupon, user(number), key(number), DEADLINE, &Span::default())
                        .await;
                    assert!(matches!(answer, Ok(IssueOutcome::Issued(_))), "{answer:?}");
                }
            })
        })
        .collect();
    for client in crowd {
        client.await.unwrap();
    }
    let batches = fixture.faults.writes();
    assert!(
        batches < REQUESTS as usize * 3 / 2,
        "{batches} batches for {CLIENTS} clients with {REQUESTS} requests each"
    );
}
