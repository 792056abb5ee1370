//! What each replica knows of the cluster from its watches and its own writes.
//!
//! It finds objects without a call; a credential, and what a caller may do, are decided on live reads.

mod beat;
mod ended;
mod held_rbac;
mod members;
mod rights;
mod roles;

pub use beat::Beat;
pub use ended::{EndedMember, EndedMembers};
pub use members::{Change, Members};
pub use rights::RightsView;
pub use roles::Roles;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::cluster::{Cluster, Error, Lane};
use crate::domain::role::{Role, RoleId};
use crate::observability::metrics::Metrics;

/// How long the first list of roles may take.
const LIST: Duration = Duration::from_secs(1);

/// The feed of one replica. Cheap to clone.
#[derive(Clone)]
#[expect(missing_docs, reason = "the types say it")]
pub struct Feed {
    pub members: Arc<Members>,
    pub ended: Arc<EndedMembers>,
    pub roles: Arc<Roles>,
    pub rights: RightsView,
    pub beat: Beat,
    clock: Clock,
}

impl Feed {
    /// A feed that knows nothing until [`Self::follow`] runs.
    pub fn new(clock: Clock, metrics: Metrics) -> Self {
        Self {
            members: Arc::default(),
            ended: Arc::default(),
            clock: clock.clone(),
            roles: Arc::default(),
            rights: RightsView::new(clock, metrics),
            beat: Beat::default(),
        }
    }

    /// Follows the cluster. Never returns.
    pub async fn follow(&self, cluster: &Cluster) -> ! {
        // A flood of requests must not delay it.
        let cluster = &cluster.in_lane(Lane::Ends);
        let mut members = Box::pin(cluster.watch_members());
        let mut roles = pin!(cluster.watch_namespaces());
        let mut rights = pin!(self.rights.watch(cluster));
        let mut beat = pin!(self.beat.run(cluster));
        let mut ended = pin!(self.ended.follow(self.members.changes(), &self.clock));
        loop {
            tokio::select! {
                Some(event) = members.next() => {
                    let sign = self.beat.read(&event);
                    self.members.apply(event);
                    self.beat.take(sign);
                }
                () = self.beat.silent() => {
                    tracing::warn!("the watch of Members does not show what was written; beginning again");
                    members = Box::pin(cluster.watch_members());
                }
                Some(event) = roles.next() => self.roles.apply(event),
                never = &mut rights => never,
                never = &mut beat => never,
                never = &mut ended => never,
            }
        }
    }

    /// The role of this id; `None` if there is none. Asks the API server for one that is not known: it may be new.
    ///
    /// # Errors
    /// When that call fails.
    pub async fn role(&self, cluster: &Cluster, id: &RoleId) -> Result<Option<Role>, Error> {
        // At the start, one list is cheaper than a call for each member. It may fail, and an end does not wait for it.
        let mut is_complete = self.roles.is_complete();
        let _ = timeout(LIST, is_complete.wait_for(|is_complete| *is_complete)).await;
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
