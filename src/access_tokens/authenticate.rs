//! Authenticating access tokens and sessions, and detecting the reuse of old secrets.

use std::sync::PoisonError;

use futures::future::try_join;

use super::AccessTokens;
use crate::cluster::{Error, Identity};
use crate::domain::access_token::{AccessToken, TokenSecret};
use crate::domain::session::SessionOrigin;
use crate::observability::audit::{Actor, Cause, Kind, Origin};

/// The result of authenticating with a live token, or a live session of a caller.
#[derive(Debug)]
pub struct Authenticated {
    /// The access token, or that of the session; `None` for a session of a caller with another token.
    pub token: Option<AccessToken>,
    /// The session, if the secret was a session's.
    pub session: Option<AccessToken>,
    /// The current identity of the owner.
    pub identity: Identity,
}

impl AccessTokens {
    /// Authenticates a token or a caller's session by live reads, and records the use of the token. A `username`, if
    /// given, must be the owner's user name or the id of the token or session. `None` if anything does not match, or
    /// the token or session is not live.
    pub async fn authenticate(
        &self,
        secret: &TokenSecret,
        username: Option<&str>,
    ) -> Result<Option<Authenticated>, Error> {
        let Some(presented) = self.presented(secret).await? else { return Ok(None) };
        if username.is_some_and(|name| name != presented.owner.username && name != presented.id.to_string()) {
            return Ok(None);
        }
        let now = self.clock.now();
        let (token, session) = match &presented.session {
            None => (Some(presented), None),
            Some(_) if !presented.is_live(&self.rules, now) => return Ok(None),
            Some(SessionOrigin::Token { token, .. }) => {
                match self.read(token).await?.filter(|token| presented.is_session_of(token)) {
                    Some(token) => (Some(token), Some(presented)),
                    None => return Ok(None),
                }
            }
            Some(SessionOrigin::Owner) => (None, Some(presented)),
            // A member is no caller.
            Some(SessionOrigin::Member { .. }) => return Ok(None),
        };
        let Some(stands_for) = token.as_ref().or(session.as_ref()).filter(|it| it.is_live(&self.rules, now)) else {
            return Ok(None);
        };
        let (current, owner) = try_join(self.identity_now(), self.identity_of(&stands_for.owner)).await?;
        let Some(identity) = owner.filter(|_| current.is_of(stands_for)) else { return Ok(None) };
        let token = match token {
            Some(token) => Some(self.record_use(token).await),
            None => None,
        };
        Ok(Some(Authenticated { token, session, identity }))
    }

    /// The member's session of this secret, by a live read; `None` if it is not one, or not live. Whether the member
    /// still stands is for [`SessionOrigin::is_member`] to decide.
    pub async fn session_of_member(&self, secret: &TokenSecret) -> Result<Option<AccessToken>, Error> {
        let is_live = |session: &AccessToken| session.is_live(&self.rules, self.clock.now());
        let presented = self.presented(secret).await?;
        Ok(presented.filter(|it| matches!(it.session, Some(SessionOrigin::Member { .. })) && is_live(it)))
    }

    /// The token or session of this secret, ended or not.
    async fn presented(&self, secret: &TokenSecret) -> Result<Option<AccessToken>, Error> {
        Ok(self.find(secret.subject()).await?.filter(|token| token.hash.matches(secret)))
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
