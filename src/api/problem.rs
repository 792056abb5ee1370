//! Errors as clients see them: RFC 9457 `application/problem+json`. Internal causes go to the log only.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

pub(crate) use super::error_codes::Code;
use crate::cluster::{Error, ErrorKind};
use crate::domain::access_token::Scope;

/// How much of a client's own text an answer repeats, in characters.
const MAX_QUOTE: usize = 256;
/// How long a client should wait after a 503.
const UNAVAILABLE: Duration = Duration::from_secs(5);

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// The field's name, as in the request.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// An error for the client. [`Problem::render`] writes its body once the request is known.
#[derive(Debug, Clone)]
pub struct Problem {
    /// What is wrong.
    pub code: Code,
    detail: Option<String>,
    /// The fields at fault.
    pub(super) errors: Vec<FieldError>,
    headers: Vec<(http::HeaderName, HeaderValue)>,
    /// How long the client should wait before it tries again.
    wait: Option<Duration>,
    /// The cause, for the log only.
    cause: Option<String>,
}

/// Marks an answer that tells its error itself, as a page does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told;

/// The body of every error (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// Always `about:blank`: `code` tells errors apart.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// What the code means.
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong in this case.
    detail: String,
    /// The path of the request.
    instance: String,
    /// A stable code.
    code: Code,
    /// The request's id, as in `x-request-id` and in Daypass's logs.
    request_id: String,
    /// For 400: the fields at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
}

impl Problem {
    /// An error without more detail than its code.
    pub(crate) fn new(code: Code) -> Self {
        Self { code, detail: None, errors: Vec::new(), headers: Vec::new(), wait: None, cause: None }
    }

    /// An error with a detail for the client.
    pub(crate) fn detailed(code: Code, detail: impl fmt::Display) -> Self {
        Self { detail: Some(detail.to_string()), ..Self::new(code) }
    }

    /// An invalid field. Both texts may quote the client, so they are cut to keep the answer short.
    pub(crate) fn field(field: &str, message: impl fmt::Display) -> Self {
        let cut = |text: &str| text.chars().take(MAX_QUOTE).collect::<String>();
        let (field, message) = (cut(field), cut(&message.to_string()));
        Self {
            detail: Some(format!("{field}: {message}")),
            errors: vec![FieldError { field, message }],
            ..Self::new(Code::Validation)
        }
    }

