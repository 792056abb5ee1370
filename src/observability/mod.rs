//! What Daypass tells its operators: the audit trail, logs and metrics.

pub mod audit;
pub mod logs;
pub mod metrics;
