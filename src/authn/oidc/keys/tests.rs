use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use serde_json::json;

use super::*;

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What is signed, for a header with this algorithm and key.
fn signed(algorithm: &str, id: Option<&str>) -> String {
    let header = match id {
        Some(id) => json!({"alg": algorithm, "kid": id}),
        None => json!({"alg": algorithm}),
    };
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(br#"{"iss":"https://a"}"#))
}

struct Rsa(RsaKeyPair);

impl Rsa {
    fn new() -> Self {
        Self(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn jwk(&self) -> Value {
        let public = self.0.public_key();
        let [n, e] = [public.modulus(), public.exponent()].map(|it| encode(it.big_endian_without_leading_zero()));
        json!({"kty": "RSA", "kid": "rsa", "n": n, "e": e})
    }

    fn token(&self, algorithm: &str, padding: &'static dyn RsaEncoding, id: Option<&str>) -> String {
        let signed = signed(algorithm, id);
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(padding, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", encode(&signature))
    }
}

fn ec(curve: &str, kind: &'static EcdsaSigningAlgorithm) -> (EcdsaKeyPair, Value) {
    let pair = EcdsaKeyPair::generate(kind).unwrap();
    // 4, then both coordinates (SEC 1, section 2.3.3).
    let point = pair.public_key().as_ref()[1..].to_vec();
    let (x, y) = point.split_at(point.len() / 2);
    let jwk = json!({"kty": "EC", "crv": curve, "kid": "ec", "x": encode(x), "y": encode(y)});
    (pair, jwk)
}

fn keys(keys: &[&Value], named: &[&str]) -> Keys {
    let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
    Keys::read(&json!({"keys": keys}), &named).unwrap().0
}

fn with(key: &Value, changes: &Value) -> Value {
    let mut key = key.clone();
    changes.as_object().unwrap().iter().for_each(|(name, value)| key[name] = value.clone());
    key
}

fn why(key: &Value) -> Option<Unusable> {
    Keys::read(&json!({"keys": [key]}), &["RS256".to_owned(), "ES256".to_owned()]).unwrap().1.pop()
}

#[test]
fn signature_of_each_kind_is_verified() {
    let rsa = Rsa::new();
    let named = ["RS256", "PS256", "ES256", "ES384"];
    for (algorithm, padding) in [("RS256", &RSA_PKCS1_SHA256 as &dyn RsaEncoding), ("PS256", &RSA_PSS_SHA256)] {
        let text = rsa.token(algorithm, padding, Some("rsa"));
        let token = IdToken::read(&text).unwrap();
        assert_eq!(keys(&[&rsa.jwk()], &named).verify(&token), Ok(()), "{algorithm}");
        assert_eq!(keys(&[&Rsa::new().jwk()], &named).verify(&token), Err(Refused::Signature), "another's key");
    }
    for (curve, algorithm, kind) in
        [("P-256", "ES256", &ECDSA_P256_SHA256_FIXED_SIGNING), ("P-384", "ES384", &ECDSA_P384_SHA384_FIXED_SIGNING)]
    {
        let (pair, jwk) = ec(curve, kind);
        let signed = signed(algorithm, Some("ec"));
        let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let text = format!("{signed}.{}", encode(signature.as_ref()));
        assert_eq!(keys(&[&jwk], &named).verify(&IdToken::read(&text).unwrap()), Ok(()), "{algorithm}");
        assert_eq!(
            keys(&[&ec(curve, kind).1], &named).verify(&IdToken::read(&text).unwrap()),
            Err(Refused::Signature)
        );
    }
}

#[test]
fn key_and_algorithm_must_fit() {
    let rsa = Rsa::new();
    let text = rsa.token("RS256", &RSA_PKCS1_SHA256, Some("rsa"));
    let token = IdToken::read(&text).unwrap();
    for (key, named, fits) in [
        (rsa.jwk(), &["RS256"][..], true),
        (rsa.jwk(), &[], false),
        (rsa.jwk(), &["RS384", "HS256", "none"], false),
        (with(&rsa.jwk(), &json!({"alg": "RS256"})), &[], true),
        (with(&rsa.jwk(), &json!({"alg": "PS256"})), &["RS256"], false),
        (with(&rsa.jwk(), &json!({"kid": "other"})), &["RS256"], false),
    ] {
        let keys = keys(&[&key], named);
        let is_known = key["kid"] == "rsa";
        assert_eq!((keys.has(&token), keys.verify(&token).is_ok()), (is_known, fits), "{key} {named:?}");
    }
    let unnamed = rsa.token("RS256", &RSA_PKCS1_SHA256, None);
    assert_eq!(keys(&[&Rsa::new().jwk(), &rsa.jwk()], &["RS256"]).verify(&IdToken::read(&unnamed).unwrap()), Ok(()));
    let spoiled = format!("{}A", &text[..text.len() - 1]);
    let spoiled = if spoiled == text { format!("{}B", &text[..text.len() - 1]) } else { spoiled };
    assert_eq!(keys(&[&rsa.jwk()], &["RS256"]).verify(&IdToken::read(&spoiled).unwrap()), Err(Refused::Signature));
}

#[test]
fn none_and_hmac_are_refused() {
    for algorithm in ["none", "None", "HS256", "HS512", "EdDSA", "ES512", ""] {
        let text = format!("{}.AAAA", signed(algorithm, Some("rsa")));
        assert_eq!(IdToken::read(&text).err(), Some(Refused::Header), "{algorithm}");
    }
    // Nor does a key for it count, whatever its issuer says.
    let secret = json!({"kty": "oct", "k": encode(b"secret"), "alg": "HS256", "kid": "rsa"});
    let text = format!("{}.AAAA", signed("RS256", Some("rsa")));
    let set = keys(&[&secret], &["HS256", "none", "RS256"]);
    assert_eq!(set.verify(&IdToken::read(&text).unwrap()), Err(Refused::Signature));
}

#[test]
fn unusable_keys_are_left_out_one_by_one() {
    let rsa = Rsa::new().jwk();
    let small = encode(&[0xff; 128]);
    for (key, expected) in [
        (json!(1), Unusable::Form),
        (json!({}), Unusable::Form),
        (json!({"kty": "RSA", "e": "AQAB"}), Unusable::Form),
        (with(&rsa, &json!({"use": "enc"})), Unusable::Use),
        (with(&rsa, &json!({"key_ops": ["encrypt"]})), Unusable::Use),
        (with(&rsa, &json!({"n": small})), Unusable::Size),
        (with(&rsa, &json!({"n": encode(&[&[0; 200][..], &[1; 128]].concat())})), Unusable::Size),
        (with(&rsa, &json!({"alg": "HS256"})), Unusable::Algorithm),
        (with(&rsa, &json!({"alg": "ES256"})), Unusable::Algorithm),
        (with(&rsa, &json!({"alg": "RSA-OAEP"})), Unusable::Algorithm),
        (json!({"kty": "oct", "k": "AAAA", "alg": "HS256"}), Unusable::Type),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}), Unusable::Type),
        (json!({"kty": "EC", "crv": "P-521", "x": "AAAA", "y": "AAAA"}), Unusable::Type),
    ] {
        assert_eq!(why(&key), Some(expected), "{key}");
    }
    assert_eq!(why(&with(&rsa, &json!({"use": "sig", "key_ops": ["verify"]}))), None);
    let (usable, unusable) =
        Keys::read(&json!({"keys": [{"kty": "oct"}, rsa.clone(), 1]}), &["RS256".to_owned()]).unwrap();
    assert_eq!((usable.usable.len(), unusable), (1, vec![Unusable::Type, Unusable::Form]));
    let many = json!({"keys": vec![rsa.clone(); 65]});
    assert_eq!(Keys::read(&many, &[]).err(), Some(Unusable::TooMany));
    for set in [json!({}), json!([]), json!({"keys": {}})] {
        assert_eq!(Keys::read(&set, &[]).err(), Some(Unusable::Form));
    }
}
