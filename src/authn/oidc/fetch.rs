//! Fetches what an issuer publishes: its discovery document (OpenID Connect Discovery 1.0, section 4), then its key
//! set.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::body::Bytes;
use http::{Request, StatusCode};
use kube::client::Body;
use kube::{Client, Config};
use serde_json::Value;
use url::Url;

use super::endpoints::Endpoints;
use super::held_keys::Published;
use super::{Issuer, Keys};
use crate::cluster::pem;

/// How long both answers may take together.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer, in bytes. Entra ID's key set has 20 KiB.
const MAX_ANSWER: usize = 512 * 1024;

/// Fetches the keys over HTTPS, as the issuer's discovery document says. Redirects are not followed.
///
/// # Errors
/// What is wrong with the issuer, its CA or its answers.
pub(super) async fn fetch(issuer: &Issuer) -> anyhow::Result<Published> {
    tokio::time::timeout(TIMEOUT, fetch_both(issuer)).await.context("it took too long to answer")?
}

async fn fetch_both(issuer: &Issuer) -> anyhow::Result<Published> {
    let roots = roots(issuer)?;
    let discovery = get(&issuer.discovery_url, &roots).await.context("its discovery document")?;
    let named = discovery.get("issuer").and_then(Value::as_str).unwrap_or_default();
    ensure!(named == issuer.url, "its discovery document is of another issuer: {}", beginning(named));
    let keys = discovery.get("jwks_uri").and_then(Value::as_str).context("its discovery document has no jwks_uri")?;
    let algorithms = discovery.get("id_token_signing_alg_values_supported").and_then(Value::as_array);
    let algorithms = algorithms.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned()));
    let set = get(keys, &roots).await.context("its key set")?;
    let (keys, unusable) = Keys::read(&set, &algorithms.collect::<Vec<_>>()).context("its key set")?;
    for why in unusable {
        tracing::debug!(issuer = issuer.name, %why, "a key of an issuer is not used");
    }
    let endpoints = Endpoints::read(&discovery);
    if let (Err(why), Some(_)) = (&endpoints, &issuer.console) {
        tracing::warn!(issuer = issuer.name, why, "nobody can sign in to the console with this issuer");
    }
    Ok(Published { keys, endpoints: endpoints.ok() })
}

/// The beginning of a text of somebody else's, for a log.
fn beginning(text: &str) -> String {
    text.chars().take(200).collect()
}

/// The CAs to trust. The file is read each time: a renewed CA needs no restart.
pub(super) fn roots(issuer: &Issuer) -> anyhow::Result<Vec<Vec<u8>>> {
    let Some(file) = &issuer.ca_file else {
        return Ok(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|root| root.to_vec()).collect());
    };
    let text = fs::read_to_string(file).with_context(|| format!("the CA file {}", file.display()))?;
    pem::certificates(&text).with_context(|| format!("the CA file {}", file.display()))
}

/// Gets a JSON document.
async fn get(url: &str, roots: &[Vec<u8>]) -> anyhow::Result<Value> {
    let request = Request::get("/").header("accept", "application/json");
    let (status, body) = send(&Url::parse(url).context("its URL")?, roots, request, Vec::new()).await?;
    ensure!(status == StatusCode::OK, "it answered {status}");
    serde_json::from_slice(&body).context("its answer is no JSON")
}

/// Sends a request to this URL, whatever its own says, and reads the whole answer. kube's client is at hand: it checks
/// certificates, follows no redirect, and reads no proxy from the environment.
///
/// # Errors
/// What is wrong with the URL, the issuer or its answer.
pub(super) async fn send(
    url: &Url,
    roots: &[Vec<u8>],
    request: http::request::Builder,
    body: Vec<u8>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let mut url = url.clone();
    ensure!(url.scheme() == "https" && url.has_host(), "its URL is not https");
    url.set_fragment(None);
    let target = url[url::Position::BeforePath..].to_owned();
    url.set_path("");
    url.set_query(None);
    let mut config = Config::new(url.as_str().parse().context("its URL")?);
    config.root_cert = Some(roots.to_vec());
    config.default_retry = false;
    let client = Client::try_from(config)?;
    let answer = client.send(request.uri(target).body(Body::from(body))?).await?;
    let status = answer.status();
    let body = axum::body::to_bytes(axum::body::Body::new(answer.into_body()), MAX_ANSWER).await;
    Ok((status, body.context("its answer was cut off, or is too large")?))
}
