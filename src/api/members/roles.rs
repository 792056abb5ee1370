//! `GET /members/roles`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::auth::Caller;
use crate::api::context::Context;
use crate::api::problem::Problem;
use crate::cluster::{Access, Resource, Verb};
use crate::domain::role::RoleId;

/// A role that the caller may give.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Role)]
pub(super) struct RoleView {
    /// The id, for `roleId`.
    #[schema(example = "projects-view")]
    id: String,
    /// Name for people.
    #[schema(example = "View All Projects")]
    name: String,
    /// What it is for.
    description: String,
    /// Whether it can only get, list and watch, and no secrets. Computed from the cluster; false where that cannot be read.
    read_only: bool,
    /// Whether it may open streams (watches, logs, shells) that the API server does not cut when the member ends.
    streams_outlive_member: bool,
    /// The namespaces that it reaches; null: all of them.
    #[schema(required = true)]
    namespaces: Option<Vec<String>>,
}

/// The roles.
#[derive(Serialize, ToSchema)]
pub(super) struct RoleList {
    /// The roles, by id.
    items: Vec<RoleView>,
}

/// List the roles that the caller may give
#[utoipa::path(
    get,
    path = "/members/roles",
    tag = "members",
    responses((status = 200, description = "The roles", body = RoleList)),
    security(("kubernetesToken" = []))
)]
pub(super) async fn list_roles(context: Context, caller: Caller) -> Result<axum::Json<RoleList>, Problem> {
    let access = Access { verb: Verb::Create, resource: Resource::Members };
    let roles = context.reachable_roles(&caller, access).await?;
    let ids: Vec<RoleId> = roles.iter().map(|role| role.id.clone()).collect();
    let rights = context.state.cluster.role_rights(&ids).await;
    let items = roles.into_iter().zip(rights).map(|(role, computed)| RoleView {
        id: role.id.to_string(),
        name: role.name,
        description: role.description,
        read_only: computed.rights.read_only,
        streams_outlive_member: computed.rights.streams_outlive_member,
        namespaces: computed.namespaces.map(|names| names.into_iter().collect()),
    });
    Ok(axum::Json(RoleList { items: items.collect() }))
}
