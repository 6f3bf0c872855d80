//! What doors know of owners elsewhere.

use serde_json::json;
use testkit::poll::eventually;

use super::house::House;

pub async fn every_door_learns_what_is_sold_out_and_none_refuses_once_that_was_widened(house: House) {
    let (a, b, c) = tokio::join!(house.start("a"), house.start("b"), house.start("c"));
    house.spread_over(&["a", "b", "c"]).await;
    house.at_rest().await;
    let nodes = [&a, &b, &c];
    let coupon = house.coupon("few", Some(3)).await;
    let owner = house.owner_of(coupon).await.unwrap();
    for (number, node) in nodes.iter().enumerate() {
        assert_eq!(
            node.issue(coupon, &format!("winner-{number}")).await,
            json!({"issued": number + 1})
        );
    }
    for node in nodes {
        eventually("a door knows", async || {
            assert_eq!(
                node.issue(coupon, &format!("late-{}", node.name)).await["refused"],
                "SoldOut { total_quantity: 3 }"
            );
            node.metric("coupon_door_answers_total").await > 0.0
        })
        .await;
        // A winner is sent on to the owner, wherever it asks.
        for number in 0..3 {
            assert_eq!(
                node.issue(coupon, &format!("winner-{number}")).await,
                json!({"replayed": number + 1})
            );
        }
    }
    let asker = nodes.iter().find(|node| node.name != owner).unwrap();
    for round in 0..5 {
        let total = 6 + 3 * round;
        let answer = asker
            .ask(json!({"do": "change", "coupon": coupon, "total": total, "limit_ms": 10_000}))
            .await;
        assert!(answer["version"].is_u64(), "{answer}");
        // From this moment on no door may say that there are none.
        for (number, node) in nodes.iter().enumerate() {
            let answer = node.issue(coupon, &format!("{}-{round}", node.name)).await;
            assert_eq!(
                answer,
                json!({"issued": total as usize - 2 + number}),
                "asked {} in round {round}",
                node.name
            );
        }
        for node in nodes {
            eventually("a door knows again", async || {
                let before = node.metric("coupon_door_answers_total").await;
                assert_eq!(
                    node.issue(coupon, &format!("later-{}", node.name)).await["refused"],
                    format!("SoldOut {{ total_quantity: {total} }}")
                );
                node.metric("coupon_door_answers_total").await > before
            })
            .await;
        }
    }
    // One that was killed holds a change up no longer than what it knew counts.
    let gone = nodes
        .iter()
        .find(|node| node.name != owner && node.name != asker.name)
        .unwrap();
    gone.kill().await;
    let answer = asker
        .ask(json!({"do": "change", "coupon": coupon, "total": 100, "limit_ms": 10_000}))
        .await;
    assert!(answer["version"].is_u64(), "{answer}");
    let answer = asker.issue(coupon, "last").await;
    assert!(answer["issued"].is_u64(), "{answer}");
}
