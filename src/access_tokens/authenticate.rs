//! Who presents a token.

use std::sync::PoisonError;

use futures::future::try_join;

use super::AccessTokens;
use crate::cluster::{Error, Identity};
use crate::domain::access_token::{AccessToken, TokenSecret};
use crate::observability::audit::{Actor, Cause, Kind, Origin};

/// A token, or a session of it, that was presented and stands.
#[derive(Debug)]
pub struct AuthenticatedToken {
    /// The token.
    pub token: AccessToken,
    /// The session, where that was presented.
    pub session: Option<AccessToken>,
    /// The token's owner as it is now.
    pub identity: Identity,
}

impl AccessTokens {
    /// Decides, on live reads, on a secret that was presented, and on the user name where one came with it: that of the token's owner, or the
    /// token's id. Its use is written down.
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
        let Some(owner) = owner.filter(|_| token.identity == identity) else { return Ok(None) };
        let token = self.record_use(token).await;
        Ok(Some(AuthenticatedToken { token, session, identity: owner }))
    }

    /// Ends a token one of whose earlier secrets is presented: either its thief or its owner has an old one, and nobody can tell which.
    /// Whether that was so.
    pub async fn revoke_on_reuse(&self, secret: &TokenSecret, origin: &Origin) -> Result<bool, Error> {
        let Some(token) = self.find(secret.subject()).await?.filter(|token| token.was(secret)) else {
            return Ok(false);
        };
        self.end(&token, Kind::TokenReused, Cause { actor: &Actor::Anonymous, owner: None, origin }).await
    }

    /// Writes the use of a token down, once in ten minutes: of any number of requests on any number of replicas one write is accepted,
    /// since each names the version that it read. One that cannot be written is no reason to refuse: the token only seems less used.
    async fn record_use(&self, token: AccessToken) -> AccessToken {
        let recording = || self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        if !token.is_use_due(self.clock.now()) || !recording().insert(token.uid.clone()) {
            return token;
        }
        let written = self.cluster.set_token_last_used(&token, self.clock.now()).await.map(|token| self.bounded(token));
        recording().remove(&token.uid);
        match written {
            Ok(newer) => newer,
            Err(error) => {
                if !error.is_conflict() && !error.is_gone() {
                    tracing::warn!(%error, "the use of an access token could not be written down");
                }
                token
            }
        }
    }
}
