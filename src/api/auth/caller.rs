//! Callers: by a Kubernetes token, or by an access token.

use axum::extract::FromRequestParts;
use http::request::Parts;
use secrecy::SecretString;

use super::{Presented, check, presented, refuse};
use crate::api::State;
use crate::api::context::Context;
use crate::api::problem::{Code, Problem};
use crate::audit::Actor;
use crate::authn::Digest;
use crate::cluster::{Cause, Identity};
use crate::domain::access_token::{AccessToken, Scope, TokenSecret};
use crate::domain::role::NAMESPACE_PREFIX;

/// What a caller is told to send (RFC 6750, section 3; RFC 7617).
const CHALLENGES: [&str; 3] =
    [r#"Bearer realm="daypass""#, r#"Token realm="daypass""#, r#"Basic realm="daypass", charset="UTF-8""#];
const CHALLENGES_REFUSED: [&str; 3] =
    [r#"Bearer realm="daypass", error="invalid_token""#, CHALLENGES[1], CHALLENGES[2]];

/// An authenticated caller.
#[derive(Debug)]
pub(in crate::api) struct Caller {
    /// On whose rights it acts.
    pub(in crate::api) identity: Identity,
    /// The access token that it came with, or whose session; `None` for a Kubernetes token.
    pub(in crate::api) token: Option<AccessToken>,
    /// The session that it came with.
    pub(in crate::api) session: Option<AccessToken>,
    pub(in crate::api) actor: Actor,
    /// Names what it came with and the operation that it asks for.
    pub(in crate::api) request: Digest,
}

impl Caller {
    /// Whether its access token, if it came with one, has this scope.
    pub(in crate::api) fn has_scope(&self, scope: Scope) -> bool {
        self.token.as_ref().is_none_or(|token| token.scopes.contains(&scope))
    }

    pub(in crate::api) fn cause<'a>(&'a self, context: &'a Context) -> Cause<'a> {
        Cause { actor: &self.actor, owner: Some(&self.identity.username), origin: &context.origin }
    }
}

/// Tells who the caller is.
///
/// # Errors
/// 401 in three kinds: nothing was presented, what was cannot be read, it was refused; the last never says why.
/// 429 for who goes on, and for who was denied this operation too often.
pub(in crate::api) async fn authenticate_caller(context: &Context, presented: &Presented) -> Result<Caller, Problem> {
    let settings = &context.state.settings;
    // Without access tokens only one scheme is left.
    let accepted = if settings.access_tokens { 3 } else { 1 };
    let refused = |code| {
        let challenges = if code == Code::CredentialRefused { &CHALLENGES_REFUSED } else { &CHALLENGES };
        refuse(context, code, &challenges[..accepted])
    };
    let credential = match presented {
        Presented::Nothing => return Err(refused(Code::NoCredentials)),
        Presented::Malformed => return Err(refused(Code::MalformedAuthorization)),
        // A member is never a caller; its credential is not even looked up here.
        _ if presented.is_members() => None,
        _ if presented.is_access_token() && !settings.access_tokens => {
            return Err(refused(Code::TokenAuthenticationDisabled));
        }
        _ if presented.is_access_token() => presented.access_token().map(Credential::AccessToken),
        Presented::Bearer(token) if settings.kubernetes_tokens => Some(Credential::Kubernetes(token)),
        Presented::Bearer(_) | Presented::Basic { .. } => None,
    };
    // What no look-up can make right waits for none.
    let Some(credential) = credential else { return Err(refused(Code::CredentialRefused)) };
    let request = presented.digest().map(|digest| digest.and(&context.operation));
    let Some(request) = request else { return Err(refused(Code::MalformedAuthorization)) };
    if let Some(wait) = context.state.denials.blocked(&request) {
        return Err(Problem::too_many(Code::TooManyDenials, wait));
    }
    let ask = async {
        let login = match &credential {
            Credential::AccessToken(secret) => by_access_token(context, secret, presented.username()).await?,
            Credential::Kubernetes(token) => by_kubernetes_token(context, token).await?,
        };
        Ok(login.filter(|login| !is_of_a_role(&login.identity)))
    };
    let login = check(context, presented, ask).await?.ok_or_else(|| refused(Code::CredentialRefused))?;
    context.connection.authenticate();
    let Login { identity, token, session, actor } = login;
    Ok(Caller { identity, token, session, actor, request })
}

/// What may be a caller's, by its form.
enum Credential<'a> {
    AccessToken(TokenSecret),
    Kubernetes(&'a SecretString),
}

/// What was found for a credential.
struct Login {
    identity: Identity,
    token: Option<AccessToken>,
    session: Option<AccessToken>,
    actor: Actor,
}

async fn by_access_token(
    context: &Context,
    secret: &TokenSecret,
    username: Option<&str>,
) -> Result<Option<Login>, Problem> {
    let Some(login) = context.state.tokens.authenticate(secret, username).await? else { return Ok(None) };
    let actor = Actor::AccessToken {
        username: login.identity.username.clone(),
        token_id: login.token.id.to_string(),
        created_by: login.token.created_by.clone(),
    };
    Ok(Some(Login { identity: login.identity, token: Some(login.token), session: login.session, actor }))
}

async fn by_kubernetes_token(context: &Context, token: &SecretString) -> Result<Option<Login>, Problem> {
    let settings = &context.state.settings;
    let cluster = &context.state.cluster;
    let mut identity = cluster.review_token(token, Some(&settings.token_audience)).await?;
    if identity.is_none() && settings.accept_api_server_audience {
        identity = cluster.review_token(token, None).await?;
    }
    Ok(identity.map(|identity| {
        let actor = Actor::Caller { username: identity.username.clone() };
        Login { identity, token: None, session: None, actor }
    }))
}

/// Whoever is in a role namespace's group is a member, by whatever way it got its token. The prefix alone decides: a namespace may
/// lose its label, not its name.
fn is_of_a_role(identity: &Identity) -> bool {
    let group = format!("system:serviceaccounts:{NAMESPACE_PREFIX}");
    let account = format!("system:serviceaccount:{NAMESPACE_PREFIX}");
    identity.username.starts_with(&account) || identity.groups.iter().any(|name| name.starts_with(&group))
}

impl FromRequestParts<State> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let context = Context::from_request_parts(parts, state).await?;
        let presented = presented(&context, parts)?;
        authenticate_caller(&context, &presented).await
    }
}
