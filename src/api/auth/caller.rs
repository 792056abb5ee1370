//! Callers: by a Kubernetes token, or by an access token.

use axum::extract::FromRequestParts;
use http::request::Parts;
use secrecy::{ExposeSecret as _, SecretString};

use super::{Presented, presented, refuse};
use crate::api::State;
use crate::api::context::Context;
use crate::api::problem::{Code, Problem};
use crate::audit::Actor;
use crate::cluster::{Cause, Identity};
use crate::domain::access_token::AccessToken;
use crate::domain::role::NAMESPACE_PREFIX;
use crate::domain::token::names_audience;

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
}

impl Caller {
    pub(in crate::api) fn cause<'a>(&'a self, context: &'a Context) -> Cause<'a> {
        Cause { actor: &self.actor, owner: Some(&self.identity.username), origin: &context.origin }
    }
}

/// Tells who the caller is.
///
/// # Errors
/// 401 in three kinds: nothing was presented, what was cannot be read, it was refused; the last never says why. 429 for who goes on.
pub(in crate::api) async fn authenticate_caller(context: &Context, presented: &Presented) -> Result<Caller, Problem> {
    let settings = &context.state.settings;
    // Without access tokens only one scheme is left.
    let accepted = if settings.access_tokens { 3 } else { 1 };
    let refused = |code| {
        let challenges = if code == Code::CredentialRefused { &CHALLENGES_REFUSED } else { &CHALLENGES };
        refuse(context, code, &challenges[..accepted])
    };
    let caller = match presented {
        Presented::Nothing => return Err(refused(Code::NoCredentials)),
        Presented::Malformed => return Err(refused(Code::MalformedAuthorization)),
        // A member is never a caller; its credential is not even looked up here.
        _ if presented.is_members() => None,
        _ if presented.is_access_token() && !settings.access_tokens => {
            return Err(refused(Code::TokenAuthenticationDisabled));
        }
        _ if presented.is_access_token() => by_access_token(context, presented).await?,
        Presented::Bearer(token) if settings.kubernetes_tokens => by_kubernetes_token(context, token).await?,
        Presented::Bearer(_) | Presented::Basic { .. } => None,
    };
    caller.filter(|caller| !is_of_a_role(&caller.identity)).ok_or_else(|| refused(Code::CredentialRefused))
}

async fn by_access_token(context: &Context, presented: &Presented) -> Result<Option<Caller>, Problem> {
    let Some(secret) = presented.access_token() else { return Ok(None) };
    let login = context.state.tokens.authenticate(&secret, presented.username()).await?;
    let Some(login) = login else { return Ok(None) };
    let actor = Actor::AccessToken {
        username: login.identity.username.clone(),
        token_id: login.token.id.to_string(),
        created_by: login.token.created_by.clone(),
    };
    Ok(Some(Caller { identity: login.identity, token: Some(login.token), session: login.session, actor }))
}

async fn by_kubernetes_token(context: &Context, token: &SecretString) -> Result<Option<Caller>, Problem> {
    let settings = &context.state.settings;
    let cluster = &context.state.cluster;
    // From where many wrong ones come, the API server is only asked about what may be right.
    let flooding = context.state.attempts.is_flooding(context.origin.address.as_deref());
    if flooding
        && !settings.accept_api_server_audience
        && !names_audience(token.expose_secret(), &settings.token_audience)
    {
        return Ok(None);
    }
    let mut identity = cluster.review_token(token, Some(&settings.token_audience)).await?;
    if identity.is_none() && settings.accept_api_server_audience {
        identity = cluster.review_token(token, None).await?;
    }
    Ok(identity.map(|identity| {
        let actor = Actor::Caller { username: identity.username.clone() };
        Caller { identity, token: None, session: None, actor }
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
