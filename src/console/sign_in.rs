//! Signing in and out.

use askama::Template;
use axum::extract::{RawQuery, Request};
use axum::response::{IntoResponse, Redirect, Response};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::ROOT;
use super::form::{Fields, is_at, next_page};
use super::frame::{Frame, render};
use super::visitor::{clear_cookie, session, set_cookie};
use crate::api::authentication::{CallerOrMember, caller_or_member};
use crate::api::problem::Problem;
use crate::api::request_context::RequestContext;
use crate::api::sessions::{self, SignedIn};
use crate::authn::Credentials;

/// What a browser forgets at the end of a session (W3C Clear Site Data). Not the cookies: those are cleared by name.
const CLEARED: &str = r#""cache", "storage""#;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    frame: Frame,
    username: String,
    next: String,
    /// The identity providers with which people can sign in.
    issuers: Vec<String>,
}

/// Why the form is shown.
pub(super) enum Why<'a> {
    Asked,
    /// What was sent came too late.
    SessionEnded,
    Refused(&'a Problem),
}

/// The start page of whoever is signed in.
pub(super) async fn start(headers: HeaderMap) -> Redirect {
    let page = match session(&headers) {
        None => "sign-in",
        Some(credentials) if credentials.is_member() => "me",
        Some(_) => "members",
    };
    Redirect::to(&format!("{ROOT}/{page}"))
}

pub(super) async fn page(context: RequestContext, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let fields = Fields::of_query(query.as_deref());
    form(&context, &fields, fields.text("next"), Why::Asked)
}

/// The form, with where to go on to.
pub(super) fn form(context: &RequestContext, fields: &Fields, next: &str, why: Why<'_>) -> Result<Response, Problem> {
    let frame = Frame::new(&context.state, None);
    let (status, frame) = match &why {
        Why::Asked => (StatusCode::OK, frame.with_notice(fields.text("notice"))),
        Why::SessionEnded => (StatusCode::UNAUTHORIZED, frame.with_notice("session-ended")),
        Why::Refused(problem) => (problem.status(), frame.with_error(Some(problem))),
    };
    let page = SignInPage {
        frame,
        username: fields.text("username").to_owned(),
        next: next_page(next).unwrap_or_default().to_owned(),
        issuers: context.state.authn.people().console_issuers().map(str::to_owned).collect(),
    };
    let mut response = render(status, &page)?;
    if matches!(why, Why::SessionEnded) {
        clear_cookie(&mut response);
    }
    Ok(response)
}

pub(super) async fn sign_in(context: RequestContext, request: Request) -> Result<Response, Problem> {
    let fields = Fields::read(request).await?;
    let next = fields.text("next");
    let Some(password) = fields.get("password") else {
        let missing = Problem::field("password", "is required");
        return form(&context, &fields, next, Why::Refused(&missing));
    };
    match sessions::sign_in(&context, &Credentials::of_form(fields.get("username"), password)).await {
        Ok(signed_in) => Ok(go_on(&context, &signed_in, next)),
        Err(problem) => refused(&context, &fields, next, &problem),
    }
}

/// The form again, with what went wrong. It keeps where to go on to, with what was typed there.
pub(super) fn refused(
    context: &RequestContext,
    fields: &Fields,
    next: &str,
    problem: &Problem,
) -> Result<Response, Problem> {
    problem.log(context.origin.request_id.as_deref().unwrap_or_default(), &context.operation);
    let mut response = form(context, fields, next, Why::Refused(problem))?;
    if let Some(wait) = problem.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, wait.into());
    }
    Ok(response)
}

/// Sets the cookie of the new session, and goes on to `next` or the start page.
pub(super) fn go_on(context: &RequestContext, signed_in: &SignedIn, next: &str) -> Response {
    let is_member = matches!(signed_in.who, CallerOrMember::Member(_));
    let own = format!("{ROOT}/me");
    let next = next_page(next).filter(|page| is_member == is_at(page, &own));
    let start = if is_member { own.clone() } else { format!("{ROOT}/members") };
    let mut response = Redirect::to(next.unwrap_or(&start)).into_response();
    let seconds = (signed_in.session.expires_at - context.state.clock.now()).num_seconds();
    set_cookie(&mut response, &signed_in.secret, seconds);
    response
}

/// Ends the session. A session that has ended already is as good.
pub(super) async fn sign_out(context: RequestContext, headers: HeaderMap) -> Result<Response, Problem> {
    end_sessions(&context, &headers, async |who| sessions::sign_out(&context, who).await).await
}

/// Ends all sessions of whoever is signed in, in other browsers as well.
pub(super) async fn sign_out_everywhere(context: RequestContext, headers: HeaderMap) -> Result<Response, Problem> {
    end_sessions(&context, &headers, async |who| sessions::sign_out_everywhere(&context, who).await).await
}

async fn end_sessions(
    context: &RequestContext,
    headers: &HeaderMap,
    end: impl AsyncFnOnce(&CallerOrMember) -> Result<(), Problem>,
) -> Result<Response, Problem> {
    if let Some(credentials) = session(headers) {
        match caller_or_member(context, &credentials, None).await {
            Ok(who) => end(&who).await?,
            Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => {}
            Err(problem) => return Err(problem),
        }
    }
    Ok(signed_out("signed-out"))
}

/// The answer to somebody whose session is over: the browser forgets it.
pub(super) fn signed_out(notice: &str) -> Response {
    let mut response = Redirect::to(&format!("{ROOT}/sign-in?notice={notice}")).into_response();
    clear_cookie(&mut response);
    response.headers_mut().insert("clear-site-data", HeaderValue::from_static(CLEARED));
    response
}
