//! Granting access: the form with the roles' rights in view, and the hand-over of the credential.

use askama::Template;
use axum::extract::RawQuery;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::ROOT;
use super::form::Fields;
use super::frame::{Frame, When, render, status};
use super::visitor::{Owner, Posted};
use super::words::{RoleInWords, escape};
use crate::api::members::{CreatedMember, Credentials, MemberView, RoleView};
use crate::api::problem::{Code, Problem};
use crate::api::request_context::RequestContext;
use crate::authn::Caller;

/// The roles and durations to choose from.
#[derive(Template)]
#[template(path = "grant.html")]
struct GrantPage {
    frame: Frame,
    roles: Vec<RoleChoice>,
    hours: Vec<HourChoice>,
    username: String,
    description: String,
    /// Makes a form that is sent twice create one member.
    key: String,
}

/// A role to choose.
struct RoleChoice {
    role: RoleInWords,
    /// The longest that it may be given for, in whole hours.
    max_hours: i64,
    escapes: Vec<&'static str>,
    streams_outlive_member: bool,
    is_chosen: bool,
}

/// A duration to choose.
struct HourChoice {
    hours: i64,
    end: When,
    is_chosen: bool,
}

/// The credential, once.
#[derive(Template)]
#[template(path = "handover.html")]
pub(super) struct HandoverPage {
    frame: Frame,
    member: MemberView,
    end: When,
    credentials: Credentials,
}

/// The duration that is chosen unless the owner chooses another: long enough for a call, not for a day.
const USUAL_HOURS: &str = "4";

pub(super) async fn page(
    context: RequestContext,
    owner: Owner,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    show(&context, &owner, &Fields::of_query(query.as_deref()), None).await
}

pub(super) async fn grant(
    context: RequestContext,
    Posted { visitor: owner, fields }: Posted<Owner>,
) -> Result<Response, Problem> {
    let names = ["roleId", "duration", "username", "description"];
    let key = fields.get("key").map(str::to_owned).ok_or_else(|| Problem::field("key", "is missing: reload the form"));
    let created = async { context.create_member(&owner.caller, Some(key?), fields.body(&names)?).await };
    match created.await {
        Ok(created) => {
            let CreatedMember { member, credentials } = created.body;
            hand_over(&context, &owner, member, credentials)
        }
        Err(problem) if problem.code == Code::IdempotencyKeyReused => {
            let id = problem.location().and_then(|url| url.rsplit('/').next()).unwrap_or_default();
            Ok(Redirect::to(&format!("{ROOT}/members/{id}?notice=granted-before")).into_response())
        }
        Err(problem) if problem.code == Code::Unavailable => Err(problem),
        Err(problem) => show(&context, &owner, &fields, Some(&problem)).await,
    }
}

/// Shows a credential that has just been issued.
pub(super) fn hand_over(
    context: &RequestContext,
    owner: &Owner,
    member: MemberView,
    credentials: Credentials,
) -> Result<Response, Problem> {
    let (frame, end) = (owner.frame(context), When(member.expires_at));
    render(StatusCode::CREATED, &HandoverPage { frame, member, end, credentials })
}

async fn show(
    context: &RequestContext,
    owner: &Owner,
    fields: &Fields,
    problem: Option<&Problem>,
) -> Result<Response, Problem> {
    let frame = owner.frame(context).with_error(problem);
    let roles = roles(context, &owner.caller, fields.text("roleId")).await?;
    let now = context.state.clock.now();
    let chosen = fields.get("duration").unwrap_or(USUAL_HOURS);
    let most = roles.iter().map(|role| role.max_hours).max().unwrap_or(0);
    let hour = |hours: i64| HourChoice {
        hours,
        end: When(now + chrono::TimeDelta::hours(hours)),
        is_chosen: hours.to_string() == chosen,
    };
    let page = GrantPage {
        hours: (1..=most).map(hour).collect(),
        frame,
        roles,
        username: fields.text("username").to_owned(),
        description: fields.text("description").to_owned(),
        // Sent before, with other entries.
        key: fields.key(
            &context.state.entropy,
            problem.is_some_and(|problem| problem.code == Code::IdempotencyKeyMismatch),
        )?,
    };
    render(status(problem), &page)
}

async fn roles(context: &RequestContext, caller: &Caller, chosen: &str) -> Result<Vec<RoleChoice>, Problem> {
    match context.roles(caller).await {
        Ok(list) => {
            let is_only = list.items.len() == 1;
            Ok(list.items.into_iter().map(|role| RoleChoice::new(role, chosen, is_only)).collect())
        }
        // The page says that there is no role to give.
        Err(problem) if problem.code == Code::Forbidden => Ok(Vec::new()),
        Err(problem) => Err(problem),
    }
}

impl RoleChoice {
    fn new(view: RoleView, chosen: &str, is_only: bool) -> Self {
        Self {
            role: RoleInWords::new(&view.summary),
            max_hours: view.max_duration_seconds.map_or(0, |seconds| seconds / 3600),
            escapes: view.escapes.into_iter().map(escape).collect(),
            streams_outlive_member: view.streams_outlive_member,
            is_chosen: is_only || view.summary.id == chosen,
        }
    }
}
