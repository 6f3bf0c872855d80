//! The secrets of codes: one first secret for all nodes, and later ones that are added.

use std::time::Duration;

use actors::coupon::rows::CodeRows;
use actors::store::StoreError;
use futures_util::future::join_all;

use crate::support::Database;

pub async fn nodes_that_start_together_make_one_secret_of_codes(database: &mut impl Database) {
    let store = database.store();
    assert_eq!(store.code_secrets().await.unwrap(), []);
    // A server may refuse the statement if another one inserts the row at the same moment.
    for made in join_all((0..8).map(|_| store.make_first_code_secret())).await {
        assert!(matches!(made, Ok(()) | Err(StoreError::NotStored(_))), "{made:?}");
    }
    let secrets = store.code_secrets().await.unwrap();
    assert_eq!((secrets.len(), secrets[0].number), (1, 1));
    assert!(secrets[0].age < Duration::from_secs(30), "{secrets:?}");
    store.make_first_code_secret().await.unwrap();
    database.reopen().await;
    let mut again = database.store().code_secrets().await.unwrap();
    again[0].age = secrets[0].age;
    assert_eq!(again, secrets);
}
