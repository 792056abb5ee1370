//! The REST API's listener: its certificate, its state and its router.

use std::sync::Arc;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::certificate::{key_pair, public_hosts, show_expiry, watch_cert_files};
use super::connections::{self, App, Limits, Listener};
use super::shutdown::Lifecycle;
use super::{drain, settings, tls};
use crate::access_tokens::AccessTokens;
use crate::api::{self, AppState, Kubeconfigs};
use crate::authn::oidc::People;
use crate::authn::{Authenticator, Bursts, Capacity};
use crate::cli::ServeArgs;
use crate::clock::{Clock, Entropy};
use crate::cluster::Cluster;
use crate::console;
use crate::feed::Feed;
use crate::gateway::Gateway;
use crate::membership::Membership;
use crate::observability::audit::Audit;
use crate::observability::metrics::Metrics;

/// The parts of the REST API.
pub(super) struct ApiServer {
    pub(super) args: ServeArgs,
    pub(super) cluster: Cluster,
    pub(super) feed: Feed,
    pub(super) membership: Membership,
    pub(super) tokens: AccessTokens,
    pub(super) people: Arc<People>,
    pub(super) clock: Clock,
    pub(super) audit: Audit,
    pub(super) metrics: Metrics,
    pub(super) kubeconfigs: Kubeconfigs,
    pub(super) gateway: Option<Arc<Gateway>>,
}

impl ApiServer {
    /// Serves the API until [`Lifecycle::stop`] is cancelled and the requests in progress are answered.
    pub(super) async fn run(self, listener: TcpListener, lifecycle: Lifecycle) -> anyhow::Result<()> {
        let Self {
            args, cluster, feed, membership, tokens, people, clock, audit, metrics, kubeconfigs, gateway, ..
        } = self;
        let pair = tokio::select! {
            pair = key_pair(&args, &cluster, &clock) => pair?,
            () = lifecycle.stop.cancelled() => return Ok(()),
        };
        let leaf = tls::leaf(&pair.certificate)?;
        show_expiry(&metrics, &leaf);
        tracing::info!(sha256 = tls::fingerprint(&leaf), "serving with this certificate");
        for host in public_hosts(&args).iter().filter(|host| !tls::covers(&leaf, host)) {
            tracing::warn!(host, "the certificate does not cover the host of a public URL: clients will refuse it");
        }
        let config = tls::server_config(&pair.certificate, pair.key.expose_secret().as_bytes());
        let (tls, served) = watch::channel(config.context("the certificate and the key cannot be used")?);
        let bursts =
            Bursts { refused_credentials: args.max_refused_credentials, denied_requests: args.max_denied_requests };
        let authn = Authenticator::new(
            cluster.clone(),
            membership.clone(),
            tokens.clone(),
            audit.clone(),
            settings::methods(&args),
            people,
            bursts,
        );
        let state = AppState {
            cluster,
            feed,
            membership,
            tokens,
            authn,
            clock,
            entropy: Entropy::default(),
            audit,
            metrics: metrics.clone(),
            settings: settings::api_settings(&args, kubeconfigs, &pair.certificate)?,
            tasks: lifecycle.requests.clone(),
            capacity: Capacity::default(),
        };
        let drain = drain(&args);
        let readiness = lifecycle.readiness;
        let state = Arc::new(state);
        let console = state.settings.console.then(|| console::router(state.clone()));
        let router = api::router(state, console)?;
        let listener = Listener {
            socket: listener,
            tls: Some(served),
            limits: Limits::API,
            metrics: Some(metrics.clone()),
            tasks: lifecycle.requests,
        };
        let app = App { router, gateway, stopping: readiness.stopping() };
        readiness.serve();
        tracing::info!(address = %args.listen, "listening");
        let files = args.tls_cert_file.zip(args.tls_key_file);
        tokio::select! {
            () = connections::serve(listener, app, lifecycle.stop, drain) => Ok(()),
            never = watch_cert_files(&tls, files, pair.certificate, &metrics) => match never {},
        }
    }
}
