//! The audit trail, logs and metrics.

mod api_call;
pub mod audit;
pub mod gateway_metrics;
pub mod logs;
pub mod metrics;
mod oidc_metrics;
