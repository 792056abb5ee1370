//! `GET /members/roles`.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::problem::Problem;
use crate::api::request_context::RequestContext;
use crate::authn::Caller;
use crate::cluster::{Access, Resource, Verb};
use crate::domain::grants::Grants;
use crate::domain::rights::{Escape, Rights};
use crate::domain::role::Role;

/// A role that the caller may give.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Role)]
pub(super) struct RoleView {
    /// The id, for `roleId`.
    #[schema(example = "projects-view")]
    id: String,
    /// Display name.
    #[schema(example = "View All Projects")]
    name: String,
    /// What it is for.
    description: String,
    /// Whether it only allows get, list and watch, and no secrets. Computed from the cluster's RBAC; false if that
    /// cannot be read.
    read_only: bool,
    /// Whether it may open streams (watches, logs, shells) that the API server does not close when the member ends.
    streams_outlive_member: bool,
    /// Whether its members cannot leave the role or stay in it after their end.
    contained: bool,
    /// Why it is not contained; empty if it is.
    #[schema(value_type = Vec<crate::api::schemas::EscapeSchema>)]
    escapes: Vec<Escape>,
    /// The namespaces that it covers; null for all.
    #[schema(required = true)]
    namespaces: Option<Vec<String>>,
}

/// How old the result of checking the walls may be. A check takes two calls per policy.
const WALLS_AGE: Duration = Duration::from_secs(30);

/// The roles.
#[derive(Serialize, ToSchema)]
pub(super) struct RoleList {
    /// The roles, by id.
    items: Vec<RoleView>,
    /// Whether all of Daypass's admission policies are in force as this version ships them. At most 30 s old; false if
    /// that is unknown.
    walls: bool,
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
    let access = Access { verb: Verb::Create, resource: Resource::Members };
    let roles = context.allowed_roles(&caller, access).await?;
    let cluster = &context.state.cluster;
    let walls = match roles.first() {
        Some(role) => cluster.walls(&role.id, WALLS_AGE).await.stand(),
        None => false,
    };
    let rights = &context.state.feed.rights;
    let view = |role: Role| {
        let grants = rights.grants(&role.id);
        RoleView::new(role, grants, walls)
    };
    let items = roles.into_iter().map(view).collect();
    Ok(axum::Json(RoleList { items, walls }))
}

impl RoleView {
    fn new(role: Role, grants: Option<Grants>, walls: bool) -> Self {
        let rights = grants.as_ref().map_or_else(Rights::unknown, |grants| grants.rights(walls));
        Self {
            id: role.id.to_string(),
            name: role.name,
            description: role.description,
            read_only: rights.read_only,
            streams_outlive_member: rights.streams_outlive_member,
            contained: rights.escapes.is_empty(),
            escapes: rights.escapes.into_iter().collect(),
            namespaces: grants.and_then(|grants| grants.namespaces).map(|names| names.into_iter().collect()),
        }
    }
}
