//! `POST /members/{id}/credentials`.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::types::Credentials;
use crate::api::MemberPath;
use crate::api::fields::NO_STORE;
use crate::api::problem::Problem;
use crate::api::request_context::RequestContext;
use crate::authn::Caller;
use crate::cluster::{Access, Lane, Resource, Verb};
use crate::domain::member::Credential;

/// Issue a new credential
///
/// The old credential and every kubeconfig downloaded with it stop working. A member created with `kubectl` gets its
/// first credential here too.
#[utoipa::path(
    post,
    path = "/members/{id}/credentials",
    tag = "members",
    params(MemberPath),
    responses((status = 201, description = "The credential, shown only here", body = Credentials)),
    security(("kubernetesToken" = []), ("accessToken" = ["members:write"]), ("accessTokenBasic" = ["members:write"]))
)]
pub(super) async fn create_credentials(
    context: RequestContext,
    caller: Caller,
    Path(path): Path<MemberPath>,
) -> Result<Response, Problem> {
    let access = Access { verb: Verb::Create, resource: Resource::MembersCredentials };
    let member = context.member(&caller, access, &path.id).await?;
    // It revokes the old credential.
    let membership = context.state.membership.in_lane(Lane::Ends);
    let credential = Credential::new(member.id.clone(), &context.state.entropy.bytes()?);
    let member = membership.renew_credential(&member, &credential, caller.cause(&context.origin)).await?;
    let body = axum::Json(Credentials::new(&member, &credential, &context.state.settings));
    Ok((StatusCode::CREATED, [NO_STORE], body).into_response())
}
