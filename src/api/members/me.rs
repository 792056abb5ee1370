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
use crate::domain::member::Member;
use crate::domain::rights::Rights;
use crate::membership::EndReason;

/// A member's view of its own membership.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Me {
    /// The member's id.
    pub(crate) id: String,
    /// The data plane.
    data_plane_id: String,
    /// The role.
    pub(crate) role_id: String,
    /// The same, and what it can do now; absent if the role no longer exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    pub(crate) role: Option<RoleSummary>,
    /// Who the membership is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    pub(crate) username: Option<String>,
    /// When it was created.
    created_at: DateTime<Utc>,
    /// When it ends.
    pub(crate) expires_at: DateTime<Utc>,
    /// Seconds from now to its end.
    #[schema(minimum = 0, maximum = 172800)]
    pub(crate) seconds_left: i64,
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
    context.me(&session.member).await.map(axum::Json)
}

impl RequestContext {
    /// What a member sees of itself.
    pub(crate) async fn me(&self, member: &Member) -> Result<Me, Problem> {
        let settings = &self.state.settings;
        let expires_at = member.expires_at();
        let (feed, id) = (&self.state.feed, &member.id.role);
        let role = feed.role(&self.state.cluster, id).await?;
        Ok(Me {
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
            seconds_left: (expires_at - self.state.clock.now()).num_seconds().max(0),
            kubeconfig_url: settings.kubeconfig_url(&member.id),
        })
    }

    /// Ends a member by its own wish.
    pub(crate) async fn end_me(&self, session: &MemberSession) -> Result<(), Problem> {
        let membership = self.state.membership.in_lane(Lane::Ends);
        Ok(membership.end(&session.member, EndReason::Revoked, session.cause(&self.origin)).await?)
    }
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
    context.end_me(&session).await?;
    Ok(StatusCode::NO_CONTENT)
}
