//! `POST /members/{id}/credentials`.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::types::{Credentials, MemberView, credential_digits};
use crate::api::MemberPath;
use crate::api::fields::NO_STORE;
use crate::api::problem::{Code, Problem};
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
    let (_, issued) = context.create_credentials(&caller, &path.id, None).await?;
    Ok((StatusCode::CREATED, [NO_STORE], axum::Json(issued)).into_response())
}

impl RequestContext {
    /// Gives a member a new credential. `replaces` is the [`credential_digits`] of the credential that the
    /// caller means to replace.
    ///
    /// # Errors
    /// 409 if the member has another one by now: the request was sent twice.
    pub(crate) async fn create_credentials(
        &self,
        caller: &Caller,
        id: &str,
        replaces: Option<&str>,
    ) -> Result<(MemberView, Credentials), Problem> {
        let access = Access { verb: Verb::Create, resource: Resource::MembersCredentials };
        let member = self.member(caller, access, id).await?;
        if replaces.is_some_and(|digits| digits != credential_digits(&member)) {
            return Err(Problem::detailed(Code::Conflict, "the member has got a new credential meanwhile"));
        }
        // It revokes the old credential.
        let membership = self.state.membership.in_lane(Lane::Ends);
        let credential = Credential::new(member.id.clone(), &self.state.entropy.bytes()?);
        let member = membership.renew_credential(&member, &credential, caller.cause(&self.origin)).await?;
        let view = MemberView::new(&member, self.state.clock.now());
        Ok((view, Credentials::new(&member, &credential, &self.state.settings)))
    }
}
