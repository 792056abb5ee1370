//! `POST /sessions` and `DELETE /sessions/current`: short browser sessions, opened with an access token.

use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::State;
use super::fields::NO_STORE;
use super::problem::{Code, Problem};
use super::request_context::RequestContext;
use super::tokens::OwnerView;
use crate::authn::Caller;
use crate::cluster::Lane;
use crate::domain::access_token::Scope;
use crate::domain::session::MAX_SESSIONS;
use crate::observability::audit::Kind;

/// A session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Session {
    /// The session's bearer token, shown only here. It has the form of an access token.
    token: String,
    /// The id of the access token that opened it.
    token_id: String,
    /// The identity that it acts as.
    owner: OwnerView,
    /// Its scopes: those of its access token.
    #[schema(value_type = Vec<crate::api::schemas::ScopeSchema>)]
    scopes: Vec<Scope>,
    /// When it ends.
    expires_at: DateTime<Utc>,
}

pub(super) fn router() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(create_session)).routes(routes!(delete_session))
}

/// Sign in
///
/// Opens a session of 30 minutes with an access token. The session ends earlier if the token expires, is revoked or is
/// rotated.
#[utoipa::path(
    post,
    path = "/sessions",
    tag = "sessions",
    responses((status = 201, description = "The session", body = Session)),
    security(("accessToken" = []), ("accessTokenBasic" = []))
)]
async fn create_session(context: RequestContext, caller: Caller) -> Result<Response, Problem> {
    context.require_tokens(&caller)?;
    let (Some(token), None) = (&caller.token, &caller.session) else {
        return Err(context.forbid(&caller, "only an access token can open a session"));
    };
    let made = context.state.tokens.sign_in(token, caller.cause(&context.origin)).await;
    let (session, secret) = made.map_err(|error| Problem::not_created(error, Code::TooManySessions, MAX_SESSIONS))?;
    let body = Session {
        token: secret.expose().to_owned(),
        token_id: token.id.to_string(),
        owner: OwnerView::new(token),
        scopes: session.scopes,
        expires_at: session.expires_at,
    };
    Ok((StatusCode::CREATED, [NO_STORE], axum::Json(body)).into_response())
}

/// Sign out
#[utoipa::path(
    delete,
    path = "/sessions/current",
    tag = "sessions",
    responses((status = 204, description = "The session of this request has ended")),
    security(("accessToken" = []), ("accessTokenBasic" = []))
)]
async fn delete_session(context: RequestContext, caller: Caller) -> Result<StatusCode, Problem> {
    let Some(session) = &caller.session else { return Err(Problem::new(Code::NotFound)) };
    context.state.tokens.in_lane(Lane::Ends).end(session, Kind::SessionEnded, caller.cause(&context.origin)).await?;
    Ok(StatusCode::NO_CONTENT)
}
