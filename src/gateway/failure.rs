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
    /// Its kubeconfig is not admitted, or no longer. Nothing was sent.
    #[error("{0}{advice}", advice = .0.advice())]
    Cut(Why),
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
    /// It has no answer.
    #[error("{none}{advice}", advice = none.advice(*may_change))]
    NoAnswer {
        none: NoAnswer,
        /// Whether such a request may change something. It is not sent again: it may have been carried out.
        may_change: bool,
    },
    /// The API server did not change the protocol.
    #[error("the API server did not open a stream")]
    NotUpgraded,
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    /// The API server cannot be reached. Nothing was sent.
    #[error("Daypass cannot reach the API server")]
    Unreachable,
    /// The API server broke off.
    #[error("the connection to the API server broke before it had answered")]
    BrokenOff,
    /// The API server takes too long.
    #[error("the API server did not answer in time")]
    TooSlow,
    /// It was cut.
    #[error(transparent)]
    Cut(Why),
}

impl NoAnswer {
    /// What the user should know besides.
    fn advice(self, may_change: bool) -> &'static str {
        match self {
            Self::BrokenOff | Self::TooSlow | Self::Cut(_) if may_change => "; a change may have been made",
            Self::Unreachable | Self::BrokenOff | Self::TooSlow => "; try again",
            Self::Cut(why) => why.advice(),
        }
    }
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
            Self::NoAnswer { none: NoAnswer::Unreachable | NoAnswer::BrokenOff, .. } => StatusCode::BAD_GATEWAY,
            Self::NoAnswer { none: NoAnswer::TooSlow, .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::NoAnswer { none: NoAnswer::Cut(why), .. } => status(why).code,
            Self::NotUpgraded => StatusCode::BAD_GATEWAY,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::gateway_token::Refusal;

    #[test]
    fn only_an_unanswered_change_may_have_been_made() {
        let text = |none, may_change| Failure::NoAnswer { none, may_change }.to_string();
        for (none, change, read) in [
            (NoAnswer::Unreachable, "Daypass cannot reach the API server; try again", None),
            (
                NoAnswer::BrokenOff,
                "the connection to the API server broke before it had answered; a change may have been made",
                Some("the connection to the API server broke before it had answered; try again"),
            ),
            (
                NoAnswer::TooSlow,
                "the API server did not answer in time; a change may have been made",
                Some("the API server did not answer in time; try again"),
            ),
            (
                NoAnswer::Cut(Why::Stale),
                "Daypass cannot tell whether this membership is still in force; a change may have been made",
                Some("Daypass cannot tell whether this membership is still in force; try again"),
            ),
            (
                NoAnswer::Cut(Why::Restarting),
                "this replica of Daypass restarts; a change may have been made",
                Some("this replica of Daypass restarts; try again"),
            ),
            (
                NoAnswer::Cut(Refusal::Replaced.into()),
                "the member's credential was replaced; download the kubeconfig again with the new one; \
                 a change may have been made",
                Some("the member's credential was replaced; download the kubeconfig again with the new one"),
            ),
        ] {
            assert_eq!(text(none, true), change);
            assert_eq!(text(none, false), read.unwrap_or(change));
        }
        // Nothing was sent.
        assert_eq!(Failure::Cut(Why::Restarting).to_string(), "this replica of Daypass restarts; try again");
        assert_eq!(Failure::Cut(Refusal::Replaced.into()).to_string(), Refusal::Replaced.to_string());
    }
}