    /// Not authenticated. Each challenge (RFC 9110, section 11.6.1) has a header of its own, which all clients can
    /// read.
    pub(super) fn unauthenticated(code: Code, challenges: &[&'static str]) -> Self {
        let header = |challenge: &&'static str| (WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        Self { headers: challenges.iter().map(header).collect(), ..Self::new(code) }
    }

    /// The access token lacks this scope (RFC 6750, section 3.1).
    pub(super) fn insufficient_scope(scope: Scope) -> Self {
        let challenge = format!(r#"Bearer realm="daypass", error="insufficient_scope", scope="{}""#, scope.as_str());
        let headers = HeaderValue::from_str(&challenge).map(|value| (WWW_AUTHENTICATE, value)).into_iter().collect();
        Self { headers, ..Self::detailed(Code::InsufficientScope, format!("this needs the scope {}", scope.as_str())) }
    }

    /// An error after which the client should wait this long.
    pub(super) fn too_many(code: Code, wait: Duration) -> Self {
        Self { wait: Some(wait), ..Self::new(code) }
    }

    /// What the code means.
    pub(crate) fn title(&self) -> &'static str {
        self.code.title()
    }

    /// What is wrong in this case.
    pub(crate) fn explanation(&self) -> String {
        self.detail.clone().unwrap_or_else(|| self.code.title().to_owned())
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The value of `Retry-After` (RFC 9110, section 10.2.3), in seconds.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        let unavailable = (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(UNAVAILABLE);
        self.wait.or(unavailable).map(|wait| wait.as_secs_f64().ceil().max(1.0) as u64)
    }

    /// Where the result is of a request that was carried out before.
    pub(crate) fn location(&self) -> Option<&str> {
        self.headers.iter().find(|(name, _)| *name == LOCATION).and_then(|(_, value)| value.to_str().ok())
    }

    /// Writes the cause to the log, if it is not the client's business.
    pub(crate) fn log(&self, request_id: &str, instance: &str) {
        if let Some(cause) = &self.cause {
            tracing::error!(request_id, instance, code = ?self.code, cause, "a request failed");
        }
    }

    /// How long the client should wait before it tries again.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// The request was carried out before; its result is at `location`.
    pub(super) fn done_before(location: &str) -> Self {
        let headers = HeaderValue::from_str(location).map(|value| (LOCATION, value)).into_iter().collect();
        let detail = "this Idempotency-Key already created a member, see Location; its credential is shown only once";
        Self { headers, ..Self::detailed(Code::IdempotencyKeyReused, detail) }
    }

    /// The body has a content coding (RFC 9110, section 15.5.16).
    pub(super) fn unsupported_coding() -> Self {
        let headers = vec![(ACCEPT_ENCODING, HeaderValue::from_static("identity"))];
        Self { headers, ..Self::detailed(Code::UnsupportedMediaType, "the body must not have a Content-Encoding") }
    }

    /// The response to this request.
    pub(super) fn render(self, instance: &str, request_id: &str) -> Response {
        let (status, retry_after) = (self.status(), self.retry_after());
        self.log(request_id, instance);
        let body = ProblemBody {
            kind: "about:blank",
            title: self.code.title(),
            status: status.as_u16(),
            detail: self.explanation(),
            instance: instance.to_owned(),
            code: self.code,
            request_id: request_id.to_owned(),
            errors: self.errors,
        };
        let mut response = Response::new(Body::from(serde_json::to_vec(&body).unwrap_or_default()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait));
        }
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }

    /// The problem for a bare status that no handler chose.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        Self::new(match status {
            StatusCode::BAD_REQUEST => Code::MalformedBody,
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Code::BodyTooLarge,
            StatusCode::URI_TOO_LONG => Code::UriTooLong,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
            StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
            _ => Code::Internal,
        })
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let quota = error.exceeded_quota().filter(|quota| !quota.limits_members());
        let detail = match (error.kind, &quota) {
            (ErrorKind::QuotaUnknown, _) => {
                Some("Kubernetes has not counted a quota of the namespace yet; try again in 30 seconds".to_owned())
            }
            (ErrorKind::QuotaExceeded, Some(quota)) => {
                Some(format!("the ResourceQuota {} leaves no room for {}", quota.name, quota.resources))
            }
            _ => None,
        };
        let code = match error.kind {
            ErrorKind::Conflict => Code::Conflict,
            ErrorKind::QuotaExceeded if quota.is_some() => Code::QuotaExceeded,
            ErrorKind::QuotaExceeded => Code::TooManyMembers,
            ErrorKind::RefusedByPolicy => Code::RefusedByClusterPolicy,
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::Invalid | ErrorKind::AlreadyExists => Code::Internal,
            // If Daypass itself lacks a right, its operator must grant it, not the caller.
            ErrorKind::QuotaUnknown
            | ErrorKind::Unauthorized
            | ErrorKind::Forbidden
            | ErrorKind::Busy
            | ErrorKind::NoRoom
            | ErrorKind::Timeout
            | ErrorKind::Unreachable
            | ErrorKind::Server
            | ErrorKind::UnreadableAnswer => Code::Unavailable,
        };
        Self { cause: Some(error.to_string()), detail, ..Self::new(code) }
    }
}

impl From<crate::clock::NoEntropy> for Problem {
    fn from(error: crate::clock::NoEntropy) -> Self {
        Self { cause: Some(error.to_string()), ..Self::new(Code::Unavailable) }
    }
}

impl IntoResponse for Problem {
    /// Carries the problem to the middleware, which knows the request.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
