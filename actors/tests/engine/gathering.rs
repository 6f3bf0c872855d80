//! A small crowd of clients that send their next request as soon as the last one is answered.

use actors::coupon::issue::IssueOutcome;

use super::house::{DEADLINE, House, key, user};

const CLIENTS: u32 = 8;
const REQUESTS: u32 = 40;

/// Runs on one thread, so that all clients send their next requests within one turn. Without gathering, one
/// half of the crowd waits while the other half is stored: two batches for one request of each client.
#[tokio::test(flavor = "current_thread")]
async fn a_small_crowd_that_asks_again_is_stored_by_one_batch_and_not_by_two_in_turn() {
    let (house, coupon) = House::with_coupon(None).await;
    let crowd: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let coupons = house.coupons.clone();
            tokio::spawn(async move {
                for number in (client * REQUESTS)..(client + 1) * REQUESTS {
                    let answer = coupons.issue(coupon, user(number), key(number), DEADLINE).await;
                    assert!(matches!(answer, Ok(IssueOutcome::Issued(_))), "{answer:?}");
                }
            })
        })
        .collect();
    for client in crowd {
        client.await.unwrap();
    }
    let batches = house.faults.writes();
    assert!(
        batches < REQUESTS as usize * 3 / 2,
        "{batches} batches for {CLIENTS} clients with {REQUESTS} requests each"
    );
}
