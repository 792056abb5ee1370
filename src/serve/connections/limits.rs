//! How long a connection may take for what.

use std::time::{Duration, Instant};

use super::Caps;
use crate::api::Usage;

/// What connections of one listener may do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many there may be.
    pub caps: Caps,
    /// For TLS, and then for the head of the first request.
    pub head: Duration,
    /// Without a request.
    pub idle: Duration,
    /// Until a credential is accepted.
    pub unauthenticated: Duration,
    /// Without the client taking anything of what is being sent to it.
    pub untaken: Duration,
    /// For a client of HTTP/2 to answer a ping; they are sent three times as seldom.
    pub pong: Duration,
    /// Whether HTTP/1 may send more than one request.
    pub keep_alive: bool,
}

/// What a connection may take to end in order.
const PARTING: Duration = Duration::from_secs(10);
/// After as long a pause a client of HTTP/1 is not just sending its next request, which closing would lose.
const PAUSE: Duration = Duration::from_secs(2);
/// How many requests may come without a credential that is accepted.
const UNAUTHENTICATED_REQUESTS: usize = 100;

impl Limits {
    /// Of the REST API.
    pub const API: Self = Self {
        caps: Caps { all: 768, unauthenticated: 192, of_network: 128 },
        head: Duration::from_secs(10),
        // Longer than clients and proxies keep an idle one (60 s and 90 s are common), so that it is they who close
        // it: a request of HTTP/1 that is sent just as this side closes is lost. Longer than a request takes, too.
        idle: Duration::from_secs(120),
        unauthenticated: Duration::from_secs(60),
        untaken: Duration::from_secs(30),
        pong: Duration::from_secs(10),
        keep_alive: true,
    };
    /// Of probes and metrics, where nobody authenticates.
    pub const ADMIN: Self = Self {
        caps: Caps { all: 64, unauthenticated: 64, of_network: 32 },
        head: Duration::from_secs(10),
        idle: Duration::from_secs(10),
        unauthenticated: Duration::from_secs(60),
        untaken: Duration::from_secs(30),
        pong: Duration::from_secs(10),
        keep_alive: false,
    };
}

/// What is known of a connection, besides what its requests use.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    pub(super) accepted: Instant,
    /// The end of the TLS handshake.
    pub(super) opened: Instant,
    /// Since when the client is to go.
    pub(super) parting: Option<Instant>,
    /// For how long the kernel has taken nothing of what is being written.
    pub(super) blocked: Duration,
}

/// What is to become of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// Its client is told to go, when it has its answers.
    Part,
    /// It is closed now.
    Cut,
}

impl Limits {
    pub(super) fn judge(&self, state: &State, usage: &Usage, now: Instant) -> Verdict {
        let since = |then: Instant| now.saturating_duration_since(then);
        let is_idle = |limit: Duration| usage.idle.is_some_and(|idle| idle >= limit);
        if state.blocked >= self.untaken || usage.untaken >= self.untaken {
            return Verdict::Cut;
        }
        if let Some(parting) = state.parting {
            let is_over = since(parting) >= PARTING && (!usage.authenticated || is_idle(PARTING));
            return if is_over { Verdict::Cut } else { Verdict::Keep };
        }
        if usage.requests == 0 && since(state.opened) >= self.head {
            return Verdict::Cut;
        }
        if is_idle(self.idle) {
            return Verdict::Part;
        }
        let age = since(state.accepted);
        let has_had_its_time = age >= self.unauthenticated || usage.requests > UNAUTHENTICATED_REQUESTS;
        if usage.authenticated || !has_had_its_time {
            return Verdict::Keep;
        }
        if age >= self.unauthenticated + PARTING {
            return Verdict::Cut;
        }
        // With an answer, it is told to go.
        if usage.idle.is_none() || is_idle(PAUSE) { Verdict::Part } else { Verdict::Keep }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Usage = Usage { authenticated: true, requests: 1, idle: None, untaken: Duration::ZERO };

    /// What becomes of a connection that is so many seconds old.
    fn after(seconds: u64, usage: Usage) -> Verdict {
        let accepted = Instant::now();
        let state = State { accepted, opened: accepted, parting: None, blocked: Duration::ZERO };
        Limits::API.judge(&state, &usage, accepted + Duration::from_secs(seconds))
    }

    #[test]
    fn authenticated_connection_lives_while_it_is_used() {
        assert_eq!(after(100_000, QUIET), Verdict::Keep);
        assert_eq!(after(100_000, Usage { idle: Some(Duration::from_secs(119)), ..QUIET }), Verdict::Keep);
        assert_eq!(after(100_000, Usage { idle: Some(Duration::from_secs(120)), ..QUIET }), Verdict::Part);
    }

    #[test]
    fn unauthenticated_connection_is_closed_in_a_minute_or_after_a_hundred_requests() {
        let stranger = Usage { authenticated: false, ..QUIET };
        assert_eq!(after(59, stranger), Verdict::Keep);
        assert_eq!(after(60, stranger), Verdict::Part);
        assert_eq!(after(1, Usage { requests: 100, ..stranger }), Verdict::Keep);
        assert_eq!(after(1, Usage { requests: 101, ..stranger }), Verdict::Part);
        let pausing = |seconds| Usage { idle: Some(Duration::from_secs(seconds)), ..stranger };
        assert_eq!((after(60, pausing(1)), after(60, pausing(2))), (Verdict::Keep, Verdict::Part));
        assert_eq!((after(69, pausing(1)), after(70, pausing(1))), (Verdict::Keep, Verdict::Cut));
        let silent = Usage { requests: 0, ..stranger };
        assert_eq!((after(9, silent), after(10, silent)), (Verdict::Keep, Verdict::Cut));
    }

    #[test]
    fn client_that_takes_nothing_is_cut() {
        let of = |seconds| Usage { untaken: Duration::from_secs(seconds), ..QUIET };
        assert_eq!((after(1, of(29)), after(1, of(30))), (Verdict::Keep, Verdict::Cut));
        let now = Instant::now();
        let mut state = State { accepted: now, opened: now, parting: None, blocked: Duration::from_secs(29) };
        assert_eq!(Limits::API.judge(&state, &QUIET, now), Verdict::Keep);
        state.blocked = Duration::from_secs(30);
        assert_eq!(Limits::API.judge(&state, &QUIET, now), Verdict::Cut);
    }

    #[test]
    fn parting_client_gets_its_answers_if_it_has_authenticated() {
        let now = Instant::now();
        let state = State { accepted: now, opened: now, parting: Some(now), blocked: Duration::ZERO };
        let at = |seconds, usage| Limits::API.judge(&state, &usage, now + Duration::from_secs(seconds));
        let stranger = Usage { authenticated: false, ..QUIET };
        assert_eq!((at(9, stranger), at(10, stranger)), (Verdict::Keep, Verdict::Cut));
        assert_eq!(at(50, QUIET), Verdict::Keep);
        assert_eq!(at(50, Usage { idle: Some(Duration::from_secs(10)), ..QUIET }), Verdict::Cut);
    }
}
