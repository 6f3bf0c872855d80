//! Mints tokens for development without an identity provider.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use actors::ids::UserId;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};

use super::keys::{Keys, Rules};
use super::{Role, jwks, jwt, unix_seconds};
use crate::config::{Auth, AuthMode, InvalidConfig};

/// The content of a token.
#[derive(Debug)]
pub(crate) struct TokenRequest {
    /// The user.
    pub(crate) user: UserId,
    /// The role.
    pub(crate) role: Role,
    /// How long the token is valid.
    pub(crate) expires_in: Duration,
    /// The private key that signs the token, in PEM. If it is `None`, the configured secret signs the token.
    pub(crate) private_key_file: Option<PathBuf>,
}

/// Why no token was minted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MintError {
    /// The keys cannot be read.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The node ignores tokens.
    #[error("auth.mode is header, which ignores tokens: set auth.mode to jwt")]
    NoTokens,
    /// Public keys cannot sign.
    #[error(
        "only public keys are configured, which cannot sign: pass the private key with --private-key-file"
    )]
    PublicKeysOnly,
    /// No name of a role in tokens means this one.
    #[error("auth.jwt.roles has no name for the role {0}")]
    NoNameOfRole(&'static str),
    /// The private key cannot be read.
    #[error("--private-key-file: {0}: {1}")]
    PrivateKey(PathBuf, String),
    /// The node would refuse the token.
    #[error("--private-key-file: {0}: no configured key is the public half of this key")]
    UnknownKey(PathBuf),
}

/// Mints a token, and checks that a node with this configuration accepts it.
pub(crate) fn mint(auth: &Auth, request: &TokenRequest) -> Result<String, MintError> {
    if auth.mode != AuthMode::Jwt {
        return Err(MintError::NoTokens);
    }
    let rules = Rules::new(&auth.jwt);
    let keys = jwks::keys(&auth.jwt, &rules)?;
    let (algorithm, signing) = signer(&keys, request)?;
    let issued_at = unix_seconds();
    let mut claims = rules
        .claims()
        .claims(&request.user, request.role)
        .ok_or(MintError::NoNameOfRole(request.role.name()))?;
    claims.insert("iat".to_owned(), issued_at.into());
    let expires_at = issued_at.saturating_add(request.expires_in.as_secs());
    claims.insert("exp".to_owned(), expires_at.into());
    for (name, value) in [("iss", &auth.jwt.issuer), ("aud", &auth.jwt.audience)] {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value.as_str().into());
        }
    }
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
    let accepted = tokens.find(|token| jwt::verify(token, &keys, &rules, issued_at).is_ok());
    accepted.ok_or_else(|| MintError::UnknownKey(request.private_key_file.clone().unwrap_or_default()))
}

/// Returns the key that signs: the private key of the request, or a configured secret.
fn signer(keys: &Keys, request: &TokenRequest) -> Result<(Algorithm, EncodingKey), MintError> {
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
        wrong("is not a private key in PEM (PKCS #8: `openssl pkcs8 -topk8 -nodes` converts one)".to_owned())
    })
}
