//! Making tokens under numbered names: that the API server creates a name once is the lock that keeps their number.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;

use super::{AccessTokens, CONFLICT_RETRIES, NewToken};
use crate::cluster::{Error, ErrorKind};
use crate::crd;
use crate::crd::access_token::{AccessTokenSpec, GroupsSpec, OwnerSpec, SessionSpec};
use crate::domain::access_token::{AccessToken, MAX_SESSIONS, Owner, SessionOrigin, TokenId, TokenSecret, owner_key};
use crate::observability::audit::{Actor, Cause, Kind};

/// Label of a token: its owner, as [`owner_key`] says.
const OWNER_LABEL: &str = "daypass.dev/token-owner";
/// Label of a session: the UID of its token.
const SESSION_LABEL: &str = "daypass.dev/session-of";

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateTokenError {
    /// There are as many as there may be.
    #[error("too many live ones")]
    TooMany,
    /// A call failed.
    #[error(transparent)]
    Cluster(#[from] Error),
}

/// Where tokens are made: as many names as there may be tokens, and what belongs on their objects.
struct Slots {
    prefix: String,
    most: usize,
    label: (&'static str, String),
    owner: Option<OwnerReference>,
}

impl AccessTokens {
    /// The tokens of an owner, dead ones among them, no sessions.
    pub async fn of_owner(&self, username: &str) -> Result<Vec<AccessToken>, Error> {
        let mut tokens = self.list(Some((OWNER_LABEL, &owner_key(username)))).await?;
        tokens.retain(|token| token.owner.username == username && token.session.is_none());
        Ok(tokens)
    }

    pub(super) async fn create_token(&self, new: NewToken) -> Result<(AccessToken, TokenSecret), CreateTokenError> {
        let key = owner_key(&new.owner.username);
        let slots = Slots {
            prefix: format!("{key}-"),
            most: self.rules.max_per_owner,
            label: (OWNER_LABEL, key),
            owner: self.cluster.own_account().await,
        };
        self.create_in(&slots, &new, None).await
    }

    pub(super) async fn create_session(
        &self,
        new: NewToken,
        of: SessionOrigin,
    ) -> Result<(AccessToken, TokenSecret), CreateTokenError> {
        let token = OwnerReference {
            api_version: crd::AccessToken::api_version(&()).into_owned(),
            kind: crd::AccessToken::kind(&()).into_owned(),
            name: of.token.clone(),
            uid: of.token_uid.clone(),
            controller: None,
            block_owner_deletion: None,
        };
        let slots = Slots {
            prefix: format!("{}-s", of.token),
            most: MAX_SESSIONS,
            label: (SESSION_LABEL, of.token_uid.clone()),
            owner: Some(token),
        };
        self.create_in(&slots, &new, Some(&of)).await
    }

    async fn create_in(
        &self,
        slots: &Slots,
        new: &NewToken,
        session: Option<&SessionOrigin>,
    ) -> Result<(AccessToken, TokenSecret), CreateTokenError> {
        let identity = self.identity_now().await?;
        // Each name that is lost to another request is a token more, so there are no more tries than names; and a few
        // more for those that somebody else is just removing.
        for _ in 0..=slots.most + CONFLICT_RETRIES {
            let Some(name) = self.free_name(slots, &new.owner, session).await? else { continue };
            let secret = TokenSecret::new(TokenId::new(&name, &self.random()?), &self.random()?);
            let label = (slots.label.0, slots.label.1.as_str());
            let spec = spec(&secret, new, &identity, session);
            match self.cluster.create_access_token(secret.subject(), label, slots.owner.as_ref(), &spec).await {
                Err(error) if error.kind == ErrorKind::AlreadyExists => {}
                result => return Ok((self.bounded(result?), secret)),
            }
        }
        Err(CreateTokenError::TooMany)
    }

    /// One of the names that are free, any, so that requests at the same time seldom want the same. `None` when one was made free.
    async fn free_name(
        &self,
        slots: &Slots,
        owner: &Owner,
        session: Option<&SessionOrigin>,
    ) -> Result<Option<String>, CreateTokenError> {
        let found = self.list(Some((slots.label.0, &slots.label.1))).await?;
        // A session of an earlier secret has ended too, and a token of an earlier account of the same name.
        let is_live = |token: &AccessToken| {
            self.has_not_ended(token) && token.session.as_ref() == session && token.owner.uid == owner.uid
        };
        let (live, dead): (Vec<_>, Vec<_>) = found.into_iter().partition(is_live);
        if live.len() >= slots.most {
            return Err(CreateTokenError::TooMany);
        }
        let is_taken = |name: &String| live.iter().chain(&dead).any(|token| token.id.object_name() == name);
        let mut free: Vec<String> = (0..slots.most).map(|number| format!("{}{number}", slots.prefix)).collect();
        free.retain(|name| !is_taken(name));
        if free.is_empty() {
            // Those that have ended are as good as gone, swept or not; one of the names is theirs.
            let (mut is_free, mut failed) = (false, Ok(None));
            for token in dead {
                let kind = match (&token.session, self.has_not_ended(&token)) {
                    (Some(_), _) => Kind::SessionEnded,
                    (None, false) => Kind::TokenExpired,
                    (None, true) => Kind::TokenRevoked,
                };
                // One name is enough: one that cannot be deleted keeps no other from being free.
                match self.end_as_seen(&token, kind, Cause::internal(&Actor::Daypass)).await {
                    Ok(_) => is_free = true,
                    // It has changed: the next look sees what it is now.
                    Err(error) if error.is_conflict() => is_free = true,
                    Err(error) => failed = Err(error.into()),
                }
            }
            return if is_free { Ok(None) } else { failed };
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "of some hundred names one"
        )]
        let any = (self.entropy.fraction() * free.len() as f64) as usize;
        Ok(Some(free.swap_remove(any.min(free.len() - 1))))
    }
}

fn spec(secret: &TokenSecret, new: &NewToken, identity: &str, session: Option<&SessionOrigin>) -> AccessTokenSpec {
    let owner = &new.owner;
    AccessTokenSpec {
        id: secret.subject().to_string(),
        name: new.name.clone(),
        owner: OwnerSpec {
            username: owner.username.clone(),
            uid: owner.uid.clone(),
            groups: owner.groups.clone().map(|groups| GroupsSpec { names: groups.names, at: groups.at }),
            extra: owner.extra.clone(),
        },
        created_by: new.created_by.clone(),
        scopes: new.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        expires_at: new.expires_at,
        rotated_at: None,
        token_hash: secret.hash().as_hex().to_owned(),
        rotated_hashes: Vec::new(),
        identity: identity.to_owned(),
        session: session.cloned().map(|of| SessionSpec { token: of.token, token_uid: of.token_uid, secret: of.secret }),
    }
}
