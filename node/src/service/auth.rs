//! Authenticates principals: users by header or by token, and named keys, of which the admin token is one.
//!
//! An unknown token alone is no reason to refuse a request. The request may still do what is open to anyone.

mod claims;
mod fetch;
mod jwks;
mod jwt;
pub(crate) mod key_ring;
mod keys;
pub(crate) mod mint;
mod principal;
mod refused_tokens;
mod remote_keys;
mod role;
mod token;
mod trusted_proxies;
mod verified_tokens;
mod watched_file;

use std::net::IpAddr;
use std::time::SystemTime;

use actors::ids::UserId;

pub(crate) use self::key_ring::KeyRing;
pub(crate) use self::principal::Principal;
pub(crate) use self::refused_tokens::TokenRefusal;
pub(crate) use self::role::Role;
pub(crate) use self::token::random_secret;

use self::jwt::Verifier;
use self::token::BearerToken;
use self::trusted_proxies::TrustedProxies;
use super::Error;
use crate::config::{Auth, AuthMode, InvalidConfig};

/// Authenticates the principal of a request.
#[derive(Debug)]
pub(crate) struct Authenticator {
    keys: KeyRing,
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
    /// Makes an authenticator with these keys and this source of users.
    pub(crate) fn new(keys: KeyRing, users: UserSource) -> Self {
        refused_tokens::show_metric();
        Self { keys, users }
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
        let mut principal = Principal {
            user: None,
            key: None,
            role: Role::User,
            refused_token: None,
            is_named_by_header: self.names_users_by_header(),
        };
        let found = token.as_ref().map_or(Ok(None), |token| self.keys.find(token));
        match found {
            Ok(Some((key, role))) => (principal.key, principal.role) = (Some(key), role),
            Ok(None) => {}
            Err(refusal) => principal.refused_token = Some(refusal),
        }
        let is_settled = principal.key.is_some() || principal.refused_token.is_some();
        match (&self.users, token) {
            (UserSource::Header(proxies), token) => {
                let named = if proxies.trust(peer) { named_user()? } else { None };
                let user = named.map(UserId::parse).transpose();
                principal.user = user.map_err(|error| Error::InvalidUser(error.to_string()))?;
                if !is_settled {
                    principal.refused_token = token.map(|_| TokenRefusal::NotAdmin);
                }
            }
            (UserSource::Token(verifier), Some(token)) if !is_settled => match identify(verifier, &token) {
                Ok(Identity { user, role }) => (principal.user, principal.role) = (Some(user), role),
                Err(refusal) => principal.refused_token = Some(refusal),
            },
            (UserSource::Token(_), _) => {}
        }
        Ok(principal)
    }

    /// Returns a number that grows whenever keys of tokens were fetched.
    pub(crate) fn key_generation(&self) -> u64 {
        match &self.users {
            UserSource::Header(_) => 0,
            UserSource::Token(verifier) => verifier.generation(),
        }
    }

    /// Waits for keys of tokens that are newer than a generation, for a token with an unknown key. Returns
    /// false if there is no reason to look again.
    pub(crate) async fn renew_keys(&self, generation: u64) -> bool {
        match &self.users {
            UserSource::Header(_) => false,
            UserSource::Token(verifier) => verifier.renew_keys(generation).await,
        }
    }

    /// Reloads keys when they change, for as long as the future is polled.
    ///
    /// Cancel safe: the next call sees a change that this call missed.
    pub(crate) async fn reload_keys(&self) {
        let of_tokens = async {
            if let UserSource::Token(verifier) = &self.users {
                verifier.reload_keys().await;
            }
        };
        tokio::join!(self.keys.reload(), of_tokens);
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
