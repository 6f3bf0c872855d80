//! What a started node tells whoever started it: where it is, and three lines to try.

use std::io::Write;

use actors::store::CouponQuery;
use secrecy::ExposeSecret;

use crate::config::{AuthMode, Config};
use crate::healthcheck::reachable;
use crate::wiring::{Service, admin_token_path};

/// Prints it. An operator who brought a token along is not shown it again.
pub(crate) async fn print(service: &Service, config: &Config) {
    let scheme = config.http.scheme();
    let address = format!("{scheme}://{}", reachable(service.address()));
    // The certificate has the service's name in it, hardly this address.
    let curl = if scheme == "https" {
        "curl --insecure"
    } else {
        "curl"
    };
    let text = match service.made_admin_token() {
        None => format!("Firstcome is ready at {address}\n"),
        Some(token) => {
            let token = token.expose_secret();
            let kept = admin_token_path(config);
            let next = next_coupon(service).await;
            let (note, user) = match config.auth.mode {
                AuthMode::Header => ("", "-H 'X-User-Id: alice'"),
                AuthMode::Jwt => (
                    " TOKEN is a user's token, like `firstcome token --user alice` mints.",
                    "-H \"Authorization: Bearer $TOKEN\"",
                ),
            };
            format!(
                "Firstcome is ready at {address}\n\
                 The admin token is kept in {kept}. To try it: make a coupon, take it as a user, see what the user has.{note}\n\n\
                 {curl} -X POST {address}/v1/coupons -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' \
                 -d '{{\"title\": \"Black Friday\", \"total_quantity\": 500}}'\n\
                 {curl} -X POST {address}/v1/coupons/{next}/issuances {user}\n\
                 {curl} {address}/v1/me/issuances {user}\n\n",
                kept = kept.display()
            )
        }
    };
    let mut stdout = std::io::stdout().lock();
    // Whoever closed the standard output does not want to read it.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// The id that the next coupon will most likely have, so that the second line fits the first.
async fn next_coupon(service: &Service) -> u64 {
    let query = CouponQuery {
        before: None,
        limit: 1,
    };
    let newest = service.store().coupons(&query).await;
    newest
        .ok()
        .and_then(|page| page.first().map(|view| view.coupon.id.get()))
        .map_or(1, |id| id + 1)
}
