//! Time limits of a connection, and the decision whether to close it.

use std::time::{Duration, Instant};

use super::Caps;
use crate::authn::Usage;

/// The limits of one listener's connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many connections there may be.
    pub caps: Caps,
    /// The time for the TLS handshake, and again for the head of the first request.
    pub head: Duration,
    /// The longest time without a request.
    pub idle: Duration,
    /// The time until a credential must be accepted.
    pub unauthenticated: Duration,
    /// The longest time in which the client reads nothing of an answer.
    pub unread: Duration,
    /// The time in which an HTTP/2 client must answer a ping. The interval between pings is three times as long.
    pub pong: Duration,
    /// Whether an HTTP/1 connection may carry more than one request.
    pub keep_alive: bool,
}

/// The time for a graceful close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The shortest pause after which an HTTP/1 connection may be closed. Right after an answer the client may be sending
/// its next request, which closing would lose.
const PAUSE: Duration = Duration::from_secs(2);
/// How many requests a connection may carry without an accepted credential.
const UNAUTHENTICATED_REQUESTS: usize = 100;

impl Limits {
    /// The limits of the REST API.
    pub const API: Self = Self {
        caps: Caps { all: 768, unauthenticated: 192, of_network: 128 },
        head: Duration::from_secs(10),
        // Longer than clients and proxies keep an idle connection (60 s and 90 s are common), so that they close it:
        // an HTTP/1 request sent just as this side closes is lost. Longer than any request takes, too.
        idle: Duration::from_secs(120),
        unauthenticated: Duration::from_secs(60),
        unread: Duration::from_secs(30),
        pong: Duration::from_secs(10),
        keep_alive: true,
    };
    /// The limits of probes and metrics, where nobody authenticates.
    pub const ADMIN: Self = Self {
        caps: Caps { all: 64, unauthenticated: 64, of_network: 32 },
        head: Duration::from_secs(10),
        idle: Duration::from_secs(10),
        unauthenticated: Duration::from_secs(60),
        unread: Duration::from_secs(30),
        pong: Duration::from_secs(10),
        keep_alive: false,
    };
}

/// The state of a connection, apart from its [`Usage`].
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionState {
    pub(super) accepted: Instant,
    /// The end of the TLS handshake.
    pub(super) opened: Instant,
    /// Since when it has been closing gracefully.
    pub(super) closing: Option<Instant>,
}

/// What to do about a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// Close it gracefully: finish the answers first.
    Close,
    /// Drop it now.
    Cut,
}

impl Limits {
    pub(super) fn judge(&self, state: &ConnectionState, usage: &Usage, now: Instant) -> Verdict {
        let since = |then: Instant| now.saturating_duration_since(then);
        let is_idle = |limit: Duration| usage.idle.is_some_and(|idle| idle >= limit);
        // A member may stop reading, as `less` does; the gateway has its own limits.
        if usage.blocked >= self.unread && !usage.forwarding || usage.untaken >= self.unread {
            return Verdict::Cut;
        }
        if let Some(closing) = state.closing {
            let is_over = since(closing) >= CLOSE_TIMEOUT && (!usage.authenticated || is_idle(CLOSE_TIMEOUT));
            return if is_over { Verdict::Cut } else { Verdict::Keep };
        }
        if usage.requests == 0 && since(state.opened) >= self.head {
            return Verdict::Cut;
        }
        if is_idle(self.idle) {
            return Verdict::Close;
        }
        let age = since(state.accepted);
        let is_over_limit = age >= self.unauthenticated || usage.requests > UNAUTHENTICATED_REQUESTS;
        if usage.authenticated || !is_over_limit {
            return Verdict::Keep;
        }
        if age >= self.unauthenticated + CLOSE_TIMEOUT {
            return Verdict::Cut;
        }
        // During a request, the answer tells the client to close.
        if usage.idle.is_none() || is_idle(PAUSE) { Verdict::Close } else { Verdict::Keep }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Usage = Usage {
        authenticated: true,
        requests: 1,
        idle: None,
        untaken: Duration::ZERO,
        blocked: Duration::ZERO,
        forwarding: false,
    };

    /// The verdict on a connection of this age.
    fn after(seconds: u64, usage: Usage) -> Verdict {
        let accepted = Instant::now();
        let state = ConnectionState { accepted, opened: accepted, closing: None };
        Limits::API.judge(&state, &usage, accepted + Duration::from_secs(seconds))
    }

    #[test]
    fn authenticated_connection_stays_open_while_it_is_used() {
        assert_eq!(after(100_000, QUIET), Verdict::Keep);
        assert_eq!(after(100_000, Usage { idle: Some(Duration::from_secs(119)), ..QUIET }), Verdict::Keep);
        assert_eq!(after(100_000, Usage { idle: Some(Duration::from_secs(120)), ..QUIET }), Verdict::Close);
    }

    #[test]
    fn unauthenticated_connection_is_closed_after_a_minute_or_a_hundred_requests() {
        let stranger = Usage { authenticated: false, ..QUIET };
        assert_eq!(after(59, stranger), Verdict::Keep);
        assert_eq!(after(60, stranger), Verdict::Close);
        assert_eq!(after(1, Usage { requests: 100, ..stranger }), Verdict::Keep);
        assert_eq!(after(1, Usage { requests: 101, ..stranger }), Verdict::Close);
        let pausing = |seconds| Usage { idle: Some(Duration::from_secs(seconds)), ..stranger };
        assert_eq!((after(60, pausing(1)), after(60, pausing(2))), (Verdict::Keep, Verdict::Close));
        assert_eq!((after(69, pausing(1)), after(70, pausing(1))), (Verdict::Keep, Verdict::Cut));
        let silent = Usage { requests: 0, ..stranger };
        assert_eq!((after(9, silent), after(10, silent)), (Verdict::Keep, Verdict::Cut));
    }

    #[test]
    fn connection_is_cut_when_the_client_reads_nothing() {
        let of = |seconds| Usage { untaken: Duration::from_secs(seconds), ..QUIET };
        assert_eq!((after(1, of(29)), after(1, of(30))), (Verdict::Keep, Verdict::Cut));
        let now = Instant::now();
        let state = ConnectionState { accepted: now, opened: now, closing: None };
        let judge = |usage| Limits::API.judge(&state, &usage, now);
        let blocked = |seconds| Usage { blocked: Duration::from_secs(seconds), ..QUIET };
        assert_eq!((judge(blocked(29)), judge(blocked(30))), (Verdict::Keep, Verdict::Cut));
        assert_eq!(judge(Usage { forwarding: true, ..blocked(30) }), Verdict::Keep);
    }

    #[test]
    fn closing_connection_finishes_its_answers_if_authenticated() {
        let now = Instant::now();
        let state = ConnectionState { accepted: now, opened: now, closing: Some(now) };
        let at = |seconds, usage| Limits::API.judge(&state, &usage, now + Duration::from_secs(seconds));
        let stranger = Usage { authenticated: false, ..QUIET };
        assert_eq!((at(9, stranger), at(10, stranger)), (Verdict::Keep, Verdict::Cut));
        assert_eq!(at(50, QUIET), Verdict::Keep);
        assert_eq!(at(50, Usage { idle: Some(Duration::from_secs(10)), ..QUIET }), Verdict::Cut);
    }
}
