//! What is looked at beside the members after each sweep: nothing of it may keep an end waiting.

use std::time::Duration;

use super::default_accounts::DefaultAccounts;
use super::quota_watch::QuotaWatch;
use super::rights_watch::RightsWatch;
use super::token_sweep::sweep_tokens;
use crate::cluster::{AccessTokens, Account, Walls};
use crate::domain::member::Member;
use crate::domain::role::{Role, RoleId};

/// What one look remembers for the next; a new leader begins without.
#[derive(Debug, Default)]
pub(super) struct Watches {
    rights: RightsWatch,
    quotas: QuotaWatch,
    defaults: DefaultAccounts,
}

/// What the sweep saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) roles: Vec<Role>,
    pub(super) living: Vec<Member>,
    pub(super) defaults: Vec<(RoleId, Account)>,
}

impl Watches {
    /// Looks once. What fails is logged, and looked at again after the next sweep.
    pub(super) async fn look(mut self, tokens: &AccessTokens, seen: Seen) -> Self {
        let cluster = &tokens.cluster;
        if let Err(error) = sweep_tokens(tokens).await {
            tracing::warn!(%error, "an access token could not be looked at; it is after the next sweep");
        }
        let failed = |error| tracing::warn!(%error, "a role could not be looked at; it is after the next sweep");
        // Without a role there is nothing for them to stand around.
        let walls = match seen.roles.first() {
            Some(role) => Some(cluster.walls(&role.id, Duration::ZERO).await),
            None => None,
        };
        cluster.metrics.walls.set(walls.as_ref().is_some_and(Walls::stand).into());
        if let Some(walls) = &walls {
            self.defaults.look(cluster, walls, &seen.defaults).await.unwrap_or_else(failed);
        }
        self.quotas.look(cluster, &seen.roles).await.unwrap_or_else(failed);
        self.rights.look(cluster, &seen.living).await.unwrap_or_else(failed);
        self
    }
}
