//! How the process ends: what asks it to, and what it waits for.

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admin::Readiness;

/// The state of this process that its tasks share.
#[derive(Clone)]
pub(super) struct Lifecycle {
    pub(super) readiness: Readiness,
    /// Cancelled when no more requests are accepted.
    pub(super) stop: CancellationToken,
    /// Requests that are being answered.
    pub(super) requests: TaskTracker,
}

/// Waits for SIGTERM or SIGINT and returns its name.
///
/// # Errors
/// When no handler can be installed.
pub(super) async fn shutdown_signal() -> anyhow::Result<&'static str> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// Waits for a task to fail; a task that ends without an error has done its work. `None` once all have.
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
