//! The REST API's client.

use std::time::Duration;

use reqwest::Method;
use reqwest::blocking::{Client, RequestBuilder};
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::DEADLINE;

/// How long a client uses an idle connection. It opens some that it never needs, which a server closes after ten
/// seconds: a request sent just then is lost.
pub const IDLE: Duration = Duration::from_secs(5);

fn client(ca_pem: &str, idle: Option<Duration>) -> Client {
    let certificate = reqwest::Certificate::from_pem(ca_pem.as_bytes()).unwrap();
    // The timeout is longer than any request on a slow machine. HTTP/2 has tests of its own.
    let client = Client::builder().tls_certs_only([certificate]).timeout(DEADLINE).pool_idle_timeout(idle);
    client.http1_only().build().unwrap()
}

/// A client of one Daypass.
#[derive(Clone)]
pub struct Http {
    client: Client,
    base: String,
    token: Option<String>,
    basic: Option<(String, String)>,
}

/// The answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Http {
    /// For a data plane's base URL. Trusts only this certificate and sends no credentials.
    pub fn new(base: &str, ca_pem: &str) -> Self {
        Self { client: client(ca_pem, Some(IDLE)), base: base.to_owned(), token: None, basic: None }
    }

    /// The same client with new connections, which it keeps.
    pub fn keeping_connections(&self, ca_pem: &str) -> Self {
        Self { client: client(ca_pem, None), ..self.clone() }
    }

    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), basic: None, ..self.clone() }
    }

    pub fn with_basic(&self, username: &str, password: &str) -> Self {
        Self { token: None, basic: Some((username.to_owned(), password.to_owned())), ..self.clone() }
    }

    /// The same client with new connections.
    pub fn reconnected(&self, ca_pem: &str) -> Self {
        Self { client: client(ca_pem, Some(IDLE)), ..self.clone() }
    }

    /// The data plane's URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Its token.
    pub fn token(&self) -> &str {
        self.token.as_deref().unwrap()
    }

    pub fn anonymous(&self) -> Self {
        Self { token: None, basic: None, ..self.clone() }
    }

    /// A request to a path below the base, or to a whole URL.
    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let url = if path.starts_with("https:") { path.to_owned() } else { format!("{}{path}", self.base) };
        let request = self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), url);
        match (&self.token, &self.basic) {
            (Some(token), _) => request.bearer_auth(token),
            (None, Some((username, password))) => request.basic_auth(username, Some(password)),
            (None, None) => request,
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        Answer::of(self.request("GET", path))
    }

    pub fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request("DELETE", path))
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request("POST", path).json(body))
    }

    pub fn patch(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request("PATCH", path).json(body))
    }
}

impl Answer {
    pub fn of(request: RequestBuilder) -> Self {
        Self::try_of(request).unwrap()
    }

    /// Sends a request. Fails when the connection breaks.
    pub fn try_of(request: RequestBuilder) -> reqwest::Result<Self> {
        let response = request.send()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Self { status, headers, text: response.text()? })
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Panics with the body unless this is the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// Checks that this is a complete problem document (RFC 9457) with this status and code.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!((&body["code"], &body["status"]), (&code.into(), &status.into()), "{body}");
        for field in ["type", "title", "detail", "instance", "requestId"] {
            assert!(body[field].is_string(), "{field} in {body}");
        }
        assert_eq!(body["requestId"], self.header("x-request-id"));
        body
    }

    /// Checks that this is a 400 that names this field.
    #[track_caller]
    pub fn assert_invalid_field(&self, field: &str) {
        let body = self.problem(400, "DP_ERR_VALIDATION");
        assert_eq!(body["errors"][0]["field"], field, "{body}");
        assert!(!body["errors"][0]["message"].as_str().unwrap().is_empty());
    }
}
