//! The tokens that forwarded requests bear: of the member's own service account, for the API server, in memory only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use http::HeaderValue;
use secrecy::ExposeSecret as _;
use tokio::sync::Mutex as Turn;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::cluster::{Cluster, Error, ErrorKind};
use crate::domain::gateway_token::Pass;
use crate::domain::kubeconfig::{MIN_TOKEN_LIFETIME, slot_name};
use crate::domain::member::Member;
use crate::domain::token::decode_claims;
use crate::observability::audit::{Actor, Audit, Cause, Kind};
use crate::observability::metrics::Metrics;

/// The longest that a token lives. It never leaves this process, so it may outlive its member.
const LONGEST: TimeDelta = TimeDelta::hours(1);

/// How long a request waits for a token: longer than the call may take.
const WAIT: Duration = Duration::from_secs(15);
/// How long after a failure the next attempt comes, while there is a token that still works.
const RETRY: Duration = Duration::from_secs(5);
/// How long a failure is the answer for all requests that wait.
const FAILED: Duration = Duration::from_secs(1);
/// How old a token is at least when a 401 has it replaced. Answers of the API server may come from servers behind it,
/// which answer 401 for reasons of their own.
const REPLACEABLE: Duration = Duration::from_secs(30);

/// The tokens of this replica, one for each kubeconfig in use.
pub(super) struct Minting {
    mint: Mint,
    tasks: TaskTracker,
    /// By the UID of the Secret that the token is bound to.
    places: Mutex<HashMap<String, Arc<Place>>>,
}

/// Why there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoToken {
    /// The Secret or the service account is gone.
    Gone,
    /// The API server cannot be asked.
    Failed,
}

/// The token of one kubeconfig.
#[derive(Default)]
struct Place {
    state: Mutex<State>,
    /// Held while a token is minted.
    turn: Turn<()>,
}

#[derive(Default)]
struct State {
    minted: Option<Minted>,
    failed: Option<(Instant, NoToken)>,
}

struct Minted {
    header: HeaderValue,
    since: Instant,
    /// From when on to ask for another: at two thirds of its lifetime.
    renew: Instant,
    /// When the API server refuses it.
    end: Instant,
}

/// Mints tokens. Cheap to clone.
#[derive(Clone)]
struct Mint {
    cluster: Cluster,
    clock: Clock,
    audit: Audit,
    metrics: Metrics,
}

impl Minting {
    pub(super) fn new(cluster: Cluster, clock: Clock, audit: Audit, metrics: Metrics, tasks: TaskTracker) -> Self {
        Self { mint: Mint { cluster, clock, audit, metrics }, tasks, places: Mutex::default() }
    }

    /// The `Authorization` header for this kubeconfig. However many requests wait, one token is minted. A request that
    /// finds one that is due for renewal does not wait for the next.
    ///
    /// # Errors
    /// When there is no token, and none can be minted.
    pub(super) async fn header(&self, member: &Arc<Member>, pass: &Pass) -> Result<HeaderValue, NoToken> {
        let place = self.place(pass);
        let now = Instant::now();
        let known = place.state().header(now);
        if let Some((header, false)) = known {
            return Ok(header);
        }
        // In a task of its own: a client that goes away must not cost the others their token.
        let renewal = renew(Arc::clone(&place), self.mint.clone(), Arc::clone(member), pass.clone());
        match known {
            Some((header, _)) => {
                if place.turn.try_lock().is_ok() {
                    self.tasks.spawn(renewal);
                }
                Ok(header)
            }
            None => {
                let renewed = timeout(WAIT, self.tasks.spawn(renewal)).await;
                renewed.map_or(Err(NoToken::Failed), |joined| joined.unwrap_or(Err(NoToken::Failed)))
            }
        }
    }

    /// Drops this token, which the API server has refused. The next request gets a new one.
    pub(super) fn forget(&self, pass: &Pass, header: &HeaderValue) {
        self.place(pass).state().forget(header, Instant::now());
    }

    fn place(&self, pass: &Pass) -> Arc<Place> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get(&pass.secret_uid) {
            return Arc::clone(place);
        }
        // A new kubeconfig comes rarely enough to look for those that are no longer used.
        let now = Instant::now();
        places.retain(|_, place| Arc::strong_count(place) > 1 || place.state().header(now).is_some());
        Arc::clone(places.entry(pass.secret_uid.clone()).or_default())
    }
}

impl Place {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Minted {
    /// A token that was asked for then, and lives as long as the API server says.
    fn new(header: HeaderValue, asked: Instant, lives: Duration) -> Self {
        Self { header, since: asked, renew: asked + lives.mul_f64(2.0 / 3.0), end: asked + lives }
    }
}

impl State {
    /// The header, and whether the token is due for renewal.
    fn header(&self, now: Instant) -> Option<(HeaderValue, bool)> {
        self.minted.as_ref().filter(|it| now < it.end).map(|it| (it.header.clone(), now >= it.renew))
    }

    fn succeed(&mut self, minted: Minted) -> HeaderValue {
        self.failed = None;
        self.minted.insert(minted).header.clone()
    }

