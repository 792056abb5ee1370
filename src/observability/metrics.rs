//! Metrics in the OpenMetrics text format. Label values come from fixed sets and are never free text or object names.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::gateway_metrics::GatewayMetrics;
use super::oidc_metrics::OidcMetrics;

/// A call to the Kubernetes API.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabels {
    /// The call's name in the code.
    pub call: &'static str,
    /// `ok` or the kind of error.
    pub outcome: &'static str,
}

/// A request to the REST API.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route's pattern, not the path.
    pub route: String,
    /// The method; `OTHER` for one that HTTP does not define.
    pub method: &'static str,
    /// The status code.
    pub status: u16,
}

/// Connections to the REST API.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConnectionLabels {
    /// `authenticated` once Daypass has accepted a credential on the connection, else `unauthenticated`.
    pub state: &'static str,
}

impl ConnectionLabels {
    /// Before Daypass has accepted a credential on the connection.
    pub const UNAUTHENTICATED: Self = Self { state: "unauthenticated" };
    /// After that.
    pub const AUTHENTICATED: Self = Self { state: "authenticated" };
}

/// All metrics.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each has a help text")]
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
    pub rbac_unreadable: Gauge,
    pub rights_outdated_since: Gauge<i64, AtomicI64>,
    pub certificate_expiry: Gauge<i64, AtomicI64>,
    pub gateway: GatewayMetrics,
    pub oidc: OidcMetrics,
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
            rbac_unreadable: Gauge::default(),
            rights_outdated_since: Gauge::default(),
            certificate_expiry: Gauge::default(),
            gateway: GatewayMetrics::default(),
            oidc: OidcMetrics::default(),
            registry: Arc::default(),
        };
        let mut registry = Registry::with_prefix("daypass");
        metrics.register_traffic(&mut registry);
        metrics.register_controller(&mut registry);
        metrics.register_feed(&mut registry);
        metrics.gateway.register(&mut registry);
        metrics.oidc.register(&mut registry);
        metrics.registry = Arc::new(registry);
        for state in [ConnectionLabels::UNAUTHENTICATED, ConnectionLabels::AUTHENTICATED] {
            // Export both states from the start, not only once a connection has been in them.
            drop(metrics.connections.get_or_create(&state));
        }
        metrics
    }
}

impl Metrics {
    fn register_traffic(&self, r: &mut Registry) {
        r.register(
            "kubernetes_calls",
            "Calls to the Kubernetes API by name and outcome",
            self.kubernetes_calls.clone(),
        );
        r.register("http_requests", "Requests answered by the REST API", self.requests.clone());
        r.register_with_unit(
            "http_request_duration",
            "Time to answer a REST API request",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        r.register(
            "http_requests_refused",
            "Requests refused unread with 503 because the server was at capacity",
            self.requests_refused.clone(),
        );
        r.register("connections", "Open connections to the REST API", self.connections.clone());
        r.register(
            "connections_evicted",
            "Connections to the REST API closed or refused because too many were open",
            self.connections_evicted.clone(),
        );
    }

    fn register_controller(&self, r: &mut Registry) {
        r.register("members", "Live members (leader only)", self.members.clone());
        r.register(
            "members_unreadable",
            "Unreadable Member objects, treated as ended (leader only)",
            self.members_unreadable.clone(),
        );
        r.register(
            "namespaces_ignored",
            "Namespaces with only the name or only the label of a role (leader only)",
            self.namespaces_ignored.clone(),
        );
        r.register_with_unit(
            "overdue",
            "Time since the end of the most overdue member that still exists (leader only)",
            Unit::Seconds,
            self.overdue_seconds.clone(),
        );
        r.register_with_unit(
            "clock_offset",
            "How far the API server's clock is ahead of this process's",
            Unit::Seconds,
            self.clock_offset_seconds.clone(),
        );
        r.register("sweeps", "Completed sweeps", self.sweeps.clone());
        r.register("reconcile_failures", "Failed reconciliations, which are retried", self.reconcile_failures.clone());
        r.register("leader", "1 while this replica is the leader", self.leader.clone());
        r.register("walls", "1 if the admission policies around roles are in force (leader only)", self.walls.clone());
        r.register_with_unit(
            "certificate_expiry_timestamp",
            "Expiry of the serving certificate in Unix time; 0 while none is served",
            Unit::Seconds,
            self.certificate_expiry.clone(),
        );
    }

    fn register_feed(&self, r: &mut Registry) {
        r.register(
            "rbac_unreadable",
            "Unreadable RBAC objects, so that what roles can do is unknown",
            self.rbac_unreadable.clone(),
        );
        r.register_with_unit(
            "rights_outdated_since_timestamp",
            "Since when a watch of RBAC is interrupted, in Unix time; 0 while what roles can do is current",
            Unit::Seconds,
            self.rights_outdated_since.clone(),
        );
    }

    /// Counts an answered request.
    pub fn observe_request(&self, labels: &RequestLabels, took: Duration) {
        self.requests.get_or_create(labels).inc();
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// If a metric cannot be encoded.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
