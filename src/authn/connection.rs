//! One client connection: how many requests and bytes it may hold before and after it has authenticated.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::Request;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How many requests of an unauthenticated connection are handled at once. The others wait, so that many requests of
/// one connection do not delay the first of another.
const UNAUTHENTICATED_REQUESTS: usize = 4;
/// The same for an authenticated connection: as many as HTTP/2 allows streams. A request whose stream the client has
/// reset counts until it ends.
const REQUESTS: usize = 100;
/// How much memory the heads of unauthenticated requests may take, in bytes, waiting ones included. The largest head
/// fits with room to spare.
const UNAUTHENTICATED_HEADS: usize = 128 * 1024;
/// What one header takes in memory besides its text, in bytes.
const HEADER_OVERHEAD: usize = 128;
/// How much an unauthenticated connection may send in all, in bytes, without bodies that were dropped. This bounds
/// what a client can make the HTTP library keep.
const UNAUTHENTICATED_BYTES: usize = 256 * 1024;
/// How many requests of all unauthenticated connections are handled at once. Each may have the API server review a
/// token, over a connection of its own.
const ALL_UNAUTHENTICATED_REQUESTS: usize = 64;
/// How many requests of authenticated connections are handled at once, in addition.
const ALL_REQUESTS: usize = 256;

/// One connection, as its requests and its owner (`serve`) see it.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    authenticated: CancellationToken,
    slots: Arc<Semaphore>,
    heads: Arc<Semaphore>,
    /// Since when writes have been blocked because the client does not read.
    blocked: Mutex<Option<Instant>>,
    upgraded: AtomicBool,
    reset: CancellationToken,
    activity: Mutex<Activity>,
}

/// The activity of a connection.
#[derive(Debug)]
struct Activity {
    /// Requests so far.
    requests: usize,
    /// Requests in progress.
    under_way: usize,
    idle_since: Instant,
    /// Bytes received, without bodies that were dropped.
    held: usize,
    /// Requests that are being forwarded. Their answers may take as long as their client likes.
    forwarded: usize,
    /// Answers that are being sent, and when the client last took a piece of each.
    answers: BTreeMap<u64, Instant>,
    next_answer: u64,
}

/// How many requests are handled at once, over all connections.
#[derive(Debug)]
pub struct Capacity {
    unauthenticated: Arc<Semaphore>,
    authenticated: Arc<Semaphore>,
}

impl Default for Capacity {
    fn default() -> Self {
        let of = |permits| Arc::new(Semaphore::new(permits));
        Self { unauthenticated: of(ALL_UNAUTHENTICATED_REQUESTS), authenticated: of(ALL_REQUESTS) }
    }
}

/// The use of a connection, by which `serve` decides whether to keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Whether a credential was accepted.
    pub authenticated: bool,
    /// How many requests came so far.
    pub requests: usize,
    /// How long there has been no request; `None` while one is in progress or being answered.
    pub idle: Option<Duration>,
    /// How long the client has taken nothing of an answer; of several answers, the longest.
    pub untaken: Duration,
    /// How long writes have been blocked.
    pub blocked: Duration,
    /// Whether a request of an accepted credential is being forwarded.
    pub forwarding: bool,
}

impl Activity {
    fn is_idle(&self) -> bool {
        self.under_way == 0 && self.answers.is_empty()
    }
}

impl Default for Connection {
    fn default() -> Self {
        let activity = Activity {
            requests: 0,
            under_way: 0,
            idle_since: Instant::now(),
            held: 0,
            forwarded: 0,
            answers: BTreeMap::new(),
            next_answer: 0,
        };
        Self(Arc::new(Shared {
            authenticated: CancellationToken::new(),
            slots: Arc::new(Semaphore::new(UNAUTHENTICATED_REQUESTS)),
            heads: Arc::new(Semaphore::new(UNAUTHENTICATED_HEADS)),
            blocked: Mutex::default(),
            upgraded: AtomicBool::new(false),
            reset: CancellationToken::new(),
            activity: Mutex::new(activity),
        }))
    }
}

impl Connection {
    /// Whether a credential was accepted on it.
    pub fn is_authenticated(&self) -> bool {
        self.0.authenticated.is_cancelled()
    }

    /// Waits until a credential is accepted on it.
    pub async fn authenticated(&self) {
        self.0.authenticated.cancelled().await;
    }

    /// Counts a request as in progress until the returned guard is dropped.
    pub fn begin(&self) -> UnderWay {
        let mut activity = self.activity();
        activity.requests += 1;
        activity.under_way += 1;
        drop(activity);
        UnderWay(self.clone())
    }

    /// Counts a request as being forwarded until the returned guard is dropped.
    pub fn forward(&self) -> Forwarding {
        self.activity().forwarded += 1;
        Forwarding { _request: self.begin(), connection: self.clone() }
    }

    /// Notes that the connection will speak another protocol after the next answer (101).
    pub fn upgrade(&self) {
        self.0.upgraded.store(true, Ordering::Release);
    }

