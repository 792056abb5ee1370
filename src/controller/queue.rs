//! Which member is to be looked at when: each at most once at a time, sooner rather than later.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use tokio::time::Instant;
use tokio_util::time::{DelayQueue, delay_queue};

use crate::clock::{Clock, Entropy};
use crate::domain::id::MemberId;

/// The longest wait between two tries.
const MAX_BACKOFF: Duration = Duration::from_secs(15);
/// The longest wait for an expiry before the clock is asked again: it may have been set meanwhile.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The queue.
pub(super) struct Queue {
    clock: Clock,
    entropy: Entropy,
    waiting: DelayQueue<MemberId>,
    keys: HashMap<MemberId, (delay_queue::Key, Instant)>,
    running: HashSet<MemberId>,
    /// Asked for while they were running.
    again: HashSet<MemberId>,
    failures: HashMap<MemberId, u32>,
}

impl Queue {
    pub(super) fn new(clock: Clock, entropy: Entropy) -> Self {
        Self {
            clock,
            entropy,
            waiting: DelayQueue::new(),
            keys: HashMap::new(),
            running: HashSet::new(),
            again: HashSet::new(),
            failures: HashMap::new(),
        }
    }

    /// To be looked at now.
    pub(super) fn now(&mut self, id: MemberId) {
        if self.running.contains(&id) {
            self.again.insert(id);
        } else {
            self.after(id, Duration::ZERO);
        }
    }

    /// To be looked at then, if not before.
    pub(super) fn at(&mut self, id: MemberId, when: DateTime<Utc>) {
        let wait = (when - self.clock.now()).to_std().unwrap_or_default();
        self.after(id, wait.min(MAX_WAIT));
    }

    fn after(&mut self, id: MemberId, wait: Duration) {
        let when = Instant::now() + wait;
        match self.keys.get_mut(&id) {
            Some((_, planned)) if *planned <= when => {}
            Some((key, planned)) => {
                self.waiting.reset_at(key, when);
                *planned = when;
            }
            None => {
                let key = self.waiting.insert_at(id.clone(), when);
                self.keys.insert(id, (key, when));
            }
        }
    }

    /// The next one that is due; it runs until [`Self::done`] or [`Self::failed`].
    pub(super) async fn next(&mut self) -> MemberId {
        loop {
            let Some(due) = self.waiting.next().await else {
                // Empty: until something is put in, which only happens between two calls of this.
                std::future::pending::<()>().await;
                continue;
            };
            let id = due.into_inner();
            self.keys.remove(&id);
            if self.running.insert(id.clone()) {
                return id;
            }
            self.again.insert(id);
        }
    }

    /// It was looked at, and needs to be again then.
    pub(super) fn done(&mut self, id: MemberId, wake: Option<DateTime<Utc>>) {
        self.failures.remove(&id);
        self.running.remove(&id);
        if self.again.remove(&id) {
            self.now(id);
        } else if let Some(when) = wake {
            self.at(id, when);
        }
    }

    /// It failed; it is tried again, without end, ever more slowly up to a bound.
    pub(super) fn failed(&mut self, id: MemberId) {
        self.running.remove(&id);
        self.again.remove(&id);
        let failures = self.failures.entry(id.clone()).or_default();
        *failures = failures.saturating_add(1);
        let backoff = Duration::from_millis(250).saturating_mul(1 << (*failures).min(10)).min(MAX_BACKOFF);
        // Between half and all of it, so that many that failed together do not come back together.
        self.after(id, backoff.mul_f64(0.5 + self.entropy.fraction() / 2.0));
    }
}
