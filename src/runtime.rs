//! Puts everything together: the only place that starts tasks, and that decides when the process ends.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;
use kube::{Client, Config};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Attempts, Capacity, KubeconfigSettings, Parts, Readiness, Settings, admin_router};
use crate::audit::Audit;
use crate::authn::{Checks, Denials};
use crate::cli::{AuthMethod, ServeArgs};
use crate::clock::{Clock, Entropy};
use crate::cluster::{AccessTokens, Cluster, IdentityConfig, KeyPair, Lane, LeaseState};
use crate::metrics::Metrics;
use crate::serve::{self, Limits, Listener};
use crate::{controller, telemetry, tls};

/// How long requests that are under way at the end may take. The chart's terminationGracePeriodSeconds is longer than this and the delay
/// before it.
const DRAIN: Duration = Duration::from_secs(25);
/// How long the API server may take to answer at its public address.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the files of a given certificate are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);
/// Between two tries to get the serving certificate while the API server does not answer.
const RETRY: Duration = Duration::from_secs(2);

/// Runs Daypass until it is told to stop.
///
/// # Errors
/// When it cannot start, or a part that must run has ended.
pub fn serve(args: ServeArgs) -> anyhow::Result<()> {
    telemetry::init(args.log_format);
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        bail!("a TLS provider was installed before");
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(args))
}

/// What the API is told, and tells, about the life of this process.
#[derive(Clone)]
struct Life {
    readiness: Readiness,
    stop: CancellationToken,
    requests: TaskTracker,
}

async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let config = Config::infer().await.context("no access to a Kubernetes API server is configured")?;
    let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let clock = Clock::default();
    let audit = Audit::new(&args.data_plane_id, clock.clone(), io::stdout());
    let kubeconfig = kubeconfig_settings(&args, &config)?;
    let cluster = Cluster::new(config, namespace, clock, audit, Metrics::default())?;
    check_audience(&args, &cluster)?;
    let tokens = AccessTokens::new(cluster.clone(), args.tokens.rules(), identity_config(&args));

    // Bound before anything else: a port that is taken is the most likely reason not to start.
    let listener = bind(args.listen)?;
    let admin_listener = bind(args.admin_listen)?;
    let identity = match args.identity.clone() {
        Some(identity) => identity,
        None => format!("daypass-{}", Entropy::default().uuid()?),
    };

    let readiness = Readiness::new(cluster.clone());
    let delay = Duration::from_secs(args.shutdown_delay_seconds);
    let life = Life { readiness: readiness.clone(), stop: CancellationToken::new(), requests: TaskTracker::new() };
    // Probes are answered to the very end, so they are in a set of their own, which is dropped last.
    let mut background = JoinSet::new();
    let admin =
        Listener { socket: admin_listener, tls: None, limits: Limits::ADMIN, metrics: None, tasks: TaskTracker::new() };
    let never = CancellationToken::new();
    background.spawn(serve::serve(admin, admin_router(readiness.clone()), never, Duration::ZERO).map(Ok));
    background.spawn(probe(kubeconfig.clone()));
    let mut tasks = JoinSet::new();
    tasks.spawn(lead(tokens.clone(), identity, life.stop.clone()));
    tasks.spawn(serve_api(args, tokens, kubeconfig, listener, life.clone()));

    let mut ended = tokio::select! {
        signal = told_to_stop() => signal.map(|name| tracing::info!(signal = name, "stopping")),
        Some(ended) = failed(&mut tasks) => ended,
        Some(ended) = failed(&mut background) => ended,
    };
    readiness.stop();
    if ended.is_ok() {
        // Requests go on coming until whoever sends them has noticed.
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            Some(failure) = failed(&mut tasks) => ended = failure,
        }
    }
    life.stop.cancel();
    let deadline = Instant::now() + DRAIN;
    while tasks.join_next().await.is_some() {}
    // Those whose client has gone away.
    life.requests.close();
    if tokio::time::timeout_at(deadline, life.requests.wait()).await.is_err() {
        tracing::warn!("requests were cut off");
    }
    ended
}

