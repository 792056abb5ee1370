//! A client of Daypass's REST API, for the commands.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::request::Builder;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use kube::client::Body;
use kube::{Client, Config};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cluster::pem;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The timeout of one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client for one data plane.
#[derive(Clone)]
pub struct Rest {
    client: Client,
    base: String,
}

/// The credential of a request.
pub enum Authorization<'a> {
    /// A token.
    Bearer(&'a SecretString),
    /// A user name and a password.
    Basic(&'a str, &'a SecretString),
}

/// An answer of Daypass. `Debug` omits the body, which may contain a password or token.
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The path of the created object. Also present in a conflict with an earlier request of this `Idempotency-Key`.
    pub location: Option<String>,
    body: Vec<u8>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, location, body: _ } = self;
        f.debug_struct("Answer").field("status", status).field("location", location).finish_non_exhaustive()
    }
}

impl Rest {
    /// A client for the Daypass at `url`. Its certificate must be from the CA `ca_pem` (by default, from a CA that the
    /// system trusts) and for `tls_server_name` (by default, the host of the URL).
    ///
    /// # Errors
    /// When the URL or the CA is invalid.
    pub fn new(
        url: &url::Url,
        data_plane_id: &str,
        ca_pem: Option<&str>,
        tls_server_name: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut config = Config::new(url.as_str().parse().context("invalid URL of Daypass")?);
        config.root_cert = ca_pem.map(pem::certificates).transpose().context("invalid CA of Daypass")?;
        config.tls_server_name = tls_server_name.map(str::to_owned);
        // kube's retries would send a POST twice.
        config.default_retry = false;
        let client = Client::try_from(config).context("could not set up a client for Daypass")?;
        Ok(Self { client, base: format!("/processing/data-planes/{data_plane_id}") })
    }

    /// Sends a request to a path below the data plane's. Returns the answer, whatever its status.
    ///
    /// # Errors
    /// When there is no answer. Daypass may still have carried out the request.
    pub async fn send(
        &self,
        who: &Authorization<'_>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        self.send_request(self.request(who, method, path)?, body).await
    }

    /// Sends a POST that is safe to repeat: Daypass carries out only one request with this `Idempotency-Key`.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn post_once(
        &self,
        who: &Authorization<'_>,
        path: &str,
        body: &Value,
        key: &str,
    ) -> anyhow::Result<Answer> {
        let request = self.request(who, Method::POST, path)?.header(IDEMPOTENCY_KEY, key);
        self.send_request(request, Some(body)).await
    }

    fn request(&self, who: &Authorization<'_>, method: Method, path: &str) -> anyhow::Result<Builder> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        Ok(request.header(AUTHORIZATION, who.header()?))
    }

    async fn send_request(&self, mut request: Builder, body: Option<&Value>) -> anyhow::Result<Answer> {
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Body::from(body.map(serde_json::to_vec).transpose()?.unwrap_or_default()))?;
        let answered = async {
            let (head, body) = self.client.send(request).await?.into_parts();
            let location = head.headers.get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
            anyhow::Ok(Answer { status: head.status, location, body: body.collect_bytes().await?.to_vec() })
        };
        let answered = tokio::time::timeout(TIMEOUT, answered).await.context("Daypass did not answer in time")?;
        answered.context("could not reach Daypass")
    }
}

impl Authorization<'_> {
    fn header(&self) -> anyhow::Result<HeaderValue> {
        let text = match self {
            Self::Bearer(token) => format!("Bearer {}", token.expose_secret()),
            Self::Basic(username, password) => {
                format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.expose_secret())))
            }
        };
        let mut value =
            HeaderValue::from_str(&text).ok().context("the credential contains characters that a header cannot")?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl Answer {
    /// Returns this answer if it has this status.
    ///
    /// # Errors
    /// [`Self::refusal`] if it has another.
    pub fn expect(self, status: StatusCode) -> anyhow::Result<Self> {
        if self.status == status { Ok(self) } else { Err(self.refusal()) }
    }

    /// An error with the status, and the code and detail of a problem (RFC 9457). Omits any other body, which may
    /// contain a secret.
    pub fn refusal(&self) -> anyhow::Error {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Shown {
            code: String,
            detail: String,
        }
        let shown: Shown = if self.status.is_success() { Shown::default() } else { self.json().unwrap_or_default() };
        let words = [self.status.as_str(), &shown.code, &shown.detail];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        anyhow::anyhow!("Daypass answered {}", words.join(" "))
    }

    /// Decodes the body.
    ///
    /// # Errors
    /// When the body is not of this type. Omits the decoder's message, which could quote a secret.
    pub fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body).ok().context("could not read Daypass's answer")
    }

    /// The raw body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_shows_a_problem_and_no_other_body() {
        let refusal = |status, body: &str| {
            let answer = Answer { status, location: None, body: body.as_bytes().to_vec() };
            assert!(!format!("{answer:?}").contains("body"), "{answer:?}");
            answer.refusal().to_string()
        };
        let problem = r#"{"code":"DP_ERR_VALIDATION","detail":"no such role"}"#;
        assert_eq!(refusal(StatusCode::BAD_REQUEST, problem), "Daypass answered 400 DP_ERR_VALIDATION no such role");
        assert_eq!(
            refusal(StatusCode::CONFLICT, r#"{"code":"DP_ERR_CONFLICT"}"#),
            "Daypass answered 409 DP_ERR_CONFLICT"
        );
        assert_eq!(refusal(StatusCode::OK, r#"{"detail":"secret"}"#), "Daypass answered 200");
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, "<html>secret"), "Daypass answered 502");
    }
}
