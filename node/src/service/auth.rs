//! Who is asking: a user by header or by token, a service, an administrator.
//!
//! Credentials that we do not know are nobody's, and what is open to anyone stays open to whoever shows them.

mod bearer;
mod jwks;
mod jwt;
mod keys;
pub(crate) mod mint;
mod trusted_proxies;
mod verified_tokens;

use std::time::SystemTime;

use actors::ids::UserId;
use secrecy::SecretString;

use self::bearer::{AdminToken, Shown};
use self::jwt::Verifier;
use self::trusted_proxies::Proxies;
use crate::config::{Auth, AuthMode, InvalidConfig};
use crate::http::call::Head;
use crate::http::problem::Problem;

/// Knows callers by what they send.
#[derive(Debug)]
pub(crate) struct Recogniser {
    admin_token: AdminToken,
    users: Users,
}

/// How users are known.
#[derive(Debug)]
pub(crate) enum Users {
    /// By a header that a gateway in front has checked.
    Named(Proxies),
    /// By a signed token.
    Signed(Box<Verifier>),
}

/// What is known of a caller.
#[derive(Debug)]
pub(crate) struct Caller {
    user: Option<UserId>,
    role: Role,
    /// Whether a token was shown that is nobody's.
    unknown_token: bool,
}

/// What somebody may do besides what everybody may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing.
    User,
    /// Issue for others.
    Service,
    /// Make and change coupons, and see everything.
    Admin,
}

/// Who a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    user: UserId,
    role: Role,
}

impl Users {
    /// Reads the keys, if there are to be any. What is wrong with them is said by the name of the key that
    /// has them.
    pub(crate) fn new(auth: &Auth) -> Result<Self, InvalidConfig> {
        match auth.mode {
            AuthMode::Header => Ok(Self::Named(Proxies::new(auth.trusted_proxies.clone()))),
            AuthMode::Jwt => Ok(Self::Signed(Box::new(Verifier::new(&auth.jwt)?))),
        }
    }
}

impl Recogniser {
    /// Takes the administrators' token, and how users are known.
    pub(crate) fn new(admin_token: &SecretString, users: Users) -> Self {
        Self {
            admin_token: AdminToken::new(admin_token),
            users,
        }
    }

    /// Looks at the credentials. What cannot be read as such (two users, two tokens, a user id that is none)
    /// is an error.
    pub(crate) fn recognise(&self, head: &Head) -> Result<Caller, Problem> {
        let shown = bearer::shown(head)?;
        let is_admin = shown.as_ref().is_some_and(|shown| self.admin_token.is(shown));
        let unknown = |user| Caller {
            user,
            role: Role::User,
            unknown_token: shown.is_some(),
        };
        match &self.users {
            Users::Named(proxies) => {
                let user = proxies.user(head)?;
                Ok(if is_admin {
                    Caller {
                        user,
                        role: Role::Admin,
                        unknown_token: false,
                    }
                } else {
                    unknown(user)
                })
            }
            Users::Signed(_) if is_admin => Ok(Caller {
                user: None,
                role: Role::Admin,
                unknown_token: false,
            }),
            Users::Signed(verifier) => Ok(match shown.as_ref().and_then(|shown| identify(verifier, shown)) {
                Some(Identity { user, role }) => Caller {
                    user: Some(user),
                    role,
                    unknown_token: false,
                },
                None => unknown(None),
            }),
        }
    }

    /// Reads keys again when their file changes, for as long as it is polled. Cancel safe: a change that is
    /// missed is seen by the next call.
    pub(crate) async fn follow_keys(&self) {
        if let Users::Signed(verifier) = &self.users {
            verifier.follow_file().await;
        }
    }
}

fn identify(verifier: &Verifier, shown: &Shown) -> Option<Identity> {
    match shown {
        Shown::TooLong => None,
        Shown::Token { text, digest } => verifier.identify(text, digest, now()),
    }
}

/// Seconds since 1970, as tokens count time.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

impl Caller {
    /// The user, for what only users do.
    pub(crate) fn user(&self) -> Result<&UserId, Problem> {
        match &self.user {
            Some(user) => Ok(user),
            None if self.role == Role::Admin => Err(Problem::Forbidden(
                "only users have coupons; an administrator is none",
            )),
            None => Err(self.unrecognised()),
        }
    }

    /// Passes for administrators.
    pub(crate) fn admin(&self) -> Result<(), Problem> {
        match &self.user {
            _ if self.role == Role::Admin => Ok(()),
            Some(_) => Err(Problem::Forbidden("only administrators may")),
            None => Err(self.unrecognised()),
        }
    }

    /// Passes for whoever may name the user to issue for: services, and nobody else.
    pub(crate) fn service(&self) -> Result<(), Problem> {
        if self.role == Role::Service {
            Ok(())
        } else {
            Err(Problem::Forbidden("only services may name the user to issue for"))
        }
    }

    /// Passes for whoever is recognised.
    pub(crate) fn anybody(&self) -> Result<(), Problem> {
        if self.role == Role::Admin || self.user.is_some() {
            Ok(())
        } else {
            Err(self.unrecognised())
        }
    }

    /// Whether something of this user's may be shown.
    pub(crate) fn sees(&self, user: &UserId) -> bool {
        self.role == Role::Admin || self.user.as_ref() == Some(user)
    }

    fn unrecognised(&self) -> Problem {
        if self.unknown_token {
            Problem::InvalidToken
        } else {
            Problem::Unauthenticated
        }
    }
}

#[cfg(test)]
mod tests;
