//! The number of batches for a small crowd of clients that send their next request as soon as the last one is
//! answered, and for issuances and uses that alternate.

use actors::coupon::ids::Sequence;
use actors::coupon::issue::IssueOutcome;
use actors::coupon::uses::decide::Step;
use actors::coupon::uses::{UseOutcome, UseRequest};
use actors::ids::{Author, OrderId};
use actors::trace::Span;
use testkit::poll::eventually;

use super::fixture::{DEADLINE, LONG, TestEngine, key, user};

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

/// Number of issuances, and of the uses that alternate with them.
const PAIRS: u32 = 30;

/// Each of these requests would be a batch of its own if a batch held only neighbours of one sort.
#[tokio::test(flavor = "multi_thread")]
async fn issuing_and_using_in_turn_takes_one_batch_of_each_sort() {
    let (fixture, coupon) = TestEngine::with_coupon(None).await;
    for number in 1..=PAIRS {
        fixture.must_issue(coupon, number).await;
    }
    fixture.faults.hold_writes(true);
    let first = fixture.spawn_issue(coupon, 1_000, 1_000, LONG);
    eventually("the first entry waits to be written", async || {
        fixture.faults.writes_waiting() == 1
    })
    .await;
    let before = fixture.faults.writes();
    let unstored = || fixture.engine.collect(100)[0].1.unstored;
    let (mut issued, mut used) = (Vec::new(), Vec::new());
    for number in 1..=u64::from(PAIRS) {
        let coupons = fixture.coupons.clone();
        let request = UseRequest {
            sequence: Sequence::new(number),
            of_user: None,
            author: Author::parse("key:shop").unwrap(),
            step: Step::Redeem {
                order: OrderId::parse(&format!("order-{number}")).unwrap(),
                amount: Some(1),
            },
        };
        used.push(tokio::spawn(async move {
            coupons
                .use_issuance(coupon, request, LONG, &Span::default())
                .await
        }));
        eventually("the use is decided", async || unstored() == 2 * number).await;
        let user = 1_000 + u32::try_from(number).unwrap();
        issued.push(fixture.spawn_issue(coupon, user, user, LONG));
        eventually("the issuance is decided", async || unstored() == 2 * number + 1).await;
    }
    fixture.faults.hold_writes(false);
    for used in used {
        let answer = used.await.unwrap();
        assert!(matches!(answer, Ok(UseOutcome::Done(_))), "{answer:?}");
    }
    for issued in issued.into_iter().chain([first]) {
        let answer = issued.await.unwrap();
        assert!(matches!(answer, Ok(IssueOutcome::Issued(_))), "{answer:?}");
    }
    assert_eq!(fixture.faults.writes() - before, 2);
}
