//! Removes access tokens and sessions that have ended, and suspends those of another identity configuration. This only
//! tidies up: the API refuses all of them anyway.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::Controller;
use crate::access_tokens::AccessTokens;
use crate::cluster::Error;
use crate::domain::access_token::{AccessToken, Owner, STALE_GRACE, TokenRules};
use crate::domain::session::SessionOrigin;
use crate::observability::audit::{Actor, Cause, Kind};

/// What to do about a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenAction {
    Keep,
    /// Delete the object of a token that has ended. Its end is already reported.
    Remove,
    /// End a token that has expired or was unused for too long.
    Expire,
    /// End a token without an owner: the owner no longer exists.
    Revoke,
    /// End a session, because of its own expiry or because what it was issued for has ended or has a new secret.
    CloseSession,
    /// Suspend a token that was issued under another identity configuration.
    Suspend,
    /// Delete a token that has been suspended for too long for a rollback to restore it.
    DeleteStale,
    /// Lift a suspension: the token's identity configuration is in force again.
    Restore,
}

/// What [`TokenAction::of`] needs to know besides the token.
struct Situation<'a> {
    rules: &'a TokenRules,
    /// All tokens and sessions.
    all: &'a [AccessToken],
    /// Whether it was created under the identity configuration in force.
    is_current: bool,
    /// Whether its owner exists; for a member's session, the member with the credential that it was issued for.
    owner_exists: bool,
    now: DateTime<Utc>,
}

impl TokenAction {
    fn of(token: &AccessToken, situation: &Situation<'_>) -> Self {
        let Situation { rules, all, is_current, owner_exists, now } = *situation;
        let is_session = token.session.is_some();
        if token.deleting {
            return Self::Keep;
        }
        if token.ended {
            return Self::Remove;
        }
        if now >= token.ends_at(rules) {
            return if is_session { Self::CloseSession } else { Self::Expire };
        }
        let is_of_token = matches!(token.session, Some(SessionOrigin::Token { .. }));
        if is_of_token && !all.iter().any(|of| !of.deleting && !of.ended && token.is_session_of(of)) {
            return Self::CloseSession;
        }
        if !owner_exists {
            return if is_session { Self::CloseSession } else { Self::Revoke };
        }
        match (is_current, token.stale_since) {
            (true, None) => Self::Keep,
            (true, Some(_)) => Self::Restore,
            (false, None) => Self::Suspend,
            (false, Some(since)) if now - since >= STALE_GRACE => Self::DeleteStale,
            (false, Some(_)) => Self::Keep,
        }
    }
}

/// Checks every token once.
///
/// # Errors
/// When the tokens cannot be listed, or an action failed. The other actions are still carried out, and the next sweep
/// retries.
pub(super) async fn sweep_tokens(controller: &Controller) -> Result<(), Error> {
    let Controller { tokens, clock, .. } = controller;
    let all = tokens.all().await?;
    if all.is_empty() {
        return Ok(());
    }
    let identity = tokens.identity_now().await?;
    let mut owners = HashMap::new();
    let (mut suspended, mut restored, mut deleted) = (0usize, 0usize, 0usize);
    let mut failed = Ok(());
    for token in &all {
        let of_member = token.session.as_ref().filter(|of| matches!(of, SessionOrigin::Member { .. }));
        let owner_exists = match of_member {
            Some(of) => member_stands(controller, of).await,
            None => owner_exists(tokens, &mut owners, &token.owner).await,
        };
        let action = match owner_exists {
            Ok(owner_exists) => {
                // A member has no identity that could be configured.
                let is_current = of_member.is_some() || identity.is_of(token);
                let (rules, now) = (&tokens.rules, clock.now());
                TokenAction::of(token, &Situation { rules, all: &all, is_current, owner_exists, now })
            }
            Err(error) => {
                failed = Err(error);
                continue;
            }
        };
        suspended += usize::from(action == TokenAction::Suspend);
        restored += usize::from(action == TokenAction::Restore);
        deleted += usize::from(action == TokenAction::DeleteStale);
        failed = failed.and(carry_out(tokens, token, action).await);
    }
    if suspended + restored + deleted > 0 {
        tracing::warn!(
            suspended,
            restored,
            deleted,
            "access tokens were made under another issuer, audience or mapping: they stop working, and go after 24 h"
        );
    }
    failed
}

async fn owner_exists(
    tokens: &AccessTokens,
    known: &mut HashMap<(String, Option<String>), bool>,
    owner: &Owner,
) -> Result<bool, Error> {
    let key = (owner.username.clone(), owner.uid.clone());
    if let Some(exists) = known.get(&key) {
        return Ok(*exists);
    }
    let exists = tokens.identity_of(owner).await?.is_some();
    known.insert(key, exists);
    Ok(exists)
}

/// Whether the member of a session has the credential that it was issued for. The feed may be behind: what it does not
/// confirm, a live read decides.
async fn member_stands(controller: &Controller, of: &SessionOrigin) -> Result<bool, Error> {
    let SessionOrigin::Member { id, .. } = of else { return Ok(false) };
    if controller.living(id).is_some_and(|member| of.is_member(&member)) {
        return Ok(true);
    }
    Ok(controller.membership.living(id).await?.is_some_and(|member| of.is_member(&member)))
}

