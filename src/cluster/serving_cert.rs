//! Stores the self-signed serving certificate in a Secret that all replicas share.
//!
//! Only installations without a certificate of their own use it.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use secrecy::{ExposeSecret as _, SecretString};

use super::objects::{Objects, decode};
use super::{Cluster, Error, ErrorKind};
use crate::crd::Object;

/// The Secret's name. Daypass has rights on no other Secret in its namespace.
const NAME: &str = "daypass-tls";

/// A certificate and its private key, in PEM.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// The certificate, followed by its chain.
    pub certificate: String,
    /// The private key.
    pub key: SecretString,
}

impl Cluster {
    /// Reads the key pair from the Secret. If there is no Secret, creates a pair with `make` and stores it; if several
    /// replicas do so at the same time, the first one wins and the others use its pair.
    ///
    /// # Errors
    /// If `make` or a call fails, or the Secret has no certificate and key.
    pub async fn shared_key_pair(&self, make: impl Fn() -> Result<KeyPair, String>) -> Result<KeyPair, Error> {
        if let Some(secret) = self.tls_secrets().get("get_tls_secret", NAME, NAME).await? {
            return read(&secret);
        }
        let pair = make().map_err(|why| Error::new("make_tls_secret", NAME, ErrorKind::Invalid, &why))?;
        let data = [("tls.crt", pair.certificate.as_bytes()), ("tls.key", pair.key.expose_secret().as_bytes())];
        let owner_references = self.own_account().await.map(|owner| vec![owner]);
        let secret = Secret {
            metadata: ObjectMeta { name: Some(NAME.to_owned()), owner_references, ..ObjectMeta::default() },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data.map(|(key, value)| (key.to_owned(), ByteString(value.to_vec()))).into()),
            ..Secret::default()
        };
        match self.tls_secrets().create("create_tls_secret", NAME, &secret).await {
            Ok(_) => Ok(pair),
            Err(error) if error.kind == ErrorKind::AlreadyExists => {
                let made = self.tls_secrets().get("get_tls_secret", NAME, NAME).await?;
                read(&made.ok_or(error)?)
            }
            Err(error) => Err(error),
        }
    }

    fn tls_secrets(&self) -> Objects<'_> {
        self.objects::<Secret>(Some(&self.namespace))
    }
}

fn read(secret: &Object) -> Result<KeyPair, Error> {
    let secret: Secret = decode("get_tls_secret", NAME, secret)?;
    let mut data = secret.data.unwrap_or_default();
    let mut text = |key: &str| data.remove(key).and_then(|bytes| String::from_utf8(bytes.0).ok());
    match (text("tls.crt"), text("tls.key")) {
        (Some(certificate), Some(key)) => Ok(KeyPair { certificate, key: key.into() }),
        _ => Err(Error::new("get_tls_secret", NAME, ErrorKind::UnreadableAnswer, "tls.crt or tls.key is missing")),
    }
}
