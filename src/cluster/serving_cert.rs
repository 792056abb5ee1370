//! The self-signed pair that Daypass serves with when it is given none: one Secret, shared by all replicas.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use secrecy::{ExposeSecret as _, SecretString};

use super::{Cluster, Error, ErrorKind, optional};

/// The Secret: Daypass has rights on no other.
const NAME: &str = "daypass-tls";

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// The certificate, its chain behind it.
    pub certificate: String,
    /// The private key.
    pub key: SecretString,
}

impl Cluster {
    /// The pair of the Secret; made by `make` and stored where there is none. Of several replicas that make one at the
    /// same time, the first wins and the others use its pair.
    pub async fn shared_key_pair(&self, make: impl Fn() -> Result<KeyPair, String>) -> Result<KeyPair, Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        if let Some(secret) = optional(self.call("get_tls_secret", NAME, api.get(NAME)).await)? {
            return read(secret);
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
        match self.call("create_tls_secret", NAME, api.create(&PostParams::default(), &secret)).await {
            Ok(_) => Ok(pair),
            Err(error) if error.kind == ErrorKind::AlreadyExists => {
                read(self.call("get_tls_secret", NAME, api.get(NAME)).await?)
            }
            Err(error) => Err(error),
        }
    }
}

fn read(secret: Secret) -> Result<KeyPair, Error> {
    let mut data = secret.data.unwrap_or_default();
    let mut text = |key: &str| data.remove(key).and_then(|bytes| String::from_utf8(bytes.0).ok());
    match (text("tls.crt"), text("tls.key")) {
        (Some(certificate), Some(key)) => Ok(KeyPair { certificate, key: key.into() }),
        _ => Err(Error::new("get_tls_secret", NAME, ErrorKind::UnreadableAnswer, "it has no tls.crt and tls.key")),
    }
}
