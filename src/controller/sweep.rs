//! The sweep: reads all objects in every role namespace and finds the members that need a reconcile, whether an event,
//! an expiry or an earlier process missed them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use chrono::TimeDelta;

use super::Controller;
use super::comparison::Comparison;
use crate::cluster::{Account, Cluster, Error, PAGE};
use crate::domain::kubeconfig_secret::KubeconfigSecret;
use crate::domain::member::Member;
use crate::domain::member_id::MemberId;
use crate::domain::role::RoleId;

/// The result of a sweep.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Members to reconcile now.
    pub(super) due: BTreeSet<MemberId>,
    /// The roles' `default` service accounts.
    pub(super) defaults: Vec<(RoleId, Account)>,
    /// How many calls it took to find this.
    pub(super) calls: u32,
    /// What went wrong, one error for each role or foreign object.
    pub(super) failures: Vec<Error>,
}

/// Sweeps every role. A role that fails is noted in [`Found::failures`], and the others are still swept.
pub(super) async fn sweep(controller: &Controller) -> Found {
    let Controller { feed, metrics, .. } = controller;
    feed.complete().await;
    let (roles, mut found) = (feed.roles.all(), Found::default());
    if let Err(error) = sweep_members(controller, &mut found).await {
        found.failures.push(error);
    }
    for role in &roles {
        if let Err(error) = sweep_role(controller, &role.id, &mut found).await {
            found.failures.push(error);
        }
    }
    metrics.sweeps.inc();
    found
}

/// Compares all Members with the feed, so that it has what it missed. Notes those that only a live read can tell of,
/// because only one of the two has them.
async fn sweep_members(controller: &Controller, found: &mut Found) -> Result<(), Error> {
    let members = &controller.feed.members;
    let before = members.all().0;
    let mut unlisted: HashMap<&MemberId, &Arc<Member>> = before.iter().map(|member| (&member.id, member)).collect();
    let mut objects = 0;
    let listed = controller.cluster.list_members(|listed| {
        objects += 1;
        let (id, before) = (listed.id.clone(), unlisted.remove(&listed.id));
        if !members.compare(listed, before) {
            found.due.insert(id);
        }
    });
    listed.await?;
    found.calls += pages(objects);
    found.due.extend(unlisted.into_keys().cloned());
    Ok(())
}

/// Compares the service accounts and Secrets of a role with the Members that the feed knows.
async fn sweep_role(controller: &Controller, role: &RoleId, found: &mut Found) -> Result<(), Error> {
    let cluster = &controller.cluster;
    let members = controller.feed.members.of_role(role);
    let now = controller.clock.now();
    let mut comparison = Comparison::new(&members, controller.clock.is_skewed(), now);
    let (mut secrets, mut accounts) = (0, 0);
    let foreign_secrets = cluster.list_role_secrets(role, |secret| {
        secrets += 1;
        match secret.member.as_deref().and_then(|name| MemberId::new(role.clone(), name)) {
            Some(id) => comparison.secret(id, &secret),
            None => return Some(secret),
        }
        None
    });
    let foreign_secrets = foreign_secrets.await?;
    let others = cluster.list_accounts(role, |account| {
        accounts += 1;
        match MemberId::new(role.clone(), &account.name) {
            Some(id) => comparison.account(id, &account),
            None => return Some(account),
        }
        None
    });
    let others = others.await?;
    found.calls += pages(secrets) + pages(accounts);
    // The comparison does not know one that was created meanwhile. It is the next sweep's.
    let is_new =
        |id: &MemberId| controller.living(id).is_some_and(|member| member.created_at + TimeDelta::seconds(1) > now);
    found.due.extend(comparison.due().into_iter().filter(|id| !is_new(id)));

    let (defaults, foreign): (Vec<_>, Vec<_>) = others.into_iter().partition(|account| account.name == "default");
    found.defaults.extend(defaults.into_iter().map(|account| (role.clone(), account)));
    for account in foreign {
        found.failures.extend(remove_foreign_account(cluster, role, &account).await.err());
    }
    for secret in foreign_secrets {
        found.failures.extend(remove_foreign_secret(cluster, role, &secret).await.err());
    }
    Ok(())
}

/// How many pages a list of so many objects takes.
fn pages(objects: usize) -> u32 {
    u32::try_from(objects / PAGE + 1).unwrap_or(u32::MAX)
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
