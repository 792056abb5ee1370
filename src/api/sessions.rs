//! `POST /sessions`, `DELETE /sessions/current` and `DELETE /sessions`: short sessions for browsers.

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::StatusCode;
use http::request::Parts;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::State;
use super::authentication::{CallerOrMember, caller_or_member, caller_problem, credentials};
use super::fields::NO_STORE;
use super::problem::{Code, Problem};
use super::request_context::RequestContext;
use super::tokens::OwnerView;
use crate::access_tokens::CreateTokenError;
use crate::authn::{Caller, Count, Credentials, MemberSession, Refusal};
use crate::cluster::Lane;
use crate::domain::access_token::{AccessToken, Owner, Scope, TokenSecret};
use crate::domain::session::{SessionKind, SessionOrigin};
use crate::observability::audit::{Event, Kind};

/// A session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Session {
    /// The session's bearer token, shown only here. It has the form of an access token.
    token: String,
    /// What it was issued for.
    kind: SessionKindView,
    /// The id of the access token that opened it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    token_id: Option<String>,
    /// The id of the member whose session it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, example = "projects-view.k7f3x9qm")]
    member_id: Option<String>,
    /// The identity that it acts as; absent for a member's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    owner: Option<OwnerView>,
    /// Its scopes: those of its access token, or all; absent for a member's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<crate::api::schemas::ScopeSchema>, required = false, nullable = false)]
    scopes: Option<Vec<Scope>>,
    /// When it ends.
    expires_at: DateTime<Utc>,
}

/// What a session was issued for.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = SessionKind)]
pub(super) enum SessionKindView {
    AccessToken,
    KubernetesToken,
    IdToken,
    Member,
}

impl From<SessionKind> for SessionKindView {
    fn from(kind: SessionKind) -> Self {
        match kind {
            SessionKind::AccessToken => Self::AccessToken,
            SessionKind::KubernetesToken => Self::KubernetesToken,
            SessionKind::IdToken => Self::IdToken,
            SessionKind::Member => Self::Member,
        }
    }
}

/// Somebody who has just signed in.
#[derive(Debug)]
pub(crate) struct SignedIn {
    /// The session's secret.
    pub(crate) secret: TokenSecret,
    /// The session: its end, its owner and its scopes.
    pub(crate) session: AccessToken,
    /// What it was issued for.
    pub(crate) kind: SessionKind,
    /// Who signed in.
    pub(crate) who: CallerOrMember,
}

/// Opens a session for whoever presents these credentials, of any kind but a session's.
///
/// # Errors
/// The error for the client. A refused credential is counted and recorded.
pub(crate) async fn sign_in(context: &RequestContext, credentials: &Credentials) -> Result<SignedIn, Problem> {
    let who = caller_or_member(context, credentials, None).await?;
    let made = match &who {
        CallerOrMember::Caller(caller) => context.open_session_of_caller(caller).await?,
        CallerOrMember::Member(member) => context.open_session_of_member(member).await?,
    };
    let (session, secret) = made.map_err(|error| match error {
        CreateTokenError::Cluster(error) => error.into(),
        CreateTokenError::TooMany | CreateTokenError::DoneBefore => Problem::new(Code::Conflict),
    })?;
    let kind = session.session_kind().ok_or_else(|| Problem::new(Code::Internal))?;
    if let CallerOrMember::Member(member) = &who {
        // For the owner, who waits for it. The member does not.
        let used = context.state.membership.record_credential_use(&member.member, &member.credential).await;
        if let Err(error) = used {
            tracing::warn!(%error, "could not record that a credential was used");
        }
    }
    Ok(SignedIn { secret, session, kind, who })
}

/// Ends the session that the request is made with.
///
/// # Errors
/// 404 if it is made with something else.
pub(crate) async fn sign_out(context: &RequestContext, who: &CallerOrMember) -> Result<(), Problem> {
    let session = match who {
        CallerOrMember::Caller(caller) => &caller.session,
        CallerOrMember::Member(member) => &member.session,
    };
    let Some(session) = session else { return Err(Problem::new(Code::NotFound)) };
    let tokens = context.state.tokens.in_lane(Lane::Ends);
    tokens.end(session, Kind::SessionEnded, who.cause(context)).await?;
    Ok(())
}

/// Ends all sessions of whoever makes the request: those of the access token, the member, or the owner of any other
/// token.
///
/// # Errors
/// 403 if the caller cannot have sessions.
pub(crate) async fn sign_out_everywhere(context: &RequestContext, who: &CallerOrMember) -> Result<(), Problem> {
    let tokens = context.state.tokens.in_lane(Lane::Ends);
    let cause = who.cause(context);
    match who {
        CallerOrMember::Member(member) => {
            tokens.sign_out(&member.origin(), &Owner::of_member(&member.member.id), cause).await?;
        }
        CallerOrMember::Caller(caller) => match &caller.token {
            Some(token) => tokens.sign_out(&token.as_origin(), &token.owner, cause).await?,
            None => tokens.sign_out(&SessionOrigin::Owner, &context.session_owner(caller)?, cause).await?,
        },
    }
    Ok(())
}

