//! Ending access tokens and sessions, and suspending tokens of another identity configuration.

use super::{AccessTokens, CONFLICT_RETRIES};
use crate::cluster::Error;
use crate::domain::access_token::AccessToken;
use crate::observability::audit::{Cause, Kind};

impl AccessTokens {
    /// Ends a token or a session, even if other fields change at the same time; `true` if this call ended it. A
    /// token's sessions end with it.
    ///
    /// # Errors
    /// A conflict if it keeps changing, or any other failed call.
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
        Err(Error::changed_too_often("patch_access_token_status", &token.id.to_string()))
    }

    /// Ends exactly this version of a token; `true` if this call ended it. Marks it as ended before deleting it: so
    /// only one of several concurrent calls reports the end, and a deletion without the mark came from `kubectl`. If
    /// the mark cannot be written, deletes the token anyway.
    ///
    /// # Errors
    /// A conflict if the token has changed meanwhile; then this does nothing.
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
                tracing::warn!(%error, "could not mark an access token as ended; ending it anyway")
            }
        }
        let deleted = self.cluster.delete_access_token(token).await?;
        if marked.is_err() && deleted {
            self.report(kind, token, cause);
        }
        Ok(marked.unwrap_or(deleted))
    }

    /// Records that Daypass refuses a token from now on because another identity configuration issued it.
    pub async fn suspend(&self, token: &AccessToken) -> Result<(), Error> {
        self.cluster.set_token_stale(token, Some(self.clock.now())).await.map(drop)
    }

    /// Records that Daypass accepts a suspended token again.
    pub async fn restore(&self, token: &AccessToken) -> Result<(), Error> {
        self.cluster.set_token_stale(token, None).await.map(drop)
    }
}
