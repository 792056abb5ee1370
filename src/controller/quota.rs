//! Gets the quota of a new role counted.
//!
//! Kubernetes' quota controller finds a new CRD within half a minute. A quota that it counted before that knows no Members, so they are
//! refused, by kubectl too, until it is counted again: some minutes later, or when something in the namespace is deleted.

use std::collections::HashSet;

use crate::cluster::{Cluster, Error};
use crate::domain::role::{Role, RoleId};

/// The roles whose Members the quota is known to count.
#[derive(Debug, Default)]
pub(super) struct QuotaCheck {
    counted: HashSet<RoleId>,
}

impl QuotaCheck {
    /// Looks at each role until its quota counts. One that cannot be looked at does not keep the others from being.
    ///
    /// # Errors
    /// When a role cannot be looked at, the first of them; the next look tries it again.
    pub(super) async fn check(&mut self, cluster: &Cluster, roles: &[Role]) -> Result<(), Error> {
        let mut done = Ok(());
        for role in roles {
            if !self.counted.contains(&role.id) {
                done = done.and(self.check_role(cluster, &role.id).await);
            }
        }
        done
    }

    async fn check_role(&mut self, cluster: &Cluster, role: &RoleId) -> Result<(), Error> {
        if cluster.is_quota_counted(role).await? {
            self.counted.insert(role.clone());
            return Ok(());
        }
        tracing::info!(role = %role, "the quota does not count Members yet");
        cluster.nudge_quota(role).await
    }
}
