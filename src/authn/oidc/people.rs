//! Decides who presents an ID token.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::join_all;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;

use super::held_keys::{HeldKeys, Unverified};
use super::{IdToken, Issuer, Issuers, NamedIssuer, Person, Refused, claims, fetch};
use crate::authn::digest_cache::{Digest, Recent};
use crate::authn::refusal::Refusal;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::domain::access_token::{Subject, is_reserved};
use crate::observability::metrics::Metrics;
use crate::observability::oidc_metrics::OidcMetrics;

/// How many codes of one issuer are redeemed at a time. The others get their answer at once, as with its keys.
const REDEEMING: usize = 8;

/// The people of the trusted issuers.
pub struct People {
    pub(super) trusted: BTreeMap<String, Trusted>,
    cluster: Cluster,
    clock: Clock,
    /// Whether a token may be one that the API server accepts, too.
    accept_api_server_audience: bool,
    pub(super) metrics: OidcMetrics,
    /// The tokens that the API server does not accept, until they end.
    of_no_use_elsewhere: Recent,
}

/// A trusted issuer, and its keys.
pub(in crate::authn) struct Trusted {
    pub(super) issuer: Arc<Issuer>,
    pub(super) keys: HeldKeys,
    /// Limits how many sign-ins wait for it.
    pub(super) redeeming: Semaphore,
}

/// Who decides about a bearer token.
pub(in crate::authn) enum Decider<'a> {
    /// The issuer that it names.
    Issuer(&'a Trusted),
    /// The API server.
    Kubernetes,
    /// Nobody: it is a JWT whose issuer is unclear.
    Nobody,
}

impl People {
    /// The people of these issuers. No keys are known before [`Self::keep_keys_fresh`] runs.
    pub fn new(
        issuers: &Issuers,
        cluster: Cluster,
        clock: Clock,
        metrics: &Metrics,
        accept_api_server_audience: bool,
    ) -> Self {
        let trusted = issuers.iter().map(|issuer| {
            let issuer = Arc::new(issuer.clone());
            issuer.console.iter().for_each(|_| metrics.oidc.begin_sign_ins(&issuer.name));
            let keys = held_keys(&issuer, &clock, metrics);
            (issuer.url.clone(), Trusted { issuer, keys, redeeming: Semaphore::new(REDEEMING) })
        });
        let trusted = trusted.collect();
        let (metrics, of_no_use_elsewhere) = (metrics.oidc.clone(), Recent::default());
        Self { trusted, cluster, clock, accept_api_server_audience, metrics, of_no_use_elsewhere }
    }

    /// Whether no issuer is trusted.
    pub fn is_empty(&self) -> bool {
        self.trusted.is_empty()
    }

    /// The trusted issuer of this URL.
    pub fn issuer(&self, url: &str) -> Option<&Issuer> {
        self.trusted.get(url).map(|trusted| &*trusted.issuer)
    }

    /// Keeps the keys of all issuers fresh. Never ends, unless there is no issuer.
    pub async fn keep_keys_fresh(&self) {
        join_all(self.trusted.values().map(|trusted| trusted.keys.keep_fresh())).await;
    }

