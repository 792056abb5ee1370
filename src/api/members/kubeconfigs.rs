//! `GET /members/{id}/kubeconfigs` and `DELETE /members/{id}/kubeconfigs/{jti}`.

use axum::extract::Path;
use chrono::{DateTime, SubsecRound as _, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::MemberPath;
use crate::api::authentication::CallerOrMember;
use crate::api::problem::{Code, Problem};
use crate::api::request_context::RequestContext;
use crate::cluster::{Access, Lane, Resource, Verb};
use crate::domain::kubeconfig::{KubeconfigRecord, Mode};
use crate::domain::member::Member;

/// Where a kubeconfig points.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum KubeconfigMode {
    /// At Daypass's gateway.
    Gateway,
    /// At the API server.
    Direct,
}

/// An issued kubeconfig that works.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Kubeconfig)]
pub(crate) struct KubeconfigView {
    /// Its id. Of a direct one, the token's id, as in the API server's audit log.
    pub(crate) jti: String,
    /// Where it points.
    pub(crate) mode: KubeconfigMode,
    /// When it was issued.
    pub(crate) issued_at: DateTime<Utc>,
    /// When it stops working: a direct one when its token expires, a gateway kubeconfig when the member ends.
    pub(crate) expires_at: DateTime<Utc>,
    /// When it was last used, to about ten minutes. Absent for a direct one, whose use Daypass does not see, and for
    /// one that was never used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    pub(crate) last_used_at: Option<DateTime<Utc>>,
    /// The client address that it was issued to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    pub(crate) from: Option<String>,
}

/// The issued kubeconfigs.
#[derive(Serialize, ToSchema)]
pub(super) struct KubeconfigList {
    /// The kubeconfigs, oldest first.
    items: Vec<KubeconfigView>,
}

/// One kubeconfig of a member.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct KubeconfigPath {
    /// The member's id.
    #[param(example = "projects-view.k7f3x9qm")]
    id: String,
    /// The kubeconfig's id.
    jti: String,
}

impl KubeconfigView {
    fn new(record: KubeconfigRecord, member: &Member) -> Self {
        Self {
            mode: match record.mode() {
                Mode::Gateway => KubeconfigMode::Gateway,
                Mode::Direct => KubeconfigMode::Direct,
            },
            expires_at: record.expires_at(member).trunc_subsecs(0),
            jti: record.id,
            issued_at: record.issued_at,
            last_used_at: record.last_used_at,
            from: record.from,
        }
    }
}

/// The member in the path: the one that authenticated, or one that the caller may access.
async fn member_of(
    context: &RequestContext,
    who: &CallerOrMember,
    access: Access,
    id: &str,
) -> Result<Member, Problem> {
    match who {
        CallerOrMember::Member(session) => Ok(session.member.clone()),
        CallerOrMember::Caller(caller) => context.member(caller, access, id).await,
    }
}

/// List the member's kubeconfigs
#[utoipa::path(
    get,
    path = "/members/{id}/kubeconfigs",
    tag = "kubeconfigs",
    params(MemberPath),
    responses((status = 200, description = "The kubeconfigs", body = KubeconfigList)),
    security(
        ("kubernetesToken" = []), ("accessToken" = ["members:read"]), ("accessTokenBasic" = ["members:read"]),
        ("memberCredential" = [])
    )
)]
pub(super) async fn list_kubeconfigs(
    context: RequestContext,
    who: CallerOrMember,
    Path(path): Path<MemberPath>,
) -> Result<axum::Json<KubeconfigList>, Problem> {
    let access = Access { verb: Verb::Get, resource: Resource::Members };
    let member = member_of(&context, &who, access, &path.id).await?;
    Ok(axum::Json(KubeconfigList { items: context.kubeconfigs(&member).await? }))
}

impl RequestContext {
    /// The live kubeconfigs of a member, oldest first.
    pub(crate) async fn kubeconfigs(&self, member: &Member) -> Result<Vec<KubeconfigView>, Problem> {
        let records = self.state.membership.live_kubeconfigs(member).await?;
        Ok(records.into_iter().map(|record| KubeconfigView::new(record, member)).collect())
    }

    /// Revokes one kubeconfig of a member; 404 if it has none of this id.
    pub(crate) async fn delete_kubeconfig(&self, who: &CallerOrMember, id: &str, jti: &str) -> Result<(), Problem> {
        let access = Access { verb: Verb::Delete, resource: Resource::MembersKubeconfigs };
        let member = member_of(self, who, access, id).await?;
        let membership = self.state.membership.in_lane(Lane::Ends);
        let revoked = membership.revoke_kubeconfig(&member, jti, who.cause(self)).await?;
        if revoked { Ok(()) } else { Err(Problem::new(Code::NotFound)) }
    }
}

/// Revoke one kubeconfig
#[utoipa::path(
    delete,
    path = "/members/{id}/kubeconfigs/{jti}",
    tag = "kubeconfigs",
    params(KubeconfigPath),
    responses((status = 204, description = "It is revoked; the API server remembers a token for 10 seconds")),
    security(
        ("kubernetesToken" = []), ("accessToken" = ["members:write"]), ("accessTokenBasic" = ["members:write"]),
        ("memberCredential" = [])
    )
)]
pub(super) async fn delete_kubeconfig(
    context: RequestContext,
    who: CallerOrMember,
    Path(path): Path<KubeconfigPath>,
) -> Result<StatusCode, Problem> {
    context.delete_kubeconfig(&who, &path.id, &path.jti).await?;
    Ok(StatusCode::NO_CONTENT)
}
