//! `daypass serve`: starts the API and the controller, and shuts them down.

mod admin;
mod certificate;
mod connections;
mod probe;
mod rest_api;
mod settings;
mod shutdown;
pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use futures::FutureExt as _;
use kube::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::admin::{Readiness, admin_router};
use self::connections::{App, Limits, Listener};
use self::rest_api::ApiServer;
use self::shutdown::{Lifecycle, first_failure, shutdown_signal};
use crate::access_tokens::AccessTokens;
use crate::api::Kubeconfigs;
use crate::authn::oidc::People;
use crate::cli::{ServeArgs, kubernetes_config};
use crate::clock::{Clock, Entropy};
use crate::cluster::{Cluster, Lane, LeaseState};
use crate::controller::{self, Controller};
use crate::feed::Feed;
use crate::gateway::{Gateway, Parts};
use crate::membership::Membership;
use crate::observability::audit::Audit;
use crate::observability::logs;
use crate::observability::metrics::Metrics;

/// How long requests in progress may take to finish at shutdown. This, or the gateway's drain, must fit into the
/// chart's terminationGracePeriodSeconds together with the shutdown delay.
const DRAIN: Duration = Duration::from_secs(25);

/// How long streams may take to end once they are told to.
const STREAMS_END: Duration = Duration::from_secs(5);

/// Runs Daypass until it receives SIGTERM or SIGINT.
///
/// # Errors
/// When Daypass cannot start, or one of its tasks fails.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    logs::init(args.log_format);
    raise_file_limit();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        bail!("another TLS provider is already installed");
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(args))
}

/// Raises the limit of open files to what the system allows, as Go's runtime does. Each connection takes one, and a
/// forwarded one two; container runtimes often begin at 1024 (setrlimit(2)).
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let requests = TaskTracker::new();
    let api = api_server(args, kubernetes_config().await?, requests.clone())?;
    // Before the other parts start: a port in use is the most likely reason for a failed start.
    settings::check_issuers(&api.people, &api.cluster).await?;
    let (listener, admin_listener) = (bind(api.args.listen)?, bind(api.args.admin_listen)?);
    let identity = match api.args.identity.clone() {
        Some(identity) => identity,
        None => format!("daypass-{}", Entropy::default().uuid()?),
    };
    let delay = Duration::from_secs(api.args.shutdown_delay_seconds);
    let readiness = Readiness::new(api.cluster.clone(), api.feed.clone(), api.clock.clone());
    let lifecycle = Lifecycle { readiness: readiness.clone(), stop: CancellationToken::new(), requests };

    // Probes must be answered until the very end, so these tasks have their own set, which is dropped last.
    let mut background = JoinSet::new();
    background.spawn(serve_admin(admin_listener, admin_router(readiness, api.metrics.clone())).map(Ok));
    if let Some(target) = api.kubeconfigs.direct() {
        background.spawn(probe::probe(target.clone()));
    }
    if !api.people.is_empty() {
        let people = api.people.clone();
        background.spawn(async move {
            people.keep_keys_fresh().await;
            Ok(())
        });
    }
    let mut tasks = JoinSet::new();
    let (feed, cluster) = (api.feed.clone(), api.cluster.clone());
    background.spawn(async move { feed.follow(&cluster).await });
    if let Some(gateway) = api.gateway.clone() {
        background.spawn(async move { gateway.keep_watch().await });
    }
    if let Some(gateway) = api.gateway.clone() {
        let (stop, period) = (lifecycle.stop.clone(), api.args.gateway.drain());
        tasks.spawn(async move {
            stop.cancelled().await;
            gateway.drain(period).await;
            Ok(())
        });
    }
    let drain = drain(&api.args);
    tasks.spawn(lead(controller(&api), identity, lifecycle.stop.clone()));
    tasks.spawn(api.run(listener, lifecycle.clone()));

    let ended = tokio::select! {
        signal = shutdown_signal() => signal.map(|name| tracing::info!(signal = name, "stopping")),
        Some(ended) = first_failure(&mut tasks) => ended,
        Some(ended) = first_failure(&mut background) => ended,
    };
    shut_down(ended, tasks, &lifecycle, (delay, drain)).await
}

/// How long requests in progress may take to finish at shutdown: longer than streams through the gateway may.
fn drain(args: &ServeArgs) -> Duration {
    DRAIN.max(args.gateway.drain() + STREAMS_END)
}

