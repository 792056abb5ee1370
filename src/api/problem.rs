//! Errors as clients see them: RFC 9457 `application/problem+json`. What went wrong inside goes to the log, never to a client.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::cluster::{Error, ErrorKind};
use crate::domain::access_token::Scope;

/// As much of a client's own words as an answer repeats, in characters.
const MAX_QUOTE: usize = 256;
/// When to try again while the cluster does not answer.
const UNAVAILABLE: Duration = Duration::from_secs(5);

/// A stable code for programs; [`Code::title`] says what each means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub enum Code {
    #[serde(rename = "DP_ERR_VALIDATION")]
    Validation,
    #[serde(rename = "DP_ERR_MALFORMED_BODY")]
    MalformedBody,
    #[serde(rename = "DP_ERR_NO_CREDENTIALS")]
    NoCredentials,
    #[serde(rename = "DP_ERR_MALFORMED_AUTHORIZATION")]
    MalformedAuthorization,
    #[serde(rename = "DP_ERR_CREDENTIAL_REFUSED")]
    CredentialRefused,
    #[serde(rename = "DP_ERR_TOKEN_AUTHENTICATION_DISABLED")]
    TokenAuthenticationDisabled,
    #[serde(rename = "DP_ERR_FORBIDDEN")]
    Forbidden,
    #[serde(rename = "DP_ERR_CROSS_SITE")]
    CrossSite,
    #[serde(rename = "DP_ERR_INSUFFICIENT_SCOPE")]
    InsufficientScope,
    #[serde(rename = "DP_ERR_TOKENS_DISABLED")]
    TokensDisabled,
    #[serde(rename = "DP_ERR_NOT_FOUND")]
    NotFound,
    #[serde(rename = "DP_ERR_METHOD_NOT_ALLOWED")]
    MethodNotAllowed,
    #[serde(rename = "DP_ERR_IDEMPOTENCY_KEY_REUSED")]
    IdempotencyKeyReused,
    #[serde(rename = "DP_ERR_TOO_MANY_MEMBERS")]
    TooManyMembers,
    #[serde(rename = "DP_ERR_TOO_MANY_KUBECONFIGS")]
    TooManyKubeconfigs,
    #[serde(rename = "DP_ERR_TOO_MANY_TOKENS")]
    TooManyTokens,
    #[serde(rename = "DP_ERR_TOO_MANY_SESSIONS")]
    TooManySessions,
    #[serde(rename = "DP_ERR_MEMBERSHIP_TOO_SHORT")]
    MembershipTooShort,
    #[serde(rename = "DP_ERR_CONFLICT")]
    Conflict,
    #[serde(rename = "DP_ERR_BODY_TOO_LARGE")]
    BodyTooLarge,
    #[serde(rename = "DP_ERR_URI_TOO_LONG")]
    UriTooLong,
    #[serde(rename = "DP_ERR_UNSUPPORTED_MEDIA_TYPE")]
    UnsupportedMediaType,
    #[serde(rename = "DP_ERR_TOO_MANY_ATTEMPTS")]
    TooManyAttempts,
    #[serde(rename = "DP_ERR_TOO_MANY_DENIALS")]
    TooManyDenials,
    #[serde(rename = "DP_ERR_INTERNAL")]
    Internal,
    #[serde(rename = "DP_ERR_UNAVAILABLE")]
    Unavailable,
}

