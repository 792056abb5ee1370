//! Removes access tokens that have ended. They are refused from then on, removed or not; this only tidies up.

use std::collections::HashMap;

use crate::audit::{Actor, Kind, Origin};
use crate::cluster::{AccessTokens, Cause, Error};
use crate::domain::access_token::{AccessToken, Owner, STALE_GRACE};

/// What is to become of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    /// It was ended, and that reported; only its object is left.
    Remove,
    /// Its time is over, or it was not used for too long.
    Expire,
    /// Its owner is not there any more.
    Revoke,
    /// It is of a session whose token is gone or was rotated.
    Close,
    /// It is of another identity configuration than the one in force, from now on.
    Suspend,
    /// It has been for so long that nobody rolls that back.
    Outdated,
    /// It is of the one in force again.
    Restore,
}

/// Looks at every token once.
///
/// # Errors
/// When the tokens cannot be listed, or one could not be dealt with; the others were, and the next look finds it again.
pub(super) async fn sweep_tokens(tokens: &AccessTokens) -> Result<(), Error> {
    let all = tokens.all().await?;
    if all.is_empty() {
        return Ok(());
    }
    let identity = tokens.identity_now().await?;
    let mut owners = HashMap::new();
    let (mut suspended, mut restored, mut outdated) = (0usize, 0usize, 0usize);
    let mut failed = Ok(());
    for token in &all {
        let fate = match owner_stands(tokens, &mut owners, &token.owner).await {
            Ok(stands) => fate(tokens, token, &all, &identity, stands),
            Err(error) => {
                failed = Err(error);
                continue;
            }
        };
        suspended += usize::from(fate == Fate::Suspend);
        restored += usize::from(fate == Fate::Restore);
        outdated += usize::from(fate == Fate::Outdated);
        failed = failed.and(act(tokens, token, fate).await);
    }
    if suspended + restored + outdated > 0 {
        tracing::warn!(
            suspended,
            restored,
            deleted = outdated,
            "access tokens were made under another issuer or audience than the one in force: they are refused, and deleted after 24 h"
        );
    }
    failed
}

async fn owner_stands(
    tokens: &AccessTokens,
    known: &mut HashMap<(String, Option<String>), bool>,
    owner: &Owner,
) -> Result<bool, Error> {
    let key = (owner.username.clone(), owner.uid.clone());
    if let Some(stands) = known.get(&key) {
        return Ok(*stands);
    }
    let stands = tokens.identity_of(owner).await?.is_some();
    known.insert(key, stands);
    Ok(stands)
}

fn fate(tokens: &AccessTokens, token: &AccessToken, all: &[AccessToken], identity: &str, owner_stands: bool) -> Fate {
    let now = tokens.cluster.clock.now();
    if token.deleting {
        return Fate::Keep;
    }
    if token.ended {
        return Fate::Remove;
    }
    if now >= token.ends_at(&tokens.rules) {
        return if token.session.is_some() { Fate::Close } else { Fate::Expire };
    }
    if token.session.is_some() && !all.iter().any(|of| !of.deleting && !of.ended && token.is_session_of(of)) {
        return Fate::Close;
    }
    if !owner_stands {
        return if token.session.is_some() { Fate::Close } else { Fate::Revoke };
    }
    match (token.identity == identity, token.stale_since) {
        (true, None) => Fate::Keep,
        (true, Some(_)) => Fate::Restore,
        (false, None) => Fate::Suspend,
        (false, Some(since)) if now - since >= STALE_GRACE => Fate::Outdated,
        (false, Some(_)) => Fate::Keep,
    }
}

async fn act(tokens: &AccessTokens, token: &AccessToken, fate: Fate) -> Result<(), Error> {
    let origin = Origin::default();
    let by = |actor| Cause { actor, owner: None, origin: &origin };
    let done = match fate {
        Fate::Keep => return Ok(()),
        // What was marked is not reported again.
        Fate::Expire | Fate::Remove => {
            tokens.end_as_seen(token, Kind::TokenExpired, by(&Actor::Daypass)).await.map(drop)
        }
        Fate::Revoke | Fate::Outdated => {
            tokens.end_as_seen(token, Kind::TokenRevoked, by(&Actor::Daypass)).await.map(drop)
        }
        Fate::Close => tokens.end_as_seen(token, Kind::SessionEnded, by(&Actor::Daypass)).await.map(drop),
        Fate::Suspend => tokens.write_stale(token, true).await.map(drop),
        Fate::Restore => tokens.write_stale(token, false).await.map(drop),
    };
    // Somebody else has changed it meanwhile: the next look sees what it is now.
    done.or_else(|error| if error.is_conflict() || error.is_gone() { Ok(()) } else { Err(error) })
}
