//! Finds the issuer of the API server's service account tokens.

use serde::Deserialize;

use super::{Cluster, Error, ErrorKind, optional};

const CALL: &str = "get_openid_configuration";
const PATH: &str = "/.well-known/openid-configuration";

impl Cluster {
    /// The issuer from the discovery document (OpenID Connect Discovery 1.0, section 4). An API server whose issuer is
    /// not an https URL serves no such document; then Daypass takes the issuer from its own token, which the API
    /// server has just accepted.
    ///
    /// # Errors
    /// If neither names an issuer, or the call fails.
    pub(crate) async fn issuer(&self) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Configuration {
            issuer: String,
        }
        let ask = async {
            let request = http::Request::get(PATH).body(Vec::new()).map_err(kube::Error::HttpError)?;
            self.client.request::<Configuration>(request).await
        };
        match optional(self.call(CALL, PATH, ask).await)? {
            Some(answer) => Ok(answer.issuer),
            None => self.own_claims().and_then(|claims| claims.issuer).ok_or_else(|| {
                let why = "the API server names no issuer, and Daypass has no service account token that names one";
                // Not NotFound: that would tell the client that the object it asked for does not exist.
                Error::new(CALL, PATH, ErrorKind::Server, why)
            }),
        }
    }
}
