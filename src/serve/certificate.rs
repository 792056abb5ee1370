//! Loads the API's certificate at start, and reloads it while the API runs.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::tls;
use crate::cli::ServeArgs;
use crate::clock::Clock;
use crate::cluster::{Cluster, KeyPair};
use crate::observability::metrics::Metrics;

/// How often the certificate's files are read.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);
/// The delay between two attempts to get the shared pair.
const RETRY: Duration = Duration::from_secs(2);

/// Watches the certificate's files and serves with a renewed certificate. cert-manager and the kubelet only write the
/// files; they send no signal.
pub(super) async fn watch_cert_files(
    tls: &watch::Sender<Arc<ServerConfig>>,
    files: Option<(PathBuf, PathBuf)>,
    mut served: String,
    metrics: &Metrics,
) -> Infallible {
    let Some((certificate_file, key_file)) = files else { std::future::pending().await };
    loop {
        tokio::time::sleep(RELOAD_INTERVAL).await;
        let (Ok(certificate), Ok(key)) = (fs::read_to_string(&certificate_file), fs::read(&key_file)) else {
            tracing::warn!("the certificate's files cannot be read; still serving with the previous certificate");
            continue;
        };
        if certificate == served {
            continue;
        }
        // A read between the writes of the two files yields a pair that does not match. The next read fixes that.
        match tls::server_config(&certificate, &key) {
            Ok(config) => {
                tls.send_replace(config);
                tracing::info!("serving with the renewed certificate");
                if let Ok(leaf) = tls::leaf(&certificate) {
                    show_expiry(metrics, &leaf);
                }
                served = certificate;
            }
            Err(error) => {
                tracing::warn!(%error, "the renewed certificate cannot be used; still serving with the previous one");
            }
        }
    }
}

pub(super) fn show_expiry(metrics: &Metrics, certificate: &CertificateDer<'_>) {
    match tls::not_after(certificate) {
        Ok(end) => {
            metrics.certificate_expiry.set(end.timestamp());
        }
        Err(error) => tracing::warn!(%error, "the certificate's expiry is unknown"),
    }
}

/// The hosts of the public URLs, as a certificate names them: without the brackets of an IPv6 address.
pub(super) fn public_hosts(args: &ServeArgs) -> Vec<String> {
    let urls = std::iter::once(&args.public_url).chain(&args.gateway_public_url);
    urls.map(|url| url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned()).collect()
}

/// Loads the configured certificate and key, or the self-signed pair that all replicas share. Retries the shared pair
/// until the Kubernetes API has answered.
///
/// # Errors
/// When a configured file cannot be read.
pub(super) async fn key_pair(args: &ServeArgs, cluster: &Cluster, clock: &Clock) -> anyhow::Result<KeyPair> {
    if let (Some(certificate), Some(key)) = (&args.tls_cert_file, &args.tls_key_file) {
        let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("{}", path.display()));
        return Ok(KeyPair { certificate: read(certificate)?, key: read(key)?.into() });
    }
    let mut names = public_hosts(args);
    let more: Vec<String> = args.tls_dns_name.iter().filter(|name| !names.contains(name)).cloned().collect();
    names.extend(more);
    loop {
        let pair = cluster.shared_key_pair(|| tls::self_signed(&names, clock.now())).await;
        match pair {
            Ok(pair) => return Ok(pair),
            Err(error) => tracing::warn!(%error, "could not get a certificate; retrying"),
        }
        tokio::time::sleep(RETRY).await;
    }
}
