//! `POST /members/{id}/credentials`.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::types::Credentials;
use crate::api::MemberPath;
use crate::api::auth::Caller;
use crate::api::context::Context;
use crate::api::fields::NO_STORE;
use crate::api::problem::Problem;
use crate::cluster::{Access, Lane, Resource, Verb};
use crate::domain::secret::Credential;

/// Issue a new credential
///
/// The old one, and every kubeconfig from it, dies. The first credential of a member that was made with `kubectl` comes from here too.
#[utoipa::path(
    post,
    path = "/members/{id}/credentials",
    tag = "members",
    params(MemberPath),
    responses((status = 201, description = "The credential, shown only here", body = Credentials)),
    security(("kubernetesToken" = []), ("accessToken" = ["members:write"]), ("accessTokenBasic" = ["members:write"]))
)]
pub(super) async fn create_credentials(
    context: Context,
    caller: Caller,
    Path(path): Path<MemberPath>,
) -> Result<Response, Problem> {
    let access = Access { verb: Verb::Create, resource: Resource::MembersCredentials };
    let member = context.member(&caller, access, &path.id).await?;
    // It revokes the old one.
    let cluster = context.state.cluster.in_lane(Lane::Ends);
    let credential = Credential::new(member.id.clone(), &cluster.entropy.bytes()?);
    let member = cluster.renew_credential(&member, &credential, caller.cause(&context)).await?;
    let body = axum::Json(Credentials::new(&member, &credential, &context.state.settings));
    Ok((StatusCode::CREATED, [NO_STORE], body).into_response())
}
