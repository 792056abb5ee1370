//! Errors of calls to the Kubernetes API, classified by how a caller reacts.

use std::error::Error as StdError;

/// Why a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are HTTP's and Kubernetes'")]
pub enum ErrorKind {
    NotFound,
    AlreadyExists,
    Conflict,
    QuotaExceeded,
    QuotaUnknown,
    Unauthorized,
    Forbidden,
    Invalid,
    /// The API server was too busy (429), and still was after the retries.
    Busy,
    /// Not sent: Daypass has reached its own limit of calls in flight.
    NoRoom,
    Timeout,
    Unreachable,
    Server,
    UnreadableAnswer,
}

impl ErrorKind {
    /// The metric's label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::QuotaExceeded => "quota_exceeded",
            Self::QuotaUnknown => "quota_unknown",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Invalid => "invalid",
            Self::Busy => "too_many_requests",
            Self::NoRoom => "no_room",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Server => "server_error",
            Self::UnreadableAnswer => "unreadable_answer",
        }
    }

    /// Classifies an error response of the API server.
    fn of_status(code: u16, reason: &str, message: &str) -> Self {
        match (code, reason) {
            (404, _) => Self::NotFound,
            (409, "AlreadyExists") => Self::AlreadyExists,
            (409, _) => Self::Conflict,
            // ResourceQuota answers 403, as RBAC does; only the message tells them apart.
            (403, _) if message.contains("exceeded quota") => Self::QuotaExceeded,
            (403, _) if message.contains("status unknown for quota") => Self::QuotaUnknown,
            (401, _) => Self::Unauthorized,
            (403, _) => Self::Forbidden,
            (429, _) => Self::Busy,
            (400..=499, _) => Self::Invalid,
            _ => Self::Server,
        }
    }
}

/// A failed call to the Kubernetes API. This text goes to the log and never to a client of Daypass.
#[derive(Debug, thiserror::Error)]
#[error("{call} {object}: {}: {detail}", kind.label())]
pub struct Error {
    /// The call's name.
    pub call: &'static str,
    /// The object of the call.
    pub object: String,
    /// The kind of failure.
    pub kind: ErrorKind,
    pub(super) detail: String,
}

impl Error {
    pub(crate) fn new(call: &'static str, object: &str, kind: ErrorKind, detail: &str) -> Self {
        Self { call, object: object.to_owned(), kind, detail: detail.to_owned() }
    }

    pub(super) fn of(call: &'static str, object: &str, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let kind = ErrorKind::of_status(status.code, &status.reason, &status.message);
                Self::new(call, object, kind, &status.message)
            }
            // serde's message can quote the answer, and the answer can contain a token: keep neither.
            kube::Error::SerdeError(_) => Self::new(call, object, ErrorKind::UnreadableAnswer, "malformed response"),
            other => Self::new(call, object, ErrorKind::Unreachable, &chain(&other)),
        }
    }

    /// Whether the object does not exist.
    pub fn is_gone(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// Whether the object has changed or been replaced since it was read.
    pub fn is_conflict(&self) -> bool {
        self.kind == ErrorKind::Conflict
    }
}

/// The text of an error and its sources. Often only the last one says what happened ("connection refused").
fn chain(error: &dyn StdError) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(source) = next {
        let source_text = source.to_string();
        // Many errors of the HTTP client repeat their source.
        if !text.ends_with(&source_text) {
            text = format!("{text}: {source_text}");
        }
        next = source.source();
    }
    text
}

/// Turns "not found" into `None`.
pub(super) fn optional<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Turns "not found" and "replaced by another object" into success: the object to delete no longer exists.
pub(super) fn gone<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Err(error) if !error.is_gone() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn status_decides_the_kind() {
        let quota = "secrets \"a\" is forbidden: exceeded quota: daypass, requested: count/secrets=1, used: 10";
        let uncounted = "members.daypass.dev \"a\" is forbidden: status unknown for quota: daypass, resources: x";
        for (code, reason, message, kind) in [
            (404, "NotFound", "", ErrorKind::NotFound),
            (409, "AlreadyExists", "", ErrorKind::AlreadyExists),
            (409, "Conflict", "", ErrorKind::Conflict),
            (401, "Unauthorized", "", ErrorKind::Unauthorized),
            (403, "Forbidden", "no RBAC policy matched", ErrorKind::Forbidden),
            (403, "Forbidden", quota, ErrorKind::QuotaExceeded),
            (403, "Forbidden", uncounted, ErrorKind::QuotaUnknown),
            (429, "TooManyRequests", "", ErrorKind::Busy),
            (400, "BadRequest", "", ErrorKind::Invalid),
            (422, "Invalid", "", ErrorKind::Invalid),
            (500, "InternalError", "", ErrorKind::Server),
            (504, "Timeout", "", ErrorKind::Server),
        ] {
            let status = Status { code, reason: reason.into(), message: message.into(), ..Status::default() };
            let error = Error::of("get_member", "view.a", kube::Error::Api(Box::new(status)));
            assert_eq!(error.kind, kind, "{code} {reason} {message}");
            assert_eq!(error.to_string(), format!("get_member view.a: {}: {message}", kind.label()));
        }
    }

    #[test]
    fn transport_error_tells_its_sources_once() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = Error::of("get_member", "view.a", kube::Error::ReadEvents(refused));
        assert_eq!(error.kind, ErrorKind::Unreachable);
        // As `main` prints it.
        let text = format!("{:#}", anyhow::Error::from(error));
        assert_eq!(text.matches("connection refused").count(), 1, "{text}");
    }

    #[test]
    fn unreadable_answer_is_not_quoted() {
        let secret = serde_json::from_str::<u8>("\"dpm_secret\"").unwrap_err();
        let error = Error::of("create_token", "view.a", kube::Error::SerdeError(secret));
        assert_eq!(error.kind, ErrorKind::UnreadableAnswer);
        assert!(!error.to_string().contains("dpm_"), "{error}");
    }
}
