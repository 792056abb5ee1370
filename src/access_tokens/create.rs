//! Creating tokens and sessions under numbered names.
//!
//! The API server creates each name only once, and that enforces the limits on tokens and sessions. One token too many
//! is refused; one session too many replaces the oldest.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;

use super::{AccessTokens, CONFLICT_RETRIES, NewToken};
use crate::cluster::{Error, ErrorKind};
use crate::crd;
use crate::crd::access_token::{AccessTokenSpec, GroupsSpec, OwnerSpec, SubjectSpec};
use crate::domain::access_token::{AccessToken, NONCE_LEN, Owner, TokenId, TokenSecret, owner_key};
use crate::domain::session::SessionOrigin;
use crate::observability::audit::{Actor, Cause, Kind};

/// Label on a token: its owner's [`owner_key`].
const OWNER_LABEL: &str = "daypass.dev/token-owner";
/// Label on a session: its token's UID, or its owner's [`owner_key`], as in its name. A UID is longer than any key.
const SESSION_LABEL: &str = "daypass.dev/session-of";

/// Why no token or session was created.
#[derive(Debug, thiserror::Error)]
pub enum CreateTokenError {
    /// The owner already has the maximum number of live tokens.
    #[error("too many live tokens")]
    TooMany,
    /// The same request has created it before.
    #[error("the request was carried out before")]
    DoneBefore,
    /// A call failed.
    #[error(transparent)]
    Cluster(#[from] Error),
}

/// The numbered names for an owner's tokens or for the sessions of one origin, and the metadata of their objects.
struct Slots {
    prefix: String,
    most: usize,
    label: (&'static str, String),
    object_owner: Option<OwnerReference>,
}

/// What can be done about the name of a new token or session.
enum Name {
    /// It is free.
    Free(String),
    /// Another one has it, which must end first.
    OfOldest(Box<AccessToken>),
    /// None was free, but one is now: try again.
    Again,
}

impl AccessTokens {
    /// Lists the tokens of an owner, including ended ones but no sessions, without old hashes.
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
            object_owner: self.cluster.own_account().await,
        };
        self.create_in(&slots, &new, None, Cause::internal(&Actor::Daypass)).await
    }

    /// `cause` is that of the end of a session that this one replaces.
    pub(super) async fn create_session(
        &self,
        new: NewToken,
        of: SessionOrigin,
        cause: Cause<'_>,
    ) -> Result<(AccessToken, TokenSecret), CreateTokenError> {
        let slots = Slots {
            prefix: prefix(&of, &new.owner),
            most: of.most(),
            label: (SESSION_LABEL, session_label(&of, &new.owner)),
            // A member is in another namespace, where it cannot own an object of this one.
            object_owner: match &of {
                SessionOrigin::Token { token, token_uid, .. } => Some(token_reference(token, token_uid)),
                SessionOrigin::Owner | SessionOrigin::Member { .. } => self.cluster.own_account().await,
            },
        };
        self.create_in(&slots, &new, Some(&of), cause).await
    }

    /// Lists the sessions of this origin, ended ones and those of an earlier secret included. Of several people or
    /// members who had a name one after the other, only those of one.
    pub(super) async fn sessions_of(&self, of: &SessionOrigin, owner: &Owner) -> Result<Vec<AccessToken>, Error> {
        let mut sessions = self.list(Some((SESSION_LABEL, &session_label(of, owner)))).await?;
        let is_of = |session: &AccessToken| match (&session.session, of) {
            (Some(SessionOrigin::Token { token_uid: one, .. }), SessionOrigin::Token { token_uid: other, .. })
            | (Some(SessionOrigin::Member { uid: one, .. }), SessionOrigin::Member { uid: other, .. }) => one == other,
            (Some(SessionOrigin::Owner), SessionOrigin::Owner) => is_same(&session.owner, owner),
            _ => false,
        };
        sessions.retain(is_of);
        Ok(sessions)
    }

    async fn create_in(
        &self,
        slots: &Slots,
        new: &NewToken,
        session: Option<&SessionOrigin>,
        cause: Cause<'_>,
    ) -> Result<(AccessToken, TokenSecret), CreateTokenError> {
        let untrusted =
            || Error::new("create_access_token", "-", ErrorKind::Conflict, "the owner's issuer is not trusted");
        let identity = self.identity_now().await?.of(&new.owner).ok_or_else(untrusted)?;
        // Losing a name to another request means one more token, so there are never more lost tries than names. The
        // extra ones are for names that another request is just freeing.
        for _ in 0..=slots.most + CONFLICT_RETRIES {
            let name = match self.name(slots, new, session).await? {
                Name::Free(name) => name,
                Name::Again => continue,
                Name::OfOldest(oldest) => match self.end_as_seen(&oldest, Kind::SessionEnded, cause).await {
                    Ok(_) => oldest.id.object_name().to_owned(),
                    Err(error) if error.is_conflict() => continue,
                    Err(error) => return Err(error.into()),
                },
            };
            let secret = TokenSecret::new(TokenId::new(&name, &self.nonce(new)?), &self.random()?);
            let label = (slots.label.0, slots.label.1.as_str());
            let spec = spec(&secret, new, &identity, session);
            match self.cluster.create_access_token(secret.subject(), label, slots.object_owner.as_ref(), &spec).await {
                Err(error) if error.kind == ErrorKind::AlreadyExists => {}
                result => return Ok((self.bounded(result?), secret)),
            }
        }
        match session {
            None => Err(CreateTokenError::TooMany),
            Some(_) => Err(Error::changed_too_often("create_access_token", &slots.prefix).into()),
        }
    }

