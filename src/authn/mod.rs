//! Authenticates requests of callers (a Kubernetes identity, a person with an ID token, or the owner of an access
//! token) and members, and limits what attempts can cost.
//!
//! Knows no web framework. Each replica counts its own limits.

mod auth_rate_limiter;
mod browser;
mod caller;
mod check_queue;
mod client_address;
mod connection;
mod credentials;
mod denials;
mod digest_cache;
mod in_progress;
mod leaky_bucket;
mod member;
pub mod oidc;
mod refusal;

pub use browser::{is_cross_site, is_navigation, is_own_page};
pub use caller::Caller;
pub use client_address::client_address;
pub use connection::{Capacity, Connection, Forwarding, Usage, weight};
pub use credentials::{Credentials, PresentedSecret};
pub use denials::Denials;
pub use digest_cache::Digest;
pub use leaky_bucket::{Count, RateLimit};
pub use member::MemberSession;
pub use refusal::Refusal;

use std::future::Future;
use std::sync::Arc;

use self::auth_rate_limiter::AuthRateLimiter;
use self::check_queue::{Checks, Turn};
use self::in_progress::InProgress;
use self::oidc::People;
use crate::access_tokens::AccessTokens;
use crate::cluster::Cluster;
use crate::domain::access_token::TokenSecret;
use crate::membership::Membership;
use crate::observability::audit::{Actor, Audit, Event, Kind, Origin};

/// How callers may authenticate.
#[derive(Debug, Clone)]
pub struct Methods {
    /// The audience of callers' Kubernetes tokens.
    pub token_audience: String,
    /// Whether tokens for the API server itself are accepted too. Any recipient of such a token can replay it against
    /// the cluster: off unless the operator accepts that risk.
    pub accept_api_server_audience: bool,
    /// Whether Kubernetes tokens are accepted.
    pub kubernetes_tokens: bool,
    /// Whether access tokens are accepted, and may be created.
    pub access_tokens: bool,
}

/// Authenticates callers and members.
pub struct Authenticator {
    cluster: Cluster,
    membership: Membership,
    tokens: AccessTokens,
    audit: Audit,
    methods: Methods,
    people: Arc<People>,
    limiter: AuthRateLimiter,
    checks: Checks,
    in_progress: InProgress,
    /// What callers were denied.
    pub denials: Denials,
}

/// How many refusals an address and an identity may get at once, and per minute.
#[derive(Debug, Clone, Copy)]
pub struct Bursts {
    /// Refused credentials of an address.
    pub refused_credentials: u32,
    /// Denied requests of an identity.
    pub denied_requests: u32,
}

impl Authenticator {
    /// An authenticator without any refusals yet.
    pub fn new(
        cluster: Cluster,
        membership: Membership,
        tokens: AccessTokens,
        audit: Audit,
        methods: Methods,
        people: Arc<People>,
        bursts: Bursts,
    ) -> Self {
        Self {
            cluster,
            membership,
            tokens,
            audit,
            methods,
            people,
            limiter: AuthRateLimiter::new(bursts.refused_credentials),
            checks: Checks::default(),
            in_progress: InProgress::default(),
            denials: Denials::new(bursts.denied_requests),
        }
    }

    /// How callers may authenticate.
    pub fn methods(&self) -> &Methods {
        &self.methods
    }

    /// The people who sign in with ID tokens.
    pub fn people(&self) -> &People {
        &self.people
    }

    /// Counts and records a refused credential. A client that sends too many is told to wait.
    ///
    /// A request without credentials does not count: a browser starts with one.
    pub fn refuse(&self, refusal: Refusal, origin: &Origin) -> Refusal {
        if matches!(refusal, Refusal::NoCredentials) {
            return refusal;
        }
        let count = self.limiter.refused(origin.address.as_deref());
        let refusal = count.wait.map_or(refusal, |wait| Refusal::TooManyAttempts { wait });
        if count.record {
            self.audit
                .record(&Event { reason: refusal.code(), ..Event::new(Kind::AuthFailed, Actor::Anonymous, origin) });
        }
        refusal
    }

    /// Revokes an access token if `secret` is one that it had before a rotation: its owner or a thief presents it, and
    /// nobody can tell which.
    ///
    /// It is looked up even while its address floods, so that a thief cannot hide the reuse by flooding.
    ///
    /// # Errors
    /// If too many credentials wait to be checked, or the API server is unavailable.
    pub async fn revoke_on_reuse(
        &self,
        refusal: &Refusal,
        secret: &TokenSecret,
        origin: &Origin,
    ) -> Result<(), Refusal> {
        let is_wrong = matches!(refusal, Refusal::Refused | Refusal::TooManyAttempts { .. });
        // Disabled access tokens have no effect.
        if !is_wrong || !self.methods.access_tokens {
            return Ok(());
        }
        let is_flood = matches!(refusal, Refusal::TooManyAttempts { .. });
        let turn = if is_flood { Some(self.turn().await?) } else { None };
        if self.tokens.revoke_on_reuse(secret, origin).await? {
            let token = secret.subject();
            tracing::warn!(%token, "an old secret of an access token was used; the token is revoked");
        }
        if let Some(turn) = turn {
            turn.keep_pace().await;
        }
        Ok(())
    }

    /// What a request presents, by its form.
    ///
    /// # Errors
    /// If it presents nothing, or nothing that can be parsed; the latter is counted and recorded.
    fn presented<'a>(
        &self,
        credentials: &'a Credentials,
        origin: &Origin,
    ) -> Result<(Digest, &'a PresentedSecret), Refusal> {
        match credentials {
            Credentials::Nothing => Err(Refusal::NoCredentials),
            Credentials::Malformed => Err(self.refuse(Refusal::Malformed, origin)),
            Credentials::Presented { digest, secret, .. } => Ok((*digest, secret)),
        }
    }

    /// Looks up a credential. From addresses that sent many wrong ones, only a few are looked up at a time; one that
    /// was accepted recently need not wait.
    ///
    /// # Errors
    /// If too many wait already, or whoever decides is unavailable.
    async fn check<T>(
        &self,
        credential: Digest,
        origin: &Origin,
        look_up: impl Future<Output = Result<Option<T>, Refusal>>,
    ) -> Result<Option<T>, Refusal> {
        let mut turn = None;
        if self.limiter.is_flooding(origin.address.as_deref()) && !self.checks.was_accepted(&credential) {
            if self.checks.was_refused(&credential) {
                return Ok(None);
            }
            turn = Some(self.turn().await?);
        }
        let found = look_up.await?;
        self.checks.note(credential, found.is_some());
        if let Some(turn) = turn.filter(|_| found.is_none()) {
            turn.keep_pace().await;
        }
        Ok(found)
    }

    async fn turn(&self) -> Result<Turn<'_>, Refusal> {
        self.checks.turn().await.ok_or(Refusal::Busy)
    }
}
