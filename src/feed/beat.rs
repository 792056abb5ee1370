//! How fresh the feed is: this replica writes a number, and waits until its own watch of all Members shows it.
//!
//! No API says how old a watch is: it may be silent because nothing happens, or because its API server no longer hears
//! from etcd. Each number arrives after everything that was
//! committed before it was written.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::clock::Entropy;
use crate::cluster::{Cluster, Error, ErrorKind, Lane, WatchEvent, Watched};

/// How often a number is written while somebody asks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long after the last question it stops.
const IDLE: Duration = Duration::from_secs(60);
/// How many numbers may be on their way. A call that hangs must not keep the next one from being tried.
const UNDER_WAY: usize = 5;
/// How many numbers are remembered: those of more than the greatest age that anybody accepts.
const REMEMBERED: usize = 64;
/// How long the watch may not show what was written.
const SILENCE: Duration = Duration::from_secs(5);
/// How long a new watch gets: it begins with a list of all Members.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing is written after it was refused.
const REFUSED: Duration = Duration::from_secs(10);

/// The beat of one replica. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Beat(Arc<Shared>);

/// What an event says about the freshness of the watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// A number of ours.
    Number(u64),
    /// A list begins.
    ListBegins,
    /// It is complete.
    ListEnds,
    /// Nothing.
    None,
}

#[derive(Debug)]
struct Shared {
    /// A random name, which no other process has.
    replica: String,
    used: Notify,
    silent: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    touched: Option<Instant>,
    active_since: Option<Instant>,
    next: u64,
    /// The numbers on their way, and when each was about to be written.
    sent: VecDeque<(u64, Instant)>,
    /// The newest number that the API server has accepted.
    accepted: Option<u64>,
    /// When the watch was last called silent.
    called: Option<Instant>,
    /// What was committed before this has arrived.
    known_until: Option<Instant>,
    is_listing: bool,
    /// Our number in a list that is not complete.
    listed: Option<u64>,
}

impl Default for Beat {
    fn default() -> Self {
        // Without a name, it never takes a number for its own.
        let replica = Entropy::default().uuid().map(|id| id.to_string()).unwrap_or_default();
        Self(Arc::new(Shared { replica, used: Notify::new(), silent: Notify::new(), state: Mutex::default() }))
    }
}

impl Beat {
    /// Notes that somebody needs to know: the beat goes on for another minute.
    pub fn touch(&self) {
        self.lock().touch(Instant::now());
        self.0.used.notify_one();
    }

    /// The age of what the feed shows: everything committed earlier than this has arrived. `None` before the first
    /// number has come back.
    pub fn age(&self) -> Option<Duration> {
        let (state, now) = (self.lock(), Instant::now());
        state.known_until.filter(|_| state.is_used(now)).map(|then| now - then)
    }

    /// Until when everything has arrived, for something that is open since `opened`: at worst, nothing since the beat
    /// began. `None` if it has paused since.
    pub fn last_known(&self, opened: Instant) -> Option<Instant> {
        let state = self.lock();
        let began = state.active_since.filter(|began| *began <= opened)?;
        Some(state.known_until.unwrap_or(began))
    }

    /// Waits until the watch does not show what was written: its connection may be dead (RFC 1122, section 4.2.3.6,
    /// lets TCP notice after hours).
    pub(super) async fn silent(&self) {
        self.0.silent.notified().await;
    }

    /// Since when it beats without a pause.
    pub fn active_since(&self) -> Option<Instant> {
        let state = self.lock();
        state.active_since.filter(|_| state.is_used(Instant::now()))
    }

    /// What an event of the watch of all Members says about its freshness.
    pub(super) fn read(&self, event: &WatchEvent<Watched>) -> Sign {
        match event {
            WatchEvent::Present(Watched::Beat(text)) => {
                let is_ours = |replica: &str| !replica.is_empty() && replica == self.0.replica;
                let own = text.split_once('/').filter(|(replica, _)| is_ours(replica));
                own.and_then(|(_, number)| number.parse().ok()).map_or(Sign::None, Sign::Number)
            }
            WatchEvent::Restarted => Sign::ListBegins,
            WatchEvent::Listed => Sign::ListEnds,
            WatchEvent::Present(Watched::Member(_)) | WatchEvent::Deleted(_) | WatchEvent::Interrupted => Sign::None,
        }
    }

