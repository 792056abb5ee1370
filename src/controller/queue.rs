//! Decides which member is reconciled next: each at most once at a time, at its earliest requested time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::domain::member_id::MemberId;

/// The longest delay between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(15);
/// How often the queue reads the clock while it waits. The clock may be set meanwhile, which moves every expiry.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// The queue of one controller.
pub(super) struct Queue {
    /// The API server's time.
    now: Box<dyn Fn() -> DateTime<Utc> + Send>,
    /// A random number from zero to one.
    jitter: Box<dyn Fn() -> f64 + Send>,
    /// Requests for a time, by the API server's clock.
    timed: Schedule<DateTime<Utc>>,
    /// Other requests and retries, by our own.
    asked: Schedule<Instant>,
    running: HashSet<MemberId>,
    /// Members requested while they were running.
    again: HashSet<MemberId>,
    failures: HashMap<MemberId, u32>,
}

impl Queue {
    pub(super) fn new(
        now: impl Fn() -> DateTime<Utc> + Send + 'static,
        jitter: impl Fn() -> f64 + Send + 'static,
    ) -> Self {
        Self {
            now: Box::new(now),
            jitter: Box::new(jitter),
            timed: Schedule::default(),
            asked: Schedule::default(),
            running: HashSet::new(),
            again: HashSet::new(),
            failures: HashMap::new(),
        }
    }

    /// Requests a member now.
    pub(super) fn now(&mut self, id: MemberId) {
        if self.running.contains(&id) {
            self.again.insert(id);
        } else {
            self.after(id, Duration::ZERO);
        }
    }

    /// Requests a member at `when`, by the API server's clock. An earlier request stands.
    pub(super) fn at(&mut self, id: MemberId, when: DateTime<Utc>) {
        self.timed.add(id, when);
    }

    fn after(&mut self, id: MemberId, wait: Duration) {
        self.asked.add(id, Instant::now() + wait);
    }

    /// Waits for the next member that is due. It counts as running until [`Self::done`] or [`Self::failed`].
    pub(super) async fn next(&mut self) -> MemberId {
        loop {
            while let Some(id) = self.take_due() {
                if self.running.insert(id.clone()) {
                    return id;
                }
                self.again.insert(id);
            }
            match self.next_look() {
                Some(when) => tokio::time::sleep_until(when).await,
                // The queue is empty, and nobody can add to it while this call borrows it.
                None => std::future::pending().await,
            }
        }
    }

    /// Takes a member that is due: one at its end first, so that an end does not wait behind others.
    fn take_due(&mut self) -> Option<MemberId> {
        let id = self.timed.due((self.now)()).or_else(|| self.asked.due(Instant::now()))?.clone();
        self.timed.remove(&id);
        self.asked.remove(&id);
        Some(id)
    }

    /// When a member may be due next.
    fn next_look(&self) -> Option<Instant> {
        let timed = self.timed.first().map(|when| {
            let wait = (when - (self.now)()).to_std().unwrap_or_default();
            Instant::now() + wait.min(CLOCK_INTERVAL)
        });
        self.asked.first().into_iter().chain(timed).min()
    }

    /// Ends a run that succeeded. `wake` is when the member needs the next one.
    pub(super) fn done(&mut self, id: MemberId, wake: Option<DateTime<Utc>>) {
        self.failures.remove(&id);
        self.running.remove(&id);
        if self.again.remove(&id) {
            self.now(id);
        } else if let Some(when) = wake {
            self.at(id, when);
        }
    }

    /// Ends a run that failed. Retries never stop; the delay doubles up to [`MAX_BACKOFF`].
    pub(super) fn failed(&mut self, id: MemberId) {
        self.running.remove(&id);
        self.again.remove(&id);
        let failures = self.failures.entry(id.clone()).or_default();
        *failures = failures.saturating_add(1);
        let backoff = Duration::from_millis(250).saturating_mul(1 << (*failures).min(10)).min(MAX_BACKOFF);
        // Between half and all of it, so that members that failed together do not retry together.
        self.after(id, backoff.mul_f64(0.5 + (self.jitter)() / 2.0));
    }
}