/// The first task that ends with an error; those that end well have done what they were for.
async fn failed(tasks: &mut JoinSet<anyhow::Result<()>>) -> Option<anyhow::Result<()>> {
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(error) => return Some(error),
            Err(panic) => return Some(Err(panic.into())),
        }
    }
    None
}

async fn told_to_stop() -> anyhow::Result<&'static str> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

async fn lead(tokens: AccessTokens, identity: String, stop: CancellationToken) -> anyhow::Result<()> {
    let mut lease = LeaseState::new(identity);
    tokio::select! {
        () = controller::lead(&tokens, &mut lease) => {}
        () = stop.cancelled() => {}
    }
    if let Err(error) = tokens.cluster.in_lane(Lane::Lease).release_lease(&lease).await {
        tracing::warn!(%error, "the lease could not be given up; it runs out by itself");
    }
    Ok(())
}

async fn serve_api(
    args: ServeArgs,
    tokens: AccessTokens,
    kubeconfig: KubeconfigSettings,
    listener: TcpListener,
    life: Life,
) -> anyhow::Result<()> {
    let pair = tokio::select! {
        pair = key_pair(&args, &tokens.cluster) => pair?,
        () = life.stop.cancelled() => return Ok(()),
    };
    let leaf = tls::leaf(&pair.certificate)?;
    show_expiry(&tokens.cluster.metrics, &leaf);
    let host = args.public_url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    tracing::info!(sha256 = tls::fingerprint(&leaf), "serving with this certificate");
    if !tls::covers(&leaf, host) {
        tracing::warn!(host, "the certificate does not name the host of the public URL: clients will refuse it");
    }
    let ca_file = if args.tls_at_proxy { &args.proxy_ca_file } else { &args.tls_ca_file };
    let ca_certificate = match ca_file {
        Some(file) => Some(fs::read_to_string(file).with_context(|| format!("{}", file.display()))?),
        // A given certificate without a CA is taken for one that everybody trusts, and so is a proxy's.
        None if args.tls_at_proxy || args.tls_cert_file.is_some() => None,
        None => Some(pair.certificate.clone()),
    };
    let (address, files) = (args.listen, args.tls_cert_file.zip(args.tls_key_file));
    let settings = Settings {
        data_plane_id: args.data_plane_id,
        public_url: args.public_url.as_str().trim_end_matches('/').to_owned(),
        kubeconfig,
        ca_certificate,
        trusted_proxies: args.trusted_proxies,
        token_audience: args.token_audience,
        accept_api_server_audience: args.accept_api_server_audience,
        kubernetes_tokens: args.auth_methods.contains(&AuthMethod::Kubernetes),
        access_tokens: args.auth_methods.contains(&AuthMethod::AccessToken),
    };
    let config = tls::server_config(&pair.certificate, pair.key.expose_secret().as_bytes());
    let (tls, served) = watch::channel(config.context("the certificate and the key cannot be used")?);
    let metrics = tokens.cluster.metrics.clone();
    let parts = Parts {
        cluster: tokens.cluster.clone(),
        tokens,
        attempts: Attempts::new(args.max_refused_credentials),
        checks: Checks::default(),
        denials: Denials::new(args.max_denied_requests),
        settings,
        tasks: life.requests.clone(),
        capacity: Capacity::default(),
    };
    let router = api::router(Arc::new(parts))?
        .layer(axum::middleware::from_fn_with_state(life.readiness.clone(), api::reconnect));
    let listener = Listener {
        socket: listener,
        tls: Some(served),
        limits: Limits::API,
        metrics: Some(metrics.clone()),
        tasks: life.requests,
    };
    life.readiness.serve();
    tracing::info!(address = %address, "listening");
    tokio::select! {
        () = serve::serve(listener, router, life.stop, DRAIN) => Ok(()),
        never = follow_files(&tls, files, pair.certificate, &metrics) => match never {},
    }
}

