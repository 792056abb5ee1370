//! Removes access tokens that have ended, and suspends those of another identity configuration. Both are refused
//! without it: this only tidies up.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::access_tokens::AccessTokens;
use crate::clock::Clock;
use crate::cluster::Error;
use crate::domain::access_token::{AccessToken, Owner, STALE_GRACE, TokenRules};
use crate::observability::audit::{Actor, Cause, Kind};

/// What to do with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenAction {
    Keep,
    /// It was ended, and its end was reported: delete the object that is left.
    Remove,
    /// Its time is over, or it was not used for too long.
    Expire,
    /// Its owner does not exist any more.
    Revoke,
    /// It is a session whose token was deleted or rotated.
    CloseSession,
    /// It was made under another identity configuration than the one in force.
    Suspend,
    /// It has been suspended for too long to be restored by a rollback.
    DeleteStale,
    /// It was suspended, and its identity configuration is in force again.
    Restore,
}

/// What decides about a token besides itself.
struct Situation<'a> {
    rules: &'a TokenRules,
    /// All tokens and sessions.
    all: &'a [AccessToken],
    /// The identity configuration in force.
    identity: &'a str,
    owner_exists: bool,
    now: DateTime<Utc>,
}

impl TokenAction {
    fn of(token: &AccessToken, situation: &Situation<'_>) -> Self {
        let Situation { rules, all, identity, owner_exists, now } = *situation;
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
        if is_session && !all.iter().any(|of| !of.deleting && !of.ended && token.is_session_of(of)) {
            return Self::CloseSession;
        }
        if !owner_exists {
            return if is_session { Self::CloseSession } else { Self::Revoke };
        }
        match (token.identity == identity, token.stale_since) {
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
/// When the tokens cannot be listed, or an action failed. The others are still carried out, and the next sweep retries.
pub(super) async fn sweep_tokens(tokens: &AccessTokens, clock: &Clock) -> Result<(), Error> {
    let all = tokens.all().await?;
    if all.is_empty() {
        return Ok(());
    }
    let identity = tokens.identity_now().await?;
    let mut owners = HashMap::new();
    let (mut suspended, mut restored, mut deleted) = (0usize, 0usize, 0usize);
    let mut failed = Ok(());
    for token in &all {
        let action = match owner_exists(tokens, &mut owners, &token.owner).await {
            Ok(owner_exists) => {
                let (rules, identity, now) = (&tokens.rules, identity.as_str(), clock.now());
                TokenAction::of(token, &Situation { rules, all: &all, identity, owner_exists, now })
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
            "access tokens were made under another issuer or audience: they are refused, and deleted after 24 h"
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

async fn carry_out(tokens: &AccessTokens, token: &AccessToken, action: TokenAction) -> Result<(), Error> {
    let end = |kind| tokens.end_as_seen(token, kind, Cause::internal(&Actor::Daypass));
    let done = match action {
        TokenAction::Keep => return Ok(()),
        // A token whose end is recorded is not reported again.
        TokenAction::Expire | TokenAction::Remove => end(Kind::TokenExpired).await.map(drop),
        TokenAction::Revoke | TokenAction::DeleteStale => end(Kind::TokenRevoked).await.map(drop),
        TokenAction::CloseSession => end(Kind::SessionEnded).await.map(drop),
        TokenAction::Suspend => tokens.suspend(token).await,
        TokenAction::Restore => tokens.restore(token).await,
    };
    // It was changed meanwhile: the next sweep decides on what it is then.
    done.or_else(|error| if error.is_conflict() || error.is_gone() { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::domain::access_token::{SessionOrigin, TokenId, TokenSecret, owner_key};

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + hours * 3600, 0).unwrap()
    }

    fn token() -> AccessToken {
        let username = "system:serviceaccount:a:b".to_owned();
        let id = TokenId::new(&format!("{}-7", owner_key(&username)), b"abcdef");
        AccessToken {
            hash: TokenSecret::new(id.clone(), &[1; 32]).hash(),
            id,
            uid: "u".into(),
            resource_version: "1".into(),
            created_at: at(0),
            deleting: false,
            ended: false,
            name: "ci".into(),
            owner: Owner { username, uid: Some("v".into()), groups: None, extra: None },
            created_by: "alice".into(),
            scopes: vec![],
            expires_at: at(48),
            rotated_at: None,
            rotated: vec![],
            identity: "here".into(),
            session: None,
            last_used_at: None,
            stale_since: None,
        }
    }

    fn session(of: &AccessToken) -> AccessToken {
        let origin = SessionOrigin {
            token: of.id.object_name().into(),
            token_uid: of.uid.clone(),
            secret: of.hash.fingerprint().into(),
        };
        AccessToken { session: Some(origin), uid: "s".into(), ..token() }
    }

    fn action(token: &AccessToken, all: &[AccessToken], owner_exists: bool, now: DateTime<Utc>) -> TokenAction {
        let rules = TokenRules {
            max_lifetime: TimeDelta::days(365),
            max_idle: TimeDelta::days(15),
            max_per_owner: 104,
            max_user_lifetime: None,
        };
        TokenAction::of(token, &Situation { rules: &rules, all, identity: "here", owner_exists, now })
    }

    #[test]
    fn living_token_is_kept_until_its_end() {
        assert_eq!(action(&token(), &[], true, at(48) - TimeDelta::seconds(1)), TokenAction::Keep);
        assert_eq!(action(&token(), &[], true, at(48)), TokenAction::Expire);
    }

    #[test]
    fn token_of_a_deleted_owner_is_revoked() {
        assert_eq!(action(&token(), &[], false, at(1)), TokenAction::Revoke);
    }

    #[test]
    fn recorded_end_is_not_reported_again_and_a_deletion_under_way_is_left_alone() {
        let ended = AccessToken { ended: true, ..token() };
        assert_eq!(action(&ended, &[], false, at(99)), TokenAction::Remove);
        assert_eq!(action(&AccessToken { deleting: true, ..ended }, &[], false, at(99)), TokenAction::Keep);
    }

    #[test]
    fn session_is_closed_with_its_token() {
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
    fn other_identity_suspends_for_a_day_and_a_rollback_restores() {
        let foreign = AccessToken { identity: "there".into(), ..token() };
        assert_eq!(action(&foreign, &[], true, at(1)), TokenAction::Suspend);
        let stale = AccessToken { stale_since: Some(at(1)), ..foreign };
        assert_eq!(action(&stale, &[], true, at(25) - TimeDelta::seconds(1)), TokenAction::Keep);
        assert_eq!(action(&stale, &[], true, at(25)), TokenAction::DeleteStale);
        assert_eq!(action(&AccessToken { identity: "here".into(), ..stale }, &[], true, at(25)), TokenAction::Restore);
    }
}
