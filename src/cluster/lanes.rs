//! Limits on calls in flight, so that a flood of REST requests does not delay ending members or renewing the Lease.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::client::RetryPolicy;

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// REST API requests. Anybody may send them.
    Requests,
    /// Ending memberships: the controller's calls, and those of an authorized request to revoke something.
    Ends,
    /// The Lease: one call at a time, in one task.
    Lease,
}

/// The most calls in flight per lane and replica.
const REQUESTS: usize = 32;
const ENDS: usize = 32;

/// The slots and the client of each lane. Lanes share no connections.
#[derive(Clone)]
pub(super) struct Lanes {
    requests: LimitedClient,
    ends: LimitedClient,
    lease: Client,
}

#[derive(Clone)]
struct LimitedClient {
    slots: Arc<Semaphore>,
    client: Client,
}

impl LimitedClient {
    fn new(most: usize, client: Client) -> Self {
        Self { slots: Arc::new(Semaphore::new(most)), client }
    }
}

impl Lanes {
    /// Builds one client per lane with `client`.
    pub(super) fn new(client: impl Fn(RetryPolicy) -> kube::Result<Client>) -> kube::Result<Self> {
        Ok(Self {
            requests: LimitedClient::new(REQUESTS, client(RetryPolicy::REQUESTS)?),
            ends: LimitedClient::new(ENDS, client(RetryPolicy::ENDS)?),
            lease: client(RetryPolicy::LEASE)?,
        })
    }

    /// The client for the calls of a lane.
    pub(super) fn client(&self, lane: Lane) -> Client {
        match lane {
            Lane::Requests => self.requests.client.clone(),
            Lane::Ends => self.ends.client.clone(),
            Lane::Lease => self.lease.clone(),
        }
    }

    /// Waits for a free slot, first come, first served; `None` if none frees up in time.
    pub(super) async fn acquire(&self, lane: Lane) -> Option<Slot<'_>> {
        let slots = match lane {
            Lane::Requests => &self.requests.slots,
            Lane::Ends => &self.ends.slots,
            Lane::Lease => return Some(Slot(None)),
        };
        let permit = tokio::time::timeout(lane.longest_wait(), slots.acquire()).await.ok()?.ok()?;
        Some(Slot(Some(permit)))
    }
}

impl Lane {
    /// How long a call waits for a slot. A REST request fails soon; ending a membership rather waits.
    fn longest_wait(self) -> Duration {
        Duration::from_secs(if self == Self::Ends { 30 } else { 5 })
    }

    /// The timeout of a call once it is sent. It is short for the Lease, to leave time for another try before the
    /// Lease expires.
    pub(super) fn timeout(self) -> Duration {
        Duration::from_secs(if self == Self::Lease { 4 } else { 10 })
    }
}

/// The right to make one call; dropping it frees the slot.
#[derive(Debug)]
pub(super) struct Slot<'a>(#[expect(dead_code, reason = "dropping it frees the slot")] Option<SemaphorePermit<'a>>);

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use kube::client::Body;

    use super::*;

    #[tokio::test]
    async fn full_lane_does_not_block_the_others() {
        let unused = || tower::service_fn(|_| async { Ok::<_, kube::Error>(http::Response::new(Body::empty())) });
        let lanes = Lanes::new(|_| Ok(Client::new(unused(), "default"))).unwrap();
        let mut taken = Vec::new();
        for _ in 0..REQUESTS {
            taken.push(lanes.acquire(Lane::Requests).await.unwrap());
        }
        assert!(lanes.acquire(Lane::Requests).now_or_never().is_none(), "waits for a slot");
        for lane in [Lane::Ends, Lane::Lease] {
            assert!(lanes.acquire(lane).now_or_never().flatten().is_some(), "{lane:?}");
        }
        drop(taken.pop());
        assert!(lanes.acquire(Lane::Requests).now_or_never().flatten().is_some(), "slot freed");
    }
}
