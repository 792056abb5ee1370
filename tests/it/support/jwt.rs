//! Service-account tokens: their claims, and tokens that the API server accepts but would not issue.

use std::fs;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::Cluster;

/// The claims of a token.
pub fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

impl Cluster {
    /// This token with other claims, signed with the control plane's key.
    pub fn resign(&self, token: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = claims(token);
        change(&mut claims);
        let header = token.split('.').next().unwrap();
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let pem = fs::read(self.plane.service_account_key()).unwrap();
        let key = PrivatePkcs8KeyDer::from_pem_slice(&pem).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der()).unwrap();
        let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The user of a token for an audience, from a TokenReview.
    pub fn token_review(&self, token: &str, audience: &str) -> Option<String> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        });
        let review = self.api.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).expect(201).json();
        review["status"]["user"]["username"].as_str().map(str::to_owned)
    }
}
