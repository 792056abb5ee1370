//! Records when kubeconfigs were last used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::domain::gateway_token::Pass;
use crate::domain::member::Member;
use crate::membership::Membership;

/// How long after an attempt the next one comes, whether or not it failed.
const PAUSE: Duration = Duration::from_secs(60);

/// Records uses in the background, so that no request waits for it or fails by it.
pub(super) struct Uses {
    membership: Membership,
    clock: Clock,
    tasks: TaskTracker,
    /// The last attempt for each kubeconfig, by the UID of its Secret.
    tried: Mutex<HashMap<String, Instant>>,
}

impl Uses {
    pub(super) fn new(membership: Membership, clock: Clock, tasks: TaskTracker) -> Self {
        Self { membership, clock, tasks, tried: Mutex::default() }
    }

    /// Records a use, unless one in the last ten minutes is recorded.
    pub(super) fn note(&self, member: &Arc<Member>, pass: &Pass) {
        let mut records = member.status.kubeconfigs.iter().flatten();
        let is_due = records.any(|record| record.id == pass.id && record.is_use_due(self.clock.now()));
        if !is_due || !self.may_try(&pass.secret_uid, Instant::now()) {
            return;
        }
        let (membership, member, id) = (self.membership.clone(), Arc::clone(member), pass.id.clone());
        self.tasks.spawn(async move {
            if let Err(error) = membership.record_use(&member, &id).await {
                tracing::debug!(member = %member.id, %error, "could not record the use of a kubeconfig");
            }
        });
    }

    fn may_try(&self, secret_uid: &str, now: Instant) -> bool {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if tried.get(secret_uid).is_some_and(|last| now.duration_since(*last) < PAUSE) {
            return false;
        }
        tried.retain(|_, last| now.duration_since(*last) < PAUSE);
        tried.insert(secret_uid.to_owned(), now);
        true
    }
}
