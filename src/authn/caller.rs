//! Authenticates callers, by a Kubernetes token, an ID token, an access token or a session.

use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::in_progress::Place;
use super::oidc::{Decider, Trusted};
use super::{Authenticator, Credentials, Digest, PresentedSecret, Refusal};
use crate::cluster::Identity;
use crate::domain::access_token::{AccessToken, CREDENTIAL_ID, IdForm, Scope, TokenSecret};
use crate::domain::role::NAMESPACE_PREFIX;
use crate::domain::token::expiry;
use crate::observability::audit::{Actor, Cause, Origin};

/// An authenticated caller.
#[derive(Debug)]
pub struct Caller {
    /// The identity that it acts as.
    pub identity: Identity,
    /// Its access token, or that of its session; `None` with a token of somebody else, and with a session of one.
    pub token: Option<AccessToken>,
    /// Its session, if it presented one.
    pub session: Option<AccessToken>,
    /// When its Kubernetes token or ID token ends, if it presented one that says so.
    pub token_end: Option<DateTime<Utc>>,
    /// The actor in the audit trail.
    pub actor: Actor,
    /// Identifies its credential together with the requested operation.
    pub request: Digest,
    /// Counts its request as in progress until it is dropped.
    place: Place,
}

impl Caller {
    /// Whether it may act in this scope; all but access tokens have all scopes.
    pub fn has_scope(&self, scope: Scope) -> bool {
        self.token.as_ref().is_none_or(|token| token.scopes.contains(&scope))
    }

    /// Identifies it among callers. A recreated service account has another UID and is another caller; a person is the
    /// same one under any name.
    pub fn digest(&self) -> Digest {
        self.place.identity()
    }

    /// This caller as the cause of a change.
    pub fn cause<'a>(&'a self, origin: &'a Origin) -> Cause<'a> {
        Cause { actor: &self.actor, owner: Some(&self.identity.username), origin }
    }
}

/// The result of looking up a credential.
struct Login {
    identity: Identity,
    token: Option<AccessToken>,
    session: Option<AccessToken>,
    token_end: Option<DateTime<Utc>>,
    actor: Actor,
}

impl Authenticator {
    /// Authenticates a caller that asks for this operation.
    ///
    /// # Errors
    /// The reason for the refusal. A refused credential is counted and recorded.
    pub async fn caller(&self, presented: &Credentials, operation: &str, origin: &Origin) -> Result<Caller, Refusal> {
        let (digest, secret) = self.presented(presented, origin)?;
        let wrong = || self.refuse(Refusal::Refused, origin);
        // Refuse without a lookup what no lookup can accept. That includes a member's credential and session: a member
        // is no caller.
        let login = match secret {
            PresentedSecret::AccessToken(Some(secret)) if secret.subject().form() == IdForm::SessionOfOwner => {
                self.by_access_token(secret, presented.username()).boxed()
            }
            PresentedSecret::AccessToken(Some(secret)) if secret.subject().form() == IdForm::SessionOfMember => {
                return Err(wrong());
            }
            PresentedSecret::AccessToken(_) if !self.methods.access_tokens => {
                return Err(self.refuse(Refusal::AccessTokensDisabled, origin));
            }
            PresentedSecret::AccessToken(Some(secret)) => self.by_access_token(secret, presented.username()).boxed(),
            PresentedSecret::Foreign(token) => match self.people.decider(token) {
                Decider::Issuer(issuer) if presented.is_bearer() => self.by_id_token(issuer, token, digest).boxed(),
                Decider::Kubernetes if self.methods.kubernetes_tokens => self.by_kubernetes_token(token).boxed(),
                Decider::Issuer(_) | Decider::Kubernetes | Decider::Nobody => return Err(wrong()),
            },
            PresentedSecret::AccessToken(None)
            | PresentedSecret::Member(_)
            | PresentedSecret::Gateway
            | PresentedSecret::Other => return Err(wrong()),
        };
        let request = digest.and(operation);
        if let Some(wait) = self.denials.blocked(&request) {
            return Err(Refusal::TooManyDenials { wait });
        }
        // Nothing has been called so far: a future does nothing until it is awaited.
        let look_up = async { Ok(login.await?.filter(|login| !is_member(&login.identity))) };
        let Login { identity, token, session, token_end, actor } =
            self.check(digest, origin, look_up).await?.ok_or_else(wrong)?;
        let place = self.in_progress.begin(who(&identity)).ok_or(Refusal::TooManyRequests)?;
        Ok(Caller { identity, token, session, token_end, actor, request, place })
    }

