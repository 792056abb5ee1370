//! Errors in the words of Kubernetes: a `Status` of `meta/v1`.

use http::StatusCode;
use serde_json::{Value, json};

/// A failure, as every client of Kubernetes reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The HTTP status.
    pub code: StatusCode,
    /// Shown to the user.
    pub message: String,
}

impl Status {
    /// A failure with this code and message.
    pub fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The kubeconfig does not work, or no longer: 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    /// The object that the body of an answer holds.
    pub fn to_json(&self) -> Value {
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason(),
            "code": self.code.as_u16(),
        })
    }

    /// The object that ends a command (exec or attach). kubectl shows the message and exits with 1. The Python client
    /// needs an exit code among the causes, which client-go reads only if the reason is `NonZeroExitCode`.
    pub fn to_command_json(&self) -> Value {
        let mut status = self.to_json();
        status["details"] = json!({"causes": [{"reason": "ExitCode", "message": "1"}]});
        status
    }

    /// The reason that `meta/v1` has for the code. Empty is its unknown reason.
    fn reason(&self) -> &'static str {
        match self.code {
            StatusCode::BAD_REQUEST => "BadRequest",
            StatusCode::UNAUTHORIZED => "Unauthorized",
            StatusCode::FORBIDDEN => "Forbidden",
            StatusCode::NOT_FOUND => "NotFound",
            StatusCode::PAYLOAD_TOO_LARGE => "RequestEntityTooLarge",
            StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
            StatusCode::INTERNAL_SERVER_ERROR => "InternalError",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
            StatusCode::GATEWAY_TIMEOUT => "Timeout",
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1;

    use super::*;

    fn read(value: Value) -> v1::Status {
        serde_json::from_value(value).expect("a Status of meta/v1")
    }

    #[test]
    fn is_a_failure_of_meta_v1() {
        let status = read(Status::unauthorized("the membership ended").to_json());
        assert_eq!(status.status.as_deref(), Some("Failure"));
        assert_eq!(status.message.as_deref(), Some("the membership ended"));
        assert_eq!((status.reason.as_deref(), status.code), (Some("Unauthorized"), Some(401)));
        assert_eq!(status.details, None);
    }

    #[test]
    fn status_of_a_command_has_an_exit_code_for_python() {
        let status = read(Status::unauthorized("the membership ended").to_command_json());
        // client-go takes an exit code, and not the message, if the reason is `NonZeroExitCode`.
        assert_eq!(status.reason.as_deref(), Some("Unauthorized"));
        let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
        assert_eq!(causes.len(), 1);
        assert_eq!((causes[0].reason.as_deref(), causes[0].message.as_deref()), (Some("ExitCode"), Some("1")));
    }

    #[test]
    fn code_without_a_reason_of_kubernetes_has_none() {
        assert_eq!(Status::new(StatusCode::BAD_GATEWAY, "").to_json()["reason"], "");
    }
}
