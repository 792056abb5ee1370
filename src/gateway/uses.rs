//! Records when kubeconfigs were last used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::domain::gateway_token::Pass;
use crate::domain::member::Member;
use crate::membership::Membership;

/// How long after an attempt the next one comes, whether or not it failed.
const PAUSE: Duration = Duration::from_secs(60);

/// How many are written at once: a few, since these writes share their lane with the calls that people wait for. The
/// others are left to the next use of their kubeconfig.
const AT_ONCE: usize = 8;

/// Records uses in the background, so that no request waits for it or fails by it. A write may outlive its request by
/// the time of one call (15 s with its wait for a slot). That harms nobody: it goes to the version of the Member that
/// admitted the request, so it conflicts with whatever has ended the member since. A replica that stops waits for it,
/// and gives requests in progress longer than that.
pub(super) struct Uses {
    membership: Membership,
    clock: Clock,
    tasks: TaskTracker,
    attempts: Attempts,
}

/// The attempts to write.
struct Attempts {
    places: Arc<Semaphore>,
    /// The last attempt for each kubeconfig, by the UID of its Secret.
    tried: Mutex<HashMap<String, Instant>>,
}

impl Uses {
    pub(super) fn new(membership: Membership, clock: Clock, tasks: TaskTracker) -> Self {
        Self { membership, clock, tasks, attempts: Attempts::default() }
    }

    /// Records a use, unless one in the last ten minutes is recorded.
    pub(super) fn note(&self, member: &Arc<Member>, pass: &Pass) {
        let mut records = member.status.kubeconfigs.iter().flatten();
        if !records.any(|record| record.id == pass.id && record.is_use_due(self.clock.now())) {
            return;
        }
        let Some(place) = self.attempts.begin(&pass.secret_uid, Instant::now()) else { return };
        let (membership, member, id) = (self.membership.clone(), Arc::clone(member), pass.id.clone());
        self.tasks.spawn(async move {
            let _place = place;
            if let Err(error) = membership.record_use(&member, &id).await {
                tracing::debug!(member = %member.id, %error, "could not record the use of a kubeconfig");
            }
        });
    }
}

impl Default for Attempts {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), tried: Mutex::default() }
    }
}

impl Attempts {
    /// A place to write for this kubeconfig; `None` if it has been tried a moment ago, or all places are taken.
    fn begin(&self, secret_uid: &str, now: Instant) -> Option<OwnedSemaphorePermit> {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if tried.get(secret_uid).is_some_and(|last| now.duration_since(*last) < PAUSE) {
            return None;
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        tried.retain(|_, last| now.duration_since(*last) < PAUSE);
        tried.insert(secret_uid.to_owned(), now);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubeconfig_is_tried_once_a_minute() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        assert!(attempts.begin("a", now).is_some());
        assert!(attempts.begin("a", now + PAUSE - Duration::from_nanos(1)).is_none());
        assert!(attempts.begin("b", now).is_some());
        assert!(attempts.begin("a", now + PAUSE).is_some());
    }

    #[test]
    fn few_are_written_at_once_and_the_others_have_another_chance() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let begin = |number: usize| attempts.begin(&number.to_string(), now);
        let held: Vec<_> = (0..AT_ONCE).map(|number| begin(number).unwrap()).collect();
        assert!(begin(AT_ONCE).is_none());
        drop(held);
        assert!(begin(AT_ONCE).is_some() && begin(0).is_none());
    }
}
