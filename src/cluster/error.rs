//! Errors of calls to the Kubernetes API, classified by how a caller reacts.

use std::error::Error as StdError;

use crate::domain::walls::WALLS;

/// Why a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are HTTP's and Kubernetes'")]
pub enum ErrorKind {
    NotFound,
    AlreadyExists,
    Conflict,
    /// A ResourceQuota is used up: [`Error::exceeded_quota`] says which.
    QuotaExceeded,
    QuotaUnknown,
    /// Somebody's admission webhook or admission policy refused the call, with any status.
    RefusedByPolicy,
    Unauthorized,
    /// RBAC, or a wall that does not match this installation, refused the call.
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
            Self::RefusedByPolicy => "refused_by_policy",
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
        // First, since a webhook chooses its status. A 404 or 409 of its own must not count as "already deleted".
        if is_refused_by_policy(message) {
            return Self::RefusedByPolicy;
        }
        match (code, reason) {
            (404, _) => Self::NotFound,
            (409, "AlreadyExists") => Self::AlreadyExists,
            (409, _) => Self::Conflict,
            // ResourceQuota answers 403, as RBAC does; only the message tells them apart.
            (403, _) if why_forbidden(message).starts_with(EXCEEDED_QUOTA) => Self::QuotaExceeded,
            (403, _) if why_forbidden(message).starts_with("status unknown for quota: ") => Self::QuotaUnknown,
            (401, _) => Self::Unauthorized,
            (403, _) => Self::Forbidden,
            (429, _) => Self::Busy,
            (400..=499, _) => Self::Invalid,
            _ => Self::Server,
        }
    }
}

/// The reason in "members.daypass.dev "a" is forbidden: the reason", or the whole text.
fn why_forbidden(message: &str) -> &str {
    message.split_once(" is forbidden: ").map_or(message, |(_, why)| why)
}

/// How ResourceQuota begins its refusals (plugin/resourcequota/controller.go of k8s.io/apiserver/pkg/admission).
const EXCEEDED_QUOTA: &str = "exceeded quota: ";

/// Whether the message is a refusal by an admission webhook or an admission policy of somebody else. Only the message
/// tells: webhooks choose any status, and policies one of several. The API server writes its beginning
/// (plugin/webhook/errors/statuserror.go, plugin/policy/validating/dispatcher.go and, for mutating policies,
/// plugin/policy/generic/policy_dispatcher.go). A webhook that fails to answer is an ordinary 500.
fn is_refused_by_policy(message: &str) -> bool {
    if let Some(webhook) = message.strip_prefix("admission webhook \"") {
        return webhook.contains("\" denied the request");
    }
    let mutating = message.strip_prefix("policy '");
    let policy = mutating.or_else(|| why_forbidden(message).strip_prefix("ValidatingAdmissionPolicy '"));
    let Some(policy) = policy else { return false };
    // A wall that refuses Daypass is a fault of the installation, like a missing right.
    let is_wall = WALLS.iter().any(|wall| policy.strip_prefix(wall.name).is_some_and(|rest| rest.starts_with('\'')));
    policy.contains(" denied request: ") && !is_wall
}

/// The ResourceQuota that refused a creation.
#[derive(Debug, PartialEq, Eq)]
pub struct ExceededQuota<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it leaves no room for (`count/secrets`), separated by commas.
    pub resources: String,
}

impl ExceededQuota<'_> {
    /// Whether it is the limit on a role's members, which the chart sets.
    pub fn limits_members(&self) -> bool {
        self.name == "daypass" && self.resources == "count/members.daypass.dev"
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

    /// The error after too many conflicts.
    pub(crate) fn changed_too_often(call: &'static str, object: &str) -> Self {
        Self::new(call, object, ErrorKind::Conflict, "changed too often")
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

    /// The quota behind [`ErrorKind::QuotaExceeded`].
    pub fn exceeded_quota(&self) -> Option<ExceededQuota<'_>> {
        // "exceeded quota: NAME, requested: RESOURCE=1,RESOURCE=1, used: …"
        let (name, rest) = why_forbidden(&self.detail).strip_prefix(EXCEEDED_QUOTA)?.split_once(", requested: ")?;
        let requested = rest.split_once(", used: ")?.0;
        let resources: Vec<_> = requested.split(',').filter_map(|of| Some(of.split_once('=')?.0)).collect();
        Some(ExceededQuota { name, resources: resources.join(", ") })
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
            (403, "Forbidden", "a is forbidden: User \"x\" cannot create: exceeded quota: a", ErrorKind::Forbidden),
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
    fn refusal_by_a_policy_is_told_by_its_message_alone() {
        let webhook = "admission webhook \"a.example.com\" denied the request: exceeded quota: x";
        let silent = "admission webhook \"a.example.com\" denied the request without explanation";
        let policy = "secrets \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: x";
        let mutating = "policy 'p' with binding 'b' denied request: x";
        let like_a_wall = policy.replace("'p'", "'daypass-members-too'");
        for message in [webhook, silent, policy, mutating, &like_a_wall] {
            for (code, reason) in [
                (400, ""),
                (401, "Unauthorized"),
                (403, "Forbidden"),
                (404, "NotFound"),
                (409, "AlreadyExists"),
                (409, "Conflict"),
                (413, ""),
                (422, "Invalid"),
                (429, "TooManyRequests"),
                (500, "InternalError"),
            ] {
                assert_eq!(
                    ErrorKind::of_status(code, reason, message),
                    ErrorKind::RefusedByPolicy,
                    "{code} {message}"
                );
            }
        }
        let unreachable = "Internal error occurred: failed calling webhook \"a.example.com\": connection refused";
        assert_eq!(ErrorKind::of_status(500, "InternalError", unreachable), ErrorKind::Server);
        let wall = policy.replace("'p'", "'daypass-role-secrets'");
        assert_eq!(ErrorKind::of_status(403, "Forbidden", &wall), ErrorKind::Forbidden);
    }

    #[test]
    fn exceeded_quota_is_named() {
        let error = |quota: &str, requested: &str| {
            let detail =
                format!("secrets \"a\" is forbidden: exceeded quota: {quota}, requested: {requested}, used: x=1");
            Error::new("create_secret", "view.a", ErrorKind::QuotaExceeded, &detail)
        };
        let foreign = error("team", "count/secrets=1,secrets=1");
        let quota = foreign.exceeded_quota().unwrap();
        assert_eq!((quota.name, &*quota.resources), ("team", "count/secrets, secrets"));
        for (name, requested, limits_members) in [
            ("daypass", "count/members.daypass.dev=1", true),
            ("team", "count/members.daypass.dev=1", false),
            ("daypass", "count/secrets=1", false),
        ] {
            let error = error(name, requested);
            assert_eq!(error.exceeded_quota().unwrap().limits_members(), limits_members, "{name} {requested}");
        }
        assert_eq!(Error::new("create_secret", "view.a", ErrorKind::Forbidden, "no").exceeded_quota(), None);
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