/// Sets up the parts of the process.
fn api_server(args: ServeArgs, config: Config, requests: TaskTracker) -> anyhow::Result<ApiServer> {
    let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let (clock, metrics) = (Clock::default(), Metrics::default());
    let audit = Audit::new(&args.data_plane_id, clock.clone(), io::stdout());
    let kubeconfigs = settings::kubeconfigs(&args, &config)?;
    let cluster = Cluster::new(config.clone(), namespace, clock.clone(), metrics.clone())?;
    settings::check_audience(&args, &cluster)?;
    let feed = Feed::new(clock.clone(), metrics.clone());
    let membership = Membership::new(cluster.clone(), feed.clone(), clock.clone(), audit.clone());
    let parts = Parts {
        cluster: cluster.clone(),
        feed: feed.clone(),
        membership: membership.clone(),
        clock: clock.clone(),
        audit: audit.clone(),
        metrics: metrics.clone(),
        tasks: requests,
    };
    let gateway = match kubeconfigs {
        Kubeconfigs::Direct(_) => None,
        Kubeconfigs::Gateway | Kubeconfigs::Both(_) => {
            Some(Gateway::new(&config, settings::gateway_settings(&args)?, parts)?)
        }
    };
    let issuers = settings::issuers(&args)?;
    let accepts = args.accept_api_server_audience;
    let people = Arc::new(People::new(&issuers, cluster.clone(), clock.clone(), &metrics, accepts));
    let (rules, identity_config) = (args.tokens.rules(), settings::identity_config(&args, &issuers));
    let tokens = AccessTokens::new(cluster.clone(), clock.clone(), audit.clone(), rules, identity_config);
    Ok(ApiServer { args, cluster, feed, membership, tokens, people, clock, audit, metrics, kubeconfigs, gateway })
}

/// A controller that works with the same parts.
fn controller(api: &ApiServer) -> Controller {
    Controller {
        cluster: api.cluster.clone(),
        feed: api.feed.clone(),
        membership: api.membership.clone(),
        tokens: api.tokens.clone(),
        clock: api.clock.clone(),
        metrics: api.metrics.clone(),
        max_sweep_interval: Duration::from_secs(api.args.max_sweep_interval_seconds),
    }
}

/// Serves probes and metrics until the process ends.
async fn serve_admin(socket: TcpListener, router: Router) {
    let listener = Listener { socket, tls: None, limits: Limits::ADMIN, metrics: None, tasks: TaskTracker::new() };
    let app = App { router, gateway: None, stopping: Arc::default() };
    connections::serve(listener, app, CancellationToken::new(), Duration::ZERO).await;
}

/// Stops accepting requests after `delay` and finishes those in progress. Returns `ended`, or a failure during the
/// delay.
async fn shut_down(
    mut ended: anyhow::Result<()>,
    mut tasks: JoinSet<anyhow::Result<()>>,
    lifecycle: &Lifecycle,
    (delay, drain): (Duration, Duration),
) -> anyhow::Result<()> {
    lifecycle.readiness.stop();
    if ended.is_ok() {
        // Keep serving until load balancers have noticed that this replica is not ready.
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            Some(failure) = first_failure(&mut tasks) => ended = failure,
        }
    }
    lifecycle.stop.cancel();
    let deadline = Instant::now() + drain;
    while tasks.join_next().await.is_some() {}
    // A request continues after its client has disconnected.
    lifecycle.requests.close();
    if tokio::time::timeout_at(deadline, lifecycle.requests.wait()).await.is_err() {
        tracing::warn!("requests in progress were aborted");
    }
    ended
}

/// Runs the controller whenever this replica is the leader, and releases the lease at shutdown.
async fn lead(controller: Controller, identity: String, stop: CancellationToken) -> anyhow::Result<()> {
    let mut lease = LeaseState::new(identity);
    tokio::select! {
        () = controller::lead(&controller, &mut lease) => {}
        () = stop.cancelled() => {}
    }
    if let Err(error) = controller.cluster.in_lane(Lane::Lease).release_lease(&lease).await {
        tracing::warn!(%error, "could not release the lease; it expires by itself");
    }
    Ok(())
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    connections::bind(address).with_context(|| format!("cannot listen on {address}"))
}