    /// Authenticates the owner of this caller's session once more, by a credential that is no session: for what a
    /// session may not do. The answer is who presented that credential, with no more than its scopes.
    ///
    /// # Errors
    /// As [`Self::caller`]. Also if the credential is a session's, or that of somebody else.
    pub async fn same_owner(
        &self,
        caller: &Caller,
        presented: &Credentials,
        operation: &str,
        origin: &Origin,
    ) -> Result<Caller, Refusal> {
        let again = self.caller(presented, operation, origin).await?;
        if again.session.is_some() || again.digest() != caller.digest() {
            return Err(self.refuse(Refusal::Refused, origin));
        }
        Ok(again)
    }

    /// By an access token, or by the session of a caller.
    async fn by_access_token(&self, secret: &TokenSecret, username: Option<&str>) -> Result<Option<Login>, Refusal> {
        let Some(found) = self.tokens.authenticate(secret, username).await? else { return Ok(None) };
        let (identity, token, session) = (found.identity, found.token, found.session);
        // A session is worth what it was issued for. Without its issuer, that of a person has ended already.
        let of_kubernetes = token.is_none() && identity.subject.is_none();
        if of_kubernetes && !self.methods.kubernetes_tokens {
            return Ok(None);
        }
        let (username, subject) = (identity.username.clone(), identity.subject.clone());
        let actor = match &token {
            Some(AccessToken { id, created_by, .. }) => {
                Actor::AccessToken { username, token_id: id.to_string(), created_by: created_by.clone(), subject }
            }
            None => Actor::Caller { username, subject },
        };
        Ok(Some(Login { identity, token, session, token_end: None, actor }))
    }

    async fn by_id_token(
        &self,
        issuer: &Trusted,
        token: &SecretString,
        digest: Digest,
    ) -> Result<Option<Login>, Refusal> {
        let Some(person) = self.people.person(issuer, token, digest).await? else { return Ok(None) };
        let credential_id = person.credential_id.map(|id| (CREDENTIAL_ID.to_owned(), vec![id]));
        let identity = Identity {
            username: person.username,
            uid: person.uid,
            groups: person.groups,
            subject: Some(person.subject),
            extra: credential_id.into_iter().collect(),
        };
        let actor = Actor::Caller { username: identity.username.clone(), subject: identity.subject.clone() };
        Ok(Some(Login { identity, token: None, session: None, token_end: Some(person.expires_at), actor }))
    }

    async fn by_kubernetes_token(&self, token: &SecretString) -> Result<Option<Login>, Refusal> {
        let mut identity = self.cluster.review_token(token, Some(&self.methods.token_audience)).await?;
        if identity.is_none() && self.methods.accept_api_server_audience {
            identity = self.cluster.review_token(token, None).await?;
        }
        Ok(identity.map(|identity| {
            let actor = Actor::Caller { username: identity.username.clone(), subject: None };
            // The API server has verified the claims, if it is a JWT.
            let token_end = expiry(token.expose_secret());
            Login { identity, token: None, session: None, token_end, actor }
        }))
    }
}

/// Identifies an identity among callers.
fn who(identity: &Identity) -> Digest {
    let uid = identity.uid.as_deref().unwrap_or_default();
    match &identity.subject {
        Some(person) => Digest::of([b"person", person.issuer.as_bytes(), person.subject.as_bytes()]),
        None => Digest::of([identity.username.as_bytes(), uid.as_bytes()]),
    }
}

/// Whether this is a member's identity, however it got its token. The prefix alone decides: a namespace can lose its
/// label, but not its name.
fn is_member(identity: &Identity) -> bool {
    let group = format!("system:serviceaccounts:{NAMESPACE_PREFIX}");
    let account = format!("system:serviceaccount:{NAMESPACE_PREFIX}");
    identity.username.starts_with(&account) || identity.groups.iter().any(|name| name.starts_with(&group))
}
