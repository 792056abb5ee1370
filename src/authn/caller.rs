//! Authenticates callers, by a Kubernetes token or an access token.

use futures::future::Either;
use secrecy::SecretString;

use super::in_progress::Place;
use super::{Authenticator, Credentials, Digest, PresentedSecret, Refusal};
use crate::cluster::{Error, Identity};
use crate::domain::access_token::{AccessToken, Scope, TokenSecret};
use crate::domain::role::NAMESPACE_PREFIX;
use crate::observability::audit::{Actor, Cause, Origin};

/// An authenticated caller.
#[derive(Debug)]
pub struct Caller {
    /// The identity that it acts as.
    pub identity: Identity,
    /// Its access token, or that of its session; `None` with a Kubernetes token.
    pub token: Option<AccessToken>,
    /// Its session, if it presented one.
    pub session: Option<AccessToken>,
    /// The actor in the audit trail.
    pub actor: Actor,
    /// Identifies its credential together with the requested operation.
    pub request: Digest,
    /// Counts its request as in progress until it is dropped.
    place: Place,
}

impl Caller {
    /// Whether it may act in this scope; a Kubernetes token has all scopes.
    pub fn has_scope(&self, scope: Scope) -> bool {
        self.token.as_ref().is_none_or(|token| token.scopes.contains(&scope))
    }

    /// Identifies it among callers. A recreated service account has another UID and is another caller.
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
        // Refuse without a lookup what no lookup can accept. That includes a member's credential: a member is no
        // caller.
        let login = match secret {
            PresentedSecret::AccessToken(_) if !self.methods.access_tokens => {
                return Err(self.refuse(Refusal::AccessTokensDisabled, origin));
            }
            PresentedSecret::Kubernetes(_) if !self.methods.kubernetes_tokens => return Err(wrong()),
            PresentedSecret::AccessToken(Some(secret)) => {
                Either::Left(self.by_access_token(secret, presented.username()))
            }
            PresentedSecret::Kubernetes(token) => Either::Right(self.by_kubernetes_token(token)),
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
        let Login { identity, token, session, actor } =
            self.check(digest, origin, look_up).await?.ok_or_else(wrong)?;
        let identity_digest =
            Digest::of([identity.username.as_bytes(), identity.uid.as_deref().unwrap_or_default().as_bytes()]);
        let place = self.in_progress.begin(identity_digest).ok_or(Refusal::TooManyRequests)?;
        Ok(Caller { identity, token, session, actor, request, place })
    }

    async fn by_access_token(&self, secret: &TokenSecret, username: Option<&str>) -> Result<Option<Login>, Error> {
        let Some(login) = self.tokens.authenticate(secret, username).await? else { return Ok(None) };
        let actor = Actor::AccessToken {
            username: login.identity.username.clone(),
            token_id: login.token.id.to_string(),
            created_by: login.token.created_by.clone(),
        };
        Ok(Some(Login { identity: login.identity, token: Some(login.token), session: login.session, actor }))
    }

    async fn by_kubernetes_token(&self, token: &SecretString) -> Result<Option<Login>, Error> {
        let mut identity = self.cluster.review_token(token, Some(&self.methods.token_audience)).await?;
        if identity.is_none() && self.methods.accept_api_server_audience {
            identity = self.cluster.review_token(token, None).await?;
        }
        Ok(identity.map(|identity| {
            let actor = Actor::Caller { username: identity.username.clone() };
            Login { identity, token: None, session: None, actor }
        }))
    }
}

/// Whether this is a member's identity, however it got its token. The prefix alone decides: a namespace can lose its
/// label, but not its name.
fn is_member(identity: &Identity) -> bool {
    let group = format!("system:serviceaccounts:{NAMESPACE_PREFIX}");
    let account = format!("system:serviceaccount:{NAMESPACE_PREFIX}");
    identity.username.starts_with(&account) || identity.groups.iter().any(|name| name.starts_with(&group))
}
