//! `GET /members`.

use std::collections::BTreeSet;

use axum::extract::RawQuery;
use serde::Serialize;
use utoipa::ToSchema;

use super::types::MemberView;
use crate::api::authorization::Authorization;
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::api::request_context::RequestContext;
use crate::authn::Caller;
use crate::cluster::{Access, Resource, Verb};
use crate::domain::role::{Role, RoleId};

/// A page of members.
#[derive(Serialize, ToSchema)]
pub(super) struct MemberPage {
    /// The members, oldest first.
    items: Vec<MemberView>,
    /// The maximum number of items on the page.
    limit: usize,
    /// How many items come before the page.
    offset: usize,
    /// How many items there are in all.
    total: usize,
}

/// List the live members of the roles that the caller may list
#[utoipa::path(
    get,
    path = "/members",
    tag = "members",
    params(
        ("limit" = Option<i32>, Query, description = "The maximum number of items, 1 to 1000; 100 by default.",
            minimum = 1, maximum = 1000),
        ("offset" = Option<i32>, Query, description = "How many items to skip.", minimum = 0, maximum = 2147483647),
        ("roleId" = Option<String>, Query, description = "Only the members of this role.", min_length = 1),
    ),
    responses((status = 200, description = "The members", body = MemberPage)),
    security(("kubernetesToken" = []), ("accessToken" = ["members:read"]), ("accessTokenBasic" = ["members:read"]))
)]
pub(super) async fn list_members(
    context: RequestContext,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<axum::Json<MemberPage>, Problem> {
    let page = Page::parse(query.as_deref().unwrap_or_default(), &["roleId"])?;
    let access = Access { verb: Verb::List, resource: Resource::Members };
    let roles: Vec<Role> = match page.filter("roleId") {
        Some(id) => match context.authorize_in_role(&caller, access, RoleId::parse(id).as_ref()).await? {
            Authorization::Granted(role) => vec![role],
            Authorization::Hidden => Vec::new(),
        },
        None => context.allowed_roles(&caller, access).await?,
    };
    let (roles, now): (BTreeSet<RoleId>, _) =
        (roles.into_iter().map(|role| role.id).collect(), context.state.clock.now());
    let mut members = context.feed()?.members.live(|role| roles.contains(role), now);
    members.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    Ok(axum::Json(MemberPage {
        total: members.len(),
        items: page.of(&members).map(|member| MemberView::new(member, now)).collect(),
        limit: page.limit,
        offset: page.offset,
    }))
}
