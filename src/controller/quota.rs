//! Makes Kubernetes recount the quota of a new role.
//!
//! The quota controller discovers a new CRD within half a minute. A quota that it counted before then has no count of
//! Members, so the API server refuses to create any (with kubectl too) until the next recount. That happens some
//! minutes later, or when something in the namespace is deleted.

use std::collections::HashSet;

use crate::cluster::{Cluster, Error};
use crate::domain::role::{Role, RoleId};

/// The roles with a quota that is known to count Members.
#[derive(Debug, Default)]
pub(super) struct QuotaCheck {
    counted: HashSet<RoleId>,
}

impl QuotaCheck {
    /// Checks each role until its quota counts Members.
    ///
    /// # Errors
    /// The first role that could not be checked. The others are still checked, and the next check retries.
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
        tracing::info!(role = %role, "the quota does not count Members yet; triggering a recount");
        cluster.nudge_quota(role).await
    }
}
