//! Detects when a role changes while it has live members, above all when it gains rights.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Controller;
use crate::cluster::{Error, Rbac};
use crate::domain::grants::Grants;
use crate::domain::member::Member;
use crate::domain::rights::{Rule, is_wider};
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
    /// Compares what these members' roles can do with the fingerprints in their statuses, and records and reports each
    /// change. Makes no call to find out that nothing has changed: it compares with what this replica sees by its
    /// watches. That may lag behind what a member was given, so a difference counts only if a list of RBAC shows it.
    ///
    /// # Errors
    /// When RBAC cannot be listed, or the first change that could not be recorded. The others are still recorded, and
    /// the next check retries.
    pub(super) async fn check(&mut self, controller: &Controller, members: &[Arc<Member>]) -> Result<(), Error> {
        let mut roles: BTreeMap<&RoleId, Vec<&Member>> = BTreeMap::new();
        for member in members {
            roles.entry(&member.id.role).or_default().push(member);
        }
        if roles.is_empty() {
            return Ok(());
        }
        let (mut listed, mut are_known, mut done) = (None, true, Ok(()));
        for (role, members) in roles {
            let Some(mut now) = Current::of(controller.feed.rights.grants(role)) else {
                tracing::warn!(%role, "cannot tell whether the role has gained rights: what it can do is unknown");
                are_known = false;
                continue;
            };
            if members.iter().any(|member| differs(member, &now)) {
                let rbac: &Rbac = match &listed {
                    Some(rbac) => rbac,
                    None => listed.insert(controller.cluster.rbac().await?),
                };
                let Some(confirmed) = Current::of(Some(rbac.grants(role))) else { continue };
                now = confirmed;
            }
            done = done.and(self.check_role(controller, role, &members, now).await);
        }
        if are_known {
            tracing::debug!("compared what roles can do with what their members were given");
        }
        done
    }

    async fn check_role(
        &mut self,
        controller: &Controller,
        role: &RoleId,
        members: &[&Member],
        now: Current,
    ) -> Result<(), Error> {
        let skewed = controller.clock.is_skewed();
        let known = self.known.entry(role.clone()).or_default();
        let mut done = Ok(());
        // Skip members without a recorded status: provisioning is about to write it and reports what is new. A write
        // from here would hide that.
        let recorded = members.iter().filter(|member| member.is_recorded(skewed));
        for member in recorded.filter(|member| member.status.role_hash.as_ref() != Some(&now.hash)) {
            let widened = is_widened(member.status.role_hash.as_ref(), known, &now.rules);
            let cause = Cause::internal(&Actor::Kubernetes);
            done = done.and(controller.membership.record_role_change(member, &now.hash, widened, cause).await);
        }
        // Keep older rules while a member still has their fingerprint: if its status could not be written, the next
        // check compares with them again.
        known.retain(|hash, _| members.iter().any(|member| member.status.role_hash.as_ref() == Some(hash)));
        known.insert(now.hash, now.rules);
        done
    }
}

/// What a role can do now.
struct Current {
    hash: String,
    rules: Vec<Rule>,
}

impl Current {
    /// `None` if some of it is unknown.
    fn of(grants: Option<Grants>) -> Option<Self> {
        let grants = grants?;
        Some(Self { hash: grants.fingerprint()?, rules: grants.rules })
    }
}

/// Whether a member was given something else than what its role can do now.
fn differs(member: &Member, now: &Current) -> bool {
    member.status.role_hash.as_ref().is_some_and(|granted| *granted != now.hash)
}

/// Whether `rules` give a member more than the rules with the fingerprint `granted`. `true` in doubt.
fn is_widened(granted: Option<&String>, known: &KnownRules, rules: &[Rule]) -> bool {
    let Some(granted) = granted else { return false };
    known.get(granted).is_none_or(|before| is_wider(before, rules))
}
