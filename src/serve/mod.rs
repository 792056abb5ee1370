//! Starts everything that `daypass serve` runs, and decides when the process ends.

mod admin;
mod api_server;
mod certificate;
mod connections;
mod lifecycle;
mod probe;
mod settings;
pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::FutureExt as _;
use kube::Config;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::admin::{Readiness, admin_router};
use self::api_server::ApiServer;
use self::connections::{Limits, Listener};
use self::lifecycle::{Lifecycle, first_failure, shutdown_signal};
use crate::access_tokens::AccessTokens;
use crate::cli::ServeArgs;
use crate::clock::{Clock, Entropy};
use crate::cluster::{Cluster, Lane, LeaseState};
use crate::controller::{self, Controller};
use crate::membership::Membership;
use crate::observability::audit::Audit;
use crate::observability::logs;
use crate::observability::metrics::Metrics;

/// How long requests in progress may take at the end. The chart's terminationGracePeriodSeconds is longer than this and
/// the delay before it.
const DRAIN: Duration = Duration::from_secs(25);

/// Runs Daypass until it is told to stop.
///
/// # Errors
/// When it cannot start, or a part that must run has ended.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    logs::init(args.log_format);
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        bail!("another TLS provider is installed already");
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(args))
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let config = Config::infer().await.context("no access to a Kubernetes API server is configured")?;
    let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let (clock, metrics) = (Clock::default(), Metrics::default());
    let audit = Audit::new(&args.data_plane_id, clock.clone(), io::stdout());
    let kubeconfig = settings::kubeconfig_settings(&args, &config)?;
    let cluster = Cluster::new(config, namespace, clock.clone(), metrics.clone())?;
    settings::check_audience(&args, &cluster)?;
    let membership = Membership::new(cluster.clone(), clock.clone(), audit.clone());
    let (rules, identity_config) = (args.tokens.rules(), settings::identity_config(&args));
    let tokens = AccessTokens::new(cluster.clone(), clock.clone(), audit.clone(), rules, identity_config);

    // Bound first: a port in use is the most likely reason not to start.
    let listener = bind(args.listen)?;
    let admin_listener = bind(args.admin_listen)?;
    let identity = match args.identity.clone() {
        Some(identity) => identity,
        None => format!("daypass-{}", Entropy::default().uuid()?),
    };

    let readiness = Readiness::new(cluster.clone(), clock.clone());
    let delay = Duration::from_secs(args.shutdown_delay_seconds);
    let lifecycle =
        Lifecycle { readiness: readiness.clone(), stop: CancellationToken::new(), requests: TaskTracker::new() };
    // Probes are answered to the very end, so they are in a set of their own, which is dropped last.
    let mut background = JoinSet::new();
    let admin =
        Listener { socket: admin_listener, tls: None, limits: Limits::ADMIN, metrics: None, tasks: TaskTracker::new() };
    let router = admin_router(readiness.clone(), metrics.clone());
    background.spawn(connections::serve(admin, router, CancellationToken::new(), Duration::ZERO).map(Ok));
    background.spawn(probe::probe(kubeconfig.clone()));
    let mut tasks = JoinSet::new();
    let controller = Controller {
        cluster: cluster.clone(),
        membership: membership.clone(),
        tokens: tokens.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    tasks.spawn(lead(controller, identity, lifecycle.stop.clone()));
    let api = ApiServer { args, cluster, membership, tokens, clock, audit, metrics, kubeconfig };
    tasks.spawn(api.run(listener, lifecycle.clone()));

    let mut ended = tokio::select! {
        signal = shutdown_signal() => signal.map(|name| tracing::info!(signal = name, "stopping")),
        Some(ended) = first_failure(&mut tasks) => ended,
        Some(ended) = first_failure(&mut background) => ended,
    };
    readiness.stop();
    if ended.is_ok() {
        // Requests keep coming until their senders have noticed that this replica is not ready.
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            Some(failure) = first_failure(&mut tasks) => ended = failure,
        }
    }
    lifecycle.stop.cancel();
    let deadline = Instant::now() + DRAIN;
    while tasks.join_next().await.is_some() {}
    // Requests whose client has gone away are still in progress.
    lifecycle.requests.close();
    if tokio::time::timeout_at(deadline, lifecycle.requests.wait()).await.is_err() {
        tracing::warn!("requests in progress were aborted");
    }
    ended
}

/// Leads when it can, and gives the Lease up at the end.
async fn lead(controller: Controller, identity: String, stop: CancellationToken) -> anyhow::Result<()> {
    let mut lease = LeaseState::new(identity);
    tokio::select! {
        () = controller::lead(&controller, &mut lease) => {}
        () = stop.cancelled() => {}
    }
    if let Err(error) = controller.cluster.in_lane(Lane::Lease).release_lease(&lease).await {
        tracing::warn!(%error, "the lease could not be released; it expires by itself");
    }
    Ok(())
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    connections::bind(address).with_context(|| format!("cannot listen on {address}"))
}
