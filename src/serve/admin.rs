//! Probes and metrics, on a separate plain HTTP listener for use inside the cluster only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::clock::{Clock, SKEW_LIMIT};
use crate::cluster::Cluster;
use crate::feed::Feed;
use crate::observability::metrics::Metrics;

/// How long the Kubernetes API may be silent. The Lease calls it every two seconds, so this is several failed calls.
const MAX_SILENCE: Duration = Duration::from_secs(15);

/// Whether this process should receive requests.
#[derive(Clone)]
pub(super) struct Readiness {
    cluster: Cluster,
    feed: Feed,
    clock: Clock,
    serving: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
}

impl Readiness {
    /// The readiness of a process that has just started: not ready.
    pub(super) fn new(cluster: Cluster, feed: Feed, clock: Clock) -> Self {
        Self { cluster, feed, clock, serving: Arc::default(), stopping: Arc::default() }
    }

    /// Records that the API has its certificate and can answer.
    pub(super) fn serve(&self) {
        self.serving.store(true, Ordering::Relaxed);
    }

    /// Records that this process is shutting down.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether this process is shutting down.
    pub(super) fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopping)
    }

    /// Checks the readiness. The error is the reason, for the probe's answer.
    fn check(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err("stopping".to_owned());
        }
        match self.cluster.silence() {
            None => return Err("the Kubernetes API has not answered yet".to_owned()),
            Some(silence) if silence > MAX_SILENCE => {
                return Err(format!("the Kubernetes API has not answered for {} s", silence.as_secs()));
            }
            Some(_) => {}
        }
        if !self.serving.load(Ordering::Relaxed) {
            return Err("the API has no certificate yet".to_owned());
        }
        if !self.feed.is_complete() {
            return Err("the members and roles have not been listed yet".to_owned());
        }
        let offset = self.clock.skew();
        if offset.abs() > SKEW_LIMIT {
            return Err(format!("the clock differs from the Kubernetes API's by {} s", offset.num_seconds().abs()));
        }
        Ok(())
    }
}

/// Serves `/livez`, `/readyz` and `/metrics`.
pub(super) fn admin_router(readiness: Readiness, metrics: Metrics) -> Router {
    let clock = readiness.clock.clone();
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(move || async move { ready(&readiness) }))
        .route("/metrics", get(move || async move { show(&metrics, &clock) }))
}

fn ready(readiness: &Readiness) -> Response {
    match readiness.check() {
        Ok(()) => "ok".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}

fn show(metrics: &Metrics, clock: &Clock) -> Response {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a clock's offset")]
    metrics.clock_offset_seconds.set(clock.skew().num_milliseconds() as f64 / 1000.0);
    match metrics.encode() {
        Ok(text) => {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
