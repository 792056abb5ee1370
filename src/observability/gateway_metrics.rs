//! The metrics of the gateway.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A request to the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GatewayLabels {
    /// `forwarded`, or the kind of refusal.
    pub outcome: &'static str,
}

/// An open stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StreamLabels {
    /// What it carries, for example `watch`.
    pub kind: &'static str,
}

/// A request that was cut.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CutLabels {
    /// Why, as in the audit trail.
    pub reason: &'static str,
}

/// The metrics of the gateway.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "each has a help text")]
pub struct GatewayMetrics {
    pub requests: Family<GatewayLabels, Counter>,
    pub streams: Family<StreamLabels, Gauge>,
    pub cuts: Family<CutLabels, Counter>,
    pub live_reads: Counter,
    pub tokens_minted: Counter,
    pub feed_age: Gauge<f64, AtomicU64>,
    pub overdue: Gauge<f64, AtomicU64>,
}

impl GatewayMetrics {
    /// Shows these at zero: Prometheus sees no increase in a number that was not there before.
    pub fn begin(&self, outcomes: &[&'static str], kinds: &[&'static str], reasons: &[&'static str]) {
        outcomes.iter().for_each(|outcome| drop(self.requests.get_or_create(&GatewayLabels { outcome })));
        kinds.iter().for_each(|kind| drop(self.streams.get_or_create(&StreamLabels { kind })));
        reasons.iter().for_each(|reason| drop(self.cuts.get_or_create(&CutLabels { reason })));
    }

    pub(super) fn register(&self, r: &mut Registry) {
        let r = r.sub_registry_with_prefix("gateway");
        r.register("requests", "Requests to the gateway by outcome", self.requests.clone());
        r.register("streams", "Open streams through the gateway", self.streams.clone());
        r.register("cuts", "Requests and streams that the gateway has cut", self.cuts.clone());
        r.register("live_reads", "Members read because the feed could not decide", self.live_reads.clone());
        let help = "How old what this replica knows of its members is, in seconds; 0 while nothing is open";
        r.register("feed_age_seconds", help, self.feed_age.clone());
        let help = "How long ago the most overdue request or stream was cut, if it is still open; else 0";
        r.register("overdue_seconds", help, self.overdue.clone());
        r.register("tokens_minted", "Tokens of members minted for forwarding", self.tokens_minted.clone());
    }
}
