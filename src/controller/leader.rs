//! Leader election: one replica at a time runs the controller.
//!
//! Two leaders for a moment do no harm: every step is idempotent and names its object by UID. The Lease only saves
//! duplicate work.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, timeout_at};

use super::{Controller, run};
use crate::cluster::{Cluster, LEASE_DURATION, Lane, LeaseState, RENEW_INTERVAL};

/// The delay after a failed renewal. Short, so that many attempts fit before the Lease expires.
const RETRY: Duration = Duration::from_millis(500);

/// Runs the controller whenever this replica holds the Lease, and never returns. The Lease calls also serve as a
/// heartbeat: every two seconds they show whether the API server answers, and what time it is there.
pub async fn lead(controller: &Controller, state: &mut LeaseState) {
    let cluster = &controller.cluster.in_lane(Lane::Lease);
    let controller = &controller.in_lane(Lane::Ends);
    let mut ticks = tokio::time::interval(RENEW_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while !holds(cluster, state).await {
            ticks.tick().await;
        }
        tracing::info!("this replica is now the leader");
        controller.metrics.leader.set(1);
        tokio::select! {
            () = run(controller) => {}
            () = keep(cluster, state, &mut ticks) => tracing::warn!("lost the lease; another replica takes over"),
        }
        controller.metrics.leader.set(0);
    }
}

/// Renews the lease until it is lost, or has not been renewed for so long that another replica may have taken it.
async fn keep(cluster: &Cluster, state: &mut LeaseState, ticks: &mut Interval) {
    // Measured from before the request is sent: other replicas measure from the write, which is later.
    let mut renewed = Instant::now();
    loop {
        let renew = async {
            ticks.tick().await;
            (Instant::now(), cluster.acquire_lease(state).await)
        };
        match timeout_at(renewed + LEASE_DURATION, renew).await {
            Ok((sent, Ok(true))) => renewed = sent,
            Ok((_, Err(error))) => {
                tracing::warn!(%error, "could not renew the lease");
                ticks.reset_after(RETRY);
            }
            Ok((_, Ok(false))) | Err(_) => return,
        }
    }
}

async fn holds(cluster: &Cluster, state: &mut LeaseState) -> bool {
    cluster.acquire_lease(state).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "could not acquire the lease");
        false
    })
}
