//! The sweep: everything in every role namespace, looked at without a hint. It finds what events, expiries or earlier processes
//! left undone and hands it to the same reconciliation.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::Controller;
use super::plan::Observed;
use crate::cluster::{Account, Cluster, Error, Lookup};
use crate::domain::id::MemberId;
use crate::domain::kubeconfig::KubeconfigRecord;
use crate::domain::member::Member;
use crate::domain::role::{Role, RoleId};

/// What a sweep found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Members that need something done now.
    pub(super) due: BTreeSet<MemberId>,
    /// When the others need to be looked at.
    pub(super) wakes: Vec<(MemberId, DateTime<Utc>)>,
    /// The living members.
    pub(super) living: Vec<Member>,
    /// The roles.
    pub(super) roles: Vec<Role>,
    /// Their `default` service accounts.
    pub(super) defaults: Vec<(RoleId, Account)>,
    unreadable: i64,
    overdue_seconds: i64,
    /// Roles that could not be swept.
    pub(super) failures: Vec<Error>,
}

/// Sweeps every role; one that fails does not keep the others from being swept.
///
/// # Errors
/// When the roles cannot be listed.
pub(super) async fn sweep(controller: &Controller) -> Result<Found, Error> {
    let metrics = &controller.metrics;
    let namespaces = controller.cluster.role_namespaces().await?;
    for name in &namespaces.ignored {
        tracing::warn!(namespace = %name, "has only the name or only the label of a role namespace and is no role");
    }
    let mut found = Found::default();
    for role in &namespaces.roles {
        if let Err(error) = sweep_role(controller, &role.id, &mut found).await {
            found.failures.push(error);
        }
    }
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    metrics.namespaces_ignored.set(count(namespaces.ignored.len()));
    metrics.members.set(count(found.living.len()));
    metrics.members_unreadable.set(found.unreadable);
    #[expect(clippy::cast_precision_loss, reason = "seconds of a delay")]
    metrics.overdue_seconds.set(found.overdue_seconds as f64);
    metrics.sweeps.inc();
    found.roles = namespaces.roles;
    Ok(found)
}

async fn sweep_role(controller: &Controller, role: &RoleId, found: &mut Found) -> Result<(), Error> {
    let cluster = &controller.cluster;
    // The Members last: then what has none among them is an orphan and not one whose Member was made in between.
    let secrets = cluster.list_role_secrets(role).await?;
    let accounts = cluster.list_accounts(role).await?;
    let listed = cluster.list_members(role).await?;
    let now = controller.clock.now();
    let clock_skewed = controller.membership.clock_skewed();

    let mut names: BTreeMap<MemberId, Observed> = BTreeMap::new();
    let nothing = || Observed { member: Lookup::Missing, account: None, secrets: Vec::new(), clock_skewed };
    for member in listed.members {
        if member.is_live(now) {
            found.living.push(member.clone());
        } else if !member.deleting {
            found.overdue_seconds = found.overdue_seconds.max((now - member.expires_at()).num_seconds());
        }
        let entry = names.entry(member.id.clone()).or_insert_with(nothing);
        entry.member = Lookup::Found(Box::new(member));
    }
    for (name, why) in listed.unreadable {
        found.unreadable += 1;
        tracing::warn!(role = %role, member = %name, %why, "a Member cannot be read; it is treated as ended");
        if let Some(id) = MemberId::new(role.clone(), &name) {
            names.entry(id).or_insert_with(nothing).member = Lookup::Unreadable(why);
        }
    }
    let (defaults, accounts): (Vec<_>, Vec<_>) = accounts.into_iter().partition(|account| account.name == "default");
    found.defaults.extend(defaults.into_iter().map(|account| (role.clone(), account)));
    for account in accounts {
        match MemberId::new(role.clone(), &account.name) {
            Some(id) => names.entry(id).or_insert_with(nothing).account = Some(account),
            None => found.failures.extend(remove_foreign_account(cluster, role, &account).await.err()),
        }
    }
    for secret in secrets {
        match secret.member.as_deref().and_then(|name| MemberId::new(role.clone(), name)) {
            Some(id) => names.entry(id).or_insert_with(nothing).secrets.push(secret),
            None => found.failures.extend(remove_foreign_secret(cluster, role, &secret).await.err()),
        }
    }
    for (id, observed) in names {
        let plan = observed.plan(now);
        if !plan.steps.is_empty() {
            found.due.insert(id);
        } else if let Some(wake) = plan.wake {
            found.wakes.push((id, wake));
        }
    }
    Ok(())
}

/// A service account under a name that no member can have: nobody but Daypass has any business in a role namespace.
async fn remove_foreign_account(cluster: &Cluster, role: &RoleId, account: &Account) -> Result<(), Error> {
    if account.deleting {
        return Ok(());
    }
    tracing::warn!(role = %role, account = %account.name, "removing a service account that is no member's");
    cluster.delete_account(role, account).await
}

/// A Secret that names no member.
async fn remove_foreign_secret(cluster: &Cluster, role: &RoleId, secret: &KubeconfigRecord) -> Result<(), Error> {
    if secret.deleting {
        return Ok(());
    }
    tracing::warn!(role = %role, secret = %secret.name, "removing a Secret that is no kubeconfig's");
    cluster.delete_secret(role, secret).await
}
