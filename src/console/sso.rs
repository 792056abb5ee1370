//! Signing in with an identity provider: off to it, and back.

use askama::Template;
use axum::extract::{Path, RawQuery, Request};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use secrecy::SecretString;

use super::form::{Fields, next_page};
use super::frame::{Frame, render};
use super::login::{self, Login};
use super::sign_in::{self, go_on};
use super::step_up;
use crate::api::authentication::caller_problem;
use crate::api::problem::{Code, Problem};
use crate::api::request_context::RequestContext;
use crate::api::sessions;
use crate::authn::oidc::log_error;
use crate::authn::{Credentials, Refusal};

/// The longest code, in bytes. Entra ID's have about 1,500.
const MAX_CODE: usize = 8 * 1024;

/// The page of access tokens.
pub(super) const TOKENS: &str = "/console/tokens";

/// The page between a form and the identity provider. Daypass's forms may lead nowhere else (`form-action`), its links
/// may.
#[derive(Template)]
#[template(path = "continue.html")]
struct ContinuePage {
    frame: Frame,
    issuer: String,
    host: String,
    link: String,
}

/// Begins a sign-in with this issuer.
pub(super) async fn start(
    context: RequestContext,
    Path(issuer): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let fields = Fields::read(request).await?;
    let state = &context.state;
    let people = state.authn.people();
    if people.console_issuer(&issuer).is_none() {
        return Err(Problem::new(Code::NotFound));
    }
    let next = next_page(fields.text("next")).unwrap_or_default();
    let login = Login::begin(&issuer, next, state.clock.now(), &state.entropy)?;
    depart(&context, Frame::new(state, None), &login)
}

/// The page that leads to the issuer.
pub(super) fn depart(context: &RequestContext, frame: Frame, login: &Login) -> Result<Response, Problem> {
    let state = &context.state;
    let anew_since = login.deed.as_ref().and_then(|_| login.began());
    let url = state.authn.people().authorization_url(&login.attempt(&state.settings, anew_since));
    let url = url.ok_or_else(|| unavailable(&login.issuer))?;
    let issuer = login.issuer.clone();
    let host = url.host_str().unwrap_or_default().to_owned();
    let page = ContinuePage { frame, issuer, host, link: url.into() };
    let mut response = render(StatusCode::OK, &page)?;
    login.set_cookie(response.headers_mut());
    Ok(response)
}

/// The issuer's answer (RFC 6749, section 4.1.2). Whatever it is, the sign-in is over.
pub(super) async fn callback(
    context: RequestContext,
    Path(issuer): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let login = Login::read(&headers, context.state.clock.now()).filter(|login| login.issuer == issuer);
    let done = finish(&context, login.as_ref(), &headers, query.as_deref()).await;
    let done = done.or_else(|problem| {
        let next = login.as_ref().map(Login::on_failure).unwrap_or_default();
        sign_in::refused(&context, &Fields::default(), &next, &problem)
    });
    let mut response = done.unwrap_or_else(IntoResponse::into_response);
    login::clear_cookie(response.headers_mut());
    response
}

async fn finish(
    context: &RequestContext,
    login: Option<&Login>,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Response, Problem> {
    let refuse = |why| refused(context, why);
    let fields = Fields::of_query(query);
    let once = |name: &str| fields.once(name).map_err(|()| refuse(MISMATCH));
    let (state, iss, error, code) = (once("state")?, once("iss")?, once("error")?, once("code")?);
    let login = login.ok_or_else(|| refuse(NOT_STARTED))?;
    if !state.is_some_and(|state| login.has_state(state)) {
        return Err(refuse(NOT_STARTED));
    }
    let authn = &context.state.authn;
    if !authn.people().is_answer_of(&login.issuer, iss) {
        return Err(refuse(MISMATCH));
    }
    if let Some(error) = error {
        log_error(&login.issuer, error);
        return Err(of_issuer(&login.issuer, error));
    }
    let code = code.filter(|code| code.len() <= MAX_CODE).ok_or_else(|| refuse(MISMATCH))?;
    let to_confirm = match &login.deed {
        Some(deed) => Some((deed, step_up::owner(context, headers, login).await?)),
        None => None,
    };
    let anew_since = to_confirm.as_ref().map(|(_, (_, since))| *since);
    let attempt = login.attempt(&context.state.settings, anew_since);
    let token = authn.redeem(&attempt, &SecretString::from(code), &context.origin).await;
    let token = token.map_err(|refusal| not_redeemed(context, &login.issuer, refusal))?;
    if let Some((deed, (owner, _))) = to_confirm {
        return step_up::finish(context, owner, deed, &token).await;
    }
    let signed_in = sessions::sign_in(context, &Credentials::of_id_token(&token)).await;
    let signed_in = signed_in.map_err(|problem| match problem.code {
        Code::CredentialRefused | Code::MalformedAuthorization => Problem::detailed(problem.code, NOT_ACCEPTED),
        _ => problem,
    })?;
    Ok(go_on(context, &signed_in, &login.next))
}

const NOT_STARTED: &str = "This sign-in was not started in this browser, was already used, or took longer than ten \
                           minutes. Start again.";
const MISMATCH: &str = "The identity provider's answer does not match this sign-in. Start again.";
const NOT_CONFIRMED: &str = "The identity provider did not confirm this sign-in. Start again.";
const NOT_ACCEPTED: &str = "You signed in at the identity provider, but Daypass does not accept its ID token. The log \
                            of Daypass says why.";

/// Counts and records a refusal, and tells its reason.
fn refused(context: &RequestContext, why: &str) -> Problem {
    told(context, context.state.authn.refuse(Refusal::Refused, &context.origin), why)
}

fn told(context: &RequestContext, refusal: Refusal, why: &str) -> Problem {
    match refusal {
        Refusal::Refused => Problem::detailed(Code::CredentialRefused, why),
        refusal => caller_problem(context, refusal),
    }
}

fn not_redeemed(context: &RequestContext, issuer: &str, refusal: Refusal) -> Problem {
    match refusal {
        Refusal::IssuerUnavailable => unavailable(issuer),
        refusal => told(context, refusal, NOT_CONFIRMED),
    }
}

fn unavailable(issuer: &str) -> Problem {
    let why = format!("The identity provider {issuer} is unavailable. Try again in a minute.");
    Problem::detailed(Code::Unavailable, why)
}

/// What an error of the issuer means (RFC 6749, section 4.1.2.1; OpenID Connect Core 1.0, section 3.1.2.6). The own
/// words of the issuer are not shown: a link could have put them there.
fn of_issuer(issuer: &str, error: &str) -> Problem {
    let (code, why) = match error {
        "access_denied" => (Code::Forbidden, "denied the sign-in, or you cancelled it."),
        "login_required" | "interaction_required" | "consent_required" | "account_selection_required" => {
            (Code::Forbidden, "did not sign you in. Start again.")
        }
        "temporarily_unavailable" | "server_error" => (Code::Unavailable, "is unavailable. Try again in a minute."),
        _ => (Code::Forbidden, "rejected Daypass's request. Daypass's log says why."),
    };
    Problem::detailed(code, format!("The identity provider {issuer} {why}"))
}
