//! One client connection: how many requests and bytes it may hold before and after it has authenticated.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
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
            answers: BTreeMap::new(),
            next_answer: 0,
        };
        Self(Arc::new(Shared {
            authenticated: CancellationToken::new(),
            slots: Arc::new(Semaphore::new(UNAUTHENTICATED_REQUESTS)),
            heads: Arc::new(Semaphore::new(UNAUTHENTICATED_HEADS)),
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
        }
    }

    /// Notes that a credential was accepted.
    pub(super) fn authenticate(&self) {
        let _only_once = self.activity();
        if !self.is_authenticated() {
            self.0.slots.add_permits(REQUESTS - UNAUTHENTICATED_REQUESTS);
            self.0.authenticated.cancel();
        }
    }

    /// Waits for a place for a request of this [`weight`], which the request holds until it ends. Unauthenticated
    /// connections take turns: each has only a few requests in the common queue. `None` if the request must be
    /// refused.
    pub(super) async fn admit(&self, weight: u32, capacity: &Capacity) -> Option<Place> {
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
    pub(super) fn forget(&self, bytes: usize) {
        let mut activity = self.activity();
        activity.held = activity.held.saturating_sub(bytes);
    }

    /// Counts an answer as being sent, under the returned number.
    pub(super) fn begin_answer(&self) -> u64 {
        let mut activity = self.activity();
        let id = activity.next_answer;
        activity.next_answer += 1;
        activity.answers.insert(id, Instant::now());
        id
    }

    /// Notes that the client has taken everything sent of an answer so far.
    pub(super) fn taken(&self, answer: u64) {
        if let Some(taken) = self.activity().answers.get_mut(&answer) {
            *taken = Instant::now();
        }
    }

    /// Notes that an answer is no longer being sent.
    pub(super) fn end_answer(&self, answer: u64) {
        let mut activity = self.activity();
        activity.answers.remove(&answer);
        activity.idle_since = Instant::now();
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.0.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// About how much memory a request's head takes, in bytes.
pub(super) fn weight(request: &Request) -> u32 {
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

/// A request's share of the limits, freed when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _slot: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
    _heads: Option<OwnedSemaphorePermit>,
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(header: usize) -> Request {
        Request::builder().uri("/a").header("x", "a".repeat(header)).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn unauthenticated_requests_wait_until_a_credential_is_accepted() {
        let (connection, capacity) = (Connection::default(), Capacity::default());
        let mut places = Vec::new();
        for _ in 0..UNAUTHENTICATED_REQUESTS {
            places.push(connection.admit(1, &capacity).await.unwrap());
        }
        let mut next = std::pin::pin!(connection.admit(1, &capacity));
        assert!(futures::poll!(&mut next).is_pending());
        connection.authenticate();
        places.push(next.await.unwrap());
        connection.authenticate();
        assert_eq!(connection.0.slots.available_permits(), REQUESTS - places.len(), "more places, but only once");
    }

    #[tokio::test]
    async fn unauthenticated_connections_take_turns() {
        let capacity = Capacity::default();
        let crowd: Vec<Connection> = (0..ALL_UNAUTHENTICATED_REQUESTS).map(|_| Connection::default()).collect();
        let mut places = Vec::new();
        for connection in &crowd {
            places.push(connection.admit(1, &capacity).await.unwrap());
        }
        let (greedy, modest) = (&crowd[0], Connection::default());
        let mut waiting: Vec<_> = (0..20).map(|_| Box::pin(greedy.admit(1, &capacity))).collect();
        for request in &mut waiting {
            assert!(futures::poll!(request).is_pending());
        }
        let mut own = std::pin::pin!(modest.admit(1, &capacity));
        assert!(futures::poll!(&mut own).is_pending());
        places.drain(1..1 + UNAUTHENTICATED_REQUESTS);
        let own = tokio::time::timeout(Duration::from_secs(60), own).await;
        assert!(own.is_ok_and(|place| place.is_some()), "the other requests of that connection come later");
    }

    #[tokio::test]
    async fn sum_of_unauthenticated_heads_is_bounded() {
        let (connection, capacity) = (Connection::default(), Capacity::default());
        let large = weight(&request(40_000));
        assert!((40_000..40_500).contains(&large), "{large}");
        let mut places = Vec::new();
        while let Some(place) = connection.admit(large, &capacity).await {
            places.push(place);
        }
        assert_eq!(places.len(), 3);
        places.pop();
        assert!(connection.admit(large, &capacity).await.is_some());
        assert!(connection.admit(u32::MAX, &capacity).await.is_none());
    }

    #[tokio::test]
    async fn all_authenticated_connections_share_one_capacity() {
        let capacity = Capacity::default();
        let all: Vec<Connection> = (0..4).map(|_| Connection::default()).collect();
        all.iter().for_each(Connection::authenticate);
        let mut places = Vec::new();
        for n in 0..ALL_REQUESTS {
            places.push(all[n % 3].admit(1, &capacity).await.unwrap());
        }
        assert!(all[3].admit(1, &capacity).await.is_none());
        places.pop();
        assert!(all[3].admit(1, &capacity).await.is_some());
        assert!(Connection::default().admit(1, &capacity).await.is_some(), "a new client may still log on");
    }

    #[test]
    fn bytes_of_an_unauthenticated_client_are_bounded() {
        let connection = Connection::default();
        assert!(connection.receive(UNAUTHENTICATED_BYTES));
        assert!(!connection.receive(1));
        connection.forget(2);
        assert!(connection.receive(1), "dropped bytes do not count");
        connection.authenticate();
        assert!(connection.receive(usize::MAX));
    }

    #[test]
    fn connection_is_idle_while_it_has_no_request() {
        let connection = Connection::default();
        let later = || Instant::now() + Duration::from_secs(5);
        assert!(connection.usage(later()).idle >= Some(Duration::from_secs(5)));
        let (first, second) = (connection.begin(), connection.begin());
        drop(first);
        assert_eq!((connection.usage(later()).idle, connection.usage(later()).requests), (None, 2));
        let answer = connection.begin_answer();
        drop(second);
        assert_eq!(connection.usage(later()).idle, None, "it is still being answered");
        connection.end_answer(answer);
        assert!(connection.usage(later()).idle.is_some());
    }
}
