//! All calls to the Kubernetes API. Each has a name, a timeout and a counter; the callers decide what to call.
//!
//! A function that returns [`Error`] does so if the API server refuses the call, cannot be reached, does not answer in
//! time or answers malformed data, or if Daypass has too many calls in flight. Only further reasons are documented.

mod access_tokens;
mod audit_id;
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

pub use audit_id::with_audit_ids;
pub use error::{Error, ErrorKind};
pub(crate) use kubeconfig_secrets::Slot;
pub use lanes::Lane;
pub use lease::{LEASE_DURATION, LeaseState, RENEW_INTERVAL};
pub use members::{Lookup, StatusUpdate, Watched, WatchedMember};
pub use objects::PAGE;
pub use rbac::{Rbac, RbacKind, RbacObject};
pub use reviews::{Access, Identity, Privilege, Resource, Verb};
pub use role_namespaces::{RoleNamespace, SeenNamespace};
pub use service_accounts::Account;
pub use serving_cert::KeyPair;
pub use walls::Walls;
pub use watch::WatchEvent;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kube::{Client, Config};
use secrecy::ExposeSecret as _;

use self::client::{Pulse, RetryPolicy, client};
use self::error::{gone, optional};
use self::lanes::Lanes;
use self::own_token::OwnToken;
use crate::clock::{Clock, Entropy};
use crate::domain::token::{OwnClaims, decode_own_claims};
use crate::observability::metrics::{CallLabels, Metrics};

/// Label on a member's objects: the member's name.
pub const MEMBER_LABEL: &str = "daypass.dev/member";
/// Label on a member's objects: the Member's UID. `kubectl delete --cascade=orphan` strips owner references, but not
/// this label.
pub const MEMBER_UID_LABEL: &str = "daypass.dev/member-uid";

/// A client of the cluster that this Daypass serves. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// Watches have no timeout, so they get their own connections.
    watch_client: Client,
    /// Daypass's own namespace.
    namespace: String,
    /// Daypass's own token; `None` if it authenticates in another way.
    own_token: Option<Arc<OwnToken>>,
    pulse: Pulse,
    /// The lane that this handle's calls use.
    lane: Lane,
    lanes: Lanes,
    /// The last check of the walls, shared by all handles.
    last_wall_check: walls::LastCheck,
    /// For the times in the Lease.
    clock: Clock,
    /// For jitter and the names of short-lived objects.
    entropy: Entropy,
    metrics: Metrics,
}

impl Cluster {
    /// Builds the clients. Makes no call yet.
    ///
    /// # Errors
    /// If the configuration contains an unreadable certificate or credential.
    pub fn new(mut config: Config, namespace: String, clock: Clock, metrics: Metrics) -> kube::Result<Self> {
        // kube itself would retry a POST for minutes, so a creation reported as timed out could still happen later.
        config.default_retry = false;
        let own_token = OwnToken::take(&mut config)?.map(Arc::new);
        let pulse = Pulse::new(clock.clone());
        let lanes = Lanes::new(|retries| client(config.clone(), own_token.clone(), pulse.clone(), retries))?;
        Ok(Self {
            client: lanes.client(Lane::Requests),
            watch_client: client(config, own_token.clone(), pulse.clone(), RetryPolicy::REQUESTS)?,
            namespace,
            own_token,
            pulse,
            lane: Lane::Requests,
            lanes,
            last_wall_check: Arc::default(),
            clock,
            entropy: Entropy::default(),
            metrics,
        })
    }

    /// The same cluster, with calls in this lane.
    pub fn in_lane(&self, lane: Lane) -> Self {
        Self { lane, client: self.lanes.client(lane), ..self.clone() }
    }

    /// The claims of Daypass's own token; `None` if it has no token or the token is not a JWT.
    pub fn own_claims(&self) -> Option<OwnClaims> {
        decode_own_claims(self.own_token.as_ref()?.secret().expose_secret())
    }

    /// The time since the API server last answered; `None` if it never has.
    pub fn silence(&self) -> Option<Duration> {
        self.pulse.silence()
    }

    /// Waits for a free slot in the lane, runs the call under the lane's timeout and counts the outcome.
    async fn call<T>(
        &self,
        name: &'static str,
        object: &str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        let result = match self.lanes.acquire(self.lane).await {
            Some(_slot) => match tokio::time::timeout(self.lane.timeout(), call).await {
                Ok(answer) => answer.map_err(|error| Error::of(name, object, error)),
                Err(_) => Err(Error::new(name, object, ErrorKind::Timeout, "no response within the timeout")),
            },
            None => Err(Error::new(name, object, ErrorKind::NoRoom, "too many calls in flight")),
        };
        let outcome = result.as_ref().map_or_else(|error| error.kind.label(), |_| "ok");
        self.metrics.kubernetes_calls.get_or_create(&CallLabels { call: name, outcome }).inc();
        result
    }
}
