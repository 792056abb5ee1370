//! Probes and metrics, on a plain listener of their own: nothing of it is for the outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode, Version};

use crate::clock::{Clock, SKEW_LIMIT};
use crate::cluster::Cluster;
use crate::observability::metrics::Metrics;

/// Longer than a few of the calls that keep the Lease, which are made every two seconds.
const MAX_SILENCE: Duration = Duration::from_secs(15);

/// Whether requests should come here.
#[derive(Clone)]
pub(super) struct Readiness {
    cluster: Cluster,
    clock: Clock,
    serving: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
}

impl Readiness {
    /// Of a process that has just begun.
    pub(super) fn new(cluster: Cluster, clock: Clock) -> Self {
        Self { cluster, clock, serving: Arc::default(), stopping: Arc::default() }
    }

    /// Says that the API has what it needs to answer: its certificate.
    pub(super) fn serve(&self) {
        self.serving.store(true, Ordering::Relaxed);
    }

    /// Says that this process is about to end.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether this process is about to end.
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Why not, if not.
    fn check(&self) -> Result<(), String> {
        if self.is_stopping() {
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
            return Err("there is no certificate to serve with yet".to_owned());
        }
        let offset = self.clock.offset();
        if offset.abs() > SKEW_LIMIT {
            return Err(format!("the clock is {} s from the Kubernetes API's", offset.num_seconds().abs()));
        }
        Ok(())
    }
}

/// `/livez`, `/readyz` and `/metrics`.
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
    metrics.clock_offset_seconds.set(clock.offset().num_milliseconds() as f64 / 1000.0);
    match metrics.encode() {
        Ok(text) => {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Has clients of HTTP/1 connect anew, elsewhere, once this process is about to end: one that sends its next request just as an idle
/// connection is closed would lose it. HTTP/2 has GOAWAY for that, and no such header.
pub(super) async fn reconnect(State(readiness): State<Readiness>, request: Request, next: Next) -> Response {
    let version = request.version();
    let mut response = next.run(request).await;
    if readiness.is_stopping() && version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
