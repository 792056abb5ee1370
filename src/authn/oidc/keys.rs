//! An issuer's keys (RFC 7517), and the check of a signature, which is all that is left to the library.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::{IdToken, Refused};

/// The smallest RSA key, in bits.
const MIN_RSA_BITS: usize = 2048;
/// The largest, as aws-lc has it.
const MAX_RSA_BITS: usize = 8192;
/// How many keys of an issuer are read. A token without a key's name is tried with each.
const MAX_KEYS: usize = 64;

const RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// The algorithms of ID tokens that are accepted: all asymmetric.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    let all = || RSA.into_iter().chain([Algorithm::ES256, Algorithm::ES384]);
    name.parse().ok().filter(|algorithm| all().any(|it| it == *algorithm))
}

/// The keys of an issuer.
#[derive(Clone, Default)]
pub struct Keys {
    usable: Vec<Key>,
    /// The names of the others: what they sign is refused, and no reason to ask for newer keys.
    unusable: Vec<String>,
}

/// A public key, and the algorithms that it is for.
#[derive(Clone)]
pub struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// Why a key is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// There are more keys than Daypass reads.
    #[error("there are more than 64 keys")]
    TooMany,
    /// Not a JWK.
    #[error("it is no JSON Web Key")]
    Form,
    /// For something else than signatures.
    #[error("it is not for signatures")]
    Use,
    /// Of another type: symmetric, or a curve other than P-256 and P-384.
    #[error("its type is not RSA, P-256 or P-384")]
    Type,
    /// Too weak, or too strong to check.
    #[error("RSA keys have 2048 to 8192 bits")]
    Size,
    /// Its algorithm is unknown, or does not fit.
    #[error("its algorithm does not fit it")]
    Algorithm,
}

impl Keys {
    /// Reads a set of keys (RFC 7517, section 5). `named` are the algorithms that the issuer's discovery document
    /// names for ID tokens; they count for a key that names none. Keys of other kinds are left out, each with the
    /// reason.
    ///
    /// # Errors
    /// [`Unusable::Form`] if it is no set of keys, [`Unusable::TooMany`] if it has more than 64.
    pub fn read(set: &Value, named: &[String]) -> Result<(Self, Vec<Unusable>), Unusable> {
        let keys = set.get("keys").and_then(Value::as_array).ok_or(Unusable::Form)?;
        if keys.len() > MAX_KEYS {
            return Err(Unusable::TooMany);
        }
        let named: Vec<Algorithm> = named.iter().filter_map(|name| name.parse().ok()).collect();
        let (mut read, mut reasons) = (Self::default(), Vec::new());
        for key in keys {
            match Key::read(key, &named) {
                Ok(key) => read.usable.push(key),
                Err(why) => {
                    reasons.push(why);
                    read.unusable.extend(key.get("kid").and_then(Value::as_str).map(str::to_owned));
                }
            }
        }
        Ok((read, reasons))
    }

    /// Whether there is a key of the name that the token gives.
    pub fn has(&self, token: &IdToken<'_>) -> bool {
        let Some(id) = token.key_id() else { return false };
        self.usable.iter().any(|key| key.id.as_deref() == Some(id)) || self.unusable.iter().any(|name| name == id)
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`Refused::Signature`].
    pub fn verify(&self, token: &IdToken<'_>) -> Result<(), Refused> {
        let is_right = |(key, algorithm): (&Key, Algorithm)| {
            jsonwebtoken::crypto::verify(token.signature, token.signed.as_bytes(), &key.key, algorithm)
                .unwrap_or(false)
        };
        if self.fitting(token).any(is_right) { Ok(()) } else { Err(Refused::Signature) }
    }

    /// The keys of this name and algorithm. A token without a name may be of any.
    fn fitting<'a>(&'a self, token: &IdToken<'_>) -> impl Iterator<Item = (&'a Key, Algorithm)> {
        let (algorithm, id) = (token.algorithm, token.key_id.clone());
        let fits = move |key: &&Key| key.algorithms.contains(&algorithm) && (id.is_none() || key.id == id);
        self.usable.iter().filter(fits).map(move |key| (key, algorithm))
    }
}

impl Key {
    fn read(key: &Value, named: &[Algorithm]) -> Result<Self, Unusable> {
        let text = |name: &str| match key.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(Unusable::Form),
        };
        let required = |name: &str| text(name)?.ok_or(Unusable::Form);
        if !key.is_object() {
            return Err(Unusable::Form);
        }
        let operations = key.get("key_ops").and_then(Value::as_array);
        if text("use")?.is_some_and(|of| of != "sig")
            || operations.is_some_and(|operations| !operations.iter().any(|it| it == "verify"))
        {
            return Err(Unusable::Use);
        }
        let (possible, decoding): (&[Algorithm], _) = match (required("kty")?, text("crv")?) {
            ("RSA", _) => {
                let bits = bits(required("n")?).ok_or(Unusable::Form)?;
                if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
                    return Err(Unusable::Size);
                }
                (&RSA, DecodingKey::from_rsa_components(required("n")?, required("e")?))
            }
            ("EC", Some("P-256")) => {
                (&[Algorithm::ES256], DecodingKey::from_ec_components(required("x")?, required("y")?))
            }
            ("EC", Some("P-384")) => {
                (&[Algorithm::ES384], DecodingKey::from_ec_components(required("x")?, required("y")?))
            }
            _ => return Err(Unusable::Type),
        };
        let algorithms: Vec<Algorithm> = match text("alg")? {
            Some(name) => name.parse().into_iter().filter(|algorithm| possible.contains(algorithm)).collect(),
            None => named.iter().copied().filter(|algorithm| possible.contains(algorithm)).collect(),
        };
        if algorithms.is_empty() {
            return Err(Unusable::Algorithm);
        }
        let id = text("kid")?.map(str::to_owned);
        Ok(Self { id, algorithms, key: decoding.map_err(|_| Unusable::Form)? })
    }
}

/// How many bits a modulus has.
fn bits(modulus: &str) -> Option<usize> {
    let bytes = URL_SAFE_NO_PAD.decode(modulus).ok()?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some((bytes.len() - first) * 8 - usize::try_from(bytes[first].leading_zeros()).ok()?)
}

#[cfg(test)]
mod tests;
