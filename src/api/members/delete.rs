//! `DELETE /members/{id}`.

use axum::extract::Path;
use http::StatusCode;

use crate::api::MemberPath;
use crate::api::problem::Problem;
use crate::api::request_context::RequestContext;
use crate::authn::Caller;
use crate::cluster::{Access, Lane, Resource, Verb};
use crate::membership::EndReason;

/// Revoke a member now
///
/// By the time of the answer, the member, its service account and its kubeconfigs are gone. The API server remembers
/// an accepted token for 10 seconds.
#[utoipa::path(
    delete,
    path = "/members/{id}",
    tag = "members",
    params(MemberPath),
    responses((status = 204, description = "The member is gone")),
    security(("kubernetesToken" = []), ("accessToken" = ["members:write"]), ("accessTokenBasic" = ["members:write"]))
)]
pub(super) async fn delete_member(
    context: RequestContext,
    caller: Caller,
    Path(path): Path<MemberPath>,
) -> Result<StatusCode, Problem> {
    context.delete_member(&caller, &path.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl RequestContext {
    /// Ends a member.
    pub(crate) async fn delete_member(&self, caller: &Caller, id: &str) -> Result<(), Problem> {
        let access = Access { verb: Verb::Delete, resource: Resource::Members };
        let member = self.member(caller, access, id).await?;
        let membership = self.state.membership.in_lane(Lane::Ends);
        Ok(membership.end(&member, EndReason::Revoked, caller.cause(&self.origin)).await?)
    }
}
