//! The codes of issuances: makes and reads them, and learns of new secrets.

use std::sync::Arc;
use std::time::Duration;

use actors::coupon::code::{Code, CodeSecret, CodeSecrets, SECRET_USED_AFTER, TypedCode};
use actors::coupon::ids::IssuanceId;
use actors::coupon::rows::CodeRows;
use actors::store::StoreError;
use actors::time::{self, Moment};
use arc_swap::ArcSwap;

use super::Error;
use super::engine::Setback;

/// Interval between two reads of the secrets. A read takes at most some seconds, so a node that reaches the
/// database learns of a new secret within ten.
const READ_INTERVAL: Duration = Duration::from_secs(5);

/// Time after a read of the secrets in which no code can be signed under a secret that was not read. A secret
/// has its age from when it was stored, so the difference to [`SECRET_USED_AFTER`] only covers differences of
/// clocks.
const KNOWN_FOR: Duration = Duration::from_secs(45);
const _: () = assert!(KNOWN_FOR.as_secs() + 15 <= SECRET_USED_AFTER.as_secs());

/// The codes of one node; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Codes(Arc<ArcSwap<Known>>);

/// The secrets, as they were read.
#[derive(Debug)]
struct Known {
    secrets: CodeSecrets,
    /// When the read began, by a clock that runs while the machine sleeps. `None` before the first one.
    read_at: Option<Moment>,
}

/// Why the secrets could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CodesError {
    /// The database did not answer.
    #[error("reading the secrets of codes: {0}")]
    Store(#[from] StoreError),
    /// The database has none, although one was just made.
    #[error("the database has no secret of codes after it was made")]
    Missing,
}

/// Codes of a node that has not read the secrets yet. It shows no issuance before, so the secret does not
/// matter.
impl Default for Codes {
    fn default() -> Self {
        Self::of_known(CodeSecrets::unknown(), None)
    }
}

impl Codes {
    fn of_known(secrets: CodeSecrets, read_at: Option<Moment>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Known { secrets, read_at })))
    }

    /// Reads the secrets, after making the first one if there is none.
    pub(crate) async fn open(&self, rows: &(impl CodeRows + ?Sized)) -> Result<(), CodesError> {
        let mut read_at = time::moment();
        let mut secrets = rows.code_secrets().await?;
        if secrets.is_empty() {
            // If another node is first, the database may refuse this statement.
            let made = rows.make_first_code_secret().await;
            read_at = time::moment();
            secrets = rows.code_secrets().await?;
            if secrets.is_empty() {
                made?;
            }
        }
        let secrets = CodeSecrets::new(&secrets).ok_or(CodesError::Missing)?;
        let read_at = Some(read_at);
        self.0.store(Known { secrets, read_at }.into());
        Ok(())
    }

    /// Returns the code of an issuance.
    pub(crate) fn of(&self, id: IssuanceId) -> Code {
        self.0.load().secrets.code(id)
    }

    /// Returns the issuance with this code, whether or not it exists. A wrong code is refused without the
    /// database.
    pub(crate) fn find(&self, typed: &TypedCode) -> Result<IssuanceId, Error> {
        let known = self.0.load();
        match known.secrets.find(typed) {
            Some(id) => Ok(id),
            None if known.are_all(time::moment()) => Err(Error::UnknownIssuance),
            // The code may be signed under a secret that this node could not read.
            None => Err(Setback::StoreUnavailable.into()),
        }
    }

    /// Reads the secrets again and again, for as long as the future is polled.
    pub(crate) async fn renew(&self, rows: &(impl CodeRows + ?Sized)) {
        loop {
            tokio::time::sleep(READ_INTERVAL).await;
            let read_at = time::moment();
            match rows.code_secrets().await {
                Ok(secrets) => self.take(&secrets, read_at),
                // Beats report a database that cannot be reached.
                Err(error) => tracing::debug!(%error, "failed to read the secrets of codes"),
            }
        }
    }

    fn take(&self, secrets: &[CodeSecret], read_at: Moment) {
        let Some(secrets) = CodeSecrets::new(secrets) else {
            tracing::error!(
                "the secrets of codes are gone from the database; this node keeps those it knows"
            );
            return;
        };
        let former = self.0.load();
        let (newest, current) = (secrets.newest(), secrets.current());
        if newest != former.secrets.newest() {
            tracing::info!(secret = newest, "learnt of a new secret of codes");
        }
        if current != former.secrets.current() {
            tracing::info!(secret = current, "codes are signed under another secret");
        }
        let read_at = Some(read_at);
        self.0.store(Known { secrets, read_at }.into());
    }
}

impl Known {
    /// Returns true if these are all secrets under which codes can be signed.
    fn are_all(&self, now: Moment) -> bool {
        self.read_at.is_some_and(|at| now.since(at) < KNOWN_FOR)
    }
}

#[cfg(test)]
mod tests {
    use actors::coupon::ids::{CouponId, Sequence};

    use super::*;

    fn secret(number: u32, age: u64) -> CodeSecret {
        let text = CodeSecret::random_text();
        CodeSecret::new(number, Duration::from_secs(age), &text).unwrap()
    }

    fn known(secrets: &[CodeSecret], read_before: Duration) -> Codes {
        let secrets = CodeSecrets::new(secrets).unwrap();
        let read_at = time::moment().since(Moment::ORIGIN).saturating_sub(read_before);
        Codes::of_known(secrets, Some(Moment::at(read_at)))
    }

    fn id() -> IssuanceId {
        IssuanceId {
            coupon: CouponId::new(42).unwrap(),
            sequence: Sequence::new(17),
        }
    }

    fn typed(code: &Code) -> TypedCode {
        TypedCode::read(code.as_str()).unwrap()
    }

    #[test]
    fn a_node_that_cannot_read_the_secrets_does_not_say_that_a_code_is_wrong() {
        let (first, second) = (secret(1, 600), secret(2, 60));
        let code = known(&[first.clone(), second], Duration::ZERO).of(id());
        let find = |read_before| known(std::slice::from_ref(&first), read_before).find(&typed(&code));
        assert!(matches!(find(Duration::ZERO), Err(Error::UnknownIssuance)));
        assert!(matches!(
            find(KNOWN_FOR),
            Err(Error::Setback(Setback::StoreUnavailable))
        ));
        let unread = Codes::default().find(&typed(&code));
        assert!(matches!(unread, Err(Error::Setback(Setback::StoreUnavailable))));
        // Valid codes need no database.
        let codes = known(std::slice::from_ref(&first), KNOWN_FOR);
        assert!(matches!(codes.find(&typed(&codes.of(id()))), Ok(found) if found == id()));
    }

    #[test]
    fn a_new_secret_is_known_before_it_is_used_and_former_codes_stay_valid() {
        let first = secret(1, 600);
        let codes = known(std::slice::from_ref(&first), Duration::ZERO);
        let former = codes.of(id());
        let mut second = secret(2, 0);
        codes.take(&[first.clone(), second.clone()], time::moment());
        assert_eq!(codes.of(id()), former);
        second.age = SECRET_USED_AFTER;
        let of_second = known(std::slice::from_ref(&second), Duration::ZERO).of(id());
        assert!(codes.find(&typed(&of_second)).is_ok());
        codes.take(&[first, second], time::moment());
        assert_eq!(codes.of(id()), of_second);
        assert!(codes.find(&typed(&former)).is_ok());
        codes.take(&[], time::moment());
        assert_eq!(codes.of(id()), of_second);
    }
}
