//! What each role can do, from watches of RBAC.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::{self, FuturesUnordered};
use futures::{Stream, StreamExt as _};

use super::held_rbac::HeldRbac;
use crate::clock::Clock;
use crate::cluster::{Cluster, RbacKind, RbacObject, WatchEvent};
use crate::domain::grants::{Grants, RbacName};
use crate::domain::role::RoleId;
use crate::observability::metrics::Metrics;

/// For this long after a watch is interrupted, what was known still counts. Then what roles can do is unknown.
const MAX_INTERRUPTION: Duration = Duration::from_secs(60);
/// The wait after a failed GET of a role.
const RETRY: Duration = Duration::from_secs(1);

/// What this replica knows of what roles can do: as the cluster was a moment ago. Cheap to clone.
#[derive(Clone)]
pub struct RightsView {
    state: Arc<Mutex<State>>,
    clock: Clock,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    held: HeldRbac,
    /// The watches that are interrupted, and since when.
    interrupted: BTreeMap<RbacKind, Instant>,
}

impl RightsView {
    /// A view that knows nothing until [`Self::watch`] runs.
    pub fn new(clock: Clock, metrics: Metrics) -> Self {
        Self { state: Arc::default(), clock, metrics }
    }

    /// What RBAC grants to a role; `None` if that is unknown: RBAC has not been read yet, or a watch of it has been
    /// interrupted for a minute.
    pub fn grants(&self, role: &RoleId) -> Option<Grants> {
        let state = self.lock();
        if state.is_outdated() { None } else { state.held.grants(role) }
    }

    /// The fingerprint of what RBAC grants to a role; `None` if some of that is unknown.
    pub fn role_hash(&self, role: &RoleId) -> Option<String> {
        let mut state = self.lock();
        if state.is_outdated() { None } else { state.held.role_hash(role) }
    }

    /// Keeps the view up to date. Never returns.
    pub async fn watch(&self, cluster: &Cluster) -> ! {
        let events = |kind: RbacKind| self.events(cluster, kind).boxed();
        let mut bindings = stream::select(events(RbacKind::ClusterRoleBindings), events(RbacKind::RoleBindings));
        let mut roles = stream::select(events(RbacKind::ClusterRoles), events(RbacKind::Roles));
        let mut reading = FuturesUnordered::new();
        loop {
            // Bindings first: so the first list of roles already knows which ones to keep.
            let knows_bindings = self.are_bindings_listed();
            tokio::select! {
                Some((kind, event)) = bindings.next() => self.apply(kind, event),
                Some((kind, event)) = roles.next(), if knows_bindings => self.apply(kind, event),
                Some(()) = reading.next(), if !reading.is_empty() => {}
            }
            let awaited = self.lock().held.awaited();
            if reading.is_empty() && !awaited.is_empty() {
                reading.push(self.read_roles(cluster, awaited));
            }
        }
    }

    fn events(
        &self,
        cluster: &Cluster,
        kind: RbacKind,
    ) -> impl Stream<Item = (RbacKind, WatchEvent<(RbacName, RbacObject)>)> + use<> {
        let view = self.clone();
        let is_held = move |name: &RbacName| view.lock().held.holds(kind, name);
        cluster.watch_rbac(kind, is_held).map(move |event| (kind, event))
    }

    fn are_bindings_listed(&self) -> bool {
        let state = self.lock();
        RbacKind::ALL.into_iter().filter(|kind| kind.are_bindings()).all(|kind| state.held.is_listed(kind))
    }

    fn apply(&self, kind: RbacKind, event: WatchEvent<(RbacName, RbacObject)>) {
        let mut state = self.lock();
        match &event {
            WatchEvent::Interrupted => {
                if state.interrupted.is_empty() {
                    tracing::warn!("a watch of RBAC is interrupted: what roles can do is not current from now on");
                    self.metrics.rights_outdated_since.set(self.clock.now().timestamp());
                }
                state.interrupted.entry(kind).or_insert_with(Instant::now);
            }
            WatchEvent::Listed if state.interrupted.remove(&kind).is_some() && state.interrupted.is_empty() => {
                tracing::info!("what roles can do is current again");
                self.metrics.rights_outdated_since.set(0);
            }
            _ => {}
        }
        state.held.apply(kind, event);
        self.measure(&state);
    }

    fn measure(&self, state: &State) {
        self.metrics.rbac_unreadable.set(i64::try_from(state.held.unreadable()).unwrap_or(i64::MAX));
    }

    /// Reads roles that a binding names and no event has told yet.
    async fn read_roles(&self, cluster: &Cluster, awaited: Vec<(RbacName, u64)>) {
        let mut failed = false;
        for (role, number) in awaited {
            match cluster.rbac_rules(&role).await {
                Ok(rules) => {
                    let mut state = self.lock();
                    state.held.answer(&role, number, rules);
                    self.measure(&state);
                }
                Err(error) => {
                    tracing::warn!(%error, "could not read a role: what is bound to it is unknown; retrying");
                    failed = true;
                }
            }
        }
        if failed {
            tokio::time::sleep(RETRY).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_outdated(&self) -> bool {
        self.interrupted.values().any(|since| since.elapsed() > MAX_INTERRUPTION)
    }
}
