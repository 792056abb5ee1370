//! Middleware around every request: admission, request id, problem bodies, log line and metrics.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{MatchedPath, RawPathParams, Request, State as Extract};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use futures::FutureExt as _;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_LENGTH, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Uri, Version};

use super::State;
use super::answer::watch;
use super::authentication::DOWNLOAD;
use super::body;
use super::problem::{Code, Problem, Told};
use super::request_context::RequestContext;
use crate::authn::{Connection, is_navigation, weight};
use crate::cluster::with_audit_ids;
use crate::domain::member_id::MemberId;
use crate::domain::redact::redacted;
use crate::domain::text::escape_hidden;
use crate::observability::metrics::RequestLabels;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest path: any valid one is shorter, even with every character of its ids percent-encoded.
const MAX_PATH: usize = 1024;
/// The longest query: an `owner` of 1024 characters, each of four bytes, percent-encoded, and the other parameters.
const MAX_QUERY: usize = 16 * 1024;

/// How long a request may take. Calls to the API server that all answer just before their own timeouts take less.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Admits a request, answers it, and drops what was not read of its body.
///
/// A task of its own makes the answer and goes on if the client disconnects: a change that has begun is finished and
/// recorded. Aborting a call would also cost the API server a new TLS connection, so a client that resets its streams
/// could multiply load. The task keeps its place until it ends. A request that still waits for a place is dropped with
/// its client.
pub(super) async fn finish(Extract(state): Extract<State>, request: Request, next: Next) -> Response {
    let connection = request.extensions().get::<Connection>().cloned().unwrap_or_default();
    let place = connection.admit(weight(&request), &state.capacity).await;
    let is_http2 = request.version() == Version::HTTP_2;
    let (request, rest) = body::lend(request);
    let response = match place {
        Some(place) => {
            let answering = answer(state.clone(), connection.clone(), request, next);
            let answered = state.tasks.spawn(async {
                let _until_then = place;
                answering.await
            });
            // The task ends early only when the process does.
            answered.await.unwrap_or_else(|_| Problem::new(Code::Unavailable).render("", ""))
        }
        None => {
            drop(request);
            state.metrics.requests_refused.inc();
            Problem::detailed(Code::Unavailable, "too many requests at once").render("", "")
        }
    };
    if let Some(discard) = rest.discard(&connection) {
        // Over HTTP/2, curl ends a body early when it sees the head of a refusal. For h2 that is a body of less than
        // its Content-Length: it resets the stream, and with it the part of the answer that is not sent yet.
        if is_http2 {
            discard.await;
        } else {
            state.tasks.spawn(discard);
        }
    }
    response.map(|body| watch(body, &connection))
}

/// Assigns the request id, turns every error into a problem, counts and logs. Headers and query are never logged.
async fn answer(state: State, connection: Connection, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let Ok(uuid) = state.entropy.uuid() else {
        return Problem::new(Code::Unavailable).render(&shown(request.uri().path()), "");
    };
    let id = uuid.to_string();
    let too_long = is_too_long(request.uri());
    let path = shown(request.uri().path());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = label(request.method());

    let handled = async {
        if too_long {
            return Problem::new(Code::UriTooLong).into_response();
        }
        // Over HTTP/1, these do not get this far.
        if request.headers().get_all(CONTENT_LENGTH).iter().count() > 1 {
            return Problem::field("Content-Length", "is given twice").into_response();
        }
        let context = RequestContext::new(state.clone(), &request, id.clone(), &path, connection);
        request.extensions_mut().insert(context);
        next.run(request).await
    };
    let handled = tokio::time::timeout(REQUEST_TIMEOUT, with_audit_ids(uuid, handled));
    let answer = AssertUnwindSafe(handled).catch_unwind().await;
    let response = match answer {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Problem::new(Code::Unavailable).into_response(),
        Err(_) => Problem::new(Code::Internal).into_response(),
    };
    let mut response = as_problem(response, &path, &id);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));

    let (status, took) = (response.status().as_u16(), started.elapsed());
    tracing::info!(
        request_id = id,
        method,
        route,
        status,
        ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "answered"
    );
    state.metrics.observe_request(&RequestLabels { route, method, status }, took);
    response
}

/// Whether the target is longer than any valid one. It is refused before a handler, the log or the audit trail sees
/// it.
fn is_too_long(uri: &Uri) -> bool {
    uri.path().len() > MAX_PATH || uri.query().is_some_and(|query| query.len() > MAX_QUERY)
}

/// A path without secrets and invisible characters, cut to the length of the longest valid one.
fn shown(path: &str) -> String {
    escape_hidden(&redacted(&path[..path.floor_char_boundary(MAX_PATH)]))
}

/// Renders a handler's problem, or the bare status that axum answered with, unless a page tells it already.
fn as_problem(mut response: Response, path: &str, id: &str) -> Response {
    let status = response.status();
    if response.extensions().get::<Told>().is_some() {
        return response;
    }
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if status.is_client_error() || status.is_server_error() => Problem::of_status(status),
        None => return response,
    };
    let mut rendered = problem.render(path, id);
    if let Some(allow) = response.headers_mut().remove(ALLOW) {
        rendered.headers_mut().insert(ALLOW, allow);
    }
    rendered
}

fn label(method: &Method) -> &'static str {
    [
        ("GET", Method::GET),
        ("POST", Method::POST),
        ("PATCH", Method::PATCH),
        ("DELETE", Method::DELETE),
        ("HEAD", Method::HEAD),
        ("PUT", Method::PUT),
        ("OPTIONS", Method::OPTIONS),
    ]
    .into_iter()
    .find_map(|(label, known)| (*method == known).then_some(label))
    .unwrap_or("OTHER")
}

/// Answers 404 unless the path has this data plane's id. An id that is not UTF-8 is another one.
pub(super) async fn check_data_plane(
    Extract(state): Extract<State>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let id = &state.settings.data_plane_id;
    let ours = params.is_ok_and(|all| all.iter().any(|(key, value)| key == "dataPlaneId" && value == id));
    if ours { next.run(request).await } else { Problem::new(Code::NotFound).into_response() }
}

/// A person who follows a link to a kubeconfig comes to the console, if there is one. Otherwise the browser would ask
/// for user name and password, and never forget them.
pub(super) async fn to_console(
    Extract(state): Extract<State>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let is_download = *request.method() == Method::GET && route.ends_with(DOWNLOAD);
    if state.settings.console
        && is_download
        && !request.headers().contains_key(AUTHORIZATION)
        && is_navigation(request.headers())
    {
        let id = params.ok().and_then(|all| all.iter().find(|(key, _)| *key == "id").map(|(_, id)| id.to_owned()));
        if let Some(id) = id.as_deref().and_then(MemberId::parse) {
            return Redirect::to(&state.settings.sign_in_url(&id)).into_response();
        }
    }
    next.run(request).await
}
