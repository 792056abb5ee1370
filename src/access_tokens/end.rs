//! Ending access tokens and sessions, and suspending those of another identity configuration.

use super::{AccessTokens, CONFLICT_RETRIES};
use crate::cluster::{Error, ErrorKind};
use crate::domain::access_token::AccessToken;
use crate::observability::audit::{Cause, Kind};

impl AccessTokens {
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
        let marked = if token.ended || token.deleting {
            Ok(false)
        } else {
            self.cluster.set_token_ended(token, self.clock.now()).await.map(|_| true)
        };
        match &marked {
            Ok(true) => self.report(kind, token, cause),
            Ok(false) => {}
            Err(error) if error.is_gone() => return Ok(false),
            Err(error) if error.is_conflict() => return marked,
            Err(error) => {
                tracing::warn!(%error, "the end of an access token could not be marked; it is ended all the same")
            }
        }
        let deleted = self.cluster.delete_access_token(token).await?;
        if marked.is_err() && deleted {
            self.report(kind, token, cause);
        }
        Ok(marked.unwrap_or(deleted))
    }

    /// Records that a token is refused from now on because it was made under another identity configuration.
    pub async fn suspend(&self, token: &AccessToken) -> Result<(), Error> {
        self.cluster.set_token_stale(token, Some(self.clock.now())).await.map(drop)
    }

    /// Records that a suspended token is accepted again.
    pub async fn restore(&self, token: &AccessToken) -> Result<(), Error> {
        self.cluster.set_token_stale(token, None).await.map(drop)
    }
}
