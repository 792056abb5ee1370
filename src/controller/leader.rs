//! One replica reaps at a time. Nothing breaks if two do for a moment: every step is idempotent and names the object by its UID;
//! the Lease saves the work of doing it twice.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, timeout_at};

use super::{Controller, run};
use crate::cluster::{Cluster, LEASE_DURATION, Lane, LeaseState, RENEW_INTERVAL};

/// How soon the Lease is asked for again when that failed: there must be many tries before it runs out.
const RETRY: Duration = Duration::from_millis(500);

/// Waits for the Lease, runs the controller while it is held, for ever. Its calls are also this replica's pulse: they tell, every
/// two seconds, whether the API server answers and what time it is there.
pub async fn lead(controller: &Controller, state: &mut LeaseState) {
    let cluster = &controller.cluster.in_lane(Lane::Lease);
    let controller = &controller.in_lane(Lane::Ends);
    let mut ticks = tokio::time::interval(RENEW_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while !holds(cluster, state).await {
            ticks.tick().await;
        }
        tracing::info!("this replica reaps now");
        controller.metrics.leader.set(1);
        tokio::select! {
            () = run(controller) => {}
            () = keep(cluster, state, &mut ticks) => tracing::warn!("the lease is lost; another replica reaps"),
        }
        controller.metrics.leader.set(0);
    }
}

/// Renews until the lease is lost, or could not be renewed for so long that another may have taken it.
async fn keep(cluster: &Cluster, state: &mut LeaseState, ticks: &mut Interval) {
    // Others count from when it was written, which is not before it was sent.
    let mut renewed = Instant::now();
    loop {
        let renew = async {
            ticks.tick().await;
            (Instant::now(), cluster.acquire_lease(state).await)
        };
        match timeout_at(renewed + LEASE_DURATION, renew).await {
            Ok((sent, Ok(true))) => renewed = sent,
            Ok((_, Err(error))) => {
                tracing::warn!(%error, "the lease could not be renewed");
                ticks.reset_after(RETRY);
            }
            Ok((_, Ok(false))) | Err(_) => return,
        }
    }
}

async fn holds(cluster: &Cluster, state: &mut LeaseState) -> bool {
    cluster.acquire_lease(state).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the lease could not be asked for");
        false
    })
}