    /// Takes in a sign, once the feed has its event.
    pub(super) fn take(&self, sign: Sign) {
        let mut state = self.lock();
        match sign {
            Sign::Number(number) => state.arrived(number),
            Sign::ListBegins => (state.is_listing, state.listed) = (true, None),
            Sign::ListEnds => state.end_list(),
            Sign::None => {}
        }
    }

    /// Writes a number each second while somebody asks. Never returns.
    pub(super) async fn run(&self, cluster: &Cluster) -> ! {
        // Nothing may delay it.
        let cluster = &cluster.in_lane(Lane::Lease);
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut writes = FuturesUnordered::new();
        let (mut fails, mut not_before) = (false, Instant::now());
        loop {
            let is_used = self.lock().is_used(Instant::now());
            tokio::select! {
                Some((number, written)) = writes.next(), if !writes.is_empty() => {
                    log(&written, fails);
                    fails = written.is_err();
                    match written.map_err(|error| error.kind) {
                        Ok(()) => self.lock().accept(number),
                        Err(ErrorKind::Forbidden | ErrorKind::RefusedByPolicy | ErrorKind::Invalid) => {
                            not_before = Instant::now() + REFUSED;
                        }
                        Err(_) => {}
                    }
                }
                () = self.0.used.notified(), if !is_used => {}
                _ = ticks.tick(), if is_used => {
                    if writes.len() < UNDER_WAY && Instant::now() >= not_before {
                        let number = self.lock().send(Instant::now());
                        let text = format!("{}/{number}", self.0.replica);
                        writes.push(write(cluster, number, text));
                    }
                    if self.lock().is_silent(Instant::now()) {
                        self.0.silent.notify_one();
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic under the lock leaves it half changed.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a number, as this text.
async fn write(cluster: &Cluster, number: u64, text: String) -> (u64, Result<(), Error>) {
    (number, cluster.write_heartbeat(&text).await)
}

/// Logs the first failure, and the first success after it.
fn log(written: &Result<(), Error>, has_failed: bool) {
    match (written, has_failed) {
        (Ok(()), true) => tracing::info!("the heartbeat can be written again"),
        (Err(error), false) => tracing::warn!(%error, "the heartbeat cannot be written: the gateway refuses soon"),
        (Ok(()), false) | (Err(_), true) => {}
    }
}

impl State {
    fn is_used(&self, now: Instant) -> bool {
        self.touched.is_some_and(|touched| now - touched < IDLE)
    }

    fn touch(&mut self, now: Instant) {
        if !self.is_used(now) {
            // It has paused, or is about to: what it knew before says nothing about the time since.
            (self.active_since, self.known_until) = (Some(now), None);
            self.sent.clear();
        }
        self.touched = Some(now);
    }

    /// The next number.
    fn send(&mut self, now: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        if self.sent.len() >= REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((number, now));
        number
    }

    /// The API server has written it.
    fn accept(&mut self, number: u64) {
        self.accepted = self.accepted.max(Some(number));
    }

    /// Whether the watch does not show what was written, and this has not been said a moment ago.
    fn is_silent(&mut self, now: Instant) -> bool {
        let is_late = |(number, at): &(u64, Instant)| self.accepted >= Some(*number) && now - *at > SILENCE;
        let is_silent = self.sent.front().is_some_and(is_late);
        let is_due = self.called.is_none_or(|called| now - called > PATIENCE);
        if is_silent && is_due && !self.is_listing {
            self.called = Some(now);
            return true;
        }
        false
    }

    fn arrived(&mut self, number: u64) {
        if self.is_listing {
            self.listed = self.listed.max(Some(number));
            return;
        }
        while let Some((sent, at)) = self.sent.pop_front_if(|(sent, _)| *sent <= number) {
            if sent == number {
                self.known_until = self.known_until.max(Some(at));
            }
        }
    }

    /// A complete list has everything that was committed before the newest number in it was written.
    fn end_list(&mut self) {
        self.is_listing = false;
        if let Some(number) = self.listed.take() {
            self.arrived(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the watch shows of the numbers that a beat has sent.
    fn shows(beat: &Beat, number: u64) -> WatchEvent<Watched> {
        WatchEvent::Present(Watched::Beat(format!("{}/{number}", beat.0.replica)))
    }

    /// A beat in use that has sent this many numbers, a second apart, the last one now.
    async fn sending(count: u64) -> Beat {
        let beat = Beat::default();
        for _ in 0..count {
            tokio::time::advance(INTERVAL).await;
            beat.touch();
            beat.lock().send(Instant::now());
        }
        beat
    }

    fn see(beat: &Beat, event: &WatchEvent<Watched>) {
        beat.take(beat.read(event));
    }

    fn age(beat: &Beat) -> Option<u64> {
        beat.age().map(|age| age.as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn age_counts_from_when_the_number_was_written() {
        let beat = sending(3).await;
        assert_eq!(age(&beat), None);
        tokio::time::advance(Duration::from_secs(4)).await;
        see(&beat, &shows(&beat, 1));
        assert_eq!(age(&beat), Some(5));
        see(&beat, &shows(&beat, 2));
        assert_eq!(age(&beat), Some(4));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(age(&beat), Some(7), "a silent watch ages");
    }

    #[tokio::test(start_paused = true)]
    async fn old_and_foreign_numbers_make_nothing_younger() {
        let beat = sending(3).await;
        see(&beat, &shows(&beat, 2));
        tokio::time::advance(Duration::from_secs(5)).await;
        for number in [0, 1, 2, 3, 99] {
            see(&beat, &shows(&beat, number));
        }
        let other = Beat::default();
        beat.lock().send(Instant::now());
        see(&beat, &shows(&other, 3));
        for text in ["", "/", "x", "/3", "999"] {
            see(&beat, &WatchEvent::Present(Watched::Beat(text.to_owned())));
        }
        assert_eq!(age(&beat), Some(5));
    }

    #[tokio::test(start_paused = true)]
    async fn number_in_a_list_counts_once_the_list_is_complete() {
        let beat = sending(2).await;
        see(&beat, &WatchEvent::Interrupted);
        see(&beat, &WatchEvent::Restarted);
        see(&beat, &shows(&beat, 1));
        assert_eq!(age(&beat), None);
        // It failed, and the next one does not have it.
        see(&beat, &WatchEvent::Restarted);
        see(&beat, &WatchEvent::Listed);
        assert_eq!(age(&beat), None);
        see(&beat, &WatchEvent::Restarted);
        see(&beat, &shows(&beat, 1));
        see(&beat, &WatchEvent::Listed);
        assert_eq!(age(&beat), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn pause_forgets_what_was_known() {
        let beat = sending(2).await;
        see(&beat, &shows(&beat, 1));
        tokio::time::advance(IDLE).await;
        assert_eq!((age(&beat), beat.active_since()), (None, None));
        assert!(!beat.lock().is_used(Instant::now()));
        beat.touch();
        assert_eq!((age(&beat), beat.active_since()), (None, Some(Instant::now())));
        see(&beat, &shows(&beat, 1));
        assert_eq!(age(&beat), None, "sent before the pause");
        assert!(beat.lock().is_used(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn watch_is_silent_when_it_does_not_show_what_was_written() {
        let beat = sending(3).await;
        tokio::time::advance(SILENCE * 2).await;
        let is_silent = || beat.lock().is_silent(Instant::now());
        assert!(!is_silent(), "nothing was written");
        beat.lock().accept(2);
        assert!(is_silent());
        assert!(!is_silent(), "a new watch gets its time");
        tokio::time::advance(PATIENCE * 2).await;
        assert!(is_silent());
        tokio::time::advance(PATIENCE * 2).await;
        see(&beat, &WatchEvent::Restarted);
        assert!(!is_silent(), "it lists");
        see(&beat, &WatchEvent::Listed);
        see(&beat, &shows(&beat, 2));
        assert!(!is_silent(), "it has shown all");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_open_knows_only_an_unbroken_beat() {
        let beat = sending(1).await;
        tokio::time::advance(INTERVAL).await;
        let opened = Instant::now();
        let began = beat.active_since();
        assert_eq!(beat.last_known(opened), began, "nothing has come back yet");
        tokio::time::advance(INTERVAL).await;
        let sent = Instant::now();
        beat.lock().send(sent);
        tokio::time::advance(INTERVAL).await;
        see(&beat, &shows(&beat, 1));
        assert_eq!(beat.last_known(opened), Some(sent));
        assert_eq!(beat.last_known(Instant::now()), Some(sent), "what was opened later knows no more");
        // This process stops for longer than the beat goes on without a question.
        tokio::time::advance(IDLE * 2).await;
        assert_eq!(beat.last_known(opened), Some(sent), "it grows old");
        beat.touch();
        assert_eq!(beat.last_known(opened), None, "it has begun anew");
        assert_eq!(beat.last_known(Instant::now()), Some(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn unanswered_numbers_do_not_add_up() {
        let beat = sending(1000).await;
        assert_eq!(beat.lock().sent.len(), REMEMBERED);
    }
}
