//! `GET /members`.

use axum::extract::RawQuery;
use futures::future::try_join_all;
use serde::Serialize;
use url::form_urlencoded;
use utoipa::ToSchema;

use super::types::MemberView;
use crate::api::auth::Caller;
use crate::api::context::Context;
use crate::api::problem::Problem;
use crate::cluster::{Access, Resource, Verb};
use crate::domain::member::Member;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;
/// The largest number of OpenAPI's int32.
const MAX_OFFSET: usize = 2_147_483_647;

/// A page of members.
#[derive(Serialize, ToSchema)]
pub(super) struct MemberPage {
    /// The members, the oldest first.
    items: Vec<MemberView>,
    /// The most items that the page may have.
    limit: usize,
    /// How many come before the page.
    offset: usize,
    /// How many there are in all.
    total: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Page {
    limit: usize,
    offset: usize,
    role_id: Option<String>,
}

/// List the living members of the roles in reach
#[utoipa::path(
    get,
    path = "/members",
    tag = "members",
    params(
        ("limit" = Option<i32>, Query, description = "The most items, 1 to 1000; 100 where it is not given.", minimum = 1, maximum = 1000),
        ("offset" = Option<i32>, Query, description = "How many to pass over.", minimum = 0, maximum = 2147483647),
        ("roleId" = Option<String>, Query, description = "Only the members of this role."),
    ),
    responses((status = 200, description = "The members", body = MemberPage)),
    security(("kubernetesToken" = []))
)]
pub(super) async fn list_members(
    context: Context,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<axum::Json<MemberPage>, Problem> {
    let page = Page::parse(query.as_deref().unwrap_or_default())?;
    let access = Access { verb: Verb::List, resource: Resource::Members };
    let roles = context.reachable_roles(&caller, access).await?;
    let wanted = roles.iter().filter(|role| page.role_id.as_deref().is_none_or(|id| id == role.id.as_str()));

    let cluster = &context.state.cluster;
    let listed = try_join_all(wanted.map(|role| cluster.list_members(&role.id))).await?;
    let now = cluster.clock.now();
    let mut members: Vec<Member> =
        listed.into_iter().flat_map(|listed| listed.members).filter(|member| member.is_live(now)).collect();
    members.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    Ok(axum::Json(MemberPage {
        total: members.len(),
        items: members.iter().skip(page.offset).take(page.limit).map(|member| MemberView::new(member, now)).collect(),
        limit: page.limit,
        offset: page.offset,
    }))
}

impl Page {
    fn parse(query: &str) -> Result<Self, Problem> {
        let (mut limit, mut offset, mut role_id) = (None, None, None);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let repeated = match key.as_ref() {
                "limit" => limit.replace(number(&key, &value, 1, MAX_LIMIT)?).is_some(),
                "offset" => offset.replace(number(&key, &value, 0, MAX_OFFSET)?).is_some(),
                "roleId" => role_id.replace(value.into_owned()).is_some(),
                _ => return Err(Problem::field(&key, "is not a parameter of this request")),
            };
            if repeated {
                return Err(Problem::field(&key, "is given twice"));
            }
        }
        Ok(Self { limit: limit.unwrap_or(DEFAULT_LIMIT), offset: offset.unwrap_or_default(), role_id })
    }
}

fn number(key: &str, text: &str, least: usize, most: usize) -> Result<usize, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| Problem::field(key, format!("must be a whole number from {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_bounded_and_strict() {
        assert_eq!(Page::parse("").unwrap(), Page { limit: 100, offset: 0, role_id: None });
        assert_eq!(
            Page::parse("limit=1000&offset=7&roleId=a").unwrap(),
            Page { limit: 1000, offset: 7, role_id: Some("a".into()) }
        );
        for query in [
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=+1",
            "limit=",
            "offset=x",
            "offset=99999999999999999999",
            "limit=1&limit=2",
            "page=1",
        ] {
            assert!(Page::parse(query).is_err(), "{query}");
        }
    }
}
