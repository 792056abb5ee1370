//! Kubernetes I/O. Every call has a name, a timeout and a counter; nothing here decides.

mod accounts;
mod client;
mod issue;
mod kubeconfigs;
mod lanes;
mod lease;
mod lifecycle;
mod members;
mod objects;
mod own_account;
mod own_token;
mod reviews;
mod rights;
mod roles;
mod serving_cert;
mod tokens;
mod walls;
mod watch;

pub use accounts::Account;
pub use issue::{IssueError, IssuedToken};
pub use kubeconfigs::{Issued, KubeconfigSecret};
pub use lanes::Lane;
pub use lease::{LEASE_DURATION, LeaseState, RENEW_INTERVAL};
pub use lifecycle::{Cause, Ending};
pub use members::{Listed, Lookup, WatchedMember};
pub use reviews::{Access, Identity, Privilege, Resource, Verb};
pub use rights::{Grants, Rbac};
pub use roles::RoleNamespaces;
pub use serving_cert::KeyPair;
pub use tokens::{AccessTokens, CreateTokenError, IdentityConfig, NewToken, TokenLogin};
pub use walls::Walls;
pub use watch::WatchEvent;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kube::{Client, Config};
use secrecy::ExposeSecret as _;

use self::client::{Patience, Pulse, client};
use self::lanes::Lanes;
use self::own_token::OwnToken;
use crate::audit::Audit;
use crate::clock::{Clock, Entropy};
use crate::domain::token::{OwnClaims, decode_own_claims};
use crate::metrics::{CallLabels, Metrics};

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
    /// What it calls with, where that is a token.
    own_token: Option<Arc<OwnToken>>,
    pulse: Pulse,
    /// What the calls of this handle are for.
    lane: Lane,
    lanes: Lanes,
    /// What the walls were like when somebody last looked.
    last_look: walls::LastLook,
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
    /// The API server has no room for it (429), and had none when it was sent again.
    Busy,
    /// Not sent: Daypass has as many calls under way as it may have.
    NoRoom,
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
            Self::Busy => "too_many_requests",
            Self::NoRoom => "no_room",
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
                (429, _) => ErrorKind::Busy,
                (400..=499, _) => ErrorKind::Invalid,
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
        let own_token = OwnToken::take(&mut config)?.map(Arc::new);
        let pulse = Pulse::new(clock.clone());
        let lanes = Lanes::new(|patience| client(config.clone(), own_token.clone(), pulse.clone(), patience))?;
        Ok(Self {
            client: lanes.client(Lane::Requests),
            watch_client: client(config, own_token.clone(), pulse.clone(), Patience::CALLS)?,
            namespace,
            own_token,
            pulse,
            lane: Lane::Requests,
            lanes,
            last_look: Arc::default(),
            clock,
            entropy: Entropy::default(),
            audit,
            metrics,
        })
    }

    /// The same cluster, for calls of this lane.
    pub fn in_lane(&self, lane: Lane) -> Self {
        Self { lane, client: self.lanes.client(lane), ..self.clone() }
    }

    /// What Daypass's own token says of itself, where it has one.
    pub fn own_claims(&self) -> Option<OwnClaims> {
        decode_own_claims(self.own_token.as_ref()?.secret().expose_secret())
    }

    /// How long ago the API server last answered; `None` when it never has.
    pub fn silence(&self) -> Option<Duration> {
        self.pulse.silence()
    }

    /// Runs a call once there is room for it, under its timeout, and counts how it ended.
    async fn call<T>(
        &self,
        name: &'static str,
        object: &str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        let result = match self.lanes.enter(self.lane).await {
            Some(_room) => match tokio::time::timeout(self.lane.timeout(), call).await {
                Ok(answer) => answer.map_err(|error| Error::of(name, object, &error)),
                Err(_) => Err(Error::new(name, object, ErrorKind::Timeout, "no answer in time")),
            },
            None => Err(Error::new(name, object, ErrorKind::NoRoom, "too many calls are under way")),
        };
        let outcome = result.as_ref().map_or_else(|error| error.kind.label(), |_| "ok");
        self.metrics.kubernetes_calls.get_or_create(&CallLabels { call: name, outcome }).inc();
        result
    }
}
