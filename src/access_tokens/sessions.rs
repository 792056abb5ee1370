//! Sign-in sessions: opening one, and ending all of one origin.

use chrono::{DateTime, SubsecRound as _, Utc};

use super::{AccessTokens, CreateTokenError, NewToken};
use crate::cluster::Error;
use crate::domain::access_token::{AccessToken, Owner, Scope, TokenSecret};
use crate::domain::member::Member;
use crate::domain::session::{SESSION_LIFETIME, SessionOrigin};
use crate::domain::text::escape_hidden;
use crate::observability::audit::{Cause, Kind};

/// The name of a session that was not issued for an access token.
const NAME: &str = "session";

impl AccessTokens {
    /// Opens a session of an access token that has just been authenticated. If the token has the most that it may, the
    /// new one replaces the oldest.
    ///
    /// # Errors
    /// A conflict if too many sign in at the same time.
    pub async fn sign_in(
        &self,
        token: &AccessToken,
        cause: Cause<'_>,
    ) -> Result<(AccessToken, TokenSecret), CreateTokenError> {
        let new = NewToken {
            // The token may be older than the schema's rule for texts; a session is a new object.
            name: escape_hidden(&token.name),
            owner: token.owner.clone(),
            created_by: escape_hidden(&token.created_by),
            scopes: token.scopes.clone(),
            expires_at: self.session_end(Some(token.ends_at(&self.rules))),
            nonce: None,
        };
        self.open(new, token.as_origin(), cause).await
    }

    /// Opens a session of an owner who has just been authenticated by a Kubernetes token or an ID token, which ends at
    /// `end`, if that is known. It has all scopes.
    ///
    /// # Errors
    /// As [`Self::sign_in`].
    pub async fn sign_in_owner(
        &self,
        owner: Owner,
        end: Option<DateTime<Utc>>,
        cause: Cause<'_>,
    ) -> Result<(AccessToken, TokenSecret), CreateTokenError> {
        let new = NewToken {
            name: NAME.to_owned(),
            created_by: escape_hidden(&owner.username),
            owner,
            scopes: Scope::ALL.to_vec(),
            expires_at: self.session_end(end),
            nonce: None,
        };
        self.open(new, SessionOrigin::Owner, cause).await
    }

    /// Opens a session of a member that has just been authenticated by its credential, of this origin.
    ///
    /// # Errors
    /// As [`Self::sign_in`].
    pub async fn sign_in_member(
        &self,
        member: &Member,
        origin: SessionOrigin,
        cause: Cause<'_>,
    ) -> Result<(AccessToken, TokenSecret), CreateTokenError> {
        let new = NewToken {
            name: NAME.to_owned(),
            created_by: member.id.to_string(),
            owner: Owner::of_member(&member.id),
            scopes: Vec::new(),
            expires_at: self.session_end(Some(member.expires_at())),
            nonce: None,
        };
        self.open(new, origin, cause).await
    }

    /// Ends all sessions of this origin, also those of an earlier secret. `owner` is the one of the sessions.
    pub async fn sign_out(&self, of: &SessionOrigin, owner: &Owner, cause: Cause<'_>) -> Result<(), Error> {
        let mut failed = Ok(());
        for session in self.sessions_of(of, owner).await? {
            failed = failed.and(self.end(&session, Kind::SessionEnded, cause).await.map(drop));
        }
        failed
    }

    async fn open(
        &self,
        new: NewToken,
        of: SessionOrigin,
        cause: Cause<'_>,
    ) -> Result<(AccessToken, TokenSecret), CreateTokenError> {
        let (session, secret) = self.create_session(new, of, cause).await?;
        self.report(Kind::SessionCreated, &session, cause);
        Ok((session, secret))
    }

    /// The end of a session that begins now, for something that ends at `end`.
    fn session_end(&self, end: Option<DateTime<Utc>>) -> DateTime<Utc> {
        let longest = self.clock.now() + SESSION_LIFETIME;
        end.map_or(longest, |end| end.min(longest)).trunc_subsecs(0)
    }
}