/// The earliest request of each member, by one clock.
struct Schedule<T> {
    by_member: HashMap<MemberId, T>,
    by_time: BTreeSet<(T, MemberId)>,
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self { by_member: HashMap::new(), by_time: BTreeSet::new() }
    }
}

impl<T: Copy + Ord> Schedule<T> {
    /// Adds a request. An earlier one of the member stands.
    fn add(&mut self, id: MemberId, when: T) {
        if self.by_member.get(&id).is_some_and(|planned| *planned <= when) {
            return;
        }
        self.remove(&id);
        self.by_member.insert(id.clone(), when);
        self.by_time.insert((when, id));
    }

    fn remove(&mut self, id: &MemberId) {
        if let Some(when) = self.by_member.remove(id) {
            self.by_time.remove(&(when, id.clone()));
        }
    }

    /// The time of the first request.
    fn first(&self) -> Option<T> {
        self.by_time.first().map(|(when, _)| *when)
    }

    /// The member of the first request, if that is due.
    fn due(&self, now: T) -> Option<&MemberId> {
        self.by_time.first().filter(|(when, _)| *when <= now).map(|(_, id)| id)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use chrono::TimeDelta;
    use tokio::time::timeout;

    use super::*;

    /// What the timer may be late by; it counts whole milliseconds.
    const TIMER: Duration = Duration::from_millis(2);

    fn id(text: &str) -> MemberId {
        MemberId::parse(text).unwrap()
    }

    /// A queue that uses tokio's clock, and a function for the time in this many seconds.
    fn queue(jitter: f64) -> (Queue, impl Fn(i64) -> DateTime<Utc>) {
        let start = Instant::now();
        let now = move || DateTime::from_timestamp(1_800_000_000, 0).unwrap() + start.elapsed();
        (Queue::new(now, move || jitter), move |seconds| now() + TimeDelta::seconds(seconds))
    }

    /// The next member, which must be due after `wait`.
    #[track_caller]
    fn expect_after(queue: &mut Queue, wait: Duration) -> impl Future<Output = MemberId> {
        let caller = std::panic::Location::caller();
        async move {
            let start = Instant::now();
            let id = timeout(Duration::from_secs(3600), queue.next()).await.expect("a member is due within an hour");
            let waited = start.elapsed();
            assert!(wait <= waited && waited <= wait + TIMER, "{id} after {waited:?}, not {wait:?}, at {caller}");
            id
        }
    }

    async fn is_idle_for(queue: &mut Queue, wait: Duration) -> bool {
        timeout(wait, queue.next()).await.is_err()
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn sooner_request_wins_over_later_one() {
        let (mut queue, in_seconds) = queue(0.0);
        queue.at(id("view.a"), in_seconds(20));
        queue.at(id("view.a"), in_seconds(10));
        queue.at(id("view.a"), in_seconds(30));
        queue.at(id("view.b"), in_seconds(5));
        queue.now(id("view.c"));
        assert_eq!(expect_after(&mut queue, seconds(0)).await, id("view.c"));
        assert_eq!(expect_after(&mut queue, seconds(5)).await, id("view.b"));
        assert_eq!(expect_after(&mut queue, seconds(5)).await, id("view.a"));
        for member in ["view.a", "view.b", "view.c"] {
            queue.done(id(member), None);
        }
        assert!(is_idle_for(&mut queue, seconds(3600)).await, "the later requests are gone");
    }

    #[tokio::test(start_paused = true)]
    async fn request_for_the_past_is_due_at_once() {
        let (mut queue, in_seconds) = queue(0.0);
        queue.at(id("view.a"), in_seconds(-5));
        assert_eq!(expect_after(&mut queue, seconds(0)).await, id("view.a"));
    }

    #[tokio::test(start_paused = true)]
    async fn member_runs_once_at_a_time_and_holds_up_no_other() {
        let (mut queue, in_seconds) = queue(0.0);
        queue.now(id("view.a"));
        assert_eq!(expect_after(&mut queue, seconds(0)).await, id("view.a"));
        queue.now(id("view.a"));
        queue.at(id("view.a"), in_seconds(1));
        queue.at(id("view.b"), in_seconds(2));
        assert_eq!(expect_after(&mut queue, seconds(2)).await, id("view.b"));
        assert!(is_idle_for(&mut queue, seconds(3600)).await, "both are still running");
    }

    #[tokio::test(start_paused = true)]
    async fn member_requested_while_running_runs_once_more() {
        for request_now in [true, false] {
            let (mut queue, in_seconds) = queue(0.0);
            queue.now(id("view.a"));
            expect_after(&mut queue, seconds(0)).await;
            if request_now {
                queue.now(id("view.a"));
            } else {
                queue.at(id("view.a"), in_seconds(1));
                assert!(is_idle_for(&mut queue, seconds(2)).await);
            }
            queue.done(id("view.a"), Some(in_seconds(30)));
            assert_eq!(expect_after(&mut queue, seconds(0)).await, id("view.a"), "at once, not at its wake");
            queue.done(id("view.a"), None);
            assert!(is_idle_for(&mut queue, seconds(3600)).await, "only once more");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn member_that_is_done_runs_again_at_its_wake() {
        let (mut queue, in_seconds) = queue(0.0);
        queue.now(id("view.a"));
        expect_after(&mut queue, seconds(0)).await;
        queue.done(id("view.a"), Some(in_seconds(30)));
        assert_eq!(expect_after(&mut queue, seconds(30)).await, id("view.a"));
    }

    #[tokio::test(start_paused = true)]
    async fn clock_that_is_set_is_noticed_within_a_second() {
        let hour = Arc::new(AtomicI64::new(0));
        let clock = Arc::clone(&hour);
        let now = move || DateTime::from_timestamp(1_800_000_000 + 3600 * clock.load(Ordering::Relaxed), 0).unwrap();
        let expiry = now() + TimeDelta::hours(5);
        let mut queue = Queue::new(now, || 0.0);
        queue.at(id("view.a"), expiry);
        queue.at(id("view.b"), DateTime::<Utc>::MAX_UTC);
        assert!(is_idle_for(&mut queue, seconds(3600)).await);
        hour.store(5, Ordering::Relaxed);
        assert_eq!(timeout(CLOCK_INTERVAL + TIMER, queue.next()).await.unwrap(), id("view.a"));
    }

    #[tokio::test(start_paused = true)]
    async fn end_goes_before_a_request() {
        let (mut queue, in_seconds) = queue(0.0);
        queue.now(id("view.a"));
        queue.at(id("view.b"), in_seconds(0));
        assert_eq!(expect_after(&mut queue, seconds(0)).await, id("view.b"));
        assert_eq!(expect_after(&mut queue, seconds(0)).await, id("view.a"));
    }

    #[tokio::test(start_paused = true)]
    async fn failure_is_retried_without_end_and_within_bounds() {
        for (jitter, first, last) in
            [(0.0, Duration::from_millis(250), MAX_BACKOFF / 2), (1.0, seconds(1) / 2, MAX_BACKOFF)]
        {
            let (mut queue, _) = queue(jitter);
            queue.now(id("view.a"));
            expect_after(&mut queue, seconds(0)).await;
            let mut wait = first;
            for _ in 0..100 {
                queue.failed(id("view.a"));
                assert_eq!(expect_after(&mut queue, wait).await, id("view.a"));
                wait = (wait * 2).min(last);
            }
            assert_eq!(wait, last);
            queue.done(id("view.a"), None);
            queue.now(id("view.a"));
            expect_after(&mut queue, seconds(0)).await;
            queue.failed(id("view.a"));
            expect_after(&mut queue, first).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn request_cuts_a_backoff_short() {
        let (mut queue, _) = queue(1.0);
        queue.now(id("view.a"));
        expect_after(&mut queue, seconds(0)).await;
        queue.now(id("view.a"));
        queue.failed(id("view.a"));
        assert!(is_idle_for(&mut queue, Duration::from_millis(400)).await, "a request from before the failure waits");
        queue.now(id("view.a"));
        assert_eq!(expect_after(&mut queue, seconds(0)).await, id("view.a"));
        queue.done(id("view.a"), None);
        assert!(is_idle_for(&mut queue, seconds(3600)).await, "the retry covered that request");
    }
}
