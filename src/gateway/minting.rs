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
        let place = self.place(pass);
        let mut state = place.state();
        let is_it = |it: &Minted| it.header == *header && it.since.elapsed() > REPLACEABLE;
        if state.minted.as_ref().is_some_and(is_it) {
            state.minted = None;
        }
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

impl State {
    /// The header, and whether the token is due for renewal.
    fn header(&self, now: Instant) -> Option<(HeaderValue, bool)> {
        self.minted.as_ref().filter(|it| now < it.end).map(|it| (it.header.clone(), now >= it.renew))
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
        if let Some((_, why)) = state.failed.filter(|(since, _)| now - *since < FAILED) {
            return Err(why);
        }
    }
    let minted = mint.mint(&member, &pass).await;
    let mut state = place.state();
    match minted {
        Ok(token) => {
            state.failed = None;
            Ok(state.minted.insert(token).header.clone())
        }
        Err(error) => {
            tracing::warn!(member = %member.id, %error, "could not mint a token for a gateway kubeconfig");
            let why = if error.is_gone() { NoToken::Gone } else { NoToken::Failed };
            state.failed = Some((Instant::now(), why));
            match (&mut state.minted, why) {
                (Some(minted), NoToken::Failed) => minted.renew = Instant::now() + RETRY,
                (minted, _) => *minted = None,
            }
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
        Ok(Minted { header, since: asked, renew: asked + lives.mul_f64(2.0 / 3.0), end: asked + lives })
    }
}
