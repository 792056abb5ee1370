//! Who uses the console: an owner or an engineer, by the session in the cookie.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use http::{HeaderMap, Method};
use secrecy::ExposeSecret as _;
use url::form_urlencoded::byte_serialize;

use super::ROOT;
use super::cookie;
use super::form::{Back, Fields};
use super::frame::{Frame, When, Who};
use super::sign_in::{self, Why};
use crate::api::State;
use crate::api::authentication::caller_problem;
use crate::api::problem::{Code, Problem};
use crate::api::request_context::RequestContext;
use crate::authn::{Caller, Credentials, MemberSession, Refusal};
use crate::domain::access_token::{AccessToken, TokenSecret};

/// The prefix makes browsers refuse it from other hosts and paths, and without TLS (RFC 6265bis, section 4.1.3.2).
const COOKIE_NAME: &str = "__Host-daypass";

/// Somebody who manages members.
pub(super) struct Owner {
    pub(super) caller: Caller,
    pub(super) who: Who,
}

/// A member.
pub(super) struct Engineer {
    pub(super) session: MemberSession,
    pub(super) who: Who,
}

/// A submitted form, and who submitted it.
pub(super) struct Posted<V> {
    pub(super) visitor: V,
    pub(super) fields: Fields,
}

/// Why nobody is there.
enum Absent {
    /// Not signed in, or no longer.
    SignedOut,
    /// Signed in as the other kind.
    Elsewhere(&'static str),
    Problem(Problem),
}

/// A kind of visitor.
pub(super) trait Visitor: Sized {
    /// The visitor of this session.
    fn of(context: &RequestContext, credentials: &Credentials) -> impl Future<Output = Result<Self, Refusal>> + Send;
    /// Whether a session of members is meant.
    const IS_MEMBER: bool;
    /// The start page of the other kind.
    const ELSEWHERE: &'static str;
}

impl Visitor for Owner {
    const IS_MEMBER: bool = false;
    const ELSEWHERE: &'static str = "/me";

    async fn of(context: &RequestContext, credentials: &Credentials) -> Result<Self, Refusal> {
        let caller = context.state.authn.caller(credentials, &context.operation, &context.origin).await?;
        let who = Who {
            name: caller.identity.username.clone(),
            is_member: false,
            signed_in_until: session_end(context, caller.session.as_ref()),
        };
        Ok(Self { caller, who })
    }
}

impl Visitor for Engineer {
    const IS_MEMBER: bool = true;
    const ELSEWHERE: &'static str = "/members";

