//! Kubernetes I/O. Every call has a name, a timeout and a counter; nothing here decides.

mod accounts;
mod issue;
mod kubeconfigs;
mod lease;
mod lifecycle;
mod members;
mod objects;
mod own_account;
mod reviews;
mod rights;
mod roles;
mod serving_cert;
mod tokens;
mod watch;

pub use accounts::Account;
pub use issue::{IssueError, IssuedToken};
pub use kubeconfigs::{Issued, KubeconfigSecret};
pub use lease::{LEASE_DURATION, LeaseState, RENEW_INTERVAL};
pub use lifecycle::{Cause, Ending};
pub use members::{Listed, Lookup, WatchedMember};
pub use reviews::{Access, Identity, Privilege, Resource, Verb};
pub use rights::{Grants, Rbac};
pub use roles::RoleNamespaces;
pub use serving_cert::KeyPair;
pub use tokens::{AccessTokens, CreateTokenError, IdentityConfig, NewToken, TokenLogin};
pub use watch::WatchEvent;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::DateTime;
use futures::future::BoxFuture;
use http::header::DATE;
use kube::client::{ClientBuilder, DynBody};
use kube::{Client, Config};
use tower::util::MapFutureLayer;

use crate::audit::Audit;
use crate::clock::{Clock, Entropy};
use crate::metrics::{CallLabels, Metrics};

/// The longest that one call may take. A caller of the REST API waits for a few of them.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Label on what belongs to a member: its name.
pub const MEMBER_LABEL: &str = "daypass.dev/member";
/// Label on what belongs to a member: its UID, which owner references carry too; `--cascade=orphan` strips those.
pub const MEMBER_UID_LABEL: &str = "daypass.dev/member-uid";

/// The cluster, as Daypass may reach it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// A connection of their own for watches, which have no timeout.
    watch_client: Client,
    /// Daypass's own namespace.
    namespace: String,
    /// When the API server last answered.
    last_answer: Arc<Mutex<Option<Instant>>>,
    /// The API server's time.
    pub clock: Clock,
    /// Random bits.
    pub entropy: Entropy,
    /// The audit trail.
    pub audit: Audit,
    /// Counters and gauges.
    pub metrics: Metrics,
}

/// What went wrong with a call, as far as a caller acts on it.
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
    Timeout,
    Unreachable,
    Server,
    UnreadableAnswer,
}

impl ErrorKind {
    fn label(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::QuotaExceeded => "quota_exceeded",
            Self::QuotaUnknown => "quota_unknown",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Invalid => "invalid",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Server => "server_error",
            Self::UnreadableAnswer => "unreadable_answer",
        }
    }
}

/// A failed call to the Kubernetes API. For the log; it never reaches a client of Daypass.
#[derive(Debug, thiserror::Error)]
#[error("{call} {object}: {}: {detail}", kind.label())]
pub struct Error {
    /// The call's name.
    pub call: &'static str,
    /// On which object.
    pub object: String,
    /// What kind of failure.
    pub kind: ErrorKind,
    detail: String,
}

impl Error {
    pub(crate) fn new(call: &'static str, object: &str, kind: ErrorKind, detail: &str) -> Self {
        Self { call, object: object.to_owned(), kind, detail: detail.to_owned() }
    }

    fn of(call: &'static str, object: &str, error: &kube::Error) -> Self {
        let kind = match error {
            kube::Error::Api(status) => match (status.code, status.reason.as_str()) {
                (404, _) => ErrorKind::NotFound,
                (409, "AlreadyExists") => ErrorKind::AlreadyExists,
                (409, _) => ErrorKind::Conflict,
                // ResourceQuota answers Forbidden, as a missing right does; only the message tells them apart.
                (403, _) if status.message.contains("exceeded quota") => ErrorKind::QuotaExceeded,
                (403, _) if status.message.contains("status unknown for quota") => ErrorKind::QuotaUnknown,
                (401, _) => ErrorKind::Unauthorized,
                (403, _) => ErrorKind::Forbidden,
                (400 | 422, _) => ErrorKind::Invalid,
                _ => ErrorKind::Server,
            },
            kube::Error::SerdeError(_) => ErrorKind::UnreadableAnswer,
            _ => ErrorKind::Unreachable,
        };
        let detail = match error {
            kube::Error::Api(status) => status.message.clone(),
            // serde's message can quote the answer, and an answer can hold a token.
            kube::Error::SerdeError(_) => "the answer is not of the expected form".to_owned(),
            other => format!("{:#}", anyhow::anyhow!(other.to_string())),
        };
        Self { call, object: object.to_owned(), kind, detail }
    }

    /// Whether the API server answered, if only by a refusal.
    fn is_answer(&self) -> bool {
        // Where its own token is refused, Daypass can do nothing.
        !matches!(self.kind, ErrorKind::Unauthorized | ErrorKind::Timeout | ErrorKind::Unreachable | ErrorKind::Server)
    }

    /// Whether the object was not there, or is not the one meant any more.
    pub fn is_gone(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// Whether somebody else changed or replaced the object meanwhile.
    pub fn is_conflict(&self) -> bool {
        self.kind == ErrorKind::Conflict
    }
}

/// Turns "not found" into `None`.
fn optional<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Turns "not found" and "no longer the one meant" into success, for what is to be gone.
fn gone<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Err(error) if !error.is_gone() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

impl Cluster {
    /// Prepares the clients; nothing is called yet.
    ///
    /// # Errors
    /// When the configuration holds an unreadable certificate or credential.
    pub fn new(
        mut config: Config,
        namespace: String,
        clock: Clock,
        audit: Audit,
        metrics: Metrics,
    ) -> kube::Result<Self> {
        // kube's own retries replay a POST for minutes: a create that was answered by a timeout would happen later.
        config.default_retry = false;
        Ok(Self {
            client: client(config.clone(), &clock)?,
            watch_client: client(config, &clock)?,
            namespace,
            last_answer: Arc::default(),
            clock,
            entropy: Entropy::default(),
            audit,
            metrics,
        })
    }

    /// How long ago the API server last answered; `None` when it never has.
    pub fn silence(&self) -> Option<Duration> {
        self.last_answer.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }

    /// Runs a call under its timeout and counts how it ended.
    async fn call<T>(
        &self,
        name: &'static str,
        object: &str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        let result = match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(answer) => answer.map_err(|error| Error::of(name, object, &error)),
            Err(_) => Err(Error::new(name, object, ErrorKind::Timeout, "no answer within 10 s")),
        };
        if result.as_ref().err().is_none_or(Error::is_answer) {
            *self.last_answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        let outcome = result.as_ref().map_or_else(|error| error.kind.label(), |_| "ok");
        self.metrics.kubernetes_calls.get_or_create(&CallLabels { call: name, outcome }).inc();
        result
    }
}

/// A client that learns the API server's time from every answer.
fn client(config: Config, clock: &Clock) -> kube::Result<Client> {
    let clock = clock.clone();
    let learn = MapFutureLayer::new(move |answer: Answer| {
        let clock = clock.clone();
        let sent = clock.local();
        async move {
            let answer = answer.await?;
            let date = answer.headers().get(DATE).and_then(|value| value.to_str().ok());
            if let Some(date) = date.and_then(|text| DateTime::parse_from_rfc2822(text).ok()) {
                clock.learn(date.to_utc(), sent, clock.local());
            }
            Ok::<_, tower::BoxError>(answer)
        }
    });
    Ok(ClientBuilder::try_from(config)?.with_layer(&learn).build())
}

type Answer = BoxFuture<'static, Result<http::Response<Box<DynBody>>, tower::BoxError>>;
