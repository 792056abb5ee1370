//! Checks at start whether the API server answers at the address that kubeconfigs name.

use std::time::Duration;

use anyhow::Context as _;
use kube::{Client, Config};

use crate::api::KubeconfigSettings;
use crate::cluster::pem;

/// How long the API server may take to answer at its public address.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the API server at its public address, as a kubeconfig would. From inside a cluster that can fail although the address is
/// right, so it only warns.
pub(super) async fn probe(target: KubeconfigSettings) -> anyhow::Result<()> {
    let inside = |host: &str| {
        host == "kubernetes" || [".svc", ".default", ".cluster.local"].iter().any(|end| host.ends_with(end))
    };
    let url: http::Uri = target.server.parse().context("the public address of the API server")?;
    if url.host().is_some_and(inside) {
        tracing::warn!(
            server = target.server,
            "the public address of the API server points into the cluster: kubeconfigs are useless outside"
        );
    }
    let mut config = Config::new(url);
    config.root_cert = Some(pem::certificates(&target.ca_certificate)?);
    config.tls_server_name.clone_from(&target.tls_server_name);
    config.proxy_url = target.proxy_url.as_deref().map(str::parse).transpose().context("the proxy's URL")?;
    config.default_retry = false;
    let client = Client::try_from(config).context("the public address of the API server")?;
    let request = http::Request::get("/version").body(Vec::new())?;
    match tokio::time::timeout(TIMEOUT, client.request_text(request)).await {
        // A refusal is an answer too: the address and the CA are right.
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
