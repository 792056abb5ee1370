//! Notices when a role is given more rights under its living members.

use std::collections::{BTreeMap, HashMap};

use crate::cluster::{Cluster, Error};
use crate::domain::member::Member;
use crate::domain::rights::{Rule, fingerprint, is_wider};
use crate::domain::role::RoleId;
use crate::membership::Membership;
use crate::observability::audit::{Actor, Cause};

/// What roles could do when they were looked at.
#[derive(Debug, Default)]
pub(super) struct RoleDriftCheck {
    seen: HashMap<RoleId, Seen>,
}

/// The rules that a role has, and those that it had when one of its members was given it, each by their fingerprint.
type Seen = HashMap<String, Vec<Rule>>;

impl RoleDriftCheck {
    /// Compares what the roles of these members can do with what their statuses say, and records and reports what has
    /// changed. A change that cannot be recorded does not keep the others from being.
    ///
    /// # Errors
    /// When the rights cannot be read, or a change cannot be recorded, the first of them; the next look finds it
    /// again.
    pub(super) async fn check(
        &mut self,
        cluster: &Cluster,
        membership: &Membership,
        members: &[Member],
    ) -> Result<(), Error> {
        let mut roles: BTreeMap<&RoleId, Vec<&Member>> = BTreeMap::new();
        for member in members {
            roles.entry(&member.id.role).or_default().push(member);
        }
        if roles.is_empty() {
            return Ok(());
        }
        let rbac = cluster.rbac().await?;
        let skewed = membership.clock_skewed();
        let mut done = Ok(());
        for (role, members) in roles {
            let rules = rbac.grants(role).rules;
            let hash = fingerprint(&rules);
            let seen = self.seen.entry(role.clone()).or_default();
            // What is not recorded yet is about to be; who does that reports what is new, which a write from here
            // would hide.
            let recorded = members.iter().filter(|member| member.is_recorded(skewed));
            for member in recorded.filter(|member| member.status.role_hash.as_ref() != Some(&hash)) {
                let widened = is_widened(member.status.role_hash.as_ref(), seen, &rules);
                let cause = Cause::internal(&Actor::Kubernetes);
                done = done.and(membership.record_role_change(member, &hash, widened, cause).await);
            }
            // A member whose status could not be written is compared again, with what the role could do when it was
            // given.
            seen.retain(|hash, _| members.iter().any(|member| member.status.role_hash.as_ref() == Some(hash)));
            seen.insert(hash, rules);
        }
        done
    }
}

/// Whether a member of this fingerprint can do more by `rules`. A change that cannot be shown to take rights away only
/// counts as one that gives some.
fn is_widened(granted: Option<&String>, seen: &Seen, rules: &[Rule]) -> bool {
    let Some(granted) = granted else { return false };
    seen.get(granted).is_none_or(|before| is_wider(before, rules))
}
