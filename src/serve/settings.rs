//! Turns the options of `daypass serve` into settings for its parts.

use std::fs;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::Config;

use crate::access_tokens::IdentityConfig;
use crate::api::{KubeconfigSettings, Settings};
use crate::authn::Methods;
use crate::cli::{AuthMethod, ServeArgs};
use crate::cluster::{Cluster, pem};

/// The REST API's settings. `certificate` is the one that it serves with, PEM.
///
/// # Errors
/// When a CA file cannot be read.
pub(super) fn api_settings(
    args: &ServeArgs,
    kubeconfig: KubeconfigSettings,
    certificate: &str,
) -> anyhow::Result<Settings> {
    Ok(Settings {
        data_plane_id: args.data_plane_id.clone(),
        public_url: args.public_url.as_str().trim_end_matches('/').to_owned(),
        kubeconfig,
        ca_certificate: ca_certificate(args, certificate)?,
        trusted_proxies: args.trusted_proxies.clone(),
    })
}

/// How callers may authenticate.
pub(super) fn methods(args: &ServeArgs) -> Methods {
    Methods {
        token_audience: args.token_audience.clone(),
        accept_api_server_audience: args.accept_api_server_audience,
        kubernetes_tokens: args.auth_methods.contains(&AuthMethod::Kubernetes),
        access_tokens: args.auth_methods.contains(&AuthMethod::AccessToken),
    }
}

/// The CA that credentials carry; `None` if callers trust the certificate already.
fn ca_certificate(args: &ServeArgs, certificate: &str) -> anyhow::Result<Option<String>> {
    let file = if args.tls_at_proxy { &args.proxy_ca_file } else { &args.tls_ca_file };
    Ok(match file {
        Some(file) => Some(fs::read_to_string(file).with_context(|| file.display().to_string())?),
        // Assume that a configured certificate, or a proxy's, is publicly trusted if no CA is configured.
        None if args.tls_at_proxy || args.tls_cert_file.is_some() => None,
        None => Some(certificate.to_owned()),
    })
}

/// Rejects a token audience that the API server accepts as well: anybody who receives a caller's token, Daypass
/// included, could use it against the cluster. Daypass's own token lists all audiences of the API server, since it was
/// requested without one.
///
/// # Errors
/// When the audience is the API server's, unless an option allows that.
pub(super) fn check_audience(args: &ServeArgs, cluster: &Cluster) -> anyhow::Result<()> {
    let own = cluster.own_claims().map(|claims| claims.audiences).unwrap_or_default();
    if args.accept_api_server_audience || !own.contains(&args.token_audience) {
        return Ok(());
    }
    bail!(
        "--token-audience {} is an audience of the API server itself: anybody who receives a caller's token could use \
         it against the cluster. Choose another audience, or accept the risk with --accept-api-server-audience",
        args.token_audience
    );
}

/// The options that determine who an access token's owner is. The API server determines the rest.
pub(super) fn identity_config(args: &ServeArgs) -> IdentityConfig {
    IdentityConfig {
        data_plane_id: args.data_plane_id.clone(),
        token_audience: args.token_audience.clone(),
        accept_api_server_audience: args.accept_api_server_audience,
    }
}

/// The settings for kubeconfigs.
///
/// # Errors
/// When the CA is not base64 of PEM, or holds no certificate.
pub(super) fn kubeconfig_settings(args: &ServeArgs, config: &Config) -> anyhow::Result<KubeconfigSettings> {
    let ca_certificate = match &args.data_plane_ca_data {
        Some(data) => {
            let pem = STANDARD.decode(data.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            pem.context("--data-plane-ca-data is not base64 of PEM")?
        }
        None => pem::to_pem(config.root_cert.as_deref().unwrap_or_default()),
    };
    pem::certificates(&ca_certificate).context("invalid CA for kubeconfigs")?;
    Ok(KubeconfigSettings {
        server: args.data_plane_server.as_str().trim_end_matches('/').to_owned(),
        ca_certificate,
        tls_server_name: args.data_plane_tls_server_name.clone(),
        proxy_url: args.data_plane_proxy_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()),
    })
}
