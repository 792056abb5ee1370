//! `POST /tokens/{id}/rotate`.

use axum::extract::{FromRequestParts, Path};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use utoipa::ToSchema;

use super::TokenPath;
use super::access::{NO_USERS, acts_alike, is_own};
use super::types::{AskedEnd, IssuedToken};
use crate::api::State;
use crate::api::authentication::{self, caller_problem, credentials};
use crate::api::body::Json;
use crate::api::fields::{Days, NO_STORE, Time};
use crate::api::problem::{Code, Problem};
use crate::api::request_context::RequestContext;
use crate::authn::Caller;
use crate::cluster::Privilege;
use crate::domain::access_token::Scope;

/// A new expiry, by one of the two. Without either, the old one stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RotateToken {
    /// When it expires.
    #[serde(default, deserialize_with = "crate::api::fields::not_null")]
    #[schema(required = false, nullable = false)]
    expires_at: Option<Time>,
    /// In how many days it expires.
    #[serde(default, deserialize_with = "crate::api::fields::not_null")]
    #[schema(required = false, nullable = false, example = 90)]
    expires_in_days: Option<Days>,
}

/// A caller. Presenting an old secret of a token instead revokes that token: its owner or a thief did it.
pub(super) struct Rotator(Caller);

impl FromRequestParts<State> for Rotator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let context = RequestContext::from_request_parts(parts, state).await?;
        let credentials = credentials(&context, parts)?;
        let refusal = match authentication::caller(&context, &credentials).await {
            Ok(caller) => return Ok(Self(caller)),
            Err(refusal) => refusal,
        };
        let refusal = match credentials.access_token() {
            Some(secret) => {
                state.authn.revoke_on_reuse(&refusal, secret, &context.origin).await.err().unwrap_or(refusal)
            }
            None => refusal,
        };
        Err(caller_problem(&context, refusal))
    }
}

/// Rotate an access token
///
/// Issues a new secret, and sets a new expiry if you ask for one. The old secret and all sessions stop working at
/// once. **Presenting an old secret here revokes the token:** one of the two parties that had it must be a thief. An
/// access token cannot set an expiry later than its own.
#[utoipa::path(
    post,
    path = "/tokens/{id}/rotate",
    tag = "tokens",
    params(TokenPath),
    request_body = Option<RotateToken>,
    responses((status = 200, description = "The token, with its new secret", body = IssuedToken)),
    security(("kubernetesToken" = []), ("accessToken" = ["tokens:write"]), ("accessTokenBasic" = ["tokens:write"]))
)]
pub(super) async fn rotate_token(
    context: RequestContext,
    Rotator(caller): Rotator,
    Path(path): Path<TokenPath>,
    body: Option<Json<RotateToken>>,
) -> Result<Response, Problem> {
    let Json(body) = body.unwrap_or(Json(RotateToken::default()));
    let issued = context.rotate_token(&caller, &path.id, None, body).await?;
    Ok((StatusCode::OK, [NO_STORE], axum::Json(issued)).into_response())
}

impl RequestContext {
    /// Rotates an access token. `replaces` are the `digits` of the secret that the caller means to
    /// replace.
    ///
    /// # Errors
    /// 409 if the token has another one by now: the request was sent twice.
    pub(crate) async fn rotate_token(
        &self,
        caller: &Caller,
        id: &str,
        replaces: Option<&str>,
        body: RotateToken,
    ) -> Result<IssuedToken, Problem> {
        self.require_tokens(caller)?;
        let token = self.token(caller, Scope::TokensWrite, id).await?;
        self.require_no_session(caller)?;
        if replaces.is_some_and(|digits| digits != token.hash.fingerprint()) {
            return Err(Problem::detailed(Code::Conflict, "the token has got a new secret meanwhile"));
        }
        let own = is_own(&token, &caller.identity);
        if !own && caller.token.is_some() {
            return Err(self.forbid(caller, "an access token cannot rotate a token of another owner"));
        }
        if own && !acts_alike(&token, &caller.identity) {
            return Err(
                self.forbid(caller, "the token has other attributes (extra) than this caller: create a new one")
            );
        }
        self.require_privilege(caller, if own { Privilege::Generate } else { Privilege::Manage }).await?;

        let tokens = &self.state.tokens;
        let now = self.state.clock.now();
        let latest = tokens.rules.latest_end(&token.owner, now).ok_or_else(|| self.forbid(caller, NO_USERS))?;
        let asked =
            AskedEnd { expires_at: body.expires_at, expires_in_days: body.expires_in_days }.resolve(now, latest)?;
        let expires_at = asked.unwrap_or(token.expires_at);
        self.require_no_more(caller, &token.scopes, expires_at)?;

        // Rotating does not change this. Find it out first, because nothing may fail after the rotation.
        let suspended = self.is_suspended(&token, &tokens.identity_now().await?);
        let (token, secret) = tokens.rotate(&token, expires_at, caller.cause(&self.origin)).await?;
        Ok(IssuedToken::new(&token, suspended, &secret))
    }
}
