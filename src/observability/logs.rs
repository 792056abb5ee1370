//! Sets up structured logging on standard error. Standard output is for audit events only.

use tracing_subscriber::EnvFilter;

/// The log format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people to read.
    Text,
}

/// Starts logging at the level in `RUST_LOG`; `info` if that is unset.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let quiet = [
        // It logs unreadable answers in full, and an answer can contain a token or a key.
        "kube_client::client=error",
        // They warn about each client error, so a client could flood the log: a line for every ping of 17 bytes.
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
