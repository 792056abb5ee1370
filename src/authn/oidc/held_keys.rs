//! An issuer's keys as this replica holds them: refreshed in the background, and asked for again when a token names
//! one that is not there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::endpoints::Endpoints;
use super::{IdToken, Keys, Refused};

/// How often the keys are refreshed.
const REFRESH: Duration = Duration::from_secs(600);
/// How soon a refresh that failed is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// How long keys may be used without a newer answer. An issuer takes a stolen key out of its set, and expects that to
/// count.
const LIFETIME: Duration = Duration::from_secs(3600);
/// How often tokens with unknown keys may make Daypass ask the issuer. Anybody can write such a token.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// How many requests wait for an issuer's answer at a time. The others get theirs at once: an issuer that hangs must
/// not take the places of other people's requests, nor all turns of an address that floods.
const WAITING: usize = 3;

/// What an issuer publishes.
#[derive(Default)]
pub(super) struct Published {
    pub(super) keys: Keys,
    /// Where it signs people in, if it says so.
    pub(super) endpoints: Option<Endpoints>,
}

/// Fetches the keys once.
pub(super) type Fetch = Box<dyn Fn() -> BoxFuture<'static, anyhow::Result<Published>> + Send + Sync>;
/// Is told about each fetch: whether it succeeded.
pub(super) type Report = Box<dyn Fn(&anyhow::Result<()>) + Send + Sync>;

/// Why a signature is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unverified {
    /// It is wrong.
    Wrong(Refused),
    /// The issuer's keys are not known, or not all of them: it does not answer, or was asked a moment ago.
    Unavailable,
}

/// The keys of one issuer.
pub(super) struct HeldKeys {
    fetch: Fetch,
    report: Report,
    held: Mutex<Held>,
    /// Held while asking the issuer, so that one question answers all who wait.
    asking: tokio::sync::Mutex<()>,
    waiting: Semaphore,
}

#[derive(Default)]
struct Held {
    published: Arc<Published>,
    fetched: Option<Instant>,
    /// When a token last made Daypass ask.
    asked: Option<Instant>,
}

impl HeldKeys {
    /// No keys yet.
    pub(super) fn new(fetch: Fetch, report: Report) -> Self {
        let (held, asking) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { fetch, report, held, asking, waiting: Semaphore::new(WAITING) }
    }

    /// Keeps the keys fresh. Never ends.
    pub(super) async fn keep_fresh(&self) {
        loop {
            let asking = self.asking.lock().await;
            let refreshed = self.refresh().await;
            drop(asking);
            tokio::time::sleep(if refreshed.is_ok() { REFRESH } else { RETRY }).await;
        }
    }

    /// Checks the signature of a token. Asks the issuer only if its keys cannot decide.
    pub(super) async fn verify(&self, token: &IdToken<'_>) -> Result<(), Unverified> {
        if let Some(decided) = self.decide(token) {
            return decided;
        }
        let Ok(_waiting) = self.waiting.try_acquire() else { return Err(Unverified::Unavailable) };
        let _asking = self.asking.lock().await;
        // Somebody else may have asked meanwhile.
        if let Some(decided) = self.decide(token) {
            return decided;
        }
        let now = Instant::now();
        if self.held().asked.is_some_and(|asked| now - asked < ASK_AGAIN) {
            return Err(Unverified::Unavailable);
        }
        self.held().asked = Some(now);
        self.refresh().await.map_err(|()| Unverified::Unavailable)?;
        // It is in none of the issuer's keys of this moment.
        self.decide(token).unwrap_or(Err(Unverified::Wrong(Refused::Signature)))
    }

    /// What the living keys say; `None` if a newer key may say something else.
    pub(super) fn decide(&self, token: &IdToken<'_>) -> Option<Result<(), Unverified>> {
        let keys = &self.alive()?.keys;
        match keys.verify(token) {
            Ok(()) => Some(Ok(())),
            Err(wrong) => keys.has(token).then_some(Err(Unverified::Wrong(wrong))),
        }
    }

    /// Where the issuer signs people in; `None` if it has not said so within the lifetime of keys.
    pub(super) fn endpoints(&self) -> Option<Endpoints> {
        self.alive()?.endpoints.clone()
    }

    fn alive(&self) -> Option<Arc<Published>> {
        let held = self.held();
        let is_alive = held.fetched.is_some_and(|fetched| fetched.elapsed() < LIFETIME);
        is_alive.then(|| held.published.clone())
    }

    async fn refresh(&self) -> Result<(), ()> {
        let since = Instant::now();
        let fetched = (self.fetch)().await.map(|published| {
            let mut held = self.held();
            // The answer is as old as the question.
            (held.published, held.fetched) = (Arc::new(published), Some(since));
        });
        (self.report)(&fetched);
        fetched.map_err(drop)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
