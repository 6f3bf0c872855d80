//! What a node prints once it is ready: its address, and three commands to try.
//!
//! The standard output of a service is often a log that many can read. So the admin token itself is printed
//! on a terminal only, and only when it was created just now. Otherwise the commands read its file.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::thread;

use secrecy::ExposeSecret;

use crate::config::{AuthMode, Config, LogFormat};
use crate::healthcheck::reachable;
use crate::service::engine::CouponQuery;
use crate::wiring::RunningNode;

/// Prints the address, and commands with the admin token if the node created it. If the log is in JSON, this
/// prints only on a terminal, because log and standard output often go to the same place.
pub(crate) async fn print(node: &RunningNode, config: &Config) {
    let is_terminal = io::stdout().is_terminal();
    if config.log.format == LogFormat::Json && !is_terminal {
        return;
    }
    let address = format!("{}://{}", config.http.scheme(), reachable(node.address()));
    let text = match node.admin_token_file() {
        None => format!("Firstcome is ready at {address}\n"),
        Some(file) => {
            let path = std::path::absolute(&file.path);
            let path = path.as_deref().unwrap_or(&file.path);
            let created = file.created.as_ref().filter(|_| is_terminal);
            let token = match created {
                Some(token) => token.expose_secret().to_owned(),
                None => format!("$(cat {})", quoted(path)),
            };
            let next = next_coupon(node).await;
            commands(&address, path, &token, config.auth.mode, next)
        }
    };
    // A thread of its own prints, because the node must not wait for a pipe that is not read. A closed
    // standard output is not an error.
    let printing = thread::Builder::new().spawn(move || {
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    });
    if let Err(error) = printing {
        tracing::warn!(%error, "failed to print the address");
    }
}

/// Returns the address and the commands. `token` is the token, or a text that a shell replaces with the
/// token.
fn commands(address: &str, path: &Path, token: &str, mode: AuthMode, next: u64) -> String {
    // The certificate names the service, and rarely this address.
    let curl = if address.starts_with("https") {
        "curl --insecure"
    } else {
        "curl"
    };
    let (note, user) = match mode {
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
         {curl} -X POST {address}/v1/coupons -H \"Authorization: Bearer {token}\" \
         -H 'Content-Type: application/json' \
         -d '{{\"title\": \"Black Friday\", \"total_quantity\": 500}}'\n\
         {curl} -X POST {address}/v1/coupons/{next}/issuances {user}\n\
         {curl} {address}/v1/me/issuances {user}\n\n",
        path = path.display()
    )
}

/// Returns the path as one word of a shell command, which also works within double quotes.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Returns the id that the next coupon will most likely have, for the second command.
async fn next_coupon(node: &RunningNode) -> u64 {
    let newest = node.engine().coupons(&CouponQuery::all(None, 1)).await;
    newest
        .ok()
        .and_then(|page| page.coupons.first().map(|view| view.coupon.id.get()))
        .map_or(1, |id| id + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("it's $HOME \"quoted\"");
        std::fs::write(&file, "the token\n").unwrap();
        let script = format!("printf %s \"Bearer $(cat {})\"", quoted(&file));
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "Bearer the token");
    }
}
