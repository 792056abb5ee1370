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

/// A request to an issuer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    issuer: String,
    /// `ok` or `failed`; of a code also `refused`.
    outcome: &'static str,
}

/// What became of the code of a sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redemption {
    /// The issuer gave an ID token for it.
    Redeemed,
    /// The issuer refused it, or its ID token is not that of the sign-in.
    Refused,
    /// The issuer did not answer, or refused Daypass itself.
    Failed,
}

impl Redemption {
    const ALL: [Self; 3] = [Self::Redeemed, Self::Refused, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Redeemed => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// The metrics of people's issuers.
#[derive(Clone, Debug, Default)]
pub struct OidcMetrics {
    refreshes: Family<RequestLabels, Counter>,
    fetched: Family<IssuerLabels, Gauge<i64, AtomicI64>>,
    redemptions: Family<RequestLabels, Counter>,
}

impl OidcMetrics {
    /// Shows an issuer at zero: Prometheus sees no increase in a number that was not there before.
    pub fn begin(&self, issuer: &str) {
        for outcome in ["ok", "failed"] {
            drop(self.refreshes.get_or_create(&RequestLabels { issuer: issuer.to_owned(), outcome }));
        }
        drop(self.fetched.get_or_create(&IssuerLabels { issuer: issuer.to_owned() }));
    }

    /// Shows an issuer's sign-ins with the console at zero.
    pub fn begin_sign_ins(&self, issuer: &str) {
        for outcome in Redemption::ALL.map(Redemption::as_str) {
            drop(self.redemptions.get_or_create(&RequestLabels { issuer: issuer.to_owned(), outcome }));
        }
    }

    /// Counts a code of a sign-in.
    pub fn redeemed(&self, issuer: &str, outcome: Redemption) {
        let labels = RequestLabels { issuer: issuer.to_owned(), outcome: outcome.as_str() };
        self.redemptions.get_or_create(&labels).inc();
    }

    /// Counts a fetch; `at` is when it succeeded.
    pub fn refreshed(&self, issuer: &str, at: Option<DateTime<Utc>>) {
        let outcome = if at.is_some() { "ok" } else { "failed" };
        self.refreshes.get_or_create(&RequestLabels { issuer: issuer.to_owned(), outcome }).inc();
        if let Some(at) = at {
            self.fetched.get_or_create(&IssuerLabels { issuer: issuer.to_owned() }).set(at.timestamp());
        }
    }

    pub(super) fn register(&self, r: &mut Registry) {
        let r = r.sub_registry_with_prefix("oidc");
        r.register("key_refreshes", "Fetches of an issuer's keys by outcome", self.refreshes.clone());
        let help = "Codes of sign-ins with the console that an issuer was asked to redeem, by outcome";
        r.register("redemptions", help, self.redemptions.clone());
        let help = "When an issuer's keys were last fetched, in seconds since 1970; 0 if never";
        r.register("keys_fetched_timestamp_seconds", help, self.fetched.clone());
    }
}
