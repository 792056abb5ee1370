//! Checks at start whether the API server answers at the address in direct kubeconfigs.

use std::time::Duration;

use anyhow::Context as _;
use kube::{Client, Config};

use crate::api::DirectSettings;
use crate::cluster::pem;

/// How long the API server may take to answer at its public address.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Calls the API server at its public address, as kubectl would with a kubeconfig. Only warns when that fails: the
/// address may be right and still not be reachable from inside the cluster.
///
/// # Errors
/// When the address, the proxy's URL or the CA is invalid.
pub(super) async fn probe(target: DirectSettings) -> anyhow::Result<()> {
    let inside = |host: &str| {
        host == "kubernetes" || [".svc", ".default", ".cluster.local"].iter().any(|end| host.ends_with(end))
    };
    let url: http::Uri = target.server.parse().context("invalid public address of the API server")?;
    if url.host().is_some_and(inside) {
        tracing::warn!(
            server = target.server,
            "the public address of the API server points into the cluster: kubeconfigs will not work outside"
        );
    }
    let mut config = Config::new(url);
    config.root_cert = Some(pem::certificates(&target.ca_certificate)?);
    config.tls_server_name.clone_from(&target.tls_server_name);
    config.proxy_url = target.proxy_url.as_deref().map(str::parse).transpose().context("invalid proxy URL")?;
    config.default_retry = false;
    let client = Client::try_from(config).context("could not set up a client for the API server's public address")?;
    let request = http::Request::get("/version").body(Vec::new())?;
    match tokio::time::timeout(TIMEOUT, client.request_text(request)).await {
        // An error status is an answer too: the address and the CA are right.
        Ok(Ok(_) | Err(kube::Error::Api(_))) => {
            tracing::info!(server = target.server, "the API server answers at its public address")
        }
        Ok(Err(error)) => {
            tracing::warn!(server = target.server, %error, "the API server cannot be reached at its public address")
        }
        Err(_) => tracing::warn!(server = target.server, "the API server does not answer at its public address"),
    }
    Ok(())
}
