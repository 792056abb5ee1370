//! One replica reaps at a time. Nothing breaks if two do for a moment: every step is idempotent and names the object by its UID;
//! the Lease saves the work of doing it twice.

use std::time::Instant;

use tokio::time::MissedTickBehavior;

use super::run;
use crate::cluster::{AccessTokens, Cluster, LEASE_DURATION, LeaseState, RENEW_INTERVAL};

/// Waits for the Lease, runs the controller while it is held, for ever. Its calls are also this replica's pulse: they tell, every
/// two seconds, whether the API server answers and what time it is there.
pub async fn lead(tokens: &AccessTokens, state: &mut LeaseState) {
    let cluster = &tokens.cluster;
    let mut ticks = tokio::time::interval(RENEW_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while !holds(cluster, state).await {
            ticks.tick().await;
        }
        tracing::info!("this replica reaps now");
        cluster.metrics.leader.set(1);
        tokio::select! {
            () = run(tokens) => {}
            () = keep(cluster, state, &mut ticks) => tracing::warn!("the lease is lost; another replica reaps"),
        }
        cluster.metrics.leader.set(0);
    }
}

/// Renews until the lease is lost, or could not be renewed for so long that another may have taken it.
async fn keep(cluster: &Cluster, state: &mut LeaseState, ticks: &mut tokio::time::Interval) {
    let mut renewed = Instant::now();
    while renewed.elapsed() < LEASE_DURATION {
        ticks.tick().await;
        match cluster.acquire_lease(state).await {
            Ok(true) => renewed = Instant::now(),
            Ok(false) => return,
            Err(error) => tracing::warn!(%error, "the lease could not be renewed"),
        }
    }
}

async fn holds(cluster: &Cluster, state: &mut LeaseState) -> bool {
    cluster.acquire_lease(state).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the lease could not be asked for");
        false
    })
}
