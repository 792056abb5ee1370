//! The certificate that the API serves with: found at start, and replaced while it runs.

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

/// How often the files of a given certificate are read.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);
/// Between two tries to get the shared pair while the API server does not answer.
const RETRY: Duration = Duration::from_secs(2);

/// Serves with the certificate that is in the files now: whoever renews it (cert-manager, the kubelet) only writes them.
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
            tracing::warn!("the certificate's files cannot be read; the last one is served on");
            continue;
        };
        if certificate == served {
            continue;
        }
        // The two files may have been read between their writes; then they do not fit yet, and do at the next look.
        match tls::server_config(&certificate, &key) {
            Ok(config) => {
                tls.send_replace(config);
                tracing::info!("serving with the renewed certificate");
                if let Ok(leaf) = tls::leaf(&certificate) {
                    show_expiry(metrics, &leaf);
                }
                served = certificate;
            }
            Err(error) => tracing::warn!(%error, "the renewed certificate cannot be used; the last one is served on"),
        }
    }
}

pub(super) fn show_expiry(metrics: &Metrics, certificate: &CertificateDer<'_>) {
    match tls::not_after(certificate) {
        Ok(end) => {
            metrics.certificate_expiry.set(end.timestamp());
        }
        Err(error) => tracing::warn!(%error, "when the certificate ends is not known"),
    }
}

/// The given certificate and key, or the self-signed pair that all replicas share.
pub(super) async fn key_pair(args: &ServeArgs, cluster: &Cluster, clock: &Clock) -> anyhow::Result<KeyPair> {
    if let (Some(certificate), Some(key)) = (&args.tls_cert_file, &args.tls_key_file) {
        let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("{}", path.display()));
        return Ok(KeyPair { certificate: read(certificate)?, key: read(key)?.into() });
    }
    let host = args.public_url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let mut names = vec![host.to_owned()];
    names.extend(args.tls_dns_name.iter().filter(|name| *name != host).cloned());
    loop {
        let pair = cluster.shared_key_pair(|| tls::self_signed(&names, clock.now())).await;
        match pair {
            Ok(pair) => return Ok(pair),
            Err(error) => tracing::warn!(%error, "no certificate to serve with yet; it is tried again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}