type Made = Result<(AccessToken, TokenSecret), CreateTokenError>;

impl RequestContext {
    async fn open_session_of_caller(&self, caller: &Caller) -> Result<Made, Problem> {
        if caller.session.is_some() {
            return Err(self.forbid(caller, NO_SESSION));
        }
        let (tokens, cause) = (&self.state.tokens, caller.cause(&self.origin));
        let Some(token) = &caller.token else {
            let owner = self.session_owner(caller)?;
            if caller.token_end.is_some_and(|end| end <= self.state.clock.now()) {
                // Within the leeway that issuers and the API server give: a session has none.
                let refusal = self.state.authn.refuse(Refusal::Refused, &self.origin);
                return Err(caller_problem(self, refusal));
            }
            return Ok(tokens.sign_in_owner(owner, caller.token_end, cause).await);
        };
        Ok(tokens.sign_in(token, cause).await)
    }

    async fn open_session_of_member(&self, member: &MemberSession) -> Result<Made, Problem> {
        if member.session.is_some() {
            return Err(self.forbid_member(member));
        }
        Ok(self.state.tokens.sign_in_member(&member.member, member.origin(), member.cause(&self.origin)).await)
    }

    fn session_owner(&self, caller: &Caller) -> Result<Owner, Problem> {
        let owner = self.state.tokens.session_owner_of(&caller.identity);
        owner.ok_or_else(|| {
            self.forbid(caller, "an identity with this name, or with so many attributes, has no sessions")
        })
    }

    /// Counts and records a denial of a member, and returns its error.
    fn forbid_member(&self, member: &MemberSession) -> Problem {
        let Count { wait, record } = self.state.authn.denials.count(member.digest());
        if record {
            let code = if wait.is_some() { Code::TooManyDenials } else { Code::Forbidden };
            let event = Event::new(Kind::Denied, member.actor().clone(), &self.origin);
            self.state.audit.record(&event.about_member(&member.member).with_reason(Some(code.as_str())));
        }
        match wait {
            Some(wait) => Problem::too_many(Code::TooManyDenials, wait),
            None => Problem::detailed(Code::Forbidden, NO_SESSION),
        }
    }
}

const NO_SESSION: &str = "a session cannot open a session: use what it was issued for";

/// A session that this request has opened.
struct Opened(SignedIn);

impl FromRequestParts<State> for Opened {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let context = RequestContext::from_request_parts(parts, state).await?;
        let credentials = credentials(&context, parts)?;
        sign_in(&context, &credentials).await.map(Self)
    }
}

pub(super) fn router() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(create_session, delete_sessions)).routes(routes!(delete_session))
}

/// Sign in
///
/// Opens a session of at most 30 minutes with an access token, a Kubernetes token, an ID token or a member's
/// credential. It never lasts longer than those. It ends earlier if the access token is revoked or rotated, the
/// service account is deleted, the issuer is removed or the member ends or gets a new credential. A session too many
/// (the 17th, a member's 5th) replaces the oldest.
#[utoipa::path(
    post,
    path = "/sessions",
    tag = "sessions",
    responses((status = 201, description = "The session", body = Session)),
    security(("kubernetesToken" = []), ("accessToken" = []), ("accessTokenBasic" = []), ("memberCredential" = []))
)]
async fn create_session(Opened(opened): Opened) -> Response {
    let SignedIn { secret, session, kind, who } = opened;
    let (token_id, member_id) = match &who {
        CallerOrMember::Caller(caller) => (caller.token.as_ref().map(|token| token.id.to_string()), None),
        CallerOrMember::Member(member) => (None, Some(member.member.id.to_string())),
    };
    let is_caller = member_id.is_none();
    let body = Session {
        token: secret.expose().to_owned(),
        kind: kind.into(),
        token_id,
        member_id,
        owner: is_caller.then(|| OwnerView::new(&session)),
        scopes: is_caller.then_some(session.scopes),
        expires_at: session.expires_at,
    };
    (StatusCode::CREATED, [NO_STORE], axum::Json(body)).into_response()
}

/// Sign out
#[utoipa::path(
    delete,
    path = "/sessions/current",
    tag = "sessions",
    responses((status = 204, description = "The session of this request has ended")),
    security(("kubernetesToken" = []), ("accessToken" = []), ("accessTokenBasic" = []), ("memberCredential" = []))
)]
async fn delete_session(context: RequestContext, who: CallerOrMember) -> Result<StatusCode, Problem> {
    sign_out(&context, &who).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sign out everywhere
///
/// Ends all sessions of the access token, of the member, or of the owner of any other token. A session of one of them
/// does the same.
#[utoipa::path(
    delete,
    path = "/sessions",
    tag = "sessions",
    responses((status = 204, description = "All its sessions have ended")),
    security(("kubernetesToken" = []), ("accessToken" = []), ("accessTokenBasic" = []), ("memberCredential" = []))
)]
async fn delete_sessions(context: RequestContext, who: CallerOrMember) -> Result<StatusCode, Problem> {
    sign_out_everywhere(&context, &who).await?;
    Ok(StatusCode::NO_CONTENT)
}
