//! Decides which member is reconciled next: each at most once at a time, and ends never wait behind other work.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::schedule::Schedule;
use crate::domain::member_id::MemberId;

/// How many members are ended at a time. The lane for ends sends 32 calls at a time; this many keep it busy.
const ENDS: usize = 48;
/// How many runs do other work at a time: half of what the lane sends, so that ends get through if these calls hang.
const OTHERS: usize = 16;
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
    /// Whether a member has ended, so that a run ends it or removes what is left of it.
    has_ended: Box<dyn Fn(&MemberId) -> bool + Send>,
    /// When each member is due next, by the API server's clock.
    timed: Schedule<DateTime<Utc>>,
    ends: Line,
    others: Line,
    /// Members requested while they were running.
    again: HashSet<MemberId>,
    failures: HashMap<MemberId, u32>,
}

/// The runs of one kind. Each kind has places of its own, so that neither waits for the other.
struct Line {
    places: usize,
    running: HashSet<MemberId>,
    /// Requests and retries, by our own clock.
    asked: Schedule<Instant>,
}

impl Queue {
    pub(super) fn new(
        now: impl Fn() -> DateTime<Utc> + Send + 'static,
        jitter: impl Fn() -> f64 + Send + 'static,
        has_ended: impl Fn(&MemberId) -> bool + Send + 'static,
    ) -> Self {
        Self {
            now: Box::new(now),
            jitter: Box::new(jitter),
            has_ended: Box::new(has_ended),
            timed: Schedule::default(),
            ends: Line::new(ENDS),
            others: Line::new(OTHERS),
            again: HashSet::new(),
            failures: HashMap::new(),
        }
    }

    /// Requests a member now.
    pub(super) fn now(&mut self, id: MemberId) {
        if self.ends.running.contains(&id) || self.others.running.contains(&id) {
            self.again.insert(id);
        } else {
            self.after(id, Duration::ZERO);
        }
    }

    /// Requests a member at `when`, by the API server's clock, instead of at an earlier such time.
    pub(super) fn at(&mut self, id: MemberId, when: DateTime<Utc>) {
        self.timed.set(id, when);
    }

    /// Takes back [`Self::at`].
    pub(super) fn not_at(&mut self, id: &MemberId) {
        self.timed.remove(id);
    }

    fn after(&mut self, id: MemberId, wait: Duration) {
        let line = if (self.has_ended)(&id) { &mut self.ends } else { &mut self.others };
        line.asked.add(id, Instant::now() + wait);
    }

    /// Waits for the next member that is due and has a place. It keeps that until [`Self::done`] or [`Self::failed`].
    pub(super) async fn next(&mut self) -> MemberId {
        loop {
            if let Some(id) = self.take_due() {
                return id;
            }
            match self.next_look() {
                Some(when) => tokio::time::sleep_until(when).await,
                // Nobody can add to the queue or free a place while this call borrows it.
                None => std::future::pending().await,
            }
        }
    }

    fn take_due(&mut self) -> Option<MemberId> {
        while let Some(id) = self.timed.due((self.now)()).cloned() {
            self.timed.remove(&id);
            self.now(id);
        }
        let id = self.ends.take_due().or_else(|| self.others.take_due())?;
        self.ends.asked.remove(&id);
        self.others.asked.remove(&id);
        Some(id)
    }

    /// When a member may be due next.
    fn next_look(&self) -> Option<Instant> {
        let timed = self.timed.first().map(|when| {
            let wait = (when - (self.now)()).to_std().unwrap_or_default();
            Instant::now() + wait.min(CLOCK_INTERVAL)
        });
        [timed, self.ends.next_look(), self.others.next_look()].into_iter().flatten().min()
    }

    /// Ends a run that succeeded.
    pub(super) fn done(&mut self, id: MemberId) {
        self.failures.remove(&id);
        self.leave(&id);
        if self.again.remove(&id) {
            self.now(id);
        }
    }

    /// Ends a run that failed. Retries never stop; the delay doubles up to [`MAX_BACKOFF`].
    pub(super) fn failed(&mut self, id: MemberId) {
        let was_end = self.leave(&id);
        self.again.remove(&id);
        if !was_end && (self.has_ended)(&id) {
            // It ended meanwhile. Its end does not wait for what other work has to wait.
            self.failures.remove(&id);
            return self.now(id);
        }
        let failures = self.failures.entry(id.clone()).or_default();
        *failures = failures.saturating_add(1);
        let backoff = Duration::from_millis(250).saturating_mul(1 << (*failures).min(10)).min(MAX_BACKOFF);
        // Between half and all of it, so that members that failed together do not retry together.
        self.after(id, backoff.mul_f64(0.5 + (self.jitter)() / 2.0));
    }

    /// Frees the place of a run. Returns whether it was one for ends.
    fn leave(&mut self, id: &MemberId) -> bool {
        self.others.running.remove(id);
        self.ends.running.remove(id)
    }
}

impl Line {
    fn new(places: usize) -> Self {
        Self { places, running: HashSet::new(), asked: Schedule::default() }
    }

    fn is_full(&self) -> bool {
        self.running.len() >= self.places
    }

    /// Gives a place to the next member that is due.
    fn take_due(&mut self) -> Option<MemberId> {
        let id = self.asked.due(Instant::now()).filter(|_| !self.is_full())?.clone();
        self.running.insert(id.clone());
        Some(id)
    }