    fn nonce(&self, new: &NewToken) -> Result<[u8; NONCE_LEN], Error> {
        new.nonce.map_or_else(|| self.random(), Ok)
    }

    /// A random free name, so that concurrent requests seldom choose the same one, or the name of the oldest session.
    /// Requests with the same nonce choose the same name: only one of them gets it, and the others find its token.
    async fn name(
        &self,
        slots: &Slots,
        new: &NewToken,
        session: Option<&SessionOrigin>,
    ) -> Result<Name, CreateTokenError> {
        let (owner, found) = (&new.owner, self.list(Some((slots.label.0, &slots.label.1))).await?);
        if let Some(nonce) = &new.nonce
            && found.iter().any(|token| token.id == TokenId::new(token.id.object_name(), nonce))
        {
            return Err(CreateTokenError::DoneBefore);
        }
        // Sessions of an earlier secret have ended too, and so have tokens of an earlier account with the owner's
        // name. Those of another person with that name have not: people share the limit of their name.
        let counts = |of: &Owner| owner.service_account().is_none() || of.uid == owner.uid;
        let is_live = |token: &AccessToken| {
            self.has_not_ended(token) && token.session.as_ref() == session && counts(&token.owner)
        };
        let (live, dead): (Vec<_>, Vec<_>) = found.into_iter().partition(is_live);
        if live.len() >= slots.most {
            // One's own first: of people who share a name, nobody signs the others out without need.
            let oldest = live.into_iter().min_by_key(|token| (!is_same(&token.owner, owner), age(token)));
            let replaced = session.and(oldest).ok_or(CreateTokenError::TooMany)?;
            return Ok(Name::OfOldest(Box::new(replaced)));
        }
        let is_taken = |name: &String| live.iter().chain(&dead).any(|token| token.id.object_name() == name);
        let mut free: Vec<String> = (0..slots.most).map(|number| format!("{}{number}", slots.prefix)).collect();
        free.retain(|name| !is_taken(name));
        if free.is_empty() {
            self.remove_dead(dead).await?;
            return Ok(Name::Again);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "there are at most a few hundred names"
        )]
        let any = match &new.nonce {
            None => (self.entropy.fraction() * free.len() as f64) as usize,
            Some(nonce) => usize::from(nonce[0]) % free.len(),
        };
        Ok(Name::Free(free.swap_remove(any.min(free.len() - 1))))
    }

    /// Ends tokens or sessions that no longer count but that the sweep has not removed yet, to free their names.
    ///
    /// # Errors
    /// The last failure, if no name was freed.
    async fn remove_dead(&self, dead: Vec<AccessToken>) -> Result<(), Error> {
        let (mut is_freed, mut failed) = (false, Ok(()));
        for token in dead {
            let kind = match (&token.session, self.has_not_ended(&token)) {
                (Some(_), _) => Kind::SessionEnded,
                (None, false) => Kind::TokenExpired,
                (None, true) => Kind::TokenRevoked,
            };
            match self.end_as_seen(&token, kind, Cause::internal(&Actor::Daypass)).await {
                Ok(_) => is_freed = true,
                // It has changed: the caller's next list shows its new state.
                Err(error) if error.is_conflict() => is_freed = true,
                Err(error) => failed = Err(error),
            }
        }
        if is_freed { Ok(()) } else { failed }
    }
}

/// Sorts sessions by their age. A creation is dated to the second; within one, the version is the order of creation,
/// since nothing changes a session (versions are comparable, KEP-5504).
fn age(session: &AccessToken) -> (DateTime<Utc>, Option<u64>) {
    (session.created_at, session.resource_version.parse().ok())
}

/// Whether two owners are the same account, person or user. Attributes and groups may differ.
fn is_same(one: &Owner, other: &Owner) -> bool {
    let person = |owner: &Owner| owner.subject.as_ref().map(|it| (it.issuer.clone(), it.subject.clone()));
    one.username == other.username && person(one) == person(other) && one.uid == other.uid
}

/// How the names of the sessions of this origin begin.
fn prefix(of: &SessionOrigin, owner: &Owner) -> String {
    match of {
        SessionOrigin::Token { token, .. } => format!("{token}-s"),
        SessionOrigin::Owner => format!("{}-o", owner_key(&owner.username)),
        SessionOrigin::Member { .. } => format!("{}-m", owner_key(&owner.username)),
    }
}

fn session_label(of: &SessionOrigin, owner: &Owner) -> String {
    match of {
        SessionOrigin::Token { token_uid, .. } => token_uid.clone(),
        SessionOrigin::Owner | SessionOrigin::Member { .. } => owner_key(&owner.username),
    }
}

fn token_reference(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: crd::AccessToken::api_version(&()).into_owned(),
        kind: crd::AccessToken::kind(&()).into_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: None,
        block_owner_deletion: None,
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
            oidc: owner.subject.clone().map(|it| SubjectSpec {
                issuer: it.issuer,
                subject: it.subject,
                mapping: it.mapping,
            }),
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
        session: session.cloned().map(Into::into),
    }
}
