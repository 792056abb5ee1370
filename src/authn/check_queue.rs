//! Limits the checks of credentials from addresses that send many wrong ones, to a few at a time. They cost the API
//! server little, and a right one still gets through: behind a proxy, all clients may share an address.

use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::digest_cache::{Digest, Recent};

/// How many are checked at a time, for all such addresses together.
const AT_ONCE: usize = 4;
/// How many may wait for that, and for how long.
const WAITING: usize = 32;
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a refused one keeps its turn: so at most 80 are refused per second.
const PACE: Duration = Duration::from_millis(50);
/// How long a refused credential is refused again without a check.
const REFUSED: Duration = Duration::from_secs(10);
/// How long an accepted credential need not queue. It is still checked.
const ACCEPTED: Duration = Duration::from_secs(600);

/// The checks of this replica.
#[derive(Debug)]
pub struct Checks {
    places: Semaphore,
    turns: Semaphore,
    accepted: Recent,
    refused: Recent,
}

/// A turn to check one credential.
#[derive(Debug)]
pub struct Turn<'a> {
    _permits: (SemaphorePermit<'a>, SemaphorePermit<'a>),
    since: Instant,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            places: Semaphore::new(AT_ONCE + WAITING),
            turns: Semaphore::new(AT_ONCE),
            accepted: Recent::default(),
            refused: Recent::default(),
        }
    }
}

impl Checks {
    /// Waits for a turn; `None` if too many wait already or it takes too long.
    pub async fn turn(&self) -> Option<Turn<'_>> {
        let place = self.places.try_acquire().ok()?;
        let turn = tokio::time::timeout(PATIENCE, self.turns.acquire()).await.ok()?.ok()?;
        Some(Turn { _permits: (place, turn), since: Instant::now() })
    }

    /// Remembers the result of a check.
    pub fn note(&self, credential: Digest, accepted: bool) {
        if accepted {
            self.accepted.remember(credential, ACCEPTED);
        } else {
            self.refused.remember(credential, REFUSED);
            self.accepted.forget(&credential);
        }
    }

    /// Whether it was accepted recently, so that it probably will be again.
    pub fn was_accepted(&self, credential: &Digest) -> bool {
        self.accepted.left(credential).is_some()
    }

    /// Whether it was refused a moment ago.
    pub fn was_refused(&self, credential: &Digest) -> bool {
        self.refused.left(credential).is_some()
    }
}

impl Turn<'_> {
    /// Keeps the turn of a refused credential for its minimum time.
    pub async fn keep_pace(self) {
        tokio::time::sleep(PACE.saturating_sub(self.since.elapsed())).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn checks_and_waiting_requests_are_limited() {
        let checks = Checks::default();
        let mut taken = join_all((0..AT_ONCE).map(|_| checks.turn())).await;
        assert!(taken.iter().all(Option::is_some));
        let mut waiting: Vec<_> = (0..WAITING).map(|_| Box::pin(checks.turn())).collect();
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
        assert!(checks.turn().await.is_none(), "one too many");
        taken.pop();
        assert!(waiting.remove(0).await.is_some(), "first come, first served");
    }
}
