//! Why a request is not forwarded, as a `Status` that kubectl shows.

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WARNING};
use http::{HeaderValue, StatusCode};

use super::cut::status;
use super::headers::Refused;
use super::limits::TooMany;
use super::registry::Why;
use super::status::Status;
use super::target::BadTarget;

/// Why a request is not forwarded, or has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Its kubeconfig is not admitted, or no longer.
    #[error(transparent)]
    Cut(#[from] Why),
    /// The kubeconfig's Secret or the member's service account is gone.
    #[error("this kubeconfig was revoked; download a new one with the member's credential")]
    Revoked,
    /// It cannot be decided.
    #[error("Daypass cannot tell whether this membership is still in force; try again")]
    Undecided,
    /// Too much is open.
    #[error(transparent)]
    TooMany(TooMany),
    /// A header is refused.
    #[error(transparent)]
    Header(#[from] Refused),
    /// The path is refused.
    #[error(transparent)]
    Target(BadTarget),
    /// HTTP/1.0: an answer that is cut would look whole.
    #[error("the gateway needs HTTP/1.1 or later; a proxy in front of Daypass speaks HTTP/1.0 to it")]
    OldProtocol,
    /// The API server cannot be reached. Nothing was sent.
    #[error("Daypass cannot reach the API server; try again")]
    Unreachable,
    /// The API server broke off. Nothing is sent again: it may have been carried out.
    #[error("the connection to the API server broke before it had answered; a change may have been made")]
    BrokenOff,
    /// The API server takes too long.
    #[error("the API server did not answer in time; a change may have been made")]
    TooSlow,
    /// The API server did not change the protocol.
    #[error("the API server did not open a stream")]
    NotUpgraded,
}

impl Failure {
    fn code(self) -> StatusCode {
        match self {
            Self::Cut(why) => status(why).code,
            Self::Revoked => StatusCode::UNAUTHORIZED,
            Self::Undecided => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Header(refused) => StatusCode::from_u16(refused.code()).unwrap_or(StatusCode::BAD_REQUEST),
            Self::Target(_) => StatusCode::BAD_REQUEST,
            Self::OldProtocol => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Unreachable | Self::BrokenOff | Self::NotUpgraded => StatusCode::BAD_GATEWAY,
            Self::TooSlow => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Its name in metrics.
    pub(super) fn label(&self) -> &'static str {
        match self.code() {
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::TOO_MANY_REQUESTS => "too_many_requests",
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => "api_server",
            StatusCode::SERVICE_UNAVAILABLE => "undecided",
            _ => "bad_request",
        }
    }

    /// The answer. Without a discovery cache, kubectl shows only its warning.
    pub(super) fn render(self) -> Response {
        let status = Status::new(self.code(), self.to_string());
        let warning = format!("299 - \"{}\"", status.message.replace(['"', '\\'], "'"));
        let mut response = Response::new(Body::from(status.to_json().to_string()));
        *response.status_mut() = status.code;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(warning) = HeaderValue::try_from(warning) {
            headers.insert(WARNING, warning);
        }
        // kubectl repeats whatever has this ten times, and seems to hang.
        if status.code == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
