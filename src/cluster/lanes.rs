//! How many calls may be under way, so that no flood of requests takes the API server's time from what must not wait.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::client::Patience;

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Requests of the REST API. Whoever asks may be anybody.
    Requests,
    /// Ends: what the controller does, and what a request revokes once it was decided that it may.
    Ends,
    /// The Lease: one call at a time, in one task.
    Lease,
}

/// How many calls of a lane may be under way at this replica.
const REQUESTS: usize = 32;
const ENDS: usize = 32;

/// The calls under way at this replica, and what makes them: each lane has connections of its own.
#[derive(Clone)]
pub(super) struct Lanes {
    requests: (Arc<Semaphore>, Client),
    ends: (Arc<Semaphore>, Client),
    lease: Client,
}

impl Lanes {
    /// With clients of these kinds.
    pub(super) fn new(client: impl Fn(Patience) -> kube::Result<Client>) -> kube::Result<Self> {
        Ok(Self {
            requests: (Arc::new(Semaphore::new(REQUESTS)), client(Patience::CALLS)?),
            ends: (Arc::new(Semaphore::new(ENDS)), client(Patience::ENDS)?),
            lease: client(Patience::LEASE)?,
        })
    }

    /// What the calls of a lane are made with.
    pub(super) fn client(&self, lane: Lane) -> Client {
        match lane {
            Lane::Requests => self.requests.1.clone(),
            Lane::Ends => self.ends.1.clone(),
            Lane::Lease => self.lease.clone(),
        }
    }

    /// Waits for room for one more call; `None` when there is none for too long. First come, first served.
    pub(super) async fn enter(&self, lane: Lane) -> Option<Room<'_>> {
        let room = match lane {
            Lane::Requests => &self.requests.0,
            Lane::Ends => &self.ends.0,
            Lane::Lease => return Some(Room(None)),
        };
        let permit = tokio::time::timeout(lane.patience(), room.acquire()).await.ok()?.ok()?;
        Some(Room(Some(permit)))
    }
}

impl Lane {
    /// How long a call waits for room: a client, not for long; what ends a membership, rather than fail.
    fn patience(self) -> Duration {
        Duration::from_secs(if self == Self::Ends { 30 } else { 5 })
    }

    /// How long a call may take once it is sent. A Lease that is asked for too long is lost: it must be asked
    /// for more than once.
    pub(super) fn timeout(self) -> Duration {
        Duration::from_secs(if self == Self::Lease { 4 } else { 10 })
    }
}

/// Room for one call, given back when dropped.
#[derive(Debug)]
pub(super) struct Room<'a>(#[expect(dead_code, reason = "held for its drop")] Option<SemaphorePermit<'a>>);

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use kube::client::Body;

    use super::*;

    #[tokio::test]
    async fn full_lane_leaves_the_others_free() {
        // Never called.
        let nothing = || tower::service_fn(|_| async { Ok::<_, kube::Error>(http::Response::new(Body::empty())) });
        let lanes = Lanes::new(|_| Ok(Client::new(nothing(), "default"))).unwrap();
        let mut taken = Vec::new();
        for _ in 0..REQUESTS {
            taken.push(lanes.enter(Lane::Requests).await.unwrap());
        }
        assert!(lanes.enter(Lane::Requests).now_or_never().is_none(), "it waits");
        for lane in [Lane::Ends, Lane::Lease] {
            assert!(lanes.enter(lane).now_or_never().flatten().is_some(), "{lane:?}");
        }
        drop(taken.pop());
        assert!(lanes.enter(Lane::Requests).now_or_never().flatten().is_some());
    }
}
