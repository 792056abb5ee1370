//! The claims of JWTs that the API server signed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::Deserialize;

/// The claims of a kubeconfig's token.
///
/// Daypass does not check the signature: it gets the token from the API server over a verified connection, and uses
/// the claims only to decide when to refuse it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenClaims {
    /// The token's id (KEP-4193).
    pub jti: String,
    /// When it ends, to the second. It can be later than the response's `status.expirationTimestamp`.
    pub exp: DateTime<Utc>,
}

/// Decodes a JWT (RFC 7519); `None` if the text is not a JWT, or lacks `exp` or `jti`.
pub fn decode_claims(jwt: &str) -> Option<TokenClaims> {
    #[derive(Deserialize)]
    struct Raw {
        jti: String,
        exp: i64,
    }
    let mut parts = jwt.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let raw: Raw = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    // The API server generates UUIDs. Other ids may be invalid as a label value.
    uuid::Uuid::parse_str(&raw.jti).ok()?;
    Some(TokenClaims { jti: raw.jti, exp: DateTime::from_timestamp(raw.exp, 0)? })
}

/// When a JWT (RFC 7519) ends, to the second; `None` if the text is not a JWT, or has no end.
pub fn expiry(jwt: &str) -> Option<DateTime<Utc>> {
    #[derive(Deserialize)]
    struct Raw {
        exp: Option<i64>,
    }
    let mut parts = jwt.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let raw: Raw = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    DateTime::from_timestamp(raw.exp?, 0)
}

/// The claims of Daypass's own token about the API server that issued it.
///
/// Daypass does not check the signature: this is the token that it authenticates with at the API server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnClaims {
    /// The issuer.
    pub issuer: Option<String>,
    /// The audiences. The chart requests none, so the token has all of the API server's own.
    pub audiences: Vec<String>,
}

/// Decodes issuer and audiences of a JWT (RFC 7519, sections 4.1.1 and 4.1.3); `None` if the text is not a JWT.
pub fn decode_own_claims(jwt: &str) -> Option<OwnClaims> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audiences {
        One(String),
        Several(Vec<String>),
    }
    #[derive(Deserialize)]
    struct Raw {
        iss: Option<String>,
        aud: Option<Audiences>,
    }
    let mut parts = jwt.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let raw: Raw = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let audiences = match raw.aud {
        Some(Audiences::One(name)) => vec![name],
        Some(Audiences::Several(names)) => names,
        None => Vec::new(),
    };
    Some(OwnClaims { issuer: raw.iss.filter(|name| !name.is_empty()), audiences })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_token_has_an_issuer_and_one_or_several_audiences() {
        let read = |payload: &str| decode_own_claims(&format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload)));
        let claims = |issuer: Option<&str>, audiences: &[&str]| {
            let audiences = audiences.iter().map(|name| (*name).to_owned()).collect();
            Some(OwnClaims { issuer: issuer.map(str::to_owned), audiences })
        };
        assert_eq!(read(r#"{"iss":"kubernetes","aud":"a"}"#), claims(Some("kubernetes"), &["a"]));
        assert_eq!(read(r#"{"iss":"","aud":["a","b"]}"#), claims(None, &["a", "b"]));
        assert_eq!(read("{}"), claims(None, &[]));
        assert_eq!(read(r#"{"aud":7}"#), None);
        for other in ["", "garbage", "a.b.c"] {
            assert_eq!(decode_own_claims(other), None, "{other}");
        }
    }

    #[test]
    fn end_is_read_from_any_jwt_that_has_one() {
        let jwt = |payload: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload));
        assert_eq!(expiry(&jwt(r#"{"exp":1800000000,"jti":7}"#)), DateTime::from_timestamp(1_800_000_000, 0));
        for endless in
            ["", "opaque", "a.b.c", &jwt("{}"), &jwt(r#"{"exp":null}"#), &jwt(r#"{"exp":9223372036854775807}"#)]
        {
            assert_eq!(expiry(endless), None, "{endless}");
        }
    }

    #[test]
    fn token_without_valid_exp_and_jti_is_refused() {
        let jwt = |payload: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload));
        let jti = "7bf5b10c-2a5c-4d1b-9d42-1d3a5e0d6a01";
        assert_eq!(
            decode_claims(&jwt(&format!(r#"{{"exp":1800000000,"jti":"{jti}","sub":"x"}}"#))),
            Some(TokenClaims { jti: jti.into(), exp: DateTime::from_timestamp(1_800_000_000, 0).unwrap() })
        );
        for bad in [
            "",
            "a.b",
            "a.b.c",
            &jwt("{}"),
            &jwt(r#"{"exp":1}"#),
            &jwt(r#"{"exp":1,"jti":"x y"}"#),
            &jwt(&format!(r#"{{"exp":9223372036854775807,"jti":"{jti}"}}"#)),
        ] {
            assert_eq!(decode_claims(bad), None, "{bad}");
        }
    }
}
