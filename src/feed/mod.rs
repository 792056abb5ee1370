//! What each replica knows of the cluster from its watches and its own writes.
//!
//! It finds objects without a call; a credential, and what a caller may do, are decided on live reads.

mod held_rbac;
mod members;
mod rights;
mod roles;

pub use members::{Change, Members};
pub use rights::RightsView;
pub use roles::Roles;

use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;

use crate::clock::Clock;
use crate::cluster::{Cluster, Error, Lane};
use crate::domain::role::{Role, RoleId};
use crate::observability::metrics::Metrics;

/// The feed of one replica. Cheap to clone.
#[derive(Clone)]
#[expect(missing_docs, reason = "the types say it")]
pub struct Feed {
    pub members: Arc<Members>,
    pub roles: Arc<Roles>,
    pub rights: RightsView,
}

impl Feed {
    /// A feed that knows nothing until [`Self::follow`] runs.
    pub fn new(clock: Clock, metrics: Metrics) -> Self {
        Self { members: Arc::default(), roles: Arc::default(), rights: RightsView::new(clock, metrics) }
    }

    /// Follows the cluster. Never returns.
    pub async fn follow(&self, cluster: &Cluster) -> ! {
        // A flood of requests must not delay it.
        let cluster = &cluster.in_lane(Lane::Ends);
        let mut members = pin!(cluster.watch_members());
        let mut roles = pin!(cluster.watch_namespaces());
        let mut rights = pin!(self.rights.watch(cluster));
        loop {
            tokio::select! {
                Some(event) = members.next() => self.members.apply(event),
                Some(event) = roles.next() => self.roles.apply(event),
                never = &mut rights => never,
            }
        }
    }

    /// The role of this id; `None` if there is none. Asks the API server for one that is not known: it may be new.
    ///
    /// # Errors
    /// When that call fails.
    pub async fn role(&self, cluster: &Cluster, id: &RoleId) -> Result<Option<Role>, Error> {
        match self.roles.get(id) {
            Some(role) => Ok(Some(role)),
            None => cluster.role(id).await,
        }
    }

    /// Whether everything has been listed once. Until then, nothing is known.
    pub fn is_complete(&self) -> bool {
        *self.members.is_complete().borrow() && *self.roles.is_complete().borrow()
    }

    /// Waits until everything has been listed once.
    pub async fn complete(&self) {
        for mut is_complete in [self.members.is_complete(), self.roles.is_complete()] {
            // Fails only without a sender, which `self` holds.
            let _ = is_complete.wait_for(|is_complete| *is_complete).await;
        }
    }
}
