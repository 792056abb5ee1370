//! The audit trail, logs and metrics.

pub mod audit;
pub mod logs;
pub mod metrics;
