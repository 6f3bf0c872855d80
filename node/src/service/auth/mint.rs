//! Makes tokens, for whoever develops against a node without an identity provider at hand.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use actors::ids::UserId;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use super::keys::{Keys, Rules};
use super::{Role, jwks, jwt, now};
use crate::config::{Auth, AuthMode, InvalidConfig};

/// What the token is to say.
#[derive(Debug)]
pub(crate) struct Request {
    /// Whose it is.
    pub(crate) user: UserId,
    /// What they may do.
    pub(crate) role: Role,
    /// For how long.
    pub(crate) expires_in: Duration,
    /// The private key that signs, in PEM; else the configured secret does.
    pub(crate) private_key_file: Option<PathBuf>,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MintError {
    /// The keys cannot be read.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// Nobody would look at it.
    #[error("auth.mode is header, which looks at no token: set auth.mode to jwt")]
    NoTokens,
    /// Whoever checks signatures with a public key cannot make any.
    #[error(
        "only public keys are configured, and those make no token: give the private one with --private-key-file"
    )]
    PublicKeysOnly,
    /// The private key cannot be read.
    #[error("--private-key-file: {0}: {1}")]
    PrivateKey(PathBuf, String),
    /// The node would refuse it.
    #[error("--private-key-file: {0}: no configured key is the public half of this one")]
    StrangeKey(PathBuf),
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

/// Makes a token that a node of this configuration takes: that is seen before it is given out.
pub(crate) fn mint(auth: &Auth, request: &Request) -> Result<String, MintError> {
    if auth.mode != AuthMode::Jwt {
        return Err(MintError::NoTokens);
    }
    let rules = Rules::new(&auth.jwt);
    let keys = jwks::keys(&auth.jwt, &rules)?;
    let (algorithm, signing) = signer(&keys, request)?;
    let issued_at = now();
    let claims = Claims {
        sub: request.user.as_str(),
        iat: issued_at,
        exp: issued_at.saturating_add(request.expires_in.as_secs()),
        role: match request.role {
            Role::User => None,
            Role::Service => Some("service"),
            Role::Admin => Some("admin"),
        },
        iss: auth.jwt.issuer.as_deref(),
        aud: auth.jwt.audience.as_deref(),
    };
    let mut tokens = keys
        .iter()
        .filter(|key| key.algorithm() == algorithm)
        .filter_map(|key| {
            let header = Header {
                kid: key.id().map(str::to_owned),
                ..Header::new(algorithm)
            };
            encode(&header, &claims, &signing).ok()
        });
    let taken = tokens.find(|token| jwt::verify(token, &keys, &rules).is_some());
    taken.ok_or_else(|| MintError::StrangeKey(request.private_key_file.clone().unwrap_or_default()))
}

/// The key that signs: the private one that was given, or a configured secret.
fn signer(keys: &Keys, request: &Request) -> Result<(Algorithm, EncodingKey), MintError> {
    let Some(path) = &request.private_key_file else {
        let secret = keys.iter().find_map(|key| key.secret());
        return secret
            .map(|secret| (Algorithm::HS256, EncodingKey::from_secret(secret)))
            .ok_or(MintError::PublicKeysOnly);
    };
    let wrong = |reason: String| MintError::PrivateKey(path.clone(), reason);
    let pem = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let rsa = EncodingKey::from_rsa_pem(&pem).map(|key| (Algorithm::RS256, key));
    let ec = || EncodingKey::from_ec_pem(&pem).map(|key| (Algorithm::ES256, key));
    let ed = || EncodingKey::from_ed_pem(&pem).map(|key| (Algorithm::EdDSA, key));
    let key = rsa.or_else(|_| ec()).or_else(|_| ed());
    key.map_err(|_| {
        wrong("is not a private key in PEM (PKCS #8: `openssl pkcs8 -topk8 -nodes` makes one)".to_owned())
    })
}
