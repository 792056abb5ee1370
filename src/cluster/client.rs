//! The client of the Kubernetes API: it sends Daypass's own token, learns from every answer, and sends again what
//! was not carried out.
//!
//! It speaks HTTP/1.1, one connection for each call under way; [`Lanes`](super::lanes::Lanes) bounds those. Idle
//! connections are kept, and a new one resumes its TLS session. With HTTP/2 all calls would share one connection:
//! it would queue beyond 100 to 250 streams, stay with one API server of several, and a packet lost on it would
//! hold up the Lease with everything else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use http::header::{AUTHORIZATION, DATE, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use kube::client::Body;
use kube::{Client, Config};

use super::own_token::OwnToken;
use crate::clock::Clock;

/// What becomes of a call that the API server has no room for (429).
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How often it is sent again.
    retries: usize,
    /// The longest wait before that, whatever the API server asks for.
    longest_wait: Duration,
}

impl Patience {
    /// Of calls that a client waits for.
    pub(super) const CALLS: Self = Self { retries: 2, longest_wait: Duration::from_secs(1) };
    /// Of ends, which nothing should hold up.
    pub(super) const ENDS: Self = Self { retries: 5, longest_wait: Duration::from_secs(1) };
    /// Of the Lease: one small call now and then, and many tries before it runs out.
    pub(super) const LEASE: Self = Self { retries: 8, longest_wait: Duration::from_millis(250) };

    /// How long the API server asks to wait, within bounds.
    fn wait(self, headers: &HeaderMap) -> Duration {
        let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        seconds.map_or(self.longest_wait, Duration::from_secs).min(self.longest_wait)
    }
}

/// When the API server last answered, and what time it is there.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulse {
    clock: Clock,
    last_answer: Arc<Mutex<Option<Instant>>>,
}

impl Pulse {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, last_answer: Arc::default() }
    }

    /// How long ago the API server last answered; `None` when it never has.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.last_answer.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }

    /// Learns from an answer to what was sent at this local time. A refusal is an answer too, and so is 429:
    /// the API server works, and says when to come back. Not where it fails, nor where it refuses Daypass's
    /// own token: then Daypass can do nothing.
    fn feel(&self, status: StatusCode, headers: &HeaderMap, sent: DateTime<Utc>) {
        let date = headers.get(DATE).and_then(|value| value.to_str().ok());
        if let Some(date) = date.and_then(|text| DateTime::parse_from_rfc2822(text).ok()) {
            self.clock.learn(date.to_utc(), sent, self.clock.local());
        }
        if status != StatusCode::UNAUTHORIZED && !status.is_server_error() {
            *self.last_answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }
}

/// A client that sends this token, where Daypass has one; else what kube makes of the configuration
/// (certificates, plugins).
pub(super) fn client(
    config: Config,
    token: Option<Arc<OwnToken>>,
    pulse: Pulse,
    patience: Patience,
) -> kube::Result<Client> {
    let namespace = config.default_namespace.clone();
    let wire = Wire { client: Client::try_from(config)?, token, pulse, patience };
    Ok(Client::new(tower::service_fn(move |request| wire.clone().send(request)), namespace))
}

#[derive(Clone)]
struct Wire {
    client: Client,
    token: Option<Arc<OwnToken>>,
    pulse: Pulse,
    patience: Patience,
}

impl Wire {
    /// 401 and 429 come before anything is carried out, so that even a creation may be sent again. Nothing else is.
    async fn send(self, mut request: Request<Body>) -> kube::Result<Response<Body>> {
        let (mut renewed, mut busy) = (false, 0);
        loop {
            let sent_token = self.token.as_ref().map(|token| token.current());
            if let Some(token) = &sent_token {
                request.headers_mut().insert(AUTHORIZATION, token.clone());
            }
            let again = copy(&request);
            let sent = self.pulse.clock.local();
            let answer = self.client.send(request).await?;
            self.pulse.feel(answer.status(), answer.headers(), sent);
            let Some(again) = again else { return Ok(answer) };
            match answer.status() {
                StatusCode::UNAUTHORIZED if !renewed => {
                    let is_newer = |sent| self.token.as_ref().is_some_and(|token| token.is_newer_than(&sent));
                    if !sent_token.is_some_and(is_newer) {
                        return Ok(answer);
                    }
                    renewed = true;
                }
                StatusCode::TOO_MANY_REQUESTS if busy < self.patience.retries => {
                    busy += 1;
                    tokio::time::sleep(self.patience.wait(answer.headers())).await;
                }
                _ => return Ok(answer),
            }
            request = again;
        }
    }
}

/// The same request once more; `None` where its body cannot be sent twice.
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
    fn api_server_is_waited_for_within_bounds() {
        let wait = |text: Option<&'static str>| {
            let headers = text.map(|text| (RETRY_AFTER, HeaderValue::from_static(text)));
            Patience::CALLS.wait(&headers.into_iter().collect()).as_millis()
        };
        let told = [Some("0"), Some("1"), Some("3600"), Some("18446744073709551615"), Some("soon"), None];
        assert_eq!(told.map(wait), [0, 1000, 1000, 1000, 1000, 1000]);
    }

    #[test]
    fn refusal_and_429_are_signs_of_life() {
        for (status, alive) in
            [(200, true), (403, true), (404, true), (429, true), (401, false), (500, false), (504, false)]
        {
            let pulse = Pulse::default();
            pulse.feel(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), DateTime::default());
            assert_eq!(pulse.silence().is_some(), alive, "{status}");
        }
    }
}
