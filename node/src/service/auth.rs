//! Authenticates principals: users by header or by token, services, administrators.
//!
//! An unknown token alone is no reason to refuse a request. The request may still do what is open to anyone.

mod jwks;
mod jwt;
mod keys;
pub(crate) mod mint;
mod refused_tokens;
mod token;
mod trusted_proxies;
mod verified_tokens;

use std::net::IpAddr;
use std::time::SystemTime;

use actors::ids::UserId;
use secrecy::SecretString;

pub(crate) use self::refused_tokens::TokenRefusal;

use self::jwt::Verifier;
use self::token::{AdminToken, BearerToken};
use self::trusted_proxies::TrustedProxies;
use super::Error;
use crate::config::{Auth, AuthMode, InvalidConfig};

/// Authenticates the principal of a request.
#[derive(Debug)]
pub(crate) struct Authenticator {
    admin_token: AdminToken,
    users: UserSource,
}

/// Where the user of a request is named.
#[derive(Debug)]
pub(crate) enum UserSource {
    /// In a header that a gateway sets.
    Header(TrustedProxies),
    /// In a signed token.
    Token(Box<Verifier>),
}

/// The principal of a request.
#[derive(Debug)]
pub(crate) struct Principal {
    user: Option<UserId>,
    role: Role,
    /// Why the token of the request is not accepted, if it has such a token.
    refused_token: Option<TokenRefusal>,
    /// True if a header names users, false if tokens do.
    is_named_by_header: bool,
}

/// Credentials that a request lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MissingCredentials {
    /// The header that names the user.
    UserHeader,
    /// A token.
    Token,
    /// Either the header or a token.
    UserHeaderOrToken,
}

/// Rights beyond those of every user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// No further rights.
    User,
    /// Issues for others.
    Service,
    /// Creates and changes coupons, and reads everything.
    Admin,
}

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    user: UserId,
    role: Role,
}

impl UserSource {
    /// Reads the keys that verify tokens, if `auth.mode` is `jwt`. An error names the key of the
    /// configuration.
    pub(crate) fn new(auth: &Auth) -> Result<Self, InvalidConfig> {
        match auth.mode {
            AuthMode::Header => Ok(Self::Header(TrustedProxies::new(auth.trusted_proxies.clone()))),
            AuthMode::Jwt => Ok(Self::Token(Box::new(Verifier::new(&auth.jwt)?))),
        }
    }
}

impl Authenticator {
    /// Makes an authenticator with this admin token and this source of users.
    pub(crate) fn new(admin_token: &SecretString, users: UserSource) -> Self {
        refused_tokens::show_metric();
        Self {
            admin_token: AdminToken::new(admin_token),
            users,
        }
    }

    /// True if a header names users, false if tokens do.
    pub(crate) fn names_users_by_header(&self) -> bool {
        matches!(self.users, UserSource::Header(_))
    }

    /// Authenticates by a bearer token and by the user that the peer names. `named_user` is only called if
    /// the peer is trusted to name a user. Errors of `named_user` are returned.
    pub(crate) fn authenticate<'a, E: From<Error>>(
        &self,
        peer: IpAddr,
        bearer: Option<&str>,
        named_user: impl FnOnce() -> Result<Option<&'a str>, E>,
    ) -> Result<Principal, E> {
        let token = bearer.map(BearerToken::new);
        let is_admin = token.as_ref().is_some_and(|token| self.admin_token.is(token));
        let mut principal = Principal {
            user: None,
            role: if is_admin { Role::Admin } else { Role::User },
            refused_token: None,
            is_named_by_header: self.names_users_by_header(),
        };
        match (&self.users, token) {
            (UserSource::Header(proxies), token) => {
                let named = if proxies.trust(peer) { named_user()? } else { None };
                let user = named.map(UserId::parse).transpose();
                principal.user = user.map_err(|error| Error::InvalidUser(error.to_string()))?;
                principal.refused_token = token.filter(|_| !is_admin).map(|_| TokenRefusal::NotAdmin);
            }
            (UserSource::Token(verifier), Some(token)) if !is_admin => match identify(verifier, &token) {
                Ok(Identity { user, role }) => (principal.user, principal.role) = (Some(user), role),
                Err(refusal) => principal.refused_token = Some(refusal),
            },
            (UserSource::Token(_), _) => {}
        }
        Ok(principal)
    }

    /// Reloads the key file when it changes, for as long as the future is polled.
    ///
    /// Cancel safe: the next call sees a change that this call missed.
    pub(crate) async fn reload_keys(&self) {
        if let UserSource::Token(verifier) = &self.users {
            verifier.reload_keys().await;
        }
    }
}

fn identify(verifier: &Verifier, token: &BearerToken<'_>) -> Result<Identity, TokenRefusal> {
    match token {
        BearerToken::TooLong => Err(TokenRefusal::TooLong),
        BearerToken::Token { text, digest } => verifier.identify(text, digest, unix_seconds()),
    }
}

/// Seconds since 1970, the unit of times in tokens.
fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

impl Principal {
    /// Returns the user. Fails if the principal is not a user.
    pub(crate) fn require_user(&self) -> Result<&UserId, Error> {
        match &self.user {
            Some(user) => Ok(user),
            None if self.role == Role::Admin => Err(Error::Forbidden(
                "only users have coupons; an administrator is not a user",
            )),
            // In this mode a token cannot name a user, so only the header can be missing.
            None if self.is_named_by_header => Err(Error::Unauthenticated(MissingCredentials::UserHeader)),
            None => Err(self.unauthenticated(MissingCredentials::Token)),
        }
    }

    /// Fails unless the principal is an administrator.
    pub(crate) fn require_admin(&self) -> Result<(), Error> {
        match &self.user {
            _ if self.role == Role::Admin => Ok(()),
            Some(_) => Err(Error::Forbidden("only administrators may do this")),
            None => Err(self.unauthenticated(MissingCredentials::Token)),
        }
    }

    /// Fails unless the principal is a service, which may issue for others.
    pub(crate) fn require_service(&self) -> Result<(), Error> {
        if self.role == Role::Service {
            Ok(())
        } else {
            Err(Error::Forbidden("only services may issue for another user"))
        }
    }

    /// Fails unless the principal is an administrator or a service.
    pub(crate) fn require_admin_or_service(&self) -> Result<(), Error> {
        match &self.user {
            _ if self.role != Role::User => Ok(()),
            Some(_) => Err(Error::Forbidden("only administrators and services may do this")),
            None => Err(self.unauthenticated(MissingCredentials::Token)),
        }
    }

    /// Fails if the principal is unknown.
    pub(crate) fn require_known(&self) -> Result<(), Error> {
        if self.role == Role::Admin || self.user.is_some() {
            Ok(())
        } else if self.is_named_by_header {
            Err(self.unauthenticated(MissingCredentials::UserHeaderOrToken))
        } else {
            Err(self.unauthenticated(MissingCredentials::Token))
        }
    }

    /// True if the principal may see what belongs to this user.
    pub(crate) fn may_see(&self, user: &UserId) -> bool {
        self.role == Role::Admin || self.user.as_ref() == Some(user)
    }

    fn unauthenticated(&self, missing: MissingCredentials) -> Error {
        match self.refused_token {
            Some(refusal) => Error::InvalidToken(refusal),
            None => Error::Unauthenticated(missing),
        }
    }
}
