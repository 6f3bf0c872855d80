//! What a node prints once it is ready: its address, and three commands to try.

use std::io::Write;

use secrecy::ExposeSecret;

use crate::config::{AuthMode, Config};
use crate::healthcheck::reachable;
use crate::wiring::{RunningNode, admin_token_path};

/// Prints the address. If the node created the admin token, also prints commands with that token.
pub(crate) async fn print(node: &RunningNode, config: &Config) {
    let scheme = config.http.scheme();
    let address = format!("{scheme}://{}", reachable(node.address()));
    // The certificate names the service, and rarely this address.
    let curl = if scheme == "https" {
        "curl --insecure"
    } else {
        "curl"
    };
    let text = match node.created_admin_token() {
        None => format!("Firstcome is ready at {address}\n"),
        Some(token) => {
            let token = token.expose_secret();
            let path = admin_token_path(config);
            let next = next_coupon(node).await;
            let (note, user) = match config.auth.mode {
                AuthMode::Header => ("", "-H 'X-User-Id: alice'"),
                AuthMode::Jwt => (
                    " TOKEN is a user's token: `firstcome token --user alice` mints one.",
                    "-H \"Authorization: Bearer $TOKEN\"",
                ),
            };
            format!(
                "Firstcome is ready at {address}\n\
                 The admin token is kept in {path}. To try it: \
                 create a coupon, issue it to a user, list the user's issuances.{note}\n\n\
                 {curl} -X POST {address}/v1/coupons -H 'Authorization: Bearer {token}' \
                 -H 'Content-Type: application/json' \
                 -d '{{\"title\": \"Black Friday\", \"total_quantity\": 500}}'\n\
                 {curl} -X POST {address}/v1/coupons/{next}/issuances {user}\n\
                 {curl} {address}/v1/me/issuances {user}\n\n",
                path = path.display()
            )
        }
    };
    let mut stdout = std::io::stdout().lock();
    // A closed standard output is not an error.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Returns the id that the next coupon will most likely have, for the second command.
async fn next_coupon(node: &RunningNode) -> u64 {
    let newest = node.engine().coupons(None, 1).await;
    newest
        .ok()
        .and_then(|page| page.first().map(|view| view.coupon.id.get()))
        .map_or(1, |id| id + 1)
}
