//! Detects when a role changes while it has live members, above all when it gains rights.

use std::collections::{BTreeMap, HashMap};

use super::Controller;
use crate::cluster::Error;
use crate::domain::member::Member;
use crate::domain::rights::{Rule, fingerprint, is_wider};
use crate::domain::role::RoleId;
use crate::observability::audit::{Actor, Cause};

/// The rules of each role, as earlier checks found them.
#[derive(Debug, Default)]
pub(super) struct RoleDriftCheck {
    known: HashMap<RoleId, KnownRules>,
}

/// A role's current rules and the rules that its live members were given, by fingerprint.
type KnownRules = HashMap<String, Vec<Rule>>;

impl RoleDriftCheck {
    /// Compares the rules of these members' roles with the fingerprints in their statuses, and records and reports
    /// each change.
    ///
    /// # Errors
    /// When the rules cannot be read, or the first change that could not be recorded. The others are still recorded,
    /// and the next check retries.
    pub(super) async fn check(&mut self, controller: &Controller, members: &[Member]) -> Result<(), Error> {
        let mut roles: BTreeMap<&RoleId, Vec<&Member>> = BTreeMap::new();
        for member in members {
            roles.entry(&member.id.role).or_default().push(member);
        }
        if roles.is_empty() {
            return Ok(());
        }
        let rbac = controller.cluster.rbac().await?;
        let skewed = controller.clock.is_skewed();
        let mut done = Ok(());
        for (role, members) in roles {
            let rules = rbac.grants(role).rules;
            let hash = fingerprint(&rules);
            let known = self.known.entry(role.clone()).or_default();
            // Skip members without a recorded status: provisioning is about to write it and reports what is new. A
            // write from here would hide that.
            let recorded = members.iter().filter(|member| member.is_recorded(skewed));
            for member in recorded.filter(|member| member.status.role_hash.as_ref() != Some(&hash)) {
                let widened = is_widened(member.status.role_hash.as_ref(), known, &rules);
                let cause = Cause::internal(&Actor::Kubernetes);
                done = done.and(controller.membership.record_role_change(member, &hash, widened, cause).await);
            }
            // Keep older rules while a member still has their fingerprint: if its status could not be written, the
            // next check compares with them again.
            known.retain(|hash, _| members.iter().any(|member| member.status.role_hash.as_ref() == Some(hash)));
            known.insert(hash, rules);
        }
        done
    }
}

/// Whether `rules` give a member more than the rules with the fingerprint `granted`. `true` in doubt.
fn is_widened(granted: Option<&String>, known: &KnownRules, rules: &[Rule]) -> bool {
    let Some(granted) = granted else { return false };
    known.get(granted).is_none_or(|before| is_wider(before, rules))
}
