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
pub(crate) struct MemberPage {
    /// The members, oldest first.
    pub(crate) items: Vec<MemberView>,
    /// The maximum number of items on the page.
    pub(crate) limit: usize,
    /// How many items come before the page.
    pub(crate) offset: usize,
    /// How many items there are in all.
    pub(crate) total: usize,
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
    context.list_members(&caller, &page).await.map(axum::Json)
}

impl RequestContext {
    /// A page of the live members, filtered by `roleId`.
    pub(crate) async fn list_members(&self, caller: &Caller, page: &Page) -> Result<MemberPage, Problem> {
        let roles = self.roles_to_list(caller, page).await?;
        self.members_of(&roles, page)
    }

    /// The roles whose members the caller may list, or just the one of the filter `roleId`.
    pub(crate) async fn roles_to_list(&self, caller: &Caller, page: &Page) -> Result<BTreeSet<RoleId>, Problem> {
        let access = Access { verb: Verb::List, resource: Resource::Members };
        let roles: Vec<Role> = match page.filter("roleId") {
            Some(id) => match self.authorize_in_role(caller, access, RoleId::parse(id).as_ref()).await? {
                Authorization::Granted(role) => vec![role],
                Authorization::Hidden => Vec::new(),
            },
            None => self.allowed_roles(caller, access).await?,
        };
        Ok(roles.into_iter().map(|role| role.id).collect())
    }

    /// A page of the live members of these roles.
    pub(crate) fn members_of(&self, roles: &BTreeSet<RoleId>, page: &Page) -> Result<MemberPage, Problem> {
        let now = self.state.clock.now();
        let mut members = self.feed()?.members.live(|role| roles.contains(role), now);
        members.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok(MemberPage {
            total: members.len(),
            items: page.of(&members).map(|member| MemberView::new(member, now)).collect(),
            limit: page.limit,
            offset: page.offset,
        })
    }
}
