//! The metrics of people's issuers.

use std::sync::atomic::AtomicI64;

use chrono::{DateTime, Utc};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// An issuer, by its name in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuerLabels {
    issuer: String,
}

/// A fetch of an issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefreshLabels {
    issuer: String,
    /// `ok` or `failed`.
    outcome: &'static str,
}

/// The metrics of people's issuers.
#[derive(Clone, Debug, Default)]
pub struct OidcMetrics {
    refreshes: Family<RefreshLabels, Counter>,
    fetched: Family<IssuerLabels, Gauge<i64, AtomicI64>>,
}

impl OidcMetrics {
    /// Shows an issuer at zero: Prometheus sees no increase in a number that was not there before.
    pub fn begin(&self, issuer: &str) {
        for outcome in ["ok", "failed"] {
            drop(self.refreshes.get_or_create(&RefreshLabels { issuer: issuer.to_owned(), outcome }));
        }
        drop(self.fetched.get_or_create(&IssuerLabels { issuer: issuer.to_owned() }));
    }

    /// Counts a fetch; `at` is when it succeeded.
    pub fn refreshed(&self, issuer: &str, at: Option<DateTime<Utc>>) {
        let outcome = if at.is_some() { "ok" } else { "failed" };
        self.refreshes.get_or_create(&RefreshLabels { issuer: issuer.to_owned(), outcome }).inc();
        if let Some(at) = at {
            self.fetched.get_or_create(&IssuerLabels { issuer: issuer.to_owned() }).set(at.timestamp());
        }
    }

    pub(super) fn register(&self, r: &mut Registry) {
        let r = r.sub_registry_with_prefix("oidc");
        r.register("key_refreshes", "Fetches of an issuer's keys by outcome", self.refreshes.clone());
        let help = "When an issuer's keys were last fetched, in seconds since 1970; 0 if never";
        r.register("keys_fetched_timestamp_seconds", help, self.fetched.clone());
    }
}
