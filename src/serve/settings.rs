//! Turns the options of `daypass serve` into settings for its parts.

use std::fs;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::Config;

use super::tls;
use crate::access_tokens::IdentityConfig;
use crate::api::{DirectSettings, Kubeconfigs, Settings};
use crate::authn::Methods;
use crate::authn::oidc::{Issuers, People};
use crate::cli::{AuditedRequests, AuthMethod, KubeconfigMode, ServeArgs};
use crate::cluster::{Cluster, pem};
use crate::gateway;
use crate::gateway::limits::{Limits, Places};

/// The REST API's settings. `certificate` is the one that it serves with, PEM.
///
/// # Errors
/// When a CA file cannot be read.
pub(super) fn api_settings(args: &ServeArgs, kubeconfigs: Kubeconfigs, certificate: &str) -> anyhow::Result<Settings> {
    let base = |url: &url::Url| url.as_str().trim_end_matches('/').to_owned();
    Ok(Settings {
        data_plane_id: args.data_plane_id.clone(),
        public_url: base(&args.public_url),
        gateway_public_url: args.gateway_public_url.as_ref().map(base),
        kubeconfigs,
        ca_certificate: ca_certificate(args, certificate)?,
        trusted_proxies: args.trusted_proxies.clone(),
        console: has_console(args),
        fingerprint: is_self_signed(args)
            .then(|| tls::leaf(certificate).map(|leaf| tls::fingerprint(&leaf)))
            .transpose()?,
    })
}

/// Whether the console is served. The cookie needs the whole host (`__Host-`), so there is none below a path.
fn has_console(args: &ServeArgs) -> bool {
    let has_path = args.public_url.path() != "/";
    if args.console && has_path {
        tracing::warn!("the web console is off: the public URL has a path, and the console needs the whole host");
    }
    args.console && !has_path
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
        None => is_self_signed(args).then(|| certificate.to_owned()),
    })
}

/// Whether Daypass made its certificate itself. Assume that another one, or a proxy's, is publicly trusted if no CA is
/// configured.
fn is_self_signed(args: &ServeArgs) -> bool {
    !args.tls_at_proxy && args.tls_cert_file.is_none()
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

/// The issuers whose ID tokens are accepted; none unless people may authenticate by them.
///
/// # Errors
/// When the method and the file do not go together, the file cannot be read, or it breaks a rule.
pub(super) fn issuers(args: &ServeArgs) -> anyhow::Result<Issuers> {
    let is_on = args.auth_methods.contains(&AuthMethod::Oidc);
    let file = match &args.oidc_issuers_file {
        Some(file) if is_on => file,
        None if is_on => bail!("--auth-methods oidc needs --oidc-issuers-file"),
        _ => return Ok(Issuers::default()),
    };
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let list = serde_yaml::from_str(&text).with_context(|| file.display().to_string())?;
    let issuers = Issuers::read(&list)?;
    if issuers.is_empty() {
        bail!("--auth-methods oidc needs at least one issuer in {}", file.display());
    }
    for (name, client) in issuers.iter().filter_map(|issuer| Some((&issuer.name, issuer.console.as_ref()?))) {
        client.secret().with_context(|| format!("oidc.issuers: {name}"))?;
    }
    Ok(issuers)
}

/// Refuses the API server's own issuer: its tokens are those of service accounts, which TokenReview checks, whether
/// they still exist included.
///
/// # Errors
/// When it is among the issuers, or the API server does not say which it is.
pub(super) async fn check_issuers(people: &People, cluster: &Cluster) -> anyhow::Result<()> {
    if people.is_empty() {
        return Ok(());
    }
    let own = match cluster.own_claims().and_then(|claims| claims.issuer) {
        Some(own) => own,
        None => cluster.issuer().await.context("could not find out the API server's own issuer")?,
    };
    if let Some(issuer) = people.issuer(&own) {
        bail!("oidc.issuers: {} is the API server's own issuer of service account tokens ({own})", issuer.name);
    }
    Ok(())
}

/// The options that determine who an access token's owner is. The API server determines the rest.
pub(super) fn identity_config(args: &ServeArgs, issuers: &Issuers) -> IdentityConfig {
    IdentityConfig {
        data_plane_id: args.data_plane_id.clone(),
        token_audience: args.token_audience.clone(),
        accept_api_server_audience: args.accept_api_server_audience,
        issuers: issuers.iter().map(|issuer| (issuer.url.clone(), issuer.mapping.clone())).collect(),
    }
}

/// The gateway's settings.
///
/// # Errors
/// When its own host is the public URL's: nothing else would be left there.
pub(super) fn gateway_settings(args: &ServeArgs) -> anyhow::Result<gateway::Settings> {
    let it = &args.gateway;
    let own_host = args.gateway_public_url.as_ref().and_then(url::Url::host_str);
    if own_host.is_some() && own_host == args.public_url.host_str() {
        bail!("--gateway-public-url needs another host than --public-url: the gateway answers everything there");
    }
    Ok(gateway::Settings {
        data_plane_id: args.data_plane_id.clone(),
        public_path: args.public_url.path().to_owned(),
        own_host: own_host.map(str::to_owned),
        trusted_proxies: args.trusted_proxies.clone(),
        max_staleness: it.max_staleness(),
        limits: Limits {
            member: Places { requests: it.gateway_member_requests, streams: it.gateway_member_streams },
            total: Places { requests: it.gateway_requests, streams: it.gateway_streams },
        },
        audit: match it.gateway_audit {
            AuditedRequests::None => gateway::Audited::Streams,
            AuditedRequests::Writes => gateway::Audited::Writes,
            AuditedRequests::All => gateway::Audited::All,
        },
    })
}

/// Which kubeconfigs members get.
///
/// # Errors
/// When direct kubeconfigs lack the API server's URL, or their CA is not base64 of PEM or holds no certificate.
pub(super) fn kubeconfigs(args: &ServeArgs, config: &Config) -> anyhow::Result<Kubeconfigs> {
    Ok(match args.kubeconfig_mode.unwrap_or_else(|| default_mode(args)) {
        KubeconfigMode::Gateway => Kubeconfigs::Gateway,
        KubeconfigMode::Direct => Kubeconfigs::Direct(direct_settings(args, config)?),
        KubeconfigMode::Both => Kubeconfigs::Both(direct_settings(args, config)?),
    })
}

/// The mode without `--kubeconfig-mode`. The chart has the same default (`daypass.kubeconfigMode` in `_helpers.tpl`).
fn default_mode(args: &ServeArgs) -> KubeconfigMode {
    if args.data_plane_server.is_some() { KubeconfigMode::Direct } else { KubeconfigMode::Gateway }
}

fn direct_settings(args: &ServeArgs, config: &Config) -> anyhow::Result<DirectSettings> {
    let server = args.data_plane_server.as_ref();
    let server = server.context("--kubeconfig-mode direct or both needs --data-plane-server")?;
    let ca_certificate = match &args.data_plane_ca_data {
        Some(data) => {
            let pem = STANDARD.decode(data.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            pem.context("--data-plane-ca-data is not base64 of PEM")?
        }
        None => pem::to_pem(config.root_cert.as_deref().unwrap_or_default()),
    };
    pem::certificates(&ca_certificate).context("invalid CA for direct kubeconfigs")?;
    Ok(DirectSettings {
        server: server.as_str().trim_end_matches('/').to_owned(),
        ca_certificate,
        tls_server_name: args.data_plane_tls_server_name.clone(),
        proxy_url: args.data_plane_proxy_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()),
    })
}