    /// No token could be minted. The one that there is goes on, unless what it is bound to is gone.
    fn fail(&mut self, why: NoToken, now: Instant) {
        self.failed = Some((now, why));
        match (&mut self.minted, why) {
            (Some(minted), NoToken::Failed) => minted.renew = now + RETRY,
            (minted, _) => *minted = None,
        }
    }

    /// Why the last attempt failed, if it was a moment ago.
    fn failure(&self, now: Instant) -> Option<NoToken> {
        self.failed.filter(|(since, _)| now.saturating_duration_since(*since) < FAILED).map(|(_, why)| why)
    }

    /// Drops the token with this header, unless it is new.
    fn forget(&mut self, header: &HeaderValue, now: Instant) {
        self.minted.take_if(|it| it.header == *header && now.saturating_duration_since(it.since) > REPLACEABLE);
    }
}

/// Mints a token, unless another task has done so meanwhile.
async fn renew(place: Arc<Place>, mint: Mint, member: Arc<Member>, pass: Pass) -> Result<HeaderValue, NoToken> {
    let _turn = place.turn.lock().await;
    let now = Instant::now();
    {
        let state = place.state();
        if let Some((header, false)) = state.header(now) {
            return Ok(header);
        }
        if let Some(why) = state.failure(now) {
            return Err(why);
        }
    }
    let minted = mint.mint(&member, &pass).await;
    let mut state = place.state();
    match minted {
        Ok(token) => Ok(state.succeed(token)),
        Err(error) => {
            tracing::warn!(member = %member.id, %error, "could not mint a token for a gateway kubeconfig");
            let why = if error.is_gone() { NoToken::Gone } else { NoToken::Failed };
            state.fail(why, Instant::now());
            Err(why)
        }
    }
}

impl Mint {
    async fn mint(&self, member: &Member, pass: &Pass) -> Result<Minted, Error> {
        let left = member.expires_at() - self.clock.now();
        let lifetime = left.clamp(MIN_TOKEN_LIFETIME, LONGEST);
        let asked = Instant::now();
        let token = self
            .cluster
            .request_token(&member.id, (&slot_name(&member.id, pass.slot), &pass.secret_uid), lifetime)
            .await?;
        let of = member.id.to_string();
        let unreadable = || Error::new("create_token", &of, ErrorKind::UnreadableAnswer, "no JWT with exp and jti");
        let claims = decode_claims(token.expose_secret()).ok_or_else(unreadable)?;
        let header = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()));
        let mut header = header.map_err(|_| unreadable())?;
        header.set_sensitive(true);
        let lives = (claims.exp - self.clock.now()).min(LONGEST).to_std().unwrap_or(Duration::ZERO);
        let event = Cause::internal(&Actor::Daypass).event(Kind::GatewayTokenMinted).about_member(member);
        self.audit.record(&event.with_jti(Some(&pass.id)).with_minted(&claims));
        self.metrics.gateway.tokens_minted.inc();
        Ok(Minted::new(header, asked, lives))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const FIRST: HeaderValue = HeaderValue::from_static("Bearer first");
    const SECOND: HeaderValue = HeaderValue::from_static("Bearer second");

    /// A token of an hour, and when it was asked for.
    fn minted() -> (State, Instant) {
        let (mut state, asked) = (State::default(), Instant::now());
        state.succeed(Minted::new(FIRST, asked, HOUR));
        (state, asked)
    }

    #[test]
    fn token_is_renewed_at_two_thirds_of_its_life_and_used_to_its_end() {
        let (state, asked) = minted();
        let at = |seconds| state.header(asked + Duration::from_secs(seconds));
        assert_eq!(at(2399), Some((FIRST, false)));
        assert_eq!(at(2400), Some((FIRST, true)));
        assert_eq!(at(3599), Some((FIRST, true)));
        assert_eq!(at(3600), None);
    }

    #[test]
    fn failed_renewal_is_tried_again_while_the_token_works() {
        let (mut state, asked) = minted();
        let now = asked + HOUR.mul_f64(0.7);
        state.fail(NoToken::Failed, now);
        assert_eq!(state.header(now), Some((FIRST, false)));
        assert_eq!(state.header(now + RETRY), Some((FIRST, true)));
        assert_eq!((state.failure(now), state.failure(now + FAILED)), (Some(NoToken::Failed), None));
        assert_eq!(state.succeed(Minted::new(SECOND, now + RETRY, HOUR)), SECOND);
        assert_eq!((state.header(now + HOUR), state.failure(now)), (Some((SECOND, true)), None));
    }

    #[test]
    fn token_of_what_is_gone_is_used_no_more() {
        let (mut state, asked) = minted();
        state.fail(NoToken::Gone, asked);
        assert_eq!((state.header(asked), state.failure(asked)), (None, Some(NoToken::Gone)));
    }

    #[test]
    fn refused_token_is_dropped_unless_it_is_new_or_another() {
        let (mut state, asked) = minted();
        let later = asked + REPLACEABLE + Duration::from_secs(1);
        for (header, now) in [(FIRST, asked + REPLACEABLE), (SECOND, later)] {
            state.forget(&header, now);
            assert!(state.header(now).is_some(), "{header:?}");
        }
        state.forget(&FIRST, later);
        assert_eq!(state.header(later), None);
    }
}
