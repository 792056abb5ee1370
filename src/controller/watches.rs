//! What is looked at beside the members after each sweep: nothing of it may keep an end waiting.

use std::time::Duration;

use super::quota_watch::QuotaWatch;
use super::rights_watch::RightsWatch;
use super::token_sweep::sweep_tokens;
use crate::cluster::AccessTokens;
use crate::domain::member::Member;
use crate::domain::role::Role;

/// What one look remembers for the next; a new leader begins without.
#[derive(Debug, Default)]
pub(super) struct Watches {
    rights: RightsWatch,
    quotas: QuotaWatch,
}

impl Watches {
    /// Looks once. What fails is logged, and looked at again after the next sweep.
    pub(super) async fn look(mut self, tokens: &AccessTokens, roles: Vec<Role>, living: Vec<Member>) -> Self {
        let cluster = &tokens.cluster;
        if let Err(error) = sweep_tokens(tokens).await {
            tracing::warn!(%error, "an access token could not be looked at; it is after the next sweep");
        }
        let failed = |error| tracing::warn!(%error, "a role could not be looked at; it is after the next sweep");
        // Without a role there is nothing for them to stand around.
        let walls = match roles.first() {
            Some(role) => cluster.walls(&role.id, Duration::ZERO).await.stand(),
            None => false,
        };
        cluster.metrics.walls.set(i64::from(walls));
        self.quotas.look(cluster, &roles).await.unwrap_or_else(failed);
        self.rights.look(cluster, &living).await.unwrap_or_else(failed);
        self
    }
}
