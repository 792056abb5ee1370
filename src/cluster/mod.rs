//! Kubernetes I/O: every call has a name, a timeout and a counter. What to call is decided elsewhere.

mod access_tokens;
mod client;
mod error;
mod issuer;
mod kubeconfig_secrets;
mod lanes;
mod lease;
mod members;
mod objects;
mod own_account;
mod own_token;
pub mod pem;
mod rbac;
mod reviews;
mod role_namespaces;
mod service_accounts;
mod serving_cert;
mod walls;
mod watch;

pub use error::{Error, ErrorKind};
pub use lanes::Lane;
pub use lease::{LEASE_DURATION, LeaseState, RENEW_INTERVAL};
pub use members::{Listed, Lookup, StatusUpdate, WatchedMember};
pub use rbac::{Grants, Rbac};
pub use reviews::{Access, Identity, Privilege, Resource, Verb};
pub use role_namespaces::RoleNamespaces;
pub use service_accounts::Account;
pub use serving_cert::KeyPair;
pub use walls::Walls;
pub use watch::WatchEvent;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kube::{Client, Config};
use secrecy::ExposeSecret as _;

use self::client::{Patience, Pulse, client};
use self::error::{gone, optional};
use self::lanes::Lanes;
use self::own_token::OwnToken;
use crate::clock::{Clock, Entropy};
use crate::domain::token::{OwnClaims, decode_own_claims};
use crate::observability::metrics::{CallLabels, Metrics};

/// Label on what belongs to a member: its name.
pub const MEMBER_LABEL: &str = "daypass.dev/member";
/// Label on what belongs to a member: its UID. Owner references carry it too, but `--cascade=orphan` strips those.
pub const MEMBER_UID_LABEL: &str = "daypass.dev/member-uid";

/// The cluster that this Daypass serves. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// Watches have connections of their own, since they have no timeout.
    watch_client: Client,
    /// Daypass's own namespace.
    namespace: String,
    /// The token that Daypass calls with, where it has one.
    own_token: Option<Arc<OwnToken>>,
    pulse: Pulse,
    /// What the calls of this handle are for.
    lane: Lane,
    lanes: Lanes,
    /// The last check of the walls, shared by all handles.
    last_look: walls::LastLook,
    /// For the times that the Lease records.
    clock: Clock,
    /// For jitter, and for the names of objects that live for a moment.
    entropy: Entropy,
    metrics: Metrics,
}

impl Cluster {
    /// Prepares the clients. It calls nothing yet.
    ///
    /// # Errors
    /// When the configuration holds an unreadable certificate or credential.
    pub fn new(mut config: Config, namespace: String, clock: Clock, metrics: Metrics) -> kube::Result<Self> {
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
                Ok(answer) => answer.map_err(|error| Error::of(name, object, error)),
                Err(_) => Err(Error::new(name, object, ErrorKind::Timeout, "no answer in time")),
            },
            None => Err(Error::new(name, object, ErrorKind::NoRoom, "too many calls are under way")),
        };
        let outcome = result.as_ref().map_or_else(|error| error.kind.label(), |_| "ok");
        self.metrics.kubernetes_calls.get_or_create(&CallLabels { call: name, outcome }).inc();
        result
    }
}
