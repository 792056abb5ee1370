//! Authenticating access tokens and sessions, and detecting the reuse of old secrets.

use std::sync::PoisonError;

use futures::future::try_join;

use super::AccessTokens;
use crate::cluster::{Error, Identity};
use crate::domain::access_token::{AccessToken, TokenSecret};
use crate::observability::audit::{Actor, Cause, Kind, Origin};

/// The result of authenticating with a live token, or a live session of one.
#[derive(Debug)]
pub struct AuthenticatedToken {
    /// The access token.
    pub token: AccessToken,
    /// The session, if the secret was a session's.
    pub session: Option<AccessToken>,
    /// The current identity of the token's owner.
    pub identity: Identity,
}

impl AccessTokens {
    /// Authenticates a token or session by live reads, and records the use. A `username`, if given, must be the
    /// owner's user name or the id of the token or session. `None` if anything does not match, or the token or session
    /// is not live.
    pub async fn authenticate(
        &self,
        secret: &TokenSecret,
        username: Option<&str>,
    ) -> Result<Option<AuthenticatedToken>, Error> {
        let Some(presented) = self.find(secret.subject()).await?.filter(|token| token.hash.matches(secret)) else {
            return Ok(None);
        };
        if username.is_some_and(|name| name != presented.owner.username && name != presented.id.to_string()) {
            return Ok(None);
        }
        let now = self.clock.now();
        let (token, session) = match &presented.session {
            None => (presented, None),
            Some(_) if !presented.is_live(&self.rules, now) => return Ok(None),
            Some(of) => match self.read(&of.token).await?.filter(|token| presented.is_session_of(token)) {
                Some(token) => (token, Some(presented)),
                None => return Ok(None),
            },
        };
        if !token.is_live(&self.rules, now) {
            return Ok(None);
        }
        let (identity, owner) = try_join(self.identity_now(), self.identity_of(&token.owner)).await?;
        let Some(owner) = owner.filter(|_| identity.is_of(&token)) else { return Ok(None) };
        let token = self.record_use(token).await;
        Ok(Some(AuthenticatedToken { token, session, identity: owner }))
    }

    /// Revokes a token if `secret` is one that a rotation has replaced, since either a thief or the owner is using it
    /// and Daypass cannot tell which. `true` if this call revoked the token.
    pub async fn revoke_on_reuse(&self, secret: &TokenSecret, origin: &Origin) -> Result<bool, Error> {
        let Some(token) = self.find(secret.subject()).await?.filter(|token| token.was(secret)) else {
            return Ok(false);
        };
        self.end(&token, Kind::TokenReused, Cause { actor: &Actor::Anonymous, owner: None, origin }).await
    }

    /// Records the use of a token at most once in ten minutes. Each write names the version that it read, so of many
    /// concurrent requests on all replicas only one succeeds. A failed write is no reason to refuse the token: only
    /// its recorded last use stays older.
    async fn record_use(&self, token: AccessToken) -> AccessToken {
        let recording = || self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        if !token.is_use_due(now) || !recording().insert(token.uid.clone()) {
            return token;
        }
        let written = self.cluster.set_token_last_used(&token, now).await.map(|token| self.bounded(token));
        recording().remove(&token.uid);
        match written {
            Ok(newer) => newer,
            Err(error) => {
                if !error.is_conflict() && !error.is_gone() {
                    tracing::warn!(%error, "could not record the use of an access token");
                }
                token
            }
        }
    }
}
