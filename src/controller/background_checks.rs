//! The checks that run after each sweep, concurrently with it, so that they never delay the end of a member.

use std::sync::Arc;
use std::time::Duration;

use super::Controller;
use super::default_accounts::DefaultAccounts;
use super::quota::QuotaCheck;
use super::role_drift::RoleDriftCheck;
use super::token_sweep::sweep_tokens;
use crate::cluster::{Account, Walls};
use crate::domain::member::Member;
use crate::domain::role::{Role, RoleId};

/// The state that the checks keep between sweeps. A new leader starts empty.
#[derive(Debug, Default)]
pub(super) struct Checks {
    role_drift: RoleDriftCheck,
    quotas: QuotaCheck,
    default_accounts: DefaultAccounts,
}

/// What the checks need from a sweep.
#[derive(Debug, Default)]
pub(super) struct CheckInput {
    pub(super) roles: Vec<Role>,
    pub(super) living: Vec<Arc<Member>>,
    pub(super) defaults: Vec<(RoleId, Account)>,
}

impl Checks {
    /// Runs all checks once. A failed check is logged and runs again after the next sweep.
    pub(super) async fn run(mut self, controller: &Controller, input: CheckInput) -> Self {
        let Controller { cluster, tokens, clock, metrics, .. } = controller;
        if let Err(error) = sweep_tokens(tokens, clock).await {
            tracing::warn!(%error, "could not check all access tokens; the next sweep retries");
        }
        let failed = |error| tracing::warn!(%error, "could not check all roles; the next sweep retries");
        // Without a role there is nothing to protect.
        let walls = match input.roles.first() {
            Some(role) => Some(cluster.walls(&role.id, Duration::ZERO).await),
            None => None,
        };
        metrics.walls.set(walls.as_ref().is_some_and(Walls::stand).into());
        if let Some(walls) = &walls {
            let replaced = self.default_accounts.check(cluster, walls, &input.defaults, clock.now()).await;
            replaced.unwrap_or_else(failed);
        }
        self.quotas.check(cluster, &input.roles).await.unwrap_or_else(failed);
        self.role_drift.check(controller, &input.living).await.unwrap_or_else(failed);
        self
    }
}
