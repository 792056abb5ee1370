//! A client of Daypass's own REST API, for the commands that use it.

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

/// Of one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// One data plane's Daypass.
#[derive(Clone)]
pub struct Rest {
    client: Client,
    base: String,
}

/// Who asks.
pub enum Authorization<'a> {
    /// Somebody with a token.
    Bearer(&'a SecretString),
    /// Somebody with a user name and a password.
    Basic(&'a str, &'a SecretString),
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Where the thing is that was made, by this request or by an earlier one of its `Idempotency-Key`.
    pub location: Option<String>,
    body: Vec<u8>,
}

impl Rest {
    /// The Daypass at this URL, whose certificate is checked against this CA (PEM), or those of the system, and against this name where it is
    /// not the URL's host.
    ///
    /// # Errors
    /// When the URL or the CA cannot be used.
    pub fn new(
        url: &url::Url,
        data_plane_id: &str,
        ca_pem: Option<&str>,
        tls_server_name: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut config = Config::new(url.as_str().parse().context("the URL of Daypass")?);
        config.root_cert = ca_pem.map(pem::certificates).transpose().context("the CA of Daypass")?;
        config.tls_server_name = tls_server_name.map(str::to_owned);
        // kube's retries would send a POST twice.
        config.default_retry = false;
        let client = Client::try_from(config).context("the client of Daypass")?;
        Ok(Self { client, base: format!("/processing/data-planes/{data_plane_id}") })
    }

    /// Sends a request to a path below the data plane's.
    ///
    /// # Errors
    /// When there is no answer. Any answer is one, a refusal too. Whether the request was carried out is not known
    /// then.
    pub async fn send(
        &self,
        who: &Authorization<'_>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        self.send_request(self.request(who, method, path)?, body).await
    }

    /// Sends a POST that can be repeated: of all with this `Idempotency-Key` one is carried out.
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
        let answered = tokio::time::timeout(TIMEOUT, answered).await.context("Daypass does not answer")?;
        answered.context("Daypass cannot be reached")
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
        let mut value = HeaderValue::from_str(&text).ok().context("the credential is not a header's value")?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl Answer {
    /// This answer, if its status is the one that is wanted.
    ///
    /// # Errors
    /// What the problem says, where it is another.
    pub fn expect(self, status: StatusCode) -> anyhow::Result<Self> {
        if self.status == status { Ok(self) } else { Err(self.refusal()) }
    }

    /// What a problem (RFC 9457) says. Any other body may hold a secret and is not shown.
    pub fn refusal(&self) -> anyhow::Error {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Shown {
            code: String,
            detail: String,
        }
        let shown: Shown = if self.status.is_success() { Shown::default() } else { self.json().unwrap_or_default() };
        anyhow::anyhow!("Daypass answers {} {} {}", self.status.as_u16(), shown.code, shown.detail)
    }

    /// The body.
    ///
    /// # Errors
    /// When it is not what is wanted. Not the decoder's text, which could quote a secret.
    pub fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body).ok().context("the answer of Daypass cannot be read")
    }

    /// The body as it is.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_shows_a_problem_and_no_other_body() {
        let answer = |status, body: &str| {
            Answer { status, location: None, body: body.as_bytes().to_vec() }.refusal().to_string()
        };
        let problem = r#"{"code":"DP_ERR_VALIDATION","detail":"no such role"}"#;
        assert_eq!(answer(StatusCode::BAD_REQUEST, problem), "Daypass answers 400 DP_ERR_VALIDATION no such role");
        assert_eq!(answer(StatusCode::OK, r#"{"detail":"secret"}"#), "Daypass answers 200  ");
        assert_eq!(answer(StatusCode::BAD_GATEWAY, "<html>secret"), "Daypass answers 502  ");
    }
}