/// Serves with the certificate that is in the files now: whoever renews it (cert-manager, the kubelet) only writes them.
async fn follow_files(
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

fn show_expiry(metrics: &Metrics, certificate: &CertificateDer<'_>) {
    match tls::not_after(certificate) {
        Ok(end) => {
            metrics.certificate_expiry.set(end.timestamp());
        }
        Err(error) => tracing::warn!(%error, "when the certificate ends is not known"),
    }
}

/// The given certificate and key, or the self-signed pair that all replicas share.
async fn key_pair(args: &ServeArgs, cluster: &Cluster) -> anyhow::Result<KeyPair> {
    if let (Some(certificate), Some(key)) = (&args.tls_cert_file, &args.tls_key_file) {
        let read = |path: &std::path::Path| fs::read_to_string(path).with_context(|| format!("{}", path.display()));
        return Ok(KeyPair { certificate: read(certificate)?, key: read(key)?.into() });
    }
    let host = args.public_url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let mut names = vec![host.to_owned()];
    names.extend(args.tls_dns_name.iter().filter(|name| *name != host).cloned());
    loop {
        let pair = cluster.shared_key_pair(|| tls::self_signed(&names, cluster.clock.now())).await;
        match pair {
            Ok(pair) => return Ok(pair),
            Err(error) => tracing::warn!(%error, "no certificate to serve with yet; it is tried again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// A caller's token must be of no use against the API server: whoever is sent it, Daypass included, could use it
/// there. Daypass's own token, asked for without an audience, is for all that the API server has.
fn check_audience(args: &ServeArgs, cluster: &Cluster) -> anyhow::Result<()> {
    let own = cluster.own_claims().map(|claims| claims.audiences).unwrap_or_default();
    if args.accept_api_server_audience || !own.contains(&args.token_audience) {
        return Ok(());
    }
    bail!(
        "--token-audience {} is an audience of the API server itself: whoever is sent a caller's token could use it against the cluster. \
         Choose another, or take that risk with --accept-api-server-audience",
        args.token_audience
    );
}

/// What the identities behind access tokens rest on, but for what the API server says.
fn identity_config(args: &ServeArgs) -> IdentityConfig {
    IdentityConfig {
        data_plane_id: args.data_plane_id.clone(),
        token_audience: args.token_audience.clone(),
        accept_api_server_audience: args.accept_api_server_audience,
    }
}

fn kubeconfig_settings(args: &ServeArgs, config: &Config) -> anyhow::Result<KubeconfigSettings> {
    let ca_certificate = match &args.data_plane_ca_data {
        Some(data) => {
            let pem = STANDARD.decode(data.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            pem.context("--data-plane-ca-data is not base64 of PEM")?
        }
        None => tls::to_pem(config.root_cert.as_deref().unwrap_or_default()),
    };
    tls::certificates(&ca_certificate).context("the CA for kubeconfigs")?;
    Ok(KubeconfigSettings {
        server: args.data_plane_server.as_str().trim_end_matches('/').to_owned(),
        ca_certificate,
        tls_server_name: args.data_plane_tls_server_name.clone(),
        proxy_url: args.data_plane_proxy_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()),
    })
}

/// Asks the API server at its public address, as a kubeconfig would. From inside a cluster that can fail although the address is
/// right, so it only warns.
async fn probe(target: KubeconfigSettings) -> anyhow::Result<()> {
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
    config.root_cert = Some(tls::certificates(&target.ca_certificate)?);
    config.tls_server_name.clone_from(&target.tls_server_name);
    config.proxy_url = target.proxy_url.as_deref().map(str::parse).transpose().context("the proxy's URL")?;
    config.default_retry = false;
    let client = Client::try_from(config).context("the public address of the API server")?;
    let request = http::Request::get("/version").body(Vec::new())?;
    match tokio::time::timeout(PROBE_TIMEOUT, client.request_text(request)).await {
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

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    serve::bind(address).with_context(|| format!("cannot listen on {address}"))
}