    async fn of(context: &RequestContext, credentials: &Credentials) -> Result<Self, Refusal> {
        let session = context.state.authn.member(credentials, None, &context.origin).await?;
        let who = Who {
            name: session.member.id.to_string(),
            is_member: true,
            signed_in_until: session_end(context, session.session.as_ref()),
        };
        Ok(Self { session, who })
    }
}

fn session_end(context: &RequestContext, session: Option<&AccessToken>) -> When {
    When(session.map_or_else(|| context.state.clock.now(), |session| session.expires_at))
}

impl Owner {
    pub(super) fn frame(&self, context: &RequestContext) -> Frame {
        Frame::new(&context.state, Some(self.who.clone()))
    }
}

impl Engineer {
    pub(super) fn frame(&self, context: &RequestContext) -> Frame {
        Frame::new(&context.state, Some(self.who.clone()))
    }
}

/// The session in the cookie; `None` without one.
pub(super) fn session(headers: &HeaderMap) -> Option<Credentials> {
    cookie::read(headers, COOKIE_NAME).map(|secret| Credentials::of_session(secret.expose_secret()))
}

/// Sets the cookie, for as long as the session lasts.
pub(super) fn set_cookie(response: &mut Response, secret: &TokenSecret, seconds: i64) {
    cookie::set(response.headers_mut(), COOKIE_NAME, secret.expose(), seconds);
}

/// Removes the cookie.
pub(super) fn clear_cookie(response: &mut Response) {
    cookie::clear(response.headers_mut(), COOKIE_NAME);
}

/// The owner whose session is in the cookie; `None` if nobody is signed in, or an engineer.
///
/// # Errors
/// If that cannot be found out.
pub(super) async fn owner(context: &RequestContext, headers: &HeaderMap) -> Result<Option<Owner>, Problem> {
    match visitor(context, headers).await {
        Ok(owner) => Ok(Some(owner)),
        Err(Absent::Problem(problem)) => Err(problem),
        Err(Absent::SignedOut | Absent::Elsewhere(_)) => Ok(None),
    }
}

async fn visitor<V: Visitor>(context: &RequestContext, headers: &HeaderMap) -> Result<V, Absent> {
    let credentials = session(headers).ok_or(Absent::SignedOut)?;
    let is_session = matches!(credentials, Credentials::Presented { .. });
    if is_session && credentials.is_member() != V::IS_MEMBER {
        return Err(Absent::Elsewhere(V::ELSEWHERE));
    }
    match V::of(context, &credentials).await {
        Ok(visitor) => {
            context.connection.authenticate();
            Ok(visitor)
        }
        Err(Refusal::NoCredentials | Refusal::Malformed | Refusal::Refused | Refusal::AccessTokensDisabled) => {
            Err(Absent::SignedOut)
        }
        Err(refusal) => Err(Absent::Problem(caller_problem(context, refusal))),
    }
}

impl<V: Visitor> FromPage for V {}

/// Reads a visitor from the request for a page.
trait FromPage: Visitor {
    async fn from_page(parts: &mut Parts, state: &State) -> Result<Self, Response> {
        let context = RequestContext::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)?;
        visitor(&context, &parts.headers).await.map_err(|absent| match absent {
            Absent::SignedOut => {
                let asked = parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
                let next: String = byte_serialize(format!("{ROOT}{asked}").as_bytes()).collect();
                let had_session = session(&parts.headers).is_some();
                let ended = if had_session { "&notice=session-ended" } else { "" };
                Redirect::to(&format!("{ROOT}/sign-in?next={next}{ended}")).into_response()
            }
            Absent::Elsewhere(page) => Redirect::to(&format!("{ROOT}{page}")).into_response(),
            Absent::Problem(problem) => problem.into_response(),
        })
    }
}

impl FromRequestParts<State> for Owner {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Response> {
        Self::from_page(parts, state).await
    }
}

impl FromRequestParts<State> for Engineer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Response> {
        Self::from_page(parts, state).await
    }
}

impl<V: Visitor + Send> FromRequest<State> for Posted<V> {
    type Rejection = Response;

    /// A form of somebody whose session has ended is answered by the sign-in form, which carries the fields on. An
    /// error page carries them back.
    async fn from_request(request: Request, state: &State) -> Result<Self, Response> {
        debug_assert!(*request.method() == Method::POST, "a GET is never a deed");
        let (mut parts, body) = request.into_parts();
        let context =
            RequestContext::from_request_parts(&mut parts, state).await.map_err(IntoResponse::into_response)?;
        let found = visitor::<V>(&context, &parts.headers).await;
        let path = format!("{ROOT}{}", parts.uri.path());
        let back = parts.extensions.get::<Back>().cloned().unwrap_or_default();
        let fields = Fields::read(Request::from_parts(parts, body)).await.map_err(IntoResponse::into_response);
        let fields = fields.inspect(|fields| back.fill_in(&path, fields));
        match found {
            Ok(visitor) => Ok(Self { visitor, fields: fields? }),
            Err(Absent::SignedOut) => {
                let next = fields?.carried_to(&path);
                let page = sign_in::form(&context, &Fields::default(), &next, Why::SessionEnded);
                Err(page.unwrap_or_else(IntoResponse::into_response))
            }
            Err(Absent::Elsewhere(_)) => Err(Problem::new(Code::Forbidden).into_response()),
            Err(Absent::Problem(problem)) => Err(problem.into_response()),
        }
    }
}
