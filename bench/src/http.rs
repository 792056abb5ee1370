//! A client of the API server, of Daypass or of OpenBao.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_local::ControlPlane;
use reqwest::blocking::{Client, ClientBuilder, RequestBuilder, Response};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Certificate, Identity, Method, StatusCode};
use serde_json::{Value, json};

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a watch may last.
const WATCH_TIMEOUT: Duration = Duration::from_secs(600);

/// A client of one server. It keeps its connections and may be shared by threads.
pub(crate) struct Http {
    client: Client,
    base: String,
    token: Option<String>,
    patch_type: &'static str,
}

impl Http {
    /// The API server, as its administrator.
    pub(crate) fn admin(plane: &ControlPlane) -> Result<Self> {
        let kubeconfig: Value = serde_yaml::from_str(&fs::read_to_string(plane.kubeconfig())?)?;
        let user = &kubeconfig["users"][0]["user"];
        let mut pem = Vec::new();
        for part in ["client-certificate-data", "client-key-data"] {
            pem.extend(STANDARD.decode(user[part].as_str().context(part)?)?);
        }
        let builder = trusting(plane.ca_pem())?.identity(Identity::from_pem(&pem)?);
        Self::new(builder, &plane.server_url(), None, "application/merge-patch+json")
    }

    /// The API server, with a token.
    pub(crate) fn kubernetes(plane: &ControlPlane, token: &str) -> Result<Self> {
        Self::new(trusting(plane.ca_pem())?, &plane.server_url(), Some(token), "application/merge-patch+json")
    }

    /// Daypass, below this URL, with its certificate.
    pub(crate) fn daypass(base: &str, certificate: &str, token: &str) -> Result<Self> {
        Self::new(trusting(certificate)?, base, Some(token), "application/json")
    }

    /// The API server or the gateway, over HTTP/2 like kubectl. Each client has a connection of its own.
    pub(crate) fn kubectl(base: &str, certificate: &str, token: &str) -> Result<Self> {
        Self::new(any_version(certificate)?, base, Some(token), "application/merge-patch+json")
    }

    /// A server without TLS on this machine.
    pub(crate) fn plain(base: &str, token: Option<&str>) -> Result<Self> {
        Self::new(Client::builder().tls_certs_only([]), base, token, "application/json")
    }

    fn new(builder: ClientBuilder, base: &str, token: Option<&str>, patch_type: &'static str) -> Result<Self> {
        let client = builder.no_proxy().timeout(TIMEOUT).build()?;
        Ok(Self { client, base: base.to_owned(), token: token.map(str::to_owned), patch_type })
    }

    fn request(&self, method: &str, path: &str) -> Result<RequestBuilder> {
        Ok(self.client.request(Method::from_bytes(method.as_bytes())?, format!("{}{path}", self.base)))
    }

    fn authenticated(&self, method: &str, path: &str) -> Result<RequestBuilder> {
        let request = self.request(method, path)?;
        Ok(if let Some(token) = &self.token { request.bearer_auth(token) } else { request })
    }

    /// Sends a request, with a body unless it is null, and returns the JSON of a 2xx answer.
    ///
    /// # Errors
    /// When there is another answer or none.
    pub(crate) fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let text = self.text(method, path, body)?;
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or(Value::String(text)) })
    }

    fn text(&self, method: &str, path: &str, body: &Value) -> Result<String> {
        let (status, text) = self.send(method, path, body)?;
        ensure!(status.is_success(), "{method} {path}: {status}: {}", brief(&text));
        Ok(text)
    }

    /// Deletes an object of Kubernetes with exactly this UID, unless it is gone.
    pub(crate) fn delete(&self, path: &str, uid: &str) -> Result<()> {
        let (status, text) = self.send("DELETE", path, &json!({"preconditions": {"uid": uid}}))?;
        ensure!(status.is_success() || status == StatusCode::NOT_FOUND, "DELETE {path}: {status}: {}", brief(&text));
        Ok(())
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Result<(StatusCode, String)> {
        let mut request = self.authenticated(method, path)?;
        if !body.is_null() {
            let content_type = if method == "PATCH" { self.patch_type } else { "application/json" };
            request = request.header(CONTENT_TYPE, content_type).body(body.to_string());
        }
        let response = request.send()?;
        Ok((response.status(), response.text()?))
    }

    /// GET.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        self.call("GET", path, &Value::Null)
    }

    /// GET, without a look at the JSON.
    pub(crate) fn read(&self, path: &str) -> Result<()> {
        self.text("GET", path, &Value::Null).map(drop)
    }

    /// GET with a user name and a password. Returns the status and the text of any answer.
    pub(crate) fn get_as(&self, path: &str, user: &str, password: &str) -> Result<(u16, String)> {
        let response = self.request("GET", path)?.basic_auth(user, Some(password)).send()?;
        Ok((response.status().as_u16(), response.text()?))
    }

    /// Starts a watch: the events come line by line.
    pub(crate) fn watch(&self, path: &str) -> Result<Response> {
        Ok(self.authenticated("GET", path)?.timeout(WATCH_TIMEOUT).send()?.error_for_status()?)
    }
}

fn trusting(certificate: &str) -> Result<ClientBuilder> {
    Ok(any_version(certificate)?.http1_only())
}

fn any_version(certificate: &str) -> Result<ClientBuilder> {
    Ok(Client::builder().tls_certs_only([Certificate::from_pem(certificate.as_bytes())?]))
}

/// The message of an answer in JSON, or its beginning.
fn brief(text: &str) -> String {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    let message = json["message"].as_str().or(json["code"].as_str()).unwrap_or(text);
    message.chars().take(200).collect()
}
