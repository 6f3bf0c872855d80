//! Keys that verify tokens, each for one algorithm.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Validation, decode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::claims::ClaimRules;
use super::refused_tokens::TokenRefusal;
use crate::config::{Jwt, JwtAlgorithm};
use crate::log::Quoted;

/// Maximum number of keys in a set. A rotation has two or three, so a file with more is a mistake.
const KEYS_MAX: usize = 100;

/// Minimum length of a secret for HMAC-SHA-256 (RFC 7518, 3.2). The holder of a token can guess a shorter
/// secret offline.
const SECRET_BYTES_MIN: usize = 32;

/// Allowed sizes of an RSA modulus in bits. The minimum is from RFC 7518, 3.3. With more than the maximum
/// each check of a token would be slow, and anyone can send tokens.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2_048..=4_096;

/// Length of a public key of Ed25519.
const ED25519_BYTES: usize = 32;

/// Requirements for tokens of all keys.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    issuer: Option<String>,
    audience: Option<String>,
    leeway_seconds: u64,
    claims: ClaimRules,
}

impl Rules {
    pub(super) fn new(config: &Jwt) -> Self {
        Self {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            leeway_seconds: config.leeway.as_secs(),
            claims: ClaimRules::new(config),
        }
    }

    /// Returns the tolerated difference of clocks.
    pub(super) fn leeway_seconds(&self) -> u64 {
        self.leeway_seconds
    }

    /// Returns how claims are read.
    pub(super) fn claims(&self) -> &ClaimRules {
        &self.claims
    }

    /// Returns the requirements in the form of the library. A configured claim is required: by default the
    /// library checks a claim only if the token has it.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.leeway_seconds;
        validation.validate_nbf = true;
        validation.required_spec_claims = ["exp".to_owned()].into();
        if self.claims.names_user_by_sub() {
            validation.required_spec_claims.insert("sub".to_owned());
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        validation.validate_aud = self.audience.is_some();
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        validation
    }
}

/// A key with its algorithm.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
    validation: Validation,
}

impl Key {
    /// Returns the claims of a token whose signature this key verifies and that is valid now.
    pub(super) fn decode<T: DeserializeOwned>(&self, token: &str) -> Result<T, TokenRefusal> {
        let decoded = decode(token, &self.decoding, &self.validation);
        decoded
            .map(|token| token.claims)
            .map_err(|error| TokenRefusal::from(error.kind()))
    }

    /// Returns the `kid` of the key.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the secret of a symmetric key, which signs as well.
    pub(super) fn secret(&self) -> Option<&[u8]> {
        if self.algorithm == Algorithm::HS256 {
            self.decoding.try_get_as_bytes().ok()
        } else {
            None
        }
    }
}

/// The keys of a configuration.
#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// Returns an empty set, for the time before keys are fetched.
    pub(super) const fn none() -> Self {
        Self(Vec::new())
    }

    /// Returns true if no keys were fetched yet.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Parses a single key: a secret, or a public key in PEM.
    pub(super) fn one(algorithm: JwtAlgorithm, text: &str, rules: &Rules) -> Result<Self, String> {
        let (algorithm, decoding) = match algorithm {
            JwtAlgorithm::HS256 => (Algorithm::HS256, Ok(DecodingKey::from_secret(text.as_bytes()))),
            JwtAlgorithm::RS256 => (Algorithm::RS256, DecodingKey::from_rsa_pem(text.as_bytes())),
            JwtAlgorithm::ES256 => (Algorithm::ES256, DecodingKey::from_ec_pem(text.as_bytes())),
            JwtAlgorithm::EdDSA => (Algorithm::EdDSA, DecodingKey::from_ed_pem(text.as_bytes())),
        };
        let decoding = decoding.map_err(|_| format!("is not a public key for {algorithm:?} in PEM"))?;
        // A PEM only shows the kind of the key. The strength of the key is checked in its JWK form.
        let jwk = Jwk::from_decoding_key(&decoding, None)
            .map_err(|_| format!("is not a public key for {algorithm:?} in PEM"))?;
        check(&jwk, algorithm)?;
        Ok(Self(vec![Key {
            id: None,
            algorithm,
            decoding,
            validation: rules.validation(algorithm),
        }]))
    }

    /// Parses a JWK set (RFC 7517). Returns the keys that can verify tokens, and why the other keys were
    /// skipped. Fails if no key can verify tokens, or if two keys fit the same tokens.
    pub(super) fn set(text: &[u8], rules: &Rules) -> Result<(Self, Vec<String>), String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set =
            serde_json::from_slice(text).map_err(|_| "is not a JWK set: {\"keys\": […]}".to_owned())?;
        if set.keys.len() > KEYS_MAX {
            return Err(format!("holds more than {KEYS_MAX} keys"));
        }
        let (mut keys, mut skipped) = (Vec::new(), Vec::new());
        for (index, value) in set.keys.into_iter().enumerate() {
            let name = value["kid"]
                .as_str()
                .map_or_else(|| format!("key {index}"), |id| format!("key \"{}\"", Quoted(id)));
            match key(value, rules) {
                Ok(key) => keys.push(key),
                Err(reason) => skipped.push(format!("{name} {reason}")),
            }
        }
        if keys.is_empty() {
            return Err(format!(
                "holds no key that can verify tokens{}",
                skipped.iter().map(|line| format!("; {line}")).collect::<String>()
            ));
        }
        let same = |one: &Key, other: &Key| one.algorithm == other.algorithm && one.id == other.id;
        let twice = keys
            .iter()
            .enumerate()
            .find(|(index, key)| keys[..*index].iter().any(|earlier| same(earlier, key)));
        match twice {
            Some((_, key)) => Err(format!(
                "holds two keys for {:?} with the same kid, or without one",
                key.algorithm
            )),
            None => Ok((Self(keys), skipped)),
        }
    }

    /// Parses a JWK set that is published. Secrets in it are skipped, because any reader of the set could
    /// sign tokens with them.
    pub(super) fn published(text: &[u8], rules: &Rules) -> Result<(Self, Vec<String>), String> {
        let (Self(keys), mut skipped) = Self::set(text, rules)?;
        let (secrets, keys): (Vec<Key>, Vec<Key>) = keys
            .into_iter()
            .partition(|key| key.algorithm == Algorithm::HS256);
        let reason = |secret: Key| {
            let id = secret.id.unwrap_or_default();
            format!("key \"{}\" is a secret, which must not be published", Quoted(&id))
        };
        skipped.extend(secrets.into_iter().map(reason));
        if keys.is_empty() {
            return Err(format!("holds no public key; {}", skipped.join("; ")));
        }
        Ok((Self(keys), skipped))
    }

    /// Returns the key for a token. For a token with a `kid`, this is the key with that `kid`, or else the
    /// key without a `kid`. For a token without a `kid`, this is the only key of the token's algorithm. So a
    /// token costs at most one check of a signature.
    pub(super) fn choose(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let mut fitting = self.0.iter().filter(|key| key.algorithm == algorithm);
        match id {
            Some(id) => fitting
                .clone()
                .find(|key| key.id() == Some(id))
                .or_else(|| fitting.find(|key| key.id.is_none())),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }
}

