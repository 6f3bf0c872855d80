//! Codes of issuances: all nodes make the same codes, and accept those from before a rotation of the secret.

use std::process::Command;

use sqlx::{Connection, MySqlConnection};
use testkit::on_each_server;
use testkit::poll::eventually;
use testkit::process::without_settings;
use testkit::servers::{Server, ServerKind};

use crate::FIRSTCOME;
use crate::stage::Stage;

async fn a_code_is_good_at_every_node_also_after_a_rotation(kind: ServerKind) {
    let stage = Stage::on(Server::shared(kind), &[], false).await;
    let coupon = stage.coupon(None).await;
    stage.until_issued(0, coupon).await;
    let read = async |asked: usize, name: &str| {
        let path = format!("/v1/issuances/{name}");
        let (status, body) = stage.operator(asked, &path).await.expect("an answer");
        (status, body["code"].as_str().unwrap_or_default().to_owned())
    };
    let id = format!("{coupon}-1");
    let (_, former) = read(0, &id).await;
    for asked in 0..3 {
        assert_eq!(read(asked, &former).await, (200, former.clone()));
    }

    let url = stage.members[0].store_url();
    let mut rotate = Command::new(FIRSTCOME);
    without_settings(&mut rotate).args(["codes", "rotate", "--set", &format!("store.url={url}")]);
    let rotated = tokio::task::block_in_place(|| rotate.output().unwrap());
    assert!(rotated.status.success(), "{rotated:?}");
    // As if a minute had passed.
    let mut shell = MySqlConnection::connect(url).await.unwrap();
    sqlx::query("UPDATE code_secrets SET made_at = made_at - 60 WHERE number = 2")
        .execute(&mut shell)
        .await
        .unwrap();
    eventually("all nodes make other codes", async || {
        for asked in 0..3 {
            if read(asked, &id).await.1 == former {
                return false;
            }
        }
        true
    })
    .await;
    let (_, new) = read(0, &id).await;
    for asked in 0..3 {
        for code in [&former, &new] {
            assert_eq!(read(asked, code).await, (200, new.clone()));
        }
    }
    stage.judge().await;
}

on_each_server! { a_code_is_good_at_every_node_also_after_a_rotation }
