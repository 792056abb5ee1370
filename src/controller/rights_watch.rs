//! Notices when a role is given more rights under its living members.

use std::collections::{BTreeMap, HashMap};

use crate::audit::{Actor, Origin};
use crate::cluster::{Cause, Cluster, Error};
use crate::domain::member::Member;
use crate::domain::rights::{Rule, fingerprint, is_wider};
use crate::domain::role::RoleId;

/// What each role could do when it was last looked at.
#[derive(Debug, Default)]
pub(super) struct RightsWatch {
    seen: HashMap<RoleId, Seen>,
}

#[derive(Debug)]
struct Seen {
    hash: String,
    rules: Vec<Rule>,
}

impl RightsWatch {
    /// Compares what the roles of these members can do with what their statuses say, and records and reports what has changed.
    ///
    /// # Errors
    /// When the rights cannot be read, or one change cannot be recorded; the next look finds it again.
    pub(super) async fn look(&mut self, cluster: &Cluster, members: &[Member]) -> Result<(), Error> {
        let mut roles: BTreeMap<&RoleId, Vec<&Member>> = BTreeMap::new();
        // What is not recorded yet is about to be; who does that reports what is new, which a write from here would hide.
        let skewed = cluster.clock_skewed();
        for member in members.iter().filter(|member| member.is_recorded(skewed)) {
            roles.entry(&member.id.role).or_default().push(member);
        }
        if roles.is_empty() {
            return Ok(());
        }
        let rbac = cluster.rbac().await?;
        let origin = Origin::default();
        for (role, members) in roles {
            let rules = rbac.grants(role).rules;
            let hash = fingerprint(&rules);
            for member in members.into_iter().filter(|member| member.status.role_hash.as_ref() != Some(&hash)) {
                let widened = self.is_widened(member, &rules);
                let cause = Cause { actor: &Actor::Kubernetes, owner: None, origin: &origin };
                cluster.record_role_change(member, &hash, widened, cause).await?;
            }
            self.seen.insert(role.clone(), Seen { hash, rules });
        }
        Ok(())
    }

    /// A change that cannot be shown to take rights away only counts as one that gives some.
    fn is_widened(&self, member: &Member, rules: &[Rule]) -> bool {
        let Some(granted) = &member.status.role_hash else { return false };
        match self.seen.get(&member.id.role) {
            Some(seen) if seen.hash == *granted => is_wider(&seen.rules, rules),
            _ => true,
        }
    }
}