/// Parses one key of a set; an error says why it cannot be used.
fn key(value: Value, rules: &Rules) -> Result<Key, String> {
    let jwk: Jwk = serde_json::from_value(value).map_err(|_| "is not a JWK".to_owned())?;
    let to_verify = match (&jwk.common.public_key_use, &jwk.common.key_operations) {
        (Some(usage), _) => *usage == PublicKeyUse::Signature,
        (None, Some(operations)) => operations.contains(&KeyOperations::Verify),
        (None, None) => true,
    };
    if !to_verify {
        return Err("is not for signatures".to_owned());
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => Algorithm::HS256,
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return Err("is of an unsupported kind".to_owned()),
    };
    if jwk
        .common
        .key_algorithm
        .is_some_and(|said| said != KeyAlgorithm::from(algorithm))
    {
        return Err(format!(
            "is not for {algorithm:?}, the only supported algorithm of its kind"
        ));
    }
    let decoding = check(&jwk, algorithm)?;
    Ok(Key {
        id: jwk.common.key_id,
        algorithm,
        decoding,
        validation: rules.validation(algorithm),
    })
}

/// Checks that a key is valid and strong enough, and returns it. Without this check, a bad key would be
/// noticed only when a token is verified. Leading zeros are removed from numbers, because the library that
/// verifies signatures refuses them.
fn check(jwk: &Jwk, algorithm: Algorithm) -> Result<DecodingKey, String> {
    let wrong = || format!("is not a key for {algorithm:?}");
    let decoding = DecodingKey::from_jwk(jwk).map_err(|_| wrong())?;
    let bytes = || decoding.try_get_as_bytes().map_err(|_| wrong());
    match algorithm {
        Algorithm::HS256 if bytes()?.len() < SECRET_BYTES_MIN => {
            return Err(format!(
                "is a secret of less than {SECRET_BYTES_MIN} bytes, which can be guessed from a token"
            ));
        }
        Algorithm::HS256 => {}
        Algorithm::RS256 => {
            let DecodingKeyKind::RsaModulusExponent { n, e } = decoding.kind() else {
                return Err(wrong());
            };
            let (n, e) = (without_leading_zeros(n), without_leading_zeros(e));
            let unused_bits = n.first().map_or(0, |byte| byte.leading_zeros() as usize);
            if !MODULUS_BITS.contains(&(n.len() * 8 - unused_bits)) {
                return Err("is an RSA key of less than 2048 or more than 4096 bits".to_owned());
            }
            let components = RsaPublicKeyComponents { n, e };
            components
                .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
                .map_err(|_| wrong())?;
            return Ok(DecodingKey::from_rsa_raw_components(n, e));
        }
        // Parsing the key also rejects a point that is not on the curve.
        Algorithm::ES256 => {
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes()?).map_err(|_| wrong())?;
        }
        Algorithm::EdDSA if bytes()?.len() == ED25519_BYTES => {}
        _ => return Err(wrong()),
    }
    Ok(decoding)
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
