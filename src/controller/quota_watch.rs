//! Gets the quota of a new role counted.
//!
//! Kubernetes' quota controller finds a new CRD within half a minute. A quota that it counted before that knows no Members, so they are
//! refused, by kubectl too, until it is counted again: some minutes later, or when something in the namespace is deleted.

use std::collections::HashSet;

use crate::cluster::{Cluster, Error};
use crate::domain::role::{Role, RoleId};

/// The roles whose Members the quota is known to count.
#[derive(Debug, Default)]
pub(super) struct QuotaWatch {
    counted: HashSet<RoleId>,
}

impl QuotaWatch {
    /// Looks at each role until its quota counts.
    ///
    /// # Errors
    /// When a role cannot be looked at; the next look begins with it.
    pub(super) async fn look(&mut self, cluster: &Cluster, roles: &[Role]) -> Result<(), Error> {
        for role in roles {
            if self.counted.contains(&role.id) {
                continue;
            }
            if cluster.is_quota_counted(&role.id).await? {
                self.counted.insert(role.id.clone());
            } else {
                tracing::info!(role = %role.id, "the quota does not count Members yet");
                cluster.nudge_quota(&role.id).await?;
            }
        }
        Ok(())
    }
}
