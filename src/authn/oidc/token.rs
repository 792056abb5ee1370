//! The form of an ID token: a compact JWS (RFC 7515, section 3.1), and what its header may say.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::Refused;
use super::keys::algorithm;

/// The largest claims, in bytes of JSON.
const MAX_CLAIMS: usize = 32 * 1024;
/// The largest header, in bytes of JSON.
const MAX_HEADER: usize = 4 * 1024;

/// Reads what other programs might: for the question whose token it is, not whether it is right.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The issuer that a text names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedIssuer {
    /// This one.
    Text(String),
    /// One that is not a text (RFC 7519, section 4.1.1), or that programs may read differently.
    Unclear,
    /// None.
    None,
}

/// An ID token whose signature is not verified. No `Debug`: whoever holds it is this person.
pub struct IdToken<'a> {
    /// What the signature is over.
    pub(super) signed: &'a str,
    /// The signature, in base64url.
    pub(super) signature: &'a str,
    /// The name of the key, if it has one.
    pub(super) key_id: Option<String>,
    /// The algorithm (RFC 7518, section 3.1): an asymmetric one.
    pub(super) algorithm: Algorithm,
    claims: Map<String, Value>,
}

impl<'a> IdToken<'a> {
    /// The issuer that a text names, if it is a JWT, whatever else is wrong with it. Nothing has verified it.
    pub fn unverified_issuer(text: &str) -> NamedIssuer {
        let Some((header, rest)) = text.split_once('.') else { return NamedIssuer::None };
        let Some((claims, _)) = rest.split_once('.') else { return NamedIssuer::None };
        let read = |part: &str| serde_json::from_slice::<Value>(&LENIENT.decode(part).ok()?).ok();
        let Some(Value::Object(claims)) = read(claims) else {
            // Another program may read an issuer in claims that this one cannot read.
            let is_jwt = read(header).is_some_and(|header| header.get("alg").is_some());
            return if is_jwt { NamedIssuer::Unclear } else { NamedIssuer::None };
        };
        match claims.get("iss") {
            Some(Value::String(issuer)) => NamedIssuer::Text(issuer.clone()),
            Some(_) => NamedIssuer::Unclear,
            // Go's decoder takes `ISS` for `iss`.
            None if claims.keys().any(|name| name.eq_ignore_ascii_case("iss")) => NamedIssuer::Unclear,
            None => NamedIssuer::None,
        }
    }

    /// Reads a token, and checks its header.
    ///
    /// # Errors
    /// [`Refused`], by the rules of its header. `jku`, `x5u`, `x5c` and `jwk` are ignored: they would let the token
    /// choose its key.
    pub fn read(text: &'a str) -> Result<Self, Refused> {
        let (signed, signature) = text.rsplit_once('.').ok_or(Refused::Form)?;
        let (header, claims) = signed.split_once('.').ok_or(Refused::Form)?;
        // Five parts are a JWE (RFC 7516, section 3.1).
        if claims.contains('.') || signature.is_empty() {
            return Err(Refused::Form);
        }
        let header = object(header, MAX_HEADER)?;
        let text_of = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Refused::Header),
        };
        // An extension that must be understood (RFC 7515, section 4.1.11). None is.
        if header.contains_key("crit") || header.contains_key("enc") {
            return Err(Refused::Header);
        }
        // An access token says `at+jwt` (RFC 9068), a logout token `logout+jwt`.
        if text_of("typ")?.is_some_and(|kind| !kind.eq_ignore_ascii_case("JWT")) {
            return Err(Refused::Kind);
        }
        let algorithm = text_of("alg")?.and_then(|name| algorithm(&name)).ok_or(Refused::Header)?;
        let key_id = text_of("kid")?;
        Ok(Self { signed, signature, key_id, algorithm, claims: object(claims, MAX_CLAIMS)? })
    }

    /// The name of the key that it names.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The claims. Use them once the signature is verified.
    pub(super) fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

