//! Why tokens are refused. A client learns only that its token is not valid, because the reason would help to
//! forge one. The log and a counter say why.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use actors::log_limit::LogLimit;
use jsonwebtoken::errors::ErrorKind;
use metrics::Counter;

use crate::metrics::TOKENS_REFUSED;

/// Anyone can send tokens. One line a second is enough to see what is wrong.
static LINES: LogLimit = LogLimit::new(10, Duration::from_secs(10), |suppressed| {
    tracing::warn!(
        suppressed,
        "refused further tokens; coupon_tokens_refused_total counts them by reason"
    );
});

/// Declares the reasons, each with its name in the metric and in the log, and what it means.
macro_rules! reasons {
    ($($reason:ident = $name:literal, $meaning:literal;)*) => {
        /// Why a token is refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum TokenRefusal {
            $(#[doc = $meaning] $reason,)*
        }

        impl TokenRefusal {
            const ALL: &'static [Self] = &[$(Self::$reason,)*];

            /// Returns the name of the reason.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$reason => $name,)* }
            }

            const fn meaning(self) -> &'static str {
                match self { $(Self::$reason => $meaning,)* }
            }
        }
    };
}

reasons! {
    NotAdmin = "not_admin",
        "it is neither the admin token nor a named key, the only tokens that auth.mode = header accepts";
    KeyOver = "key_over", "it is a named key that was valid until an earlier time";
    TooLong = "too_long", "it is longer than 8 KiB";
    Malformed = "malformed", "it is neither a key nor a JWT with a supported algorithm";
    Critical = "critical", "its header has critical extensions";
    NoKeys = "no_keys", "the keys could not be fetched from auth.jwt.jwks_url yet, so it may be valid";
    UnknownKey = "unknown_key", "no configured key has its kid and its algorithm";
    Signature = "signature", "its signature is wrong";
    Expiry = "expiry", "exp is missing, or not a number of seconds";
    Expired = "expired", "exp has passed";
    NotYetValid = "not_yet_valid", "nbf is in the future, or not a number of seconds";
    Issuer = "issuer", "iss is not auth.jwt.issuer";
    Audience = "audience", "aud does not contain auth.jwt.audience";
    Subject = "subject", "sub (or auth.jwt.user_claim) is not a user id, which is 1 to 128 visible ASCII characters";
}

impl TokenRefusal {
    /// Counts and logs a refusal. The token itself is never logged.
    pub(crate) fn report(self, client: IpAddr) {
        COUNTERS[self as usize].increment(1);
        if LINES.admits() {
            tracing::warn!(reason = self.name(), %client, "refused a token: {}", self.meaning());
        }
    }
}

impl From<&ErrorKind> for TokenRefusal {
    fn from(error: &ErrorKind) -> Self {
        match error {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::NotYetValid,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::InvalidSubject => Self::Subject,
            ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
                match claim.as_str() {
                    "exp" => Self::Expiry,
                    "nbf" => Self::NotYetValid,
                    "iss" => Self::Issuer,
                    "aud" => Self::Audience,
                    _ => Self::Subject,
                }
            }
            _ => Self::Malformed,
        }
    }
}

static COUNTERS: LazyLock<Vec<Counter>> = LazyLock::new(|| {
    let reasons = TokenRefusal::ALL.iter();
    reasons
        .map(|reason| metrics::counter!(TOKENS_REFUSED, "reason" => reason.name()))
        .collect()
});

/// Shows the metric with all reasons before the first refusal.
pub(super) fn show_metric() {
    LazyLock::force(&COUNTERS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_counter_of_its_own() {
        for (index, reason) in TokenRefusal::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{reason:?}");
        }
        let names: std::collections::BTreeSet<_> =
            TokenRefusal::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), TokenRefusal::ALL.len());
    }
}
