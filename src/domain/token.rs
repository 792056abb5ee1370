//! The rules of a direct kubeconfig's token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

/// How long before the member a token must end: the API server accepts one for 60 s after its `exp` (the JWT leeway of
/// go-jose, which Kubernetes uses) and caches a success for 10 s.
pub const TOKEN_LEEWAY: TimeDelta = TimeDelta::seconds(70);

/// TokenRequest refuses less (Kubernetes' API validation: `expirationSeconds` at least 10 minutes).
pub const MIN_TOKEN_LIFETIME: TimeDelta = TimeDelta::seconds(600);

/// The most live kubeconfigs a member may have.
pub const MAX_KUBECONFIGS: usize = 10;

/// The latest `exp` a token may have, and how long to ask for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenWindow {
    /// The token must have ended by then.
    pub latest_exp: DateTime<Utc>,
    /// What is left until then.
    pub lifetime: TimeDelta,
}

/// The window for a member that ends at `expires_at`; `None` when less is left than TokenRequest can give.
pub fn token_window(expires_at: DateTime<Utc>, now: DateTime<Utc>) -> Option<TokenWindow> {
    let latest_exp = expires_at.checked_sub_signed(TOKEN_LEEWAY)?;
    let lifetime = latest_exp.signed_duration_since(now);
    (lifetime >= MIN_TOKEN_LIFETIME).then_some(TokenWindow { latest_exp, lifetime })
}

/// How much less to ask for after a token that was late by `late`: by no more than a slow answer can explain, so that one that is
/// late for another reason does not use up the membership.
pub fn retry_margin(late: TimeDelta) -> TimeDelta {
    late.clamp(TimeDelta::zero(), TimeDelta::seconds(10)) + TimeDelta::seconds(1)
}

/// Whether a token that ends at `exp` is dead, leeway and cache included, when the member ends.
pub fn dies_in_time(exp: DateTime<Utc>, expires_at: DateTime<Utc>) -> bool {
    exp.checked_add_signed(TOKEN_LEEWAY).is_some_and(|dead| dead <= expires_at)
}

/// What Daypass reads of a token that the API server signed. No signature is checked here: it was received from the API
/// server over a verified connection, and decides nothing but when to refuse it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenClaims {
    /// The token's own id (KEP-4193).
    pub jti: String,
    /// When it ends, to the second. It can be later than the answer's `status.expirationTimestamp`.
    pub exp: DateTime<Utc>,
}

/// The claims of a JWT (RFC 7519); `None` when it is none, or lacks `exp` or `jti`.
pub fn decode_claims(jwt: &str) -> Option<TokenClaims> {
    #[derive(Deserialize)]
    struct Raw {
        jti: String,
        exp: i64,
    }
    let mut parts = jwt.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let raw: Raw = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    // A label value: the API server makes UUIDs; anything else could not be recorded.
    uuid::Uuid::parse_str(&raw.jti).ok()?;
    Some(TokenClaims { jti: raw.jti, exp: DateTime::from_timestamp(raw.exp, 0)? })
}

/// What Daypass's own token says of the API server that issued it. No signature is checked: it is what the API
/// server accepts Daypass by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnClaims {
    /// Who issued it.
    pub issuer: Option<String>,
    /// Whom it is for. Asked for without an audience, as the chart does, it is for each that the API server has.
    pub audiences: Vec<String>,
}

/// The issuer and the audiences of a JWT (RFC 7519, sections 4.1.1 and 4.1.3); `None` when it is none.
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

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn a_window_needs_670_seconds_of_membership() {
        assert_eq!(token_window(at(669), at(0)), None);
        let window = token_window(at(670), at(0)).unwrap();
        assert_eq!((window.latest_exp, window.lifetime), (at(600), TimeDelta::seconds(600)));
        assert_eq!(token_window(at(0), at(10)), None);
    }

    #[test]
    fn a_token_of_a_year_does_not_use_up_the_membership() {
        assert_eq!(retry_margin(TimeDelta::days(365)), TimeDelta::seconds(11));
        assert_eq!(retry_margin(TimeDelta::seconds(2)), TimeDelta::seconds(3));
    }

    #[test]
    fn a_token_must_be_dead_leeway_and_cache_included() {
        assert!(dies_in_time(at(30), at(100)));
        assert!(!dies_in_time(at(31), at(100)));
        assert!(!dies_in_time(DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MAX_UTC));
    }

    #[test]
    fn own_token_names_its_issuer_and_one_or_several_audiences() {
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
    fn claims_are_read_from_the_token_itself() {
        let jwt = |payload: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload));
        let jti = "7bf5b10c-2a5c-4d1b-9d42-1d3a5e0d6a01";
        assert_eq!(
            decode_claims(&jwt(&format!(r#"{{"exp":1800000000,"jti":"{jti}","sub":"x"}}"#))),
            Some(TokenClaims { jti: jti.into(), exp: at(0) })
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