    /// Who decides about a bearer token: its issuer, which nothing has verified, chooses once. A token of a trusted
    /// issuer is never sent to anybody else for a decision.
    pub(in crate::authn) fn decider(&self, token: &SecretString) -> Decider<'_> {
        if self.is_empty() {
            return Decider::Kubernetes;
        }
        match IdToken::unverified_issuer(token.expose_secret()) {
            NamedIssuer::None => Decider::Kubernetes,
            NamedIssuer::Unclear => Decider::Nobody,
            NamedIssuer::Text(url) => match self.trusted.get(&url) {
                Some(issuer) => Decider::Issuer(issuer),
                // Google's old name for itself, which the API server takes for the new one.
                None if self.trusted.contains_key(&format!("https://{url}")) => Decider::Nobody,
                None => Decider::Kubernetes,
            },
        }
    }

    /// The person with this `sub` at the issuer whose prefix the user name has; `None` if no person has such a name.
    pub fn subject(&self, username: &str, subject: &str) -> Option<Subject> {
        let has_prefix = |trusted: &&Trusted| username.starts_with(&trusted.issuer.username_prefix);
        let of = self.trusted.values().find(has_prefix).filter(|_| !is_reserved(username))?;
        Some(of.issuer.subject(subject))
    }

    /// The person that a token of this issuer names; `None` if it is refused. `digest` identifies the token.
    ///
    /// # Errors
    /// If the issuer or the API server does not answer.
    pub(in crate::authn) async fn person(
        &self,
        Trusted { issuer, keys, .. }: &Trusted,
        token: &SecretString,
        digest: Digest,
    ) -> Result<Option<Person>, Refusal> {
        let text = token.expose_secret();
        let id_token = match IdToken::read(text) {
            Ok(id_token) => id_token,
            Err(why) => return Ok(refused(issuer, why, false)),
        };
        let now = self.clock.now();
        // The times first: a token of yesterday, whose key is gone, need not make Daypass ask for keys. Nothing else:
        // a stranger could tell by the answer to a forged token which claims are right.
        if let Err(why) = claims::check_times(&id_token, issuer, now) {
            return Ok(refused(issuer, why, keys.decide(&id_token) == Some(Ok(()))));
        }
        match keys.verify(&id_token).await {
            Ok(()) => {}
            Err(Unverified::Wrong(why)) => return Ok(refused(issuer, why, false)),
            Err(Unverified::Unavailable) => return Err(Refusal::IssuerUnavailable),
        }
        let person = match claims::person(&id_token, issuer, now) {
            Ok(person) => person,
            Err(why) => return Ok(refused(issuer, why, true)),
        };
        if !self.accept_api_server_audience && self.is_of_use_elsewhere(token, digest, &person).await? {
            tracing::warn!(
                issuer = issuer.name,
                "an ID token was refused because the API server accepts it, too: give Daypass an audience of its own"
            );
            return Ok(None);
        }
        Ok(Some(person))
    }

    /// Whether the API server accepts the token: then whoever receives it, Daypass for one, could use it there. Asked
    /// once for each token.
    async fn is_of_use_elsewhere(
        &self,
        token: &SecretString,
        digest: Digest,
        person: &Person,
    ) -> Result<bool, Refusal> {
        if self.of_no_use_elsewhere.left(&digest).is_some() {
            return Ok(false);
        }
        if self.cluster.review_token(token, None).await?.is_some() {
            return Ok(true);
        }
        let left = (person.expires_at - self.clock.now()).to_std().unwrap_or_default();
        self.of_no_use_elsewhere.remember(digest, left);
        Ok(false)
    }
}

/// Notes why a token is refused, which its bearer is not told. An operator who sets up an issuer needs to know; what
/// strangers make up is not worth a line.
fn refused(issuer: &Issuer, why: Refused, is_genuine: bool) -> Option<Person> {
    if is_genuine {
        tracing::info!(issuer = issuer.name, reason = %why, "an ID token was refused");
    } else {
        tracing::debug!(issuer = issuer.name, reason = %why, "an ID token was refused");
    }
    None
}

fn held_keys(issuer: &Arc<Issuer>, clock: &Clock, metrics: &Metrics) -> HeldKeys {
    let (of, clock, metrics) = (issuer.clone(), clock.clone(), metrics.oidc.clone());
    metrics.begin(&issuer.name);
    let report = move |fetched: &anyhow::Result<()>| {
        metrics.refreshed(&of.name, fetched.is_ok().then(|| clock.local()));
        if let Err(error) = fetched {
            let error = format!("{error:#}");
            tracing::warn!(issuer = of.name, error, "the keys of an issuer could not be read");
        }
    };
    let of = issuer.clone();
    let fetch = move || {
        let of = of.clone();
        async move { fetch::fetch(&of).await }.boxed()
    };
    HeldKeys::new(Box::new(fetch), Box::new(report))
}
