//! Logs: structured, on standard error, since audit events have standard output to themselves.

use tracing_subscriber::EnvFilter;

/// The form of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Starts logging; the level is from `RUST_LOG`, `info` where that is not set.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let quiet = [
        // It logs answers that it cannot read, whole, and an answer can hold a token or a key.
        "kube_client::client=error",
        // They warn of what a client does, as often as it does it: a ping of 17 bytes would be a line.
        "h2=error",
        "rustls=error",
    ];
    let filter = quiet.into_iter().filter_map(|it| it.parse().ok()).fold(filter, EnvFilter::add_directive);
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => logs.json().flatten_event(true).init(),
        LogFormat::Text => logs.init(),
    }
}
