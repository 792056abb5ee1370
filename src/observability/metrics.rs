//! Metrics in the OpenMetrics text format. A label holds a name out of a fixed set, never a text or an object's name.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// A call to the Kubernetes API.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabels {
    /// The call's name in the code.
    pub call: &'static str,
    /// `ok`, or the category of the error.
    pub outcome: &'static str,
}

/// A request to the REST API.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route, not the path.
    pub route: String,
    /// The method, `OTHER` for one that HTTP does not define.
    pub method: &'static str,
    /// The status.
    pub status: u16,
}

/// Connections to the REST API.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConnectionLabels {
    /// Whether a credential was accepted over it.
    pub state: &'static str,
}

impl ConnectionLabels {
    /// Before a credential was accepted.
    pub const UNAUTHENTICATED: Self = Self { state: "unauthenticated" };
    /// From then on.
    pub const AUTHENTICATED: Self = Self { state: "authenticated" };
}

/// What is measured.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the help text of each says what it is")]
pub struct Metrics {
    pub kubernetes_calls: Family<CallLabels, Counter>,
    pub requests: Family<RequestLabels, Counter>,
    pub request_seconds: Histogram,
    pub requests_refused: Counter,
    pub connections: Family<ConnectionLabels, Gauge>,
    pub connections_evicted: Counter,
    pub members: Gauge,
    pub members_unreadable: Gauge,
    pub namespaces_ignored: Gauge,
    pub overdue_seconds: Gauge<f64, AtomicU64>,
    pub clock_offset_seconds: Gauge<f64, AtomicU64>,
    pub sweeps: Counter,
    pub reconcile_failures: Counter,
    pub leader: Gauge<i64, AtomicI64>,
    pub walls: Gauge<i64, AtomicI64>,
    pub certificate_expiry: Gauge<i64, AtomicI64>,
    registry: Arc<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        let buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let mut metrics = Self {
            kubernetes_calls: Family::default(),
            requests: Family::default(),
            request_seconds: Histogram::new(buckets),
            requests_refused: Counter::default(),
            connections: Family::default(),
            connections_evicted: Counter::default(),
            members: Gauge::default(),
            members_unreadable: Gauge::default(),
            namespaces_ignored: Gauge::default(),
            overdue_seconds: Gauge::default(),
            clock_offset_seconds: Gauge::default(),
            sweeps: Counter::default(),
            reconcile_failures: Counter::default(),
            leader: Gauge::default(),
            walls: Gauge::default(),
            certificate_expiry: Gauge::default(),
            registry: Arc::default(),
        };
        let mut r = Registry::with_prefix("daypass");
        r.register(
            "kubernetes_calls",
            "Calls to the Kubernetes API by name and outcome",
            metrics.kubernetes_calls.clone(),
        );
        r.register("http_requests", "Requests answered by the REST API", metrics.requests.clone());
        r.register_with_unit("http_request_duration", "Time to answer", Unit::Seconds, metrics.request_seconds.clone());
        r.register(
            "http_requests_refused",
            "Requests answered 503 without being looked at, for want of capacity",
            metrics.requests_refused.clone(),
        );
        r.register("connections", "Open connections to the REST API", metrics.connections.clone());
        r.register(
            "connections_evicted",
            "Connections to the REST API closed or refused for too many others",
            metrics.connections_evicted.clone(),
        );
        r.register("members", "Live members at the last sweep (leader only)", metrics.members.clone());
        r.register(
            "members_unreadable",
            "Member objects that cannot be read and are treated as ended (leader only)",
            metrics.members_unreadable.clone(),
        );
        r.register(
            "namespaces_ignored",
            "Namespaces with only the name or only the label of a role (leader only)",
            metrics.namespaces_ignored.clone(),
        );
        r.register_with_unit(
            "overdue",
            "How long the most overdue member has been dead without being removed (leader only)",
            Unit::Seconds,
            metrics.overdue_seconds.clone(),
        );
        r.register_with_unit(
            "clock_offset",
            "What the API server's clock is ahead of this process's",
            Unit::Seconds,
            metrics.clock_offset_seconds.clone(),
        );
        r.register("sweeps", "Completed sweeps", metrics.sweeps.clone());
        r.register(
            "reconcile_failures",
            "Reconciliations that failed and are tried again",
            metrics.reconcile_failures.clone(),
        );
        r.register("leader", "1 while this replica is the one that reaps", metrics.leader.clone());
        r.register(
            "walls",
            "1 where the admission policies around roles are in force (leader only)",
            metrics.walls.clone(),
        );
        r.register_with_unit(
            "certificate_expiry_timestamp",
            "When the certificate that is served ends, in Unix time; 0 while none is served",
            Unit::Seconds,
            metrics.certificate_expiry.clone(),
        );
        for state in [ConnectionLabels::UNAUTHENTICATED, ConnectionLabels::AUTHENTICATED] {
            // So that both are there from the start.
            drop(metrics.connections.get_or_create(&state));
        }
        metrics.registry = Arc::new(r);
        metrics
    }
}

impl Metrics {
    /// Counts an answered request.
    pub fn observe_request(&self, labels: &RequestLabels, took: Duration) {
        self.requests.get_or_create(labels).inc();
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// When one cannot be written as text.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
