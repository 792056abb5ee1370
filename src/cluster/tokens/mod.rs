//! Access tokens: who presents one, and every change of one. Reads are live, so that what one replica revokes is refused by all.

mod identity;
mod owners;
mod sign_in;
mod slots;
mod store;

pub use identity::IdentityConfig;
pub use sign_in::TokenLogin;
pub use slots::CreateTokenError;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, SubsecRound as _, Utc};

use self::identity::KnownIssuer;
use super::{Cause, Cluster, Error, ErrorKind, Lane};
use crate::audit::{Event, Kind};
use crate::domain::access_token::{AccessToken, Owner, SESSION_LIFETIME, Scope, SignIn, TokenRules, TokenSecret};

/// How often a change that somebody else's overtook is tried again on the newer version.
const CONFLICT_RETRIES: usize = 5;

/// The access tokens of this data plane.
#[derive(Clone)]
pub struct AccessTokens {
    /// The cluster.
    pub cluster: Cluster,
    /// What tokens may be.
    pub rules: TokenRules,
    identity: IdentityConfig,
    issuer: Arc<Mutex<KnownIssuer>>,
    /// The UIDs of the tokens whose use this process is writing down.
    recording: Arc<Mutex<HashSet<String>>>,
}

/// A token to be made.
#[derive(Debug)]
pub struct NewToken {
    /// Name for people.
    pub name: String,
    /// On whose rights it acts.
    pub owner: Owner,
    /// The caller that creates it.
    pub created_by: String,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

impl AccessTokens {
    /// The tokens in Daypass's own namespace.
    pub fn new(cluster: Cluster, rules: TokenRules, identity: IdentityConfig) -> Self {
        Self { cluster, rules, identity, issuer: Arc::default(), recording: Arc::default() }
    }

    /// The same tokens, for calls of this lane.
    pub fn in_lane(&self, lane: Lane) -> Self {
        Self { cluster: self.cluster.in_lane(lane), ..self.clone() }
    }

    /// Records an event about a token.
    pub fn report(&self, kind: Kind, token: &AccessToken, cause: Cause<'_>) {
        let event = Event::about_token(kind, cause.actor.clone(), cause.origin, token);
        self.cluster.audit.record(&Event { owner: cause.owner, ..event });
    }

    /// Whether it has not ended. Whether it is refused for another reason, and may come back, is another question.
    pub fn has_not_ended(&self, token: &AccessToken) -> bool {
        !token.has_ended(&self.rules, self.cluster.clock.now())
    }

    /// Makes a token, in the first of the owner's numbered names that is free.
    ///
    /// # Errors
    /// [`CreateTokenError::TooMany`] when the owner has as many as it may have.
    pub async fn create(
        &self,
        new: NewToken,
        cause: Cause<'_>,
    ) -> Result<(AccessToken, TokenSecret), CreateTokenError> {
        let (token, secret) = self.create_token(new).await?;
        self.report(Kind::TokenCreated, &token, cause);
        Ok((token, secret))
    }

    /// Makes a session of a token that was just presented.
    ///
    /// # Errors
    /// [`CreateTokenError::TooMany`] when the token has as many as it may have.
    pub async fn sign_in(
        &self,
        token: &AccessToken,
        cause: Cause<'_>,
    ) -> Result<(AccessToken, TokenSecret), CreateTokenError> {
        let end = (self.cluster.clock.now() + SESSION_LIFETIME).min(token.ends_at(&self.rules)).trunc_subsecs(0);
        let new = NewToken {
            name: token.name.clone(),
            owner: token.owner.clone(),
            created_by: token.created_by.clone(),
            scopes: token.scopes.clone(),
            expires_at: end,
        };
        let of = SignIn {
            token: token.id.object_name().to_owned(),
            token_uid: token.uid.clone(),
            secret: token.hash.fingerprint().to_owned(),
        };
        let (session, secret) = self.create_session(new, of).await?;
        self.report(Kind::SessionCreated, &session, cause);
        Ok((session, secret))
    }

    /// Gives a token another name.
    pub async fn rename(&self, token: &AccessToken, name: &str, cause: Cause<'_>) -> Result<AccessToken, Error> {
        let renamed = self.write_name(token, name).await?;
        self.report(Kind::TokenRenamed, &renamed, cause);
        Ok(renamed)
    }

    /// Gives a token a new secret and a new end; the old secret, and every session that was had for it, is dead when this returns.
    ///
    /// # Errors
    /// A conflict when somebody else rotates it at the same time: only one gets a secret.
    pub async fn rotate(
        &self,
        token: &AccessToken,
        expires_at: DateTime<Utc>,
        cause: Cause<'_>,
    ) -> Result<(AccessToken, TokenSecret), Error> {
        let secret = TokenSecret::new(token.id.clone(), &self.random()?);
        let mut current = token.clone();
        for _ in 0..CONFLICT_RETRIES {
            match self.write_secret(&current, &secret.hash(), expires_at).await {
                Ok(rotated) => {
                    self.report(Kind::TokenRotated, &rotated, cause);
                    return Ok((rotated, secret));
                }
                Err(error) if error.is_conflict() => {
                    // Its last use may have been written down, or its name; another secret is somebody else's rotation.
                    let newer = self.find(&token.id).await?.filter(|newer| newer.uid == token.uid);
                    current = newer.filter(|newer| newer.hash == token.hash).ok_or(error)?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::new("patch_access_token", &token.id.to_string(), ErrorKind::Conflict, "changed too often"))
    }

    /// Ends a token, or a session, whatever else is changed on it at the same time; whether it was this call that did.
    /// Its sessions end with it.
    pub async fn end(&self, token: &AccessToken, kind: Kind, cause: Cause<'_>) -> Result<bool, Error> {
        let mut current = token.clone();
        for _ in 0..CONFLICT_RETRIES {
            match self.end_as_seen(&current, kind, cause).await {
                Err(error) if error.is_conflict() => match self.find(&token.id).await? {
                    Some(newer) if newer.uid == token.uid => current = newer,
                    _ => return Ok(false),
                },
                ended => return ended,
            }
        }
        Err(Error::new("patch_access_token_status", &token.id.to_string(), ErrorKind::Conflict, "changed too often"))
    }

    /// Ends exactly this version of a token; whether it was this call that did. First it is marked, so that one of all
    /// who end it reports it, and so that a deletion by `kubectl` can be told from these. A mark that cannot be
    /// written holds nothing up.
    ///
    /// # Errors
    /// A conflict when it was changed meanwhile: then it is as it was.
    pub async fn end_as_seen(&self, token: &AccessToken, kind: Kind, cause: Cause<'_>) -> Result<bool, Error> {
        let marked =
            if token.ended || token.deleting { Ok(false) } else { self.write_ended(token).await.map(|_| true) };
        match &marked {
            Ok(true) => self.report(kind, token, cause),
            Ok(false) => {}
            Err(error) if error.is_gone() => return Ok(false),
            Err(error) if error.is_conflict() => return marked,
            Err(error) => {
                tracing::warn!(%error, "the end of an access token could not be marked; it is ended all the same")
            }
        }
        let deleted = self.delete(token).await?;
        if marked.is_err() && deleted {
            self.report(kind, token, cause);
        }
        Ok(marked.unwrap_or(deleted))
    }

    fn random<const N: usize>(&self) -> Result<[u8; N], Error> {
        let failed = |error: crate::clock::NoEntropy| {
            Error::new("create_access_token", "-", ErrorKind::Server, &error.to_string())
        };
        self.cluster.entropy.bytes().map_err(failed)
    }
}