    /// Whether it speaks another protocol than HTTP.
    pub fn is_upgraded(&self) -> bool {
        self.0.upgraded.load(Ordering::Acquire)
    }

    /// Notes whether the last write is blocked because the client does not read.
    pub fn written(&self, is_blocked: bool) {
        let mut blocked = self.0.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        *blocked = is_blocked.then(|| blocked.unwrap_or_else(Instant::now));
    }

    /// Whether the client does not read.
    pub fn is_blocked(&self) -> bool {
        self.blocked_since().is_some()
    }

    fn blocked_since(&self) -> Option<Instant> {
        *self.0.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the connection reset, with everything that it has not delivered. Other requests on it end, too.
    pub fn reset(&self) {
        self.0.reset.cancel();
    }

    /// Waits until it must be reset.
    pub async fn must_reset(&self) {
        self.0.reset.cancelled().await;
    }

    /// Whether it must be reset.
    pub fn is_reset(&self) -> bool {
        self.0.reset.is_cancelled()
    }

    /// Counts received bytes; `false` if they are more than an unauthenticated client may send.
    pub fn receive(&self, bytes: usize) -> bool {
        if self.is_authenticated() {
            return true;
        }
        let mut activity = self.activity();
        activity.held += bytes;
        activity.held <= UNAUTHENTICATED_BYTES
    }

    /// The use at this time.
    pub fn usage(&self, now: Instant) -> Usage {
        let activity = self.activity();
        let since = |then: Instant| now.saturating_duration_since(then);
        Usage {
            authenticated: self.is_authenticated(),
            requests: activity.requests,
            idle: activity.is_idle().then(|| since(activity.idle_since)),
            untaken: activity.answers.values().map(|taken| since(*taken)).max().unwrap_or_default(),
            blocked: self.blocked_since().map(since).unwrap_or_default(),
            forwarding: activity.forwarded > 0,
        }
    }

    /// Notes that a credential was accepted.
    pub fn authenticate(&self) {
        let _only_once = self.activity();
        if !self.is_authenticated() {
            self.0.slots.add_permits(REQUESTS - UNAUTHENTICATED_REQUESTS);
            self.0.authenticated.cancel();
        }
    }

    /// Waits for a place for a request of this [`weight`], which the request holds until it ends. Unauthenticated
    /// connections take turns: each has only a few requests in the common queue. `None` if the request must be
    /// refused.
    pub async fn admit(&self, weight: u32, capacity: &Capacity) -> Option<Place> {
        let heads = match self.is_authenticated() {
            true => None,
            false => Some(self.0.heads.clone().try_acquire_many_owned(weight).ok()?),
        };
        let slot = self.0.slots.clone().acquire_owned().await.ok()?;
        let shared = match self.is_authenticated() {
            true => capacity.authenticated.clone().try_acquire_owned().ok()?,
            false => capacity.unauthenticated.clone().acquire_owned().await.ok()?,
        };
        Some(Place { _slot: slot, _shared: shared, _heads: heads })
    }

    /// Notes that received bytes were dropped.
    pub fn forget(&self, bytes: usize) {
        let mut activity = self.activity();
        activity.held = activity.held.saturating_sub(bytes);
    }

    /// Counts an answer as being sent, under the returned number.
    pub fn begin_answer(&self) -> u64 {
        let mut activity = self.activity();
        let id = activity.next_answer;
        activity.next_answer += 1;
        activity.answers.insert(id, Instant::now());
        id
    }

    /// Notes that the client has taken everything sent of an answer so far.
    pub fn taken(&self, answer: u64) {
        if let Some(taken) = self.activity().answers.get_mut(&answer) {
            *taken = Instant::now();
        }
    }

    /// Notes that an answer is no longer being sent.
    pub fn end_answer(&self, answer: u64) {
        let mut activity = self.activity();
        activity.answers.remove(&answer);
        activity.idle_since = Instant::now();
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.0.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// About how much memory a request's head takes, in bytes.
pub fn weight<B>(request: &Request<B>) -> u32 {
    let headers = request.headers();
    let text: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let path = request.uri().path_and_query().map_or(0, |it| it.as_str().len());
    u32::try_from(path + text + headers.len() * HEADER_OVERHEAD).unwrap_or(u32::MAX)
}

/// A request in progress, until dropped.
#[derive(Debug)]
pub struct UnderWay(Connection);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut activity = self.0.activity();
        activity.under_way -= 1;
        activity.idle_since = Instant::now();
    }
}

/// A request that is being forwarded, until dropped.
#[derive(Debug)]
pub struct Forwarding {
    _request: UnderWay,
    connection: Connection,
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.connection.activity().forwarded -= 1;
    }
}

/// A request's share of the limits, freed when dropped.
#[derive(Debug)]
pub struct Place {
    _slot: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
    _heads: Option<OwnedSemaphorePermit>,
}

#[cfg(test)]
mod tests;
