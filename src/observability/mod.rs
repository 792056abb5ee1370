//! The audit trail, logs and metrics.

mod api_call;
pub mod audit;
pub mod gateway_metrics;
pub mod logs;
pub mod metrics;
pub(crate) mod oidc_metrics;
