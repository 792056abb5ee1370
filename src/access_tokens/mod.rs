//! The use cases of access tokens and sessions: creating, authenticating, changing and ending them.
//!
//! Reads go to the API server, so every replica refuses a token as soon as one replica has revoked it. Every function
//! returns the [`Error`] of a failed call; only further reasons are documented.

mod authenticate;
mod create;
mod end;
mod identity;
mod owners;
mod sessions;

pub use authenticate::Authenticated;
pub use create::CreateTokenError;
pub use identity::{CurrentIdentity, IdentityConfig};

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};

use futures::{Stream, StreamExt as _};

use self::identity::KnownIssuer;
use crate::clock::{Clock, Entropy, NoEntropy};
use crate::cluster::{Cluster, Error, ErrorKind, Lane, WatchEvent};
use crate::domain::access_token::{AccessToken, NONCE_LEN, Owner, Scope, TokenId, TokenRules, TokenSecret};
use crate::observability::audit::{Audit, Cause, Kind};

/// How often to retry a change on the newer version after a conflict.
const CONFLICT_RETRIES: usize = 5;

/// The access tokens of this data plane.
#[derive(Clone)]
pub struct AccessTokens {
    cluster: Cluster,
    clock: Clock,
    entropy: Entropy,
    audit: Audit,
    /// The limits on tokens.
    pub rules: TokenRules,
    identity: IdentityConfig,
    issuer: Arc<Mutex<KnownIssuer>>,
    /// The UIDs of the tokens with a use that this process is recording.
    recording: Arc<Mutex<HashSet<String>>>,
}

/// The fields of a new token.
#[derive(Debug)]
pub struct NewToken {
    /// A name for people to read.
    pub name: String,
    /// The owner, with whose rights it acts.
    pub owner: Owner,
    /// The caller that creates it.
    pub created_by: String,
    /// The operations that it allows.
    pub scopes: Vec<Scope>,
    /// When it expires.
    pub expires_at: DateTime<Utc>,
    /// The end of its id, if it must not be random: a request that is sent twice has the same one.
    pub nonce: Option<[u8; NONCE_LEN]>,
}

impl AccessTokens {
    /// The tokens in Daypass's own namespace.
    pub fn new(cluster: Cluster, clock: Clock, audit: Audit, rules: TokenRules, identity: IdentityConfig) -> Self {
        Self {
            cluster,
            clock,
            entropy: Entropy::default(),
            audit,
            rules,
            identity,
            issuer: Arc::default(),
            recording: Arc::default(),
        }
    }

    /// The same tokens, with calls in this lane.
    pub fn in_lane(&self, lane: Lane) -> Self {
        Self { cluster: self.cluster.in_lane(lane), ..self.clone() }
    }

    /// Records an event about a token.
    pub fn report(&self, kind: Kind, token: &AccessToken, cause: Cause<'_>) {
        self.audit.record(&cause.event(kind).about_token(token));
    }

    /// Lists all tokens and sessions, then streams each change. Skips unreadable ones, and leaves out old hashes.
    pub fn watch(&self) -> impl Stream<Item = WatchEvent<AccessToken>> + use<> {
        let tokens = self.clone();
        self.cluster.watch_access_tokens().map(move |event| event.map(|token| tokens.bounded(token)))
    }

    /// Reads the token or session with this id from the API server, ended or not.
    pub async fn find(&self, id: &TokenId) -> Result<Option<AccessToken>, Error> {
        Ok(self.read(id.object_name()).await?.filter(|token| token.id == *id))
    }

    /// Lists all tokens and sessions, including ended ones, without old hashes.
    pub async fn all(&self) -> Result<Vec<AccessToken>, Error> {
        self.list(None).await
    }

    async fn read(&self, name: &str) -> Result<Option<AccessToken>, Error> {
        Ok(self.cluster.access_token(name).await?.map(|token| self.bounded(token)))
    }

    async fn list(&self, label: Option<(&str, &str)>) -> Result<Vec<AccessToken>, Error> {
        let found = self.cluster.list_access_tokens(label).await?;
        Ok(found.into_iter().map(|token| self.bounded(token)).collect())
    }

    /// The token with its end as the current rules limit it.
    fn bounded(&self, token: AccessToken) -> AccessToken {
        token.bounded(&self.rules)
    }

    /// Whether the token has not ended for good. It may still be suspended.
    pub fn has_not_ended(&self, token: &AccessToken) -> bool {
        !token.has_ended(&self.rules, self.clock.now())
    }

    /// Creates a token.
    ///
    /// # Errors
    /// [`CreateTokenError::TooMany`] if the owner already has the maximum number of live tokens.
    pub async fn create(
        &self,
        new: NewToken,
        cause: Cause<'_>,
    ) -> Result<(AccessToken, TokenSecret), CreateTokenError> {
        let (token, secret) = self.create_token(new).await?;
        self.report(Kind::TokenCreated, &token, cause);
        Ok((token, secret))
    }

    /// Renames a token.
    pub async fn rename(&self, token: &AccessToken, name: &str, cause: Cause<'_>) -> Result<AccessToken, Error> {
        let renamed = self.bounded(self.cluster.set_token_name(token, name).await?);
        self.report(Kind::TokenRenamed, &renamed, cause);
        Ok(renamed)
    }

    /// Gives a token a new secret and a new expiry. When this returns, the old secret and all sessions issued for it
    /// have stopped working.
    ///
    /// # Errors
    /// A conflict if someone else rotates it at the same time: only one of the two gets a secret. Also if the token
    /// comes from a list, which leaves out what to remember.
    pub async fn rotate(
        &self,
        token: &AccessToken,
        expires_at: DateTime<Utc>,
        cause: Cause<'_>,
    ) -> Result<(AccessToken, TokenSecret), Error> {
        let secret = TokenSecret::new(token.id.clone(), &self.random()?);
        let mut current = token.clone();
        for _ in 0..CONFLICT_RETRIES {
            let incomplete = || Error::new("patch_access_token", "-", ErrorKind::Conflict, "the token is a list's");
            let earlier = current.rotated_with_current().ok_or_else(incomplete)?;
            let now = self.clock.now();
            match self.cluster.set_token_secret(&current, &secret.hash(), &earlier, expires_at, now).await {
                Ok(rotated) => {
                    let rotated = self.bounded(rotated);
                    self.report(Kind::TokenRotated, &rotated, cause);
                    return Ok((rotated, secret));
                }
                Err(error) if error.is_conflict() => {
                    // Retry if only the name or the last use has changed. A new secret means that someone else rotated
                    // the token.
                    let newer = self.find(&token.id).await?.filter(|newer| newer.uid == token.uid);
                    current = newer.filter(|newer| newer.hash == token.hash).ok_or(error)?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::changed_too_often("patch_access_token", &token.id.to_string()))
    }

    fn random<const N: usize>(&self) -> Result<[u8; N], Error> {
        let failed = |error: NoEntropy| Error::new("create_access_token", "-", ErrorKind::Server, &error.to_string());
        self.entropy.bytes().map_err(failed)
    }
}
