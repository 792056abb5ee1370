//! The page of one member: extending, ending, a new credential, and its kubeconfigs.

use askama::Template;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Redirect, Response};
use chrono::TimeDelta;
use serde::Deserialize;

use super::ROOT;
use super::form::Fields;
use super::frame::{Frame, When, fits_page, in_words, render, status};
use super::grant::hand_over;
use super::me::KubeconfigRow;
use super::visitor::{Owner, Posted};
use crate::api::authentication::CallerOrMember;
use crate::api::identity::RoleRights;
use crate::api::members::{MemberView, credential_digits};
use crate::api::problem::{Code, Problem};
use crate::api::request_context::RequestContext;
use crate::cluster::{Access, Resource, Verb};
use crate::domain::lifetime::MembershipDuration;

#[derive(Template)]
#[template(path = "member.html")]
struct MemberPage {
    frame: Frame,
    member: MemberView,
    end: When,
    created: When,
    ends: Vec<EndChoice>,
    kubeconfigs: Vec<KubeconfigRow>,
    rights: RoleRights,
    /// Which credential a new one replaces, so that a form that is sent twice issues one.
    replaces: String,
    /// Whether its role can do more by now than when it was created.
    widened: bool,
}

/// A new end to choose.
struct EndChoice {
    hours: i64,
    end: When,
    /// From now.
    left: String,
    is_chosen: bool,
}

#[derive(Deserialize)]
pub(super) struct KubeconfigPath {
    id: String,
    jti: String,
}

pub(super) async fn page(
    context: RequestContext,
    owner: Owner,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    show(&context, &owner, &id, &Fields::of_query(query.as_deref()), None).await
}

pub(super) async fn extend(
    context: RequestContext,
    Path(id): Path<String>,
    Posted { visitor: owner, fields }: Posted<Owner>,
) -> Result<Response, Problem> {
    let changed = async { context.update_member(&owner.caller, &id, fields.body(&["duration"])?).await };
    match changed.await {
        Ok(_) => Ok(to_member(&id, "extended")),
        Err(problem) => refused(&context, &owner, &id, &fields, problem).await,
    }
}

pub(super) async fn end(
    context: RequestContext,
    Path(id): Path<String>,
    Posted { visitor: owner, fields }: Posted<Owner>,
) -> Result<Response, Problem> {
    match context.delete_member(&owner.caller, &id).await {
        // Somebody else was faster, or the form was sent twice.
        Err(problem) if problem.code != Code::NotFound => refused(&context, &owner, &id, &fields, problem).await,
        Err(_) => Ok(Redirect::to(&format!("{ROOT}/members?notice=gone")).into_response()),
        Ok(()) => Ok(Redirect::to(&format!("{ROOT}/members?notice=ended")).into_response()),
    }
}

pub(super) async fn new_credential(
    context: RequestContext,
    Path(id): Path<String>,
    Posted { visitor: owner, fields }: Posted<Owner>,
) -> Result<Response, Problem> {
    match context.create_credentials(&owner.caller, &id, Some(fields.text("replaces"))).await {
        Ok((member, credentials)) => hand_over(&context, &owner, member, credentials),
        Err(problem) => refused(&context, &owner, &id, &fields, problem).await,
    }
}

pub(super) async fn revoke_kubeconfig(
    context: RequestContext,
    Path(KubeconfigPath { id, jti }): Path<KubeconfigPath>,
    Posted { visitor: Owner { caller, who }, fields }: Posted<Owner>,
) -> Result<Response, Problem> {
    let caller = CallerOrMember::Caller(Box::new(caller));
    let revoked = context.delete_kubeconfig(&caller, &id, &jti).await;
    match (revoked, caller) {
        (Ok(()), _) => Ok(to_member(&id, "revoked")),
        (Err(problem), CallerOrMember::Caller(caller)) => {
            refused(&context, &Owner { caller: *caller, who }, &id, &fields, problem).await
        }
        (Err(problem), CallerOrMember::Member(_)) => Err(problem),
    }
}

fn to_member(id: &str, notice: &str) -> Response {
    Redirect::to(&format!("{ROOT}/members/{id}?notice={notice}")).into_response()
}

/// The page again, with what is wrong.
async fn refused(
    context: &RequestContext,
    owner: &Owner,
    id: &str,
    fields: &Fields,
    problem: Problem,
) -> Result<Response, Problem> {
    if !fits_page(&problem) {
        return Err(problem);
    }
    show(context, owner, id, fields, Some(&problem)).await
}

async fn show(
    context: &RequestContext,
    owner: &Owner,
    id: &str,
    fields: &Fields,
    problem: Option<&Problem>,
) -> Result<Response, Problem> {
    let access = Access { verb: Verb::Get, resource: Resource::Members };
    let member = context.member(&owner.caller, access, id).await?;
    let kubeconfigs = context.kubeconfigs(&member).await?;
    let rights = context.rights_in(&owner.caller, member.id.role.as_str()).await?;
    let role = context.state.feed.role(&context.state.cluster, &member.id.role).await?;
    let now = context.state.clock.now();
    let most = match role.and_then(|role| role.max_duration) {
        None => MembershipDuration::MAX.get(),
        Some(Ok(most)) => most.get().max(member.duration.get()),
        Some(Err(_)) => TimeDelta::zero(),
    };
    // The choices are whole hours: the last one before its end.
    let hours = (member.expires_at() - member.created_at).num_seconds().div_euclid(3600);
    let chosen = fields.get("duration").map_or_else(|| hours.max(1).to_string(), str::to_owned);
    let choice = |hours: i64| {
        let end = member.created_at + TimeDelta::hours(hours);
        let is_chosen = hours.to_string() == chosen;
        (end > now).then(|| EndChoice { hours, end: When(end), left: in_words(end - now), is_chosen })
    };
    let page = MemberPage {
        frame: owner.frame(context).with_notice(fields.text("notice")).with_error(problem),
        end: When(member.expires_at()),
        created: When(member.created_at),
        ends: (1..=most.num_hours()).filter_map(choice).collect(),
        kubeconfigs: kubeconfigs.into_iter().map(KubeconfigRow::new).collect(),
        rights,
        replaces: credential_digits(&member).to_owned(),
        widened: member.status.role_widened.is_some(),
        member: MemberView::new(&member, now),
    };
    render(status(problem), &page)
}
