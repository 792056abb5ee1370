//! `POST /tokens/{id}/rotate`.

use axum::extract::{FromRequestParts, Path};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use utoipa::ToSchema;

use super::TokenPath;
use super::access::{NO_USERS, acts_alike, is_own};
use super::types::{AskedEnd, IssuedToken};
use crate::api::State;
use crate::api::auth::{Caller, authenticate_caller, presented};
use crate::api::body::Json;
use crate::api::context::Context;
use crate::api::fields::NO_STORE;
use crate::api::problem::{Code, Problem};
use crate::cluster::Privilege;
use crate::domain::access_token::Scope;

/// A new end, by one of the two; the old one where neither is given.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct RotateToken {
    /// When it ends (RFC 3339).
    #[serde(default, deserialize_with = "crate::api::fields::not_null")]
    #[schema(required = false, nullable = false)]
    expires_at: Option<DateTime<Utc>>,
    /// In how many days it ends.
    #[serde(default, deserialize_with = "crate::api::fields::not_null")]
    #[schema(required = false, nullable = false, minimum = 1, example = 90)]
    expires_in_days: Option<u32>,
}

/// A caller, if it is none with an old secret of a token: that ends the token, whoever of the two has it.
pub(super) struct Rotator(Caller);

impl FromRequestParts<State> for Rotator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let context = Context::from_request_parts(parts, state).await?;
        let presented = presented(&context, parts)?;
        let problem = match authenticate_caller(&context, &presented).await {
            Ok(caller) => return Ok(Self(caller)),
            Err(problem) => problem,
        };
        // Not where access tokens are off: then they decide nothing.
        let refused = [Code::CredentialRefused, Code::TooManyAttempts].contains(&problem.code);
        if let Some(secret) = presented.access_token().filter(|_| refused && state.settings.access_tokens) {
            // Looked up whatever came before: a thief who floods from elsewhere must not hide that it
            // has an old secret.
            let turn = if problem.code == Code::TooManyAttempts { Some(context.turn().await?) } else { None };
            if state.tokens.end_if_rotated(&secret, &context.origin).await? {
                tracing::warn!(token = %secret.subject(), "an old secret of an access token was presented; the token is revoked");
            }
            if let Some(turn) = turn {
                turn.keep_pace().await;
            }
        }
        Err(problem)
    }
}

/// Rotate an access token
///
/// It gets a new secret, and a new end where one is asked for; the old secret and all sessions are dead at once. **Who presents an old secret
/// here ends the token:** one of the two who have had it is a thief. With an access token, the end is never put off beyond that token's own.
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
    context: Context,
    Rotator(caller): Rotator,
    Path(path): Path<TokenPath>,
    body: Option<Json<RotateToken>>,
) -> Result<Response, Problem> {
    context.require_tokens(&caller)?;
    let token = context.token(&caller, Scope::TokensWrite, &path.id).await?;
    context.require_no_session(&caller)?;
    let own = is_own(&token, &caller.identity);
    if !own && caller.token.is_some() {
        return Err(context.forbid(&caller, "an access token rotates no token of another owner"));
    }
    if own && !acts_alike(&token, &caller.identity) {
        return Err(context
            .forbid(&caller, "the token has other attributes (extra) of its owner than this caller: make a new one"));
    }
    context.require_privilege(&caller, if own { Privilege::Generate } else { Privilege::Manage }).await?;

    let tokens = &context.state.tokens;
    let now = context.state.cluster.clock.now();
    let latest = tokens.rules.latest_end(&token.owner, now).ok_or_else(|| context.forbid(&caller, NO_USERS))?;
    let Json(body) = body.unwrap_or(Json(RotateToken::default()));
    let asked = AskedEnd { expires_at: body.expires_at, expires_in_days: body.expires_in_days }.resolve(now, latest)?;
    let expires_at = asked.unwrap_or(token.expires_at);
    context.require_no_more(&caller, &token.scopes, expires_at)?;

    // Rotated or not, it is. Asked before: nothing may fail after.
    let suspended = context.is_suspended(&token, &tokens.identity_now().await?);
    let (token, secret) = tokens.rotate(&token, expires_at, caller.cause(&context)).await?;
    Ok((StatusCode::OK, [NO_STORE], axum::Json(IssuedToken::new(&token, suspended, &secret))).into_response())
}
