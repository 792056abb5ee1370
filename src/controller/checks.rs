//! The checks that run after each sweep, beside the members: none of them may delay an end.

use std::time::Duration;

use super::Controller;
use super::default_accounts::DefaultAccounts;
use super::quota::QuotaCheck;
use super::role_drift::RoleDriftCheck;
use super::token_sweep::sweep_tokens;
use crate::cluster::{Account, Walls};
use crate::domain::member::Member;
use crate::domain::role::{Role, RoleId};

/// What the checks remember from one sweep to the next. A new leader starts with nothing.
#[derive(Debug, Default)]
pub(super) struct Checks {
    role_drift: RoleDriftCheck,
    quotas: QuotaCheck,
    default_accounts: DefaultAccounts,
}

/// What the sweep saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) roles: Vec<Role>,
    pub(super) living: Vec<Member>,
    pub(super) defaults: Vec<(RoleId, Account)>,
}

impl Checks {
    /// Runs all checks once. A failure is logged, and the check is repeated after the next sweep.
    pub(super) async fn run(mut self, controller: &Controller, seen: Seen) -> Self {
        let Controller { cluster, membership, tokens, clock, metrics } = controller;
        if let Err(error) = sweep_tokens(tokens, clock).await {
            tracing::warn!(%error, "an access token could not be checked; the next sweep retries");
        }
        let failed = |error| tracing::warn!(%error, "a role could not be checked; the next sweep retries");
        // Without a role there is nothing to wall in.
        let walls = match seen.roles.first() {
            Some(role) => Some(cluster.walls(&role.id, Duration::ZERO).await),
            None => None,
        };
        metrics.walls.set(walls.as_ref().is_some_and(Walls::stand).into());
        if let Some(walls) = &walls {
            let replaced = self.default_accounts.check(cluster, walls, &seen.defaults, clock.now()).await;
            replaced.unwrap_or_else(failed);
        }
        self.quotas.check(cluster, &seen.roles).await.unwrap_or_else(failed);
        self.role_drift.check(cluster, membership, &seen.living).await.unwrap_or_else(failed);
        self
    }
}
