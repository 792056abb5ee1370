//! `GET /members/{id}/me` and `DELETE /members/{id}/me`.

use chrono::{DateTime, SubsecRound as _, Utc};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::role_view::RoleSummary;
use crate::api::MemberPath;
use crate::api::problem::Problem;
use crate::api::request_context::RequestContext;
use crate::authn::MemberSession;
use crate::cluster::Lane;
use crate::domain::rights::Rights;
use crate::membership::EndReason;

/// A member's view of its own membership.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Me {
    /// The member's id.
    id: String,
    /// The data plane.
    data_plane_id: String,
    /// The role.
    role_id: String,
    /// The same, and what it can do now; absent if the role no longer exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    role: Option<RoleSummary>,
    /// Who the membership is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    username: Option<String>,
    /// When it was created.
    created_at: DateTime<Utc>,
    /// When it ends.
    expires_at: DateTime<Utc>,
    /// Seconds from now to its end.
    #[schema(minimum = 0, maximum = 172800)]
    seconds_left: i64,
    /// The URL to download a kubeconfig from.
    #[schema(format = Uri)]
    kubeconfig_url: String,
}

/// Get your own membership
#[utoipa::path(
    get,
    path = "/members/{id}/me",
    tag = "me",
    params(MemberPath),
    responses((status = 200, description = "The membership", body = Me)),
    security(("memberCredential" = []))
)]
pub(super) async fn get_me(context: RequestContext, session: MemberSession) -> Result<axum::Json<Me>, Problem> {
    let (member, settings) = (&session.member, &context.state.settings);
    let expires_at = member.expires_at();
    let (feed, id) = (&context.state.feed, &member.id.role);
    let role = feed.role(&context.state.cluster, id).await?;
    Ok(axum::Json(Me {
        id: member.id.to_string(),
        data_plane_id: settings.data_plane_id.clone(),
        role_id: id.to_string(),
        role: role.map(|role| {
            let grants = feed.rights.grants(id);
            // The walls make no difference to what it shows.
            let rights = grants.as_ref().map_or_else(Rights::unknown, |grants| grants.rights(true));
            RoleSummary::new(role, grants.as_ref(), &rights)
        }),
        username: member.username.clone(),
        created_at: member.created_at,
        expires_at: expires_at.trunc_subsecs(0),
        seconds_left: (expires_at - context.state.clock.now()).num_seconds().max(0),
        kubeconfig_url: settings.kubeconfig_url(&member.id),
    }))
}

/// End your own membership early
#[utoipa::path(
    delete,
    path = "/members/{id}/me",
    tag = "me",
    params(MemberPath),
    responses((status = 204, description = "The membership has ended")),
    security(("memberCredential" = []))
)]
pub(super) async fn delete_me(context: RequestContext, session: MemberSession) -> Result<StatusCode, Problem> {
    let membership = context.state.membership.in_lane(Lane::Ends);
    membership.end(&session.member, EndReason::Revoked, session.cause(&context.origin)).await?;
    Ok(StatusCode::NO_CONTENT)
}