impl Code {
    /// The HTTP status of the code.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Validation | Self::MalformedBody => StatusCode::BAD_REQUEST,
            Self::NoCredentials
            | Self::MalformedAuthorization
            | Self::CredentialRefused
            | Self::TokenAuthenticationDisabled => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::CrossSite | Self::InsufficientScope | Self::TokensDisabled => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::IdempotencyKeyReused
            | Self::TooManyMembers
            | Self::TooManyKubeconfigs
            | Self::TooManyTokens
            | Self::TooManySessions
            | Self::MembershipTooShort
            | Self::Conflict => StatusCode::CONFLICT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooManyAttempts | Self::TooManyDenials => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Validation => "The request does not have the right content",
            Self::MalformedBody => "The body is not JSON",
            Self::NoCredentials => "No credentials were sent",
            Self::MalformedAuthorization => "The Authorization header cannot be read",
            Self::CredentialRefused => "The credential was refused",
            Self::TokenAuthenticationDisabled | Self::TokensDisabled => "Token based authentication is disabled",
            Self::Forbidden => "This needs a right that the caller does not have",
            Self::CrossSite => "A page of another site had the browser send this",
            Self::InsufficientScope => "This needs a scope that the access token does not have",
            Self::NotFound => "There is no such thing",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::IdempotencyKeyReused => "The request was carried out before",
            Self::TooManyMembers => "The role has as many members as it may have",
            Self::TooManyKubeconfigs => "The member has as many kubeconfigs as it may have",
            Self::TooManyTokens => "The owner has as many access tokens as it may have",
            Self::TooManySessions => "The access token has as many sessions as it may have",
            Self::MembershipTooShort => "Too little is left of the membership",
            Self::Conflict => "Somebody else changed it at the same time",
            Self::BodyTooLarge => "The body is too large",
            Self::UriTooLong => "The path or the query is too long",
            Self::UnsupportedMediaType => "The body must be application/json",
            Self::TooManyAttempts => "Too many refused credentials came from this address",
            Self::TooManyDenials => "The caller has asked too often for what it has no right to",
            Self::Internal => "Something went wrong inside",
            Self::Unavailable => "Daypass or the Kubernetes API is unavailable",
        }
    }

    /// As clients read it.
    pub(super) fn as_string(self) -> String {
        serde_json::to_value(self).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// The field's name, as in the request.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// An error on its way to the client. The body is written by [`Problem::render`], where the request is known.
#[derive(Debug, Clone)]
pub struct Problem {
    /// What is wrong.
    pub code: Code,
    detail: Option<String>,
    errors: Vec<FieldError>,
    headers: Vec<(http::HeaderName, HeaderValue)>,
    /// When to try again.
    wait: Option<Duration>,
    /// For the log.
    cause: Option<String>,
}

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
    /// An error that is described by its code alone.
    pub(super) fn new(code: Code) -> Self {
        Self { code, detail: None, errors: Vec::new(), headers: Vec::new(), wait: None, cause: None }
    }

    /// With a text for the client.
    pub(super) fn detailed(code: Code, detail: impl fmt::Display) -> Self {
        Self { detail: Some(detail.to_string()), ..Self::new(code) }
    }

    /// A field that is not right. A client's own words are in both, so they are cut: the answer to a long one stays
    /// short.
    pub(super) fn field(field: &str, message: impl fmt::Display) -> Self {
        let cut = |text: &str| text.chars().take(MAX_QUOTE).collect::<String>();
        let (field, message) = (cut(field), cut(&message.to_string()));
        Self {
            detail: Some(format!("{field}: {message}")),
            errors: vec![FieldError { field, message }],
            ..Self::new(Code::Validation)
        }
    }

    /// Not authenticated; the challenges say how to (RFC 9110, section 11.6.1), each in a header of its own, as all clients read them.
    pub(super) fn unauthenticated(code: Code, challenges: &[&'static str]) -> Self {
        let header = |challenge: &&'static str| (WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        Self { headers: challenges.iter().map(header).collect(), ..Self::new(code) }
    }

    /// Not within the scopes of the access token (RFC 6750, section 3.1).
    pub(super) fn insufficient_scope(scope: Scope) -> Self {
        let challenge = format!(r#"Bearer realm="daypass", error="insufficient_scope", scope="{}""#, scope.as_str());
        let headers = HeaderValue::from_str(&challenge).map(|value| (WWW_AUTHENTICATE, value)).into_iter().collect();
        Self { headers, ..Self::detailed(Code::InsufficientScope, format!("the scope {} is needed", scope.as_str())) }
    }

    /// To be tried again when `wait` is over.
    pub(super) fn too_many(code: Code, wait: Duration) -> Self {
        Self { wait: Some(wait), ..Self::new(code) }
    }

    /// When to try again.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// Done before: `location` is where the result is.
    pub(super) fn done_before(location: &str) -> Self {
        let headers = HeaderValue::from_str(location).map(|value| (LOCATION, value)).into_iter().collect();
        let detail = "a member was created with this Idempotency-Key before; Location is where it is, and its credential is shown only once";
        Self { headers, ..Self::detailed(Code::IdempotencyKeyReused, detail) }
    }

    /// The response to this request.
    pub(super) fn render(self, instance: &str, request_id: &str) -> Response {
        let status = self.code.status();
        if let Some(cause) = &self.cause {
            tracing::error!(request_id, instance, code = ?self.code, cause, "a request failed");
        }
        let body = ProblemBody {
            kind: "about:blank",
            title: self.code.title(),
            status: status.as_u16(),
            detail: self.detail.unwrap_or_else(|| self.code.title().to_owned()),
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
        let unavailable = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(UNAVAILABLE);
        if let Some(wait) = self.wait.or(unavailable) {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64));
        }
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }

    /// The problem of a status that something other than a handler answered with.
    pub(super) fn of_status(status: StatusCode) -> Self {
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
        let detail = (error.kind == ErrorKind::QuotaUnknown)
            .then(|| "the cluster has not counted the role's members yet; try again in half a minute".to_owned());
        let code = match error.kind {
            ErrorKind::Conflict => Code::Conflict,
            ErrorKind::QuotaExceeded => Code::TooManyMembers,
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::Invalid | ErrorKind::AlreadyExists => Code::Internal,
            // A right that Daypass itself lacks is its operator's to give, not the caller's.
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
    /// Carries the problem to the middleware that knows the request.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
