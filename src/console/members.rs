//! The page of members.

use std::sync::Arc;

use askama::Template;
use axum::extract::RawQuery;
use axum::response::Response;
use http::StatusCode;

use super::ROOT;
use super::form::Fields;
use super::frame::{Frame, When, render};
use super::visitor::Owner;
use crate::api::members::MemberView;
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::api::request_context::RequestContext;
use crate::feed::EndedMember;

/// How many of the members that have ended are shown.
const ENDED: usize = 50;

#[derive(Template)]
#[template(path = "members.html")]
struct MembersPage {
    frame: Frame,
    members: Vec<MemberView>,
    /// The role that the list is filtered by; empty for all.
    role: String,
    total: usize,
    /// The first and the last on the page, counted from 1.
    range: (usize, usize),
    ended: Vec<Arc<EndedMember>>,
    previous: Option<String>,
    next: Option<String>,
}

pub(super) async fn page(
    context: RequestContext,
    owner: Owner,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let fields = Fields::of_query(query.as_deref());
    let asked = fields.only(&["limit", "offset", "roleId"]);
    let page = Page::parse(&asked, &["roleId"])?;
    let roles = context.roles_to_list(&owner.caller, &page).await?;
    let list = context.members_of(&roles, &page)?;
    let ended = context.state.feed.ended.of(|role| roles.contains(role), context.state.clock.now());
    let at = |offset: usize| {
        let role = page.filter("roleId").map(|role| format!("&roleId={role}")).unwrap_or_default();
        format!("{ROOT}/members?limit={}&offset={offset}{role}", page.limit)
    };
    let shown = list.offset + list.items.len();
    let members = MembersPage {
        frame: owner.frame(&context).with_notice(fields.text("notice")),
        role: page.filter("roleId").unwrap_or_default().to_owned(),
        total: list.total,
        range: (list.offset + 1, shown),
        previous: (list.offset > 0).then(|| at(list.offset.saturating_sub(list.limit))),
        next: (shown < list.total).then(|| at(shown)),
        members: list.items,
        ended: ended.into_iter().take(ENDED).collect(),
    };
    render(StatusCode::OK, &members)
}

impl MembersPage {
    /// A member's page.
    fn link(member: &MemberView) -> String {
        format!("{ROOT}/members/{}", member.id)
    }

    fn ended(member: &EndedMember) -> When {
        When(member.ended_at)
    }

    fn end(member: &MemberView) -> When {
        When(member.expires_at)
    }
}
