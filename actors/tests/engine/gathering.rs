//! A small crowd that asks again as soon as it is answered.

use actors::coupon::issue::IssueOutcome;

use super::house::{DEADLINE, House, key, user};

const CROWD: u32 = 8;
const TIMES: u32 = 40;

/// On one thread, so that everybody asks again within one turn. Without gathering one half waits while the
/// other is stored: two batches for everybody's one.
#[tokio::test(flavor = "current_thread")]
async fn a_small_crowd_that_asks_again_is_stored_by_one_batch_and_not_by_two_in_turn() {
    let house = House::new().await;
    let coupon = house.coupon(None, 1).await;
    let crowd: Vec<_> = (0..CROWD)
        .map(|one| {
            let coupons = house.coupons.clone();
            tokio::spawn(async move {
                for number in (one * TIMES)..(one + 1) * TIMES {
                    let answer = coupons.issue(coupon, user(number), key(number), DEADLINE).await;
                    assert!(matches!(answer, Ok(IssueOutcome::Issued(_))), "{answer:?}");
                }
            })
        })
        .collect();
    for one in crowd {
        one.await.unwrap();
    }
    let batches = house.faults.writes();
    assert!(
        batches < TIMES as usize * 3 / 2,
        "{batches} batches for {CROWD} who asked {TIMES} times each"
    );
}
