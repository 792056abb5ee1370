//! `GET /members/roles`.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::role_view::RoleSummary;
use crate::api::problem::Problem;
use crate::api::request_context::RequestContext;
use crate::api::settings::Kubeconfigs;
use crate::authn::Caller;
use crate::cluster::{Access, Resource, Verb};
use crate::domain::grants::Grants;
use crate::domain::lifetime::MembershipDuration;
use crate::domain::rights::{Escape, Rights};
use crate::domain::role::Role;

/// A role that the caller may give.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Role)]
pub(crate) struct RoleView {
    // A description would stand beside the schema's reference.
    #[serde(flatten)]
    pub(crate) summary: RoleSummary,
    /// The longest that a member may last, in seconds from its creation. Null if the role's limit cannot be read:
    /// then nobody can become a member.
    #[schema(required = true, minimum = 1, maximum = 172800)]
    pub(crate) max_duration_seconds: Option<i64>,
    /// Whether it may open streams (watches, logs, shells) that nobody closes when the member ends. False if its
    /// members get gateway kubeconfigs: the gateway closes their streams.
    pub(crate) streams_outlive_member: bool,
    /// Whether its members cannot leave the role or stay in it after their end.
    pub(crate) contained: bool,
    /// Why it is not contained; empty if it is.
    #[schema(value_type = Vec<crate::api::schemas::EscapeSchema>)]
    pub(crate) escapes: Vec<Escape>,
}

/// How old the result of checking the walls may be. A check takes two calls per policy.
const WALLS_AGE: Duration = Duration::from_secs(30);

/// The roles.
#[derive(Serialize, ToSchema)]
pub(crate) struct RoleList {
    /// The roles, by id.
    pub(crate) items: Vec<RoleView>,
    /// Whether all of Daypass's admission policies are in force as this version ships them. At most 30 s old; false if
    /// that is unknown.
    pub(crate) walls: bool,
}

/// List the roles that the caller may give
#[utoipa::path(
    get,
    path = "/members/roles",
    tag = "members",
    responses((status = 200, description = "The roles", body = RoleList)),
    security(("kubernetesToken" = []), ("accessToken" = ["members:read"]), ("accessTokenBasic" = ["members:read"]))
)]
pub(super) async fn list_roles(context: RequestContext, caller: Caller) -> Result<axum::Json<RoleList>, Problem> {
    context.roles(&caller).await.map(axum::Json)
}

impl RequestContext {
    /// The roles that the caller may give.
    pub(crate) async fn roles(&self, caller: &Caller) -> Result<RoleList, Problem> {
        let access = Access { verb: Verb::Create, resource: Resource::Members };
        let roles = self.allowed_roles(caller, access).await?;
        let cluster = &self.state.cluster;
        let walls = match roles.first() {
            Some(role) => cluster.walls(&role.id, WALLS_AGE).await.stand(),
            None => false,
        };
        let (rights, kubeconfigs) = (&self.state.feed.rights, &self.state.settings.kubeconfigs);
        let view = |role: Role| {
            let grants = rights.grants(&role.id);
            RoleView::new(role, grants, walls, kubeconfigs)
        };
        let items = roles.into_iter().map(view).collect();
        Ok(RoleList { items, walls })
    }
}

impl RoleView {
    fn new(role: Role, grants: Option<Grants>, walls: bool, kubeconfigs: &Kubeconfigs) -> Self {
        let rights = grants.as_ref().map_or_else(Rights::unknown, |grants| grants.rights(walls));
        let max_duration = role.max_duration.unwrap_or(Ok(MembershipDuration::MAX));
        let is_direct = kubeconfigs.direct_for(Some(&role), Some(&rights)).is_some();
        Self {
            summary: RoleSummary::new(role, grants.as_ref(), &rights),
            max_duration_seconds: max_duration.ok().map(|max| max.get().num_seconds()),
            streams_outlive_member: is_direct && rights.streams_outlive_member,
            contained: rights.escapes.is_empty(),
            escapes: rights.escapes.into_iter().collect(),
        }
    }
}