async fn carry_out(tokens: &AccessTokens, token: &AccessToken, action: TokenAction) -> Result<(), Error> {
    let end = |kind| tokens.end_as_seen(token, kind, Cause::internal(&Actor::Daypass));
    let done = match action {
        TokenAction::Keep => return Ok(()),
        // `end_as_seen` does not report a recorded end again.
        TokenAction::Expire | TokenAction::Remove => end(Kind::TokenExpired).await.map(drop),
        TokenAction::Revoke | TokenAction::DeleteStale => end(Kind::TokenRevoked).await.map(drop),
        TokenAction::CloseSession => end(Kind::SessionEnded).await.map(drop),
        TokenAction::Suspend => tokens.suspend(token).await,
        TokenAction::Restore => tokens.restore(token).await,
    };
    // Somebody changed the token meanwhile: leave it to the next sweep.
    done.or_else(|error| if error.is_conflict() || error.is_gone() { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::domain::access_token::TokenSecret;
    use crate::domain::examples::{self, HOUR};

    fn at(hours: i64) -> DateTime<Utc> {
        examples::at(hours * HOUR)
    }

    /// A token for two days.
    fn token() -> AccessToken {
        AccessToken { expires_at: at(48), identity: "here".into(), ..examples::token() }
    }

    fn session(of: &AccessToken) -> AccessToken {
        AccessToken { session: Some(of.as_origin()), uid: "s".into(), ..token() }
    }

    fn action(token: &AccessToken, all: &[AccessToken], owner_exists: bool, now: DateTime<Utc>) -> TokenAction {
        let rules = examples::token_rules();
        let is_current = token.identity == "here";
        TokenAction::of(token, &Situation { rules: &rules, all, is_current, owner_exists, now })
    }

    #[test]
    fn token_is_kept_until_its_expiry() {
        assert_eq!(action(&token(), &[], true, at(48) - TimeDelta::seconds(1)), TokenAction::Keep);
        assert_eq!(action(&token(), &[], true, at(48)), TokenAction::Expire);
    }

    #[test]
    fn token_of_a_deleted_owner_is_revoked() {
        assert_eq!(action(&token(), &[], false, at(1)), TokenAction::Revoke);
    }

    #[test]
    fn ended_token_is_removed_unless_its_deletion_is_under_way() {
        let ended = AccessToken { ended: true, ..token() };
        assert_eq!(action(&ended, &[], false, at(99)), TokenAction::Remove);
        assert_eq!(action(&AccessToken { deleting: true, ..ended }, &[], false, at(99)), TokenAction::Keep);
    }

    #[test]
    fn session_is_closed_when_its_token_ends_or_rotates() {
        let of = token();
        assert_eq!(action(&session(&of), std::slice::from_ref(&of), true, at(1)), TokenAction::Keep);
        assert_eq!(action(&session(&of), std::slice::from_ref(&of), true, at(48)), TokenAction::CloseSession);
        assert_eq!(action(&session(&of), std::slice::from_ref(&of), false, at(1)), TokenAction::CloseSession);
        let rotated = AccessToken { hash: TokenSecret::new(of.id.clone(), &[2; 32]).hash(), ..of.clone() };
        let gone = [
            vec![],
            vec![rotated],
            vec![AccessToken { ended: true, ..of.clone() }],
            vec![AccessToken { deleting: true, ..of.clone() }],
        ];
        for all in gone {
            assert_eq!(action(&session(&of), &all, true, at(1)), TokenAction::CloseSession);
        }
    }

    #[test]
    fn session_without_token_is_closed_at_its_end_or_with_its_owner() {
        let of = |origin: SessionOrigin| AccessToken { session: Some(origin), expires_at: at(1), ..token() };
        for session in [of(SessionOrigin::Owner), of(examples::member().as_origin().unwrap())] {
            assert_eq!(action(&session, &[], true, at(1) - TimeDelta::seconds(1)), TokenAction::Keep);
            assert_eq!(action(&session, &[], true, at(1)), TokenAction::CloseSession);
            assert_eq!(action(&session, &[], false, at(0)), TokenAction::CloseSession);
        }
    }

    #[test]
    fn token_of_another_identity_is_suspended_for_a_day_and_restored_by_rollback() {
        let foreign = AccessToken { identity: "there".into(), ..token() };
        assert_eq!(action(&foreign, &[], true, at(1)), TokenAction::Suspend);
        let stale = AccessToken { stale_since: Some(at(1)), ..foreign };
        assert_eq!(action(&stale, &[], true, at(25) - TimeDelta::seconds(1)), TokenAction::Keep);
        assert_eq!(action(&stale, &[], true, at(25)), TokenAction::DeleteStale);
        assert_eq!(action(&AccessToken { identity: "here".into(), ..stale }, &[], true, at(25)), TokenAction::Restore);
    }
}
