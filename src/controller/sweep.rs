//! The sweep: reads all objects in every role namespace and finds the members that need a reconcile, whether an event,
//! an expiry or an earlier process missed them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::Controller;
use super::plan::Observed;
use crate::cluster::{Account, Cluster, Error, Lookup, PAGE};
use crate::domain::kubeconfig_secret::KubeconfigSecret;
use crate::domain::member::Member;
use crate::domain::member_id::MemberId;
use crate::domain::role::{Role, RoleId};

/// The result of a sweep.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Members to reconcile now.
    pub(super) due: BTreeSet<MemberId>,
    /// When to reconcile the others.
    pub(super) wakes: Vec<(MemberId, DateTime<Utc>)>,
    /// The live members.
    pub(super) living: Vec<Arc<Member>>,
    /// The roles.
    pub(super) roles: Vec<Role>,
    /// Their `default` service accounts.
    pub(super) defaults: Vec<(RoleId, Account)>,
    /// How many pages the lists took beyond their first.
    pub(super) more_pages: u32,
    /// What went wrong, one error for each role or foreign object.
    pub(super) failures: Vec<Error>,
}

/// Sweeps every role. A role that fails is noted in [`Found::failures`], and the others are still swept.
pub(super) async fn sweep(controller: &Controller) -> Found {
    let Controller { feed, metrics, .. } = controller;
    feed.complete().await;
    let (roles, mut found) = (feed.roles.all(), Found::default());
    for role in &roles {
        if let Err(error) = sweep_role(controller, &role.id, &mut found).await {
            found.failures.push(error);
        }
    }
    let ignored = feed.roles.ignored();
    for name in &ignored {
        tracing::warn!(namespace = %name, "ignoring a namespace that has only the name or only the label of a role");
    }
    let (members, unreadable) = feed.members.all();
    let now = controller.clock.now();
    let (living, ended): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| member.is_live(now));
    let overdue = ended.iter().filter(|member| !member.deleting).map(|member| now - member.expires_at()).max();
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    metrics.namespaces_ignored.set(count(ignored.len()));
    metrics.members.set(count(living.len()));
    metrics.members_unreadable.set(count(unreadable));
    #[expect(clippy::cast_precision_loss, reason = "seconds of a delay")]
    metrics.overdue_seconds.set(overdue.map_or(0, |overdue| overdue.num_seconds().max(0)) as f64);
    metrics.sweeps.inc();
    Found { living, roles, ..found }
}

async fn sweep_role(controller: &Controller, role: &RoleId, found: &mut Found) -> Result<(), Error> {
    let cluster = &controller.cluster;
    // List the Members last: otherwise the account of a member created in between looks like an orphan.
    let secrets = cluster.list_role_secrets(role).await?;
    let accounts = cluster.list_accounts(role).await?;
    let listed = cluster.list_members(role).await?;
    let now = controller.clock.now();

    let mut names = Names { role, clock_skewed: controller.clock.is_skewed(), observed: BTreeMap::new() };
    let lengths = [secrets.len(), accounts.len(), listed.members.len()];
    found.more_pages += lengths.map(more_pages).iter().sum::<u32>();
    for member in listed.members {
        controller.feed.members.observe(&member);
        let entry = names.entry(member.id.clone());
        entry.member = Lookup::Found(Box::new(member));
    }
    for (name, why) in listed.unreadable {
        tracing::warn!(role = %role, member = %name, %why, "a Member cannot be read; treating it as ended");
        if let Some(entry) = names.named(&name) {
            entry.member = Lookup::Unreadable(why);
        }
    }
    // Those that the list does not have are gone, or were created after it. A live read tells.
    let known = controller.feed.members.live(|of| of == role, now);
    let unlisted = known.into_iter().map(|member| member.id.clone()).filter(|id| !names.observed.contains_key(id));
    found.due.extend(unlisted);
    let (defaults, accounts): (Vec<_>, Vec<_>) = accounts.into_iter().partition(|account| account.name == "default");
    found.defaults.extend(defaults.into_iter().map(|account| (role.clone(), account)));
    for account in accounts {
        match names.named(&account.name) {
            Some(entry) => entry.account = Some(account),
            None => found.failures.extend(remove_foreign_account(cluster, role, &account).await.err()),
        }
    }
    for secret in secrets {
        match secret.member.as_deref().and_then(|name| names.named(name)) {
            Some(entry) => entry.secrets.push(secret),
            None => found.failures.extend(remove_foreign_secret(cluster, role, &secret).await.err()),
        }
    }
    names.observed.into_iter().for_each(|(id, observed)| found.queue(id, &observed, now));
    Ok(())
}

/// How many pages a list of so many objects takes beyond its first.
fn more_pages(objects: usize) -> u32 {
    u32::try_from(objects / PAGE).unwrap_or(u32::MAX)
}

/// The objects in a role namespace, by member.
struct Names<'a> {
    role: &'a RoleId,
    clock_skewed: bool,
    observed: BTreeMap<MemberId, Observed>,
}

impl Names<'_> {
    fn entry(&mut self, id: MemberId) -> &mut Observed {
        let clock_skewed = self.clock_skewed;
        let nothing = || Observed { member: Lookup::Missing, account: None, secrets: Vec::new(), clock_skewed };
        self.observed.entry(id).or_insert_with(nothing)
    }

    /// The entry of this name; `None` if no member can have it.
    fn named(&mut self, name: &str) -> Option<&mut Observed> {
        MemberId::new(self.role.clone(), name).map(|id| self.entry(id))
    }
}

impl Found {
    /// Notes when to reconcile a member.
    fn queue(&mut self, id: MemberId, observed: &Observed, now: DateTime<Utc>) {
        let plan = observed.plan(now);
        if !plan.steps.is_empty() {
            self.due.insert(id);
        } else if let Some(wake) = plan.wake {
            self.wakes.push((id, wake));
        }
    }
}

/// Deletes a service account with a name that no member can have. A role namespace belongs to Daypass alone.
async fn remove_foreign_account(cluster: &Cluster, role: &RoleId, account: &Account) -> Result<(), Error> {
    if account.deleting {
        return Ok(());
    }
    tracing::warn!(role = %role, account = %account.name, "removing a service account that belongs to no member");
    cluster.delete_account(role, account).await
}

/// Deletes a Secret that names no member.
async fn remove_foreign_secret(cluster: &Cluster, role: &RoleId, secret: &KubeconfigSecret) -> Result<(), Error> {
    if secret.deleting {
        return Ok(());
    }
    tracing::warn!(role = %role, secret = %secret.name, "removing a Secret that belongs to no kubeconfig");
    cluster.delete_secret(role, &secret.name, &secret.uid).await
}
