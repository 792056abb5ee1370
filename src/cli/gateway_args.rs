//! The options of `daypass serve` about the gateway.

use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use clap::value_parser;

/// The options of `daypass serve` about the gateway. The limits are for each replica.
#[derive(Debug, Clone, Copy, Args)]
pub struct GatewayArgs {
    /// Seconds after which a replica that does not hear from the API server cuts everything and refuses
    #[arg(
        long,
        env = "DAYPASS_GATEWAY_MAX_STALENESS_SECONDS",
        default_value_t = 10,
        value_parser = value_parser!(u64).range(5..=60)
    )]
    pub gateway_max_staleness_seconds: u64,
    /// How many requests a member may have in progress; it may hold a quarter of what the others leave
    #[arg(long, env = "DAYPASS_GATEWAY_MEMBER_REQUESTS", default_value_t = 50, value_parser = count(10_000))]
    pub gateway_member_requests: usize,
    /// How many streams a member may have open: watches, followed logs, exec, port-forwards; it may hold a quarter of
    /// what the others leave
    #[arg(long, env = "DAYPASS_GATEWAY_MEMBER_STREAMS", default_value_t = 200, value_parser = count(10_000))]
    pub gateway_member_streams: usize,
    /// How many requests all members together may have in progress
    #[arg(long, env = "DAYPASS_GATEWAY_REQUESTS", default_value_t = 200, value_parser = count(100_000))]
    pub gateway_requests: usize,
    /// How many streams all members together may have open
    #[arg(long, env = "DAYPASS_GATEWAY_STREAMS", default_value_t = 1000, value_parser = count(100_000))]
    pub gateway_streams: usize,
    /// Which requests the audit trail has, besides streams
    #[arg(long, env = "DAYPASS_GATEWAY_AUDIT", value_enum, default_value_t = AuditedRequests::Writes)]
    pub gateway_audit: AuditedRequests,
    /// Seconds over which streams are ended at shutdown, so that their clients do not all come back at once
    #[arg(
        long,
        env = "DAYPASS_GATEWAY_DRAIN_SECONDS",
        default_value_t = 60,
        value_parser = value_parser!(u64).range(..=3600)
    )]
    pub gateway_drain_seconds: u64,
}

/// Which requests the audit trail has, besides streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AuditedRequests {
    /// None
    None,
    /// Those that may change something
    Writes,
    /// All
    All,
}

fn count(most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=most)
}

impl GatewayArgs {
    /// How old what the gateway decides on may be at most.
    pub fn max_staleness(self) -> Duration {
        Duration::from_secs(self.gateway_max_staleness_seconds)
    }

    /// How long streams may go on at shutdown.
    pub fn drain(self) -> Duration {
        Duration::from_secs(self.gateway_drain_seconds)
    }
}