fn object(encoded: &str, max: usize) -> Result<Map<String, Value>, Refused> {
    if encoded.len() > max.div_ceil(3) * 4 {
        return Err(Refused::TooLarge);
    }
    let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Refused::Form)?;
    match serde_json::from_slice(&json) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(Refused::Form),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn token(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.AAAA", part(header), part(claims))
    }

    fn refused(header: &Value) -> Option<Refused> {
        IdToken::read(&token(header, &json!({"iss": "https://a"}))).err()
    }

    #[test]
    fn header_names_algorithm_and_key() {
        let text = token(&json!({"alg": "RS256", "kid": "a", "typ": "jwt"}), &json!({"iss": "https://a", "sub": "b"}));
        let token = IdToken::read(&text).unwrap();
        assert_eq!((token.algorithm, token.key_id()), (Algorithm::RS256, Some("a")));
        assert!(text.starts_with(token.signed) && token.signature == "AAAA");
    }

    #[test]
    fn issuer_is_read_whatever_else_is_wrong() {
        let of = |text: &str| IdToken::unverified_issuer(text);
        let named = NamedIssuer::Text("https://a".to_owned());
        let claims = URL_SAFE_NO_PAD.encode(json!({"iss": "https://a"}).to_string());
        for text in [format!("x.{claims}."), format!("x.{claims}=.y"), format!(".{claims}.a.b.c")] {
            assert_eq!(of(&text), named, "{text}");
        }
        for issuer in [json!(["https://a"]), json!(null), json!(1)] {
            assert_eq!(of(&token(&json!({}), &json!({"iss": issuer}))), NamedIssuer::Unclear);
        }
        assert_eq!(of(&token(&json!({}), &json!({"ISS": "https://a"}))), NamedIssuer::Unclear);
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#);
        for claims in [r#"{"iss":"https://a","name":"\ud800"}"#, r#"{"iss":"https://a","a":1e999}"#, "[]", "{"] {
            let text = format!("{header}.{}.AAAA", URL_SAFE_NO_PAD.encode(claims));
            assert_eq!(of(&text), NamedIssuer::Unclear, "{claims}");
        }
        for text in ["", "a", "a.b", "a.b.c", &token(&json!({}), &json!({})), &format!("x.{claims}")] {
            assert_eq!(of(text), NamedIssuer::None, "{text}");
        }
    }

    #[test]
    fn header_that_lets_the_token_choose_its_key_is_ignored() {
        for name in ["jku", "x5u", "x5c", "jwk", "x5t"] {
            assert_eq!(refused(&json!({"alg": "RS256", name: "https://evil"})), None, "{name}");
        }
    }

    #[test]
    fn other_headers_are_refused() {
        for (header, expected) in [
            (json!({}), Refused::Header),
            (json!({"alg": 1}), Refused::Header),
            (json!({"alg": "none"}), Refused::Header),
            (json!({"alg": "HS256"}), Refused::Header),
            (json!({"alg": "ES512"}), Refused::Header),
            (json!({"alg": "EdDSA"}), Refused::Header),
            (json!({"alg": "rs256"}), Refused::Header),
            (json!({"alg": "RS256", "crit": []}), Refused::Header),
            (json!({"alg": "RS256", "enc": "A128GCM"}), Refused::Header),
            (json!({"alg": "RS256", "kid": ["a"]}), Refused::Header),
            (json!({"alg": "RS256", "typ": "at+jwt"}), Refused::Kind),
            (json!({"alg": "RS256", "typ": "logout+jwt"}), Refused::Kind),
            (json!({"alg": "RS256", "typ": 1}), Refused::Header),
            (json!({"alg": "RS256", "a": "b".repeat(5000)}), Refused::TooLarge),
        ] {
            assert_eq!(refused(&header), Some(expected), "{header}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let good = token(&json!({"alg": "RS256"}), &json!({}));
        let [header, claims, _] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
        for bad in [
            String::new(),
            "a.b".to_owned(),
            format!("{header}.{claims}."),
            format!("{header}.{claims}"),
            format!("{good}.{claims}.{claims}"),
            format!("{header}=.{claims}.AAAA"),
            format!("{header}.{}.AAAA", URL_SAFE_NO_PAD.encode("[]")),
            format!("{}.{claims}.AAAA", URL_SAFE_NO_PAD.encode("\"a\"")),
        ] {
            assert_eq!(IdToken::read(&bad).err(), Some(Refused::Form), "{bad}");
        }
        let large = token(&json!({"alg": "RS256"}), &json!({"a": "b".repeat(MAX_CLAIMS)}));
        assert_eq!(IdToken::read(&large).err(), Some(Refused::TooLarge));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-zA-Z0-9_.=-]{0,80}") {
            let _ = IdToken::read(&text);
        }
    }
}
