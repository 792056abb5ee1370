//! Shutdown: the signals that start it, and the state that tasks share for it.

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admin::Readiness;

/// The shutdown state, shared by all tasks.
#[derive(Clone)]
pub(super) struct Lifecycle {
    pub(super) readiness: Readiness,
    /// Cancelled when the process stops accepting requests.
    pub(super) stop: CancellationToken,
    /// Requests in progress.
    pub(super) requests: TaskTracker,
}

/// Waits for SIGTERM or SIGINT and returns its name.
///
/// # Errors
/// When the signal handlers cannot be installed.
pub(super) async fn shutdown_signal() -> anyhow::Result<&'static str> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// Waits for the first task that fails. `None` when all tasks have ended without an error.
pub(super) async fn first_failure(tasks: &mut JoinSet<anyhow::Result<()>>) -> Option<anyhow::Result<()>> {
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(error) => return Some(error),
            Err(panic) => return Some(Err(panic.into())),
        }
    }
    None
}
