//! The checks that run every 30 s, beside the sweep and the queue, so that they never delay the end of a member.

use std::sync::Arc;
use std::time::Duration;

use super::Controller;
use super::default_accounts::DefaultAccounts;
use super::quota::QuotaCheck;
use super::role_drift::RoleDriftCheck;
use super::token_sweep::sweep_tokens;
use crate::cluster::{Account, Walls};
use crate::domain::member::Member;
use crate::domain::role::RoleId;

/// The state that the checks keep from one run to the next. A new leader starts empty.
#[derive(Debug, Default)]
pub(super) struct Checks {
    role_drift: RoleDriftCheck,
    quotas: QuotaCheck,
    default_accounts: DefaultAccounts,
    /// The roles' `default` service accounts, as the last sweep found them.
    defaults: Vec<(RoleId, Account)>,
}

impl Checks {
    /// Takes in what a sweep has found.
    pub(super) fn found_defaults(&mut self, defaults: Vec<(RoleId, Account)>) {
        self.defaults = defaults;
    }

    /// Takes back the state after a run. Keeps what a sweep has found meanwhile.
    pub(super) fn resume(&mut self, done: Self) {
        let defaults = std::mem::take(&mut self.defaults);
        *self = done;
        if !defaults.is_empty() {
            self.defaults = defaults;
        }
    }

    /// Runs all checks once. A failed check is logged and runs again the next time.
    pub(super) async fn run(mut self, controller: &Controller) -> Self {
        controller.feed.complete().await;
        let roles = controller.feed.roles.all();
        let living = show_members(controller);
        let Controller { cluster, clock, metrics, .. } = controller;
        if let Err(error) = sweep_tokens(controller).await {
            tracing::warn!(%error, "could not check all access tokens; the next run retries");
        }
        let failed = |error| tracing::warn!(%error, "could not check all roles; the next run retries");
        // Without a role there is nothing to protect.
        let walls = match roles.first() {
            Some(role) => Some(cluster.walls(&role.id, Duration::ZERO).await),
            None => None,
        };
        metrics.walls.set(walls.as_ref().is_some_and(Walls::stand).into());
        if let Some(walls) = &walls {
            let replaced = self.default_accounts.check(cluster, walls, &mut self.defaults, clock.now()).await;
            replaced.unwrap_or_else(failed);
        }
        self.quotas.check(cluster, &roles).await.unwrap_or_else(failed);
        self.role_drift.check(controller, &living).await.unwrap_or_else(failed);
        self
    }
}

/// Shows in the metrics what the feed knows of members and roles. Returns the live members.
fn show_members(controller: &Controller) -> Vec<Arc<Member>> {
    let Controller { feed, metrics, .. } = controller;
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
    living
}
