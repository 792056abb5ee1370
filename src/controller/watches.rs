//! What is looked at beside the members after each sweep: nothing of it may keep an end waiting.

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
        // What cannot be found out counts as the worse.
        let mut walls = false;
        if let Some(role) = roles.first() {
            walls = cluster.has_walls(&role.id).await.map_err(failed).unwrap_or_default();
        }
        cluster.metrics.walls.set(i64::from(walls));
        self.quotas.look(cluster, &roles).await.unwrap_or_else(failed);
        self.rights.look(cluster, &living).await.unwrap_or_else(failed);
        self
    }
}