    fn next_look(&self) -> Option<Instant> {
        self.asked.first().filter(|_| !self.is_full())
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

    /// A queue that uses tokio's clock, and a function for the time in this many seconds. The members of role `gone`
    /// have ended.
    fn queue(jitter: f64) -> (Queue, impl Fn(i64) -> DateTime<Utc>) {
        let start = Instant::now();
        let now = move || DateTime::from_timestamp(1_800_000_000, 0).unwrap() + start.elapsed();
        let has_ended = |id: &MemberId| id.role.as_str() == "gone";
        (Queue::new(now, move || jitter, has_ended), move |seconds| now() + TimeDelta::seconds(seconds))
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
    async fn later_time_replaces_the_one_before() {
        let (mut queue, in_seconds) = queue(0.0);
        for (member, times) in [("view.a", [5, 20]), ("view.b", [20, 10]), ("view.c", [5, 30])] {
            times.into_iter().for_each(|time| queue.at(id(member), in_seconds(time)));
        }
        queue.not_at(&id("view.c"));
        assert_eq!(expect_after(&mut queue, seconds(10)).await, id("view.b"));
        assert_eq!(expect_after(&mut queue, seconds(10)).await, id("view.a"));
        queue.done(id("view.a"));
        queue.done(id("view.b"));
        assert!(is_idle_for(&mut queue, seconds(3600)).await, "the replaced times are gone");
    }

    #[tokio::test(start_paused = true)]
    async fn request_and_retry_stand_beside_a_time() {
        let (mut queue, in_seconds) = queue(0.0);
        queue.now(id("view.a"));
        queue.at(id("view.a"), in_seconds(30));
        assert_eq!(expect_after(&mut queue, seconds(0)).await, id("view.a"));
        queue.failed(id("view.a"));
        queue.at(id("view.a"), in_seconds(20));
        assert_eq!(expect_after(&mut queue, Duration::from_millis(250)).await, id("view.a"));
        queue.done(id("view.a"));
        assert_eq!(expect_after(&mut queue, Duration::from_millis(19_750)).await, id("view.a"), "its time stands too");
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
            queue.at(id("view.a"), in_seconds(7200));
            queue.done(id("view.a"));
            assert_eq!(expect_after(&mut queue, seconds(0)).await, id("view.a"), "at once, not at its time");
            queue.done(id("view.a"));
            assert!(is_idle_for(&mut queue, seconds(3600)).await, "only once more");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clock_that_is_set_is_noticed_within_a_second() {
        let hour = Arc::new(AtomicI64::new(0));
        let clock = Arc::clone(&hour);
        let now = move || DateTime::from_timestamp(1_800_000_000 + 3600 * clock.load(Ordering::Relaxed), 0).unwrap();
        let expiry = now() + TimeDelta::hours(5);
        let mut queue = Queue::new(now, || 0.0, |_| true);
        queue.at(id("view.a"), expiry);
        queue.at(id("view.b"), DateTime::<Utc>::MAX_UTC);
        assert!(is_idle_for(&mut queue, seconds(3600)).await);
        hour.store(5, Ordering::Relaxed);
        assert_eq!(timeout(CLOCK_INTERVAL + TIMER, queue.next()).await.unwrap(), id("view.a"));
    }

    #[tokio::test(start_paused = true)]
    async fn end_does_not_wait_behind_other_work() {
        let (mut queue, in_seconds) = queue(0.0);
        let member = |role: &str, n: usize| id(&format!("{role}.m{n}"));
        (0..100).for_each(|n| queue.now(member("view", n)));
        for n in 0..50 {
            queue.now(member("gone", n));
            queue.at(member("gone", 50 + n), in_seconds(1));
        }
        for _ in 0..ENDS {
            assert_eq!(expect_after(&mut queue, seconds(0)).await.role.as_str(), "gone", "ends go first");
        }
        for _ in 0..OTHERS {
            assert_eq!(expect_after(&mut queue, seconds(0)).await.role.as_str(), "view", "they have their own places");
        }
        assert!(is_idle_for(&mut queue, seconds(3600)).await, "no more at a time");
        let running: Vec<_> = queue.ends.running.iter().cloned().collect();
        running.into_iter().for_each(|id| queue.done(id));
        for _ in 0..ENDS {
            assert_eq!(expect_after(&mut queue, seconds(0)).await.role.as_str(), "gone", "others may hang");
        }
        let other = queue.others.running.iter().next().unwrap().clone();
        queue.failed(other);
        assert_eq!(expect_after(&mut queue, seconds(0)).await.role.as_str(), "view");
    }

    #[tokio::test(start_paused = true)]
    async fn end_does_not_wait_for_a_retry_of_other_work() {
        let has_ended = Arc::new(AtomicI64::new(0));
        let ended = Arc::clone(&has_ended);
        let is_ended = move |_: &MemberId| ended.load(Ordering::Relaxed) == 1;
        let mut queue = Queue::new(|| DateTime::from_timestamp(1_800_000_000, 0).unwrap(), || 1.0, is_ended);
        queue.now(id("view.a"));
        for _ in 0..20 {
            timeout(MAX_BACKOFF + TIMER, queue.next()).await.unwrap();
            queue.failed(id("view.a"));
        }
        timeout(MAX_BACKOFF + TIMER, queue.next()).await.unwrap();
        has_ended.store(1, Ordering::Relaxed);
        queue.failed(id("view.a"));
        assert_eq!(expect_after(&mut queue, seconds(0)).await, id("view.a"));
        queue.failed(id("view.a"));
        assert_eq!(expect_after(&mut queue, seconds(1) / 2).await, id("view.a"), "the first retry of an end is soon");
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
            queue.done(id("view.a"));
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
        queue.done(id("view.a"));
        assert!(is_idle_for(&mut queue, seconds(3600)).await, "the retry covered that request");
    }
}
