//! `GET /members/{id}`.

use axum::extract::Path;

use super::types::MemberView;
use crate::api::MemberPath;
use crate::api::problem::Problem;
use crate::api::request_context::RequestContext;
use crate::authn::Caller;
use crate::cluster::{Access, Resource, Verb};

/// Get a member
#[utoipa::path(
    get,
    path = "/members/{id}",
    tag = "members",
    params(MemberPath),
    responses((status = 200, description = "The member", body = MemberView)),
    security(("kubernetesToken" = []), ("accessToken" = ["members:read"]), ("accessTokenBasic" = ["members:read"]))
)]
pub(super) async fn get_member(
    context: RequestContext,
    caller: Caller,
    Path(path): Path<MemberPath>,
) -> Result<axum::Json<MemberView>, Problem> {
    let access = Access { verb: Verb::Get, resource: Resource::Members };
    let member = context.member(&caller, access, &path.id).await?;
    Ok(axum::Json(MemberView::new(&member, context.state.clock.now())))
}
