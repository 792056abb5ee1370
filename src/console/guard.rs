//! Middleware around every page: refuses forms of other sites, shows errors as pages, and sets the headers that keep
//! a browser from doing anything else with them.

use askama::Template;
use axum::extract::{Request, State as Extract};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, LOCATION, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method};

use super::ROOT;
use super::form::{Back, page_of};
use super::frame::{Frame, render};
use super::visitor::session;
use crate::api::State;
use crate::api::problem::{Code, Problem, Told};
use crate::api::request_context::RequestContext;
use crate::authn::{Credentials, Refusal, is_own_page};

/// Nothing is loaded from elsewhere, framed, or run inline. Trusted Types keep the script from writing markup.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                   form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                   trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 7] = [
    (CONTENT_SECURITY_POLICY, CSP),
    // With `no-referrer`, browsers send `Origin: null` with our own forms (Fetch, section 3.2).
    (REFERRER_POLICY, "same-origin"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
];

/// An error as a page.
#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    frame: Frame,
    title: &'static str,
    detail: String,
    request_id: String,
    back: String,
    /// Which pages whoever is signed in has. The form of the cookie tells, and nothing depends on it.
    pages: Pages,
}

/// The pages that an error page leads to.
#[derive(Clone, Copy, PartialEq)]
enum Pages {
    None,
    Owners,
    Engineers,
}

impl Pages {
    fn of(headers: &HeaderMap) -> Self {
        match session(headers) {
            Some(credentials) if credentials.is_member() => Self::Engineers,
            Some(Credentials::Presented { .. }) => Self::Owners,
            _ => Self::None,
        }
    }

    fn is_none(&self) -> bool {
        *self == Self::None
    }

    fn are_owners(&self) -> bool {
        *self == Self::Owners
    }

    fn are_engineers(&self) -> bool {
        *self == Self::Engineers
    }
}

pub(super) async fn guard(Extract(state): Extract<State>, mut request: Request, next: Next) -> Response {
    let is_form = *request.method() == Method::POST;
    // The router has taken the console's own path away. A page that fails does not lead to itself.
    let page = if is_form { page_of(&format!("{ROOT}{}", request.uri().path())) } else { format!("{ROOT}/") };
    let back = Back::default();
    request.extensions_mut().insert(back.clone());
    let pages = Pages::of(request.headers());
    let Some(context) = request.extensions().get::<RequestContext>().cloned() else {
        return Problem::new(Code::Internal).into_response();
    };
    // Before anything reads the cookie.
    let mut response = if is_form && !is_own(&context, request.headers()) {
        state.authn.refuse(Refusal::CrossSite, &context.origin);
        Problem::new(Code::CrossSite).into_response()
    } else {
        next.run(request).await
    };
    let status = response.status();
    let is_bare =
        response.extensions().get::<Told>().is_none() && (status.is_client_error() || status.is_server_error());
    let problem = response.extensions_mut().remove::<Problem>();
    let problem = problem.or_else(|| is_bare.then(|| Problem::of_status(status)));
    if let Some(problem) = problem {
        let back = back.page().unwrap_or(page);
        response = error_page(&context, &problem, back, pages).unwrap_or_else(IntoResponse::into_response);
    }
    set_headers(response.headers_mut());
    response
}

/// The headers of redirects, which need no guard.
pub(super) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    set_headers(response.headers_mut());
    response
}

fn set_headers(headers: &mut HeaderMap) {
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn is_own(context: &RequestContext, headers: &HeaderMap) -> bool {
    is_own_page(headers, &context.state.settings.origin())
}

fn error_page(context: &RequestContext, problem: &Problem, back: String, pages: Pages) -> Result<Response, Problem> {
    let request_id = context.origin.request_id.clone().unwrap_or_default();
    problem.log(&request_id, context.origin.request.as_deref().unwrap_or_default());
    let page = ErrorPage {
        frame: Frame::new(&context.state, None),
        title: problem.title(),
        detail: problem.explanation(),
        request_id,
        back,
        pages,
    };
    let mut response = render(problem.status(), &page)?;
    if let Some(wait) = problem.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, wait.into());
    }
    response.headers_mut().remove(LOCATION);
    Ok(response)
}
