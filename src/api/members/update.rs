//! `PATCH /members/{id}`.

use axum::extract::Path;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::ToSchema;

use super::types::{Hours, MemberView};
use crate::api::body::Json;
use crate::api::fields::Time;
use crate::api::problem::{Code, Problem};
use crate::api::request_context::RequestContext;
use crate::api::{AppState, MemberPath};
use crate::authn::Caller;
use crate::cluster::{Access, Resource, Verb};
use crate::domain::lifetime::{InvalidEnd, MembershipDuration, NewEnd};
use crate::domain::member::Member;
use crate::domain::role::Role;

/// How often a change is retried after a conflict with another one.
const CONFLICT_RETRIES: usize = 5;

/// A new end, by exactly one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(min_properties = 1, max_properties = 1)]
pub(crate) struct UpdateMember {
    /// Hours from the creation, in total.
    #[serde(default, deserialize_with = "crate::api::fields::not_null")]
    #[schema(required = false, nullable = false, example = "4")]
    duration: Option<Hours>,
    /// The end itself, at most 48 hours from the creation.
    #[serde(default, deserialize_with = "crate::api::fields::not_null")]
    #[schema(required = false, nullable = false)]
    expires_at: Option<Time>,
}

/// Extend or shorten a member
///
/// By the time of the answer, kubeconfigs that would outlive the new end are revoked. The API server remembers an
/// accepted token for 10 seconds.
#[utoipa::path(
    patch,
    path = "/members/{id}",
    tag = "members",
    params(MemberPath),
    request_body(content((UpdateMember = "application/json"), (UpdateMember = "application/merge-patch+json"))),
    responses((status = 200, description = "The member", body = MemberView)),
    security(("kubernetesToken" = []), ("accessToken" = ["members:write"]), ("accessTokenBasic" = ["members:write"]))
)]
pub(super) async fn update_member(
    context: RequestContext,
    caller: Caller,
    Path(path): Path<MemberPath>,
    Json(body): Json<UpdateMember>,
) -> Result<axum::Json<MemberView>, Problem> {
    context.update_member(&caller, &path.id, body).await.map(axum::Json)
}

impl RequestContext {
    /// Extends or shortens a member.
    pub(crate) async fn update_member(
        &self,
        caller: &Caller,
        id: &str,
        body: UpdateMember,
    ) -> Result<MemberView, Problem> {
        match (&body.duration, &body.expires_at) {
            (Some(_), Some(_)) => return Err(Problem::field("expiresAt", "cannot be given together with duration")),
            (None, None) => return Err(Problem::field("duration", "is required unless expiresAt is given")),
            _ => {}
        }
        let access = Access { verb: Verb::Update, resource: Resource::Members };
        let mut member = self.member(caller, access, id).await?;
        let AppState { cluster, feed, membership, clock, .. } = &*self.state;
        let role = feed.role(cluster, &member.id.role).await?;
        for _ in 0..CONFLICT_RETRIES {
            let duration = body.duration_of(&member, role.as_ref(), clock.now())?;
            match membership.change_duration(&member, duration, caller.cause(&self.origin)).await {
                Err(error) if error.is_conflict() => {
                    let now = self.live_member(&member.id).await?.filter(|now| now.uid == member.uid);
                    member = now.ok_or_else(|| Problem::new(Code::NotFound))?;
                }
                result => return Ok(MemberView::new(&result?, clock.now())),
            }
        }
        Err(Problem::new(Code::Conflict))
    }
}

impl UpdateMember {
    /// The requested duration from the creation, if the member may have it.
    fn duration_of(
        &self,
        member: &Member,
        role: Option<&Role>,
        now: DateTime<Utc>,
    ) -> Result<MembershipDuration, Problem> {
        let (field, end) = match (self.duration, self.expires_at) {
            (Some(Hours(duration)), _) => ("duration", NewEnd::After(duration)),
            (None, end) => ("expiresAt", NewEnd::At(end.map_or(now, |Time(end)| end))),
        };
        let duration = member.duration_until(end, now).map_err(|error| match error {
            InvalidEnd::Past => Problem::field(field, "is in the past; use DELETE to end the membership now"),
            error => Problem::field(field, error.to_string()),
        })?;
        let admitted = role.map_or(Ok(()), |role| role.admits(duration, Some(member.duration)));
        admitted.map_err(|refused| Problem::field(field, refused.to_string()))?;
        Ok(duration)
    }
}
