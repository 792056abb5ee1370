//! The Kubernetes client: sends Daypass's own token, tracks the API server's clock and retries 401 and 429.
//!
//! It speaks HTTP/1.1 with one connection per call in flight; [`Lanes`](super::lanes::Lanes) limits the number. It
//! keeps idle connections, and new ones resume their TLS session. HTTP/2 would put all calls on one connection: calls
//! beyond 100 to 250 streams would queue, all would go to the same one of several API servers, and a lost packet would
//! delay the Lease along with everything else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use http::header::{AUTHORIZATION, DATE, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use kube::client::Body;
use kube::{Client, Config};

use super::audit_id::{self, AUDIT_ID};
use super::own_token::OwnToken;
use crate::clock::Clock;

/// How to retry a call that the API server is too busy for (429).
#[derive(Debug, Clone, Copy)]
pub(super) struct RetryPolicy {
    /// The most retries of one call.
    most: usize,
    /// The longest wait before a retry, even if the API server asks for more.
    longest_wait: Duration,
}

impl RetryPolicy {
    /// For calls that a client waits for.
    pub(super) const REQUESTS: Self = Self { most: 2, longest_wait: Duration::from_secs(1) };
    /// For ending memberships, which nothing should delay.
    pub(super) const ENDS: Self = Self { most: 5, longest_wait: Duration::from_secs(1) };
    /// For the Lease: a small call every few seconds, which needs many tries before the Lease expires.
    pub(super) const LEASE: Self = Self { most: 8, longest_wait: Duration::from_millis(250) };

    /// The wait that the API server asks for in `Retry-After` (seconds, RFC 9110), at most `longest_wait`.
    fn wait(self, headers: &HeaderMap) -> Duration {
        let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        seconds.map_or(self.longest_wait, Duration::from_secs).min(self.longest_wait)
    }
}

/// When the API server last answered, and what time its clock shows.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulse {
    clock: Clock,
    last_answer: Arc<Mutex<Option<Instant>>>,
}

impl Pulse {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, last_answer: Arc::default() }
    }

    /// The time since the API server last answered; `None` if it never has.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.last_answer.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }

    /// Records an answer to a request sent at the local time `sent`. A refusal or a 429 shows that the API server
    /// works. An error of its own (5xx) does not count, nor does 401: if it refuses Daypass's token, Daypass can do
    /// nothing.
    fn observe(&self, status: StatusCode, headers: &HeaderMap, sent: DateTime<Utc>) {
        let date = headers.get(DATE).and_then(|value| value.to_str().ok());
        if let Some(date) = date.and_then(|text| DateTime::parse_from_rfc2822(text).ok()) {
            self.clock.learn(date.to_utc(), sent, self.clock.local());
        }
        if status != StatusCode::UNAUTHORIZED && !status.is_server_error() {
            *self.last_answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }
}

/// A client that sends `token`; without one, it authenticates by the rest of the configuration (certificates,
/// plugins).
pub(super) fn client(
    config: Config,
    token: Option<Arc<OwnToken>>,
    pulse: Pulse,
    retries: RetryPolicy,
) -> kube::Result<Client> {
    let namespace = config.default_namespace.clone();
    let sender = Sender { client: Client::try_from(config)?, token, pulse, retries };
    Ok(Client::new(tower::service_fn(move |request| sender.clone().send(request)), namespace))
}

#[derive(Clone)]
struct Sender {
    client: Client,
    token: Option<Arc<OwnToken>>,
    pulse: Pulse,
    retries: RetryPolicy,
}

impl Sender {
    /// Sends a request, and again after a 401, or a 429 with Retry-After: the API server answers these before it does
    /// anything, so even a creation is safe to repeat. Retries nothing else. A 429 without that header is an admission
    /// webhook's refusal (API Priority and Fairness always sends it).
    async fn send(self, mut request: Request<Body>) -> kube::Result<Response<Body>> {
        let (mut renewed, mut busy) = (false, 0);
        loop {
            let sent_token = self.token.as_ref().map(|token| token.current());
            if let Some(token) = &sent_token {
                request.headers_mut().insert(AUTHORIZATION, token.clone());
            }
            if let Some(id) = audit_id::next() {
                request.headers_mut().insert(AUDIT_ID, id);
            }
            let again = copy(&request);
            let sent = self.pulse.clock.local();
            let answer = self.client.send(request).await?;
            self.pulse.observe(answer.status(), answer.headers(), sent);
            let Some(again) = again else { return Ok(answer) };
            match answer.status() {
                StatusCode::UNAUTHORIZED if !renewed => {
                    let is_newer = |sent| self.token.as_ref().is_some_and(|token| token.is_newer_than(&sent));
                    if !sent_token.is_some_and(is_newer) {
                        return Ok(answer);
                    }
                    renewed = true;
                }
                StatusCode::TOO_MANY_REQUESTS
                    if busy < self.retries.most && answer.headers().contains_key(RETRY_AFTER) =>
                {
                    busy += 1;
                    tokio::time::sleep(self.retries.wait(answer.headers())).await;
                }
                _ => return Ok(answer),
            }
            request = again;
        }
    }
}

/// A copy of the request; `None` if its body can be sent only once.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_capped() {
        let wait = |text: Option<&'static str>| {
            let headers = text.map(|text| (RETRY_AFTER, HeaderValue::from_static(text)));
            RetryPolicy::REQUESTS.wait(&headers.into_iter().collect()).as_millis()
        };
        let values = [Some("0"), Some("1"), Some("3600"), Some("18446744073709551615"), Some("soon"), None];
        assert_eq!(values.map(wait), [0, 1000, 1000, 1000, 1000, 1000]);
    }

    #[test]
    fn refusals_and_429_count_as_answers() {
        for (status, alive) in
            [(200, true), (403, true), (404, true), (429, true), (401, false), (500, false), (504, false)]
        {
            let pulse = Pulse::default();
            pulse.observe(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), DateTime::default());
            assert_eq!(pulse.silence().is_some(), alive, "{status}");
        }
    }
}
