//! `GET /members/{id}/kubeconfig`.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};

use crate::api::fields::NO_STORE;
use crate::api::kubeconfig::Kubeconfig;
use crate::api::problem::{Code, Problem};
use crate::api::request_context::RequestContext;
use crate::api::{AppState, MemberPath};
use crate::authn::MemberSession;
use crate::domain::kubeconfig::{MAX_KUBECONFIGS, MIN_TOKEN_LIFETIME, TOKEN_LEEWAY};
use crate::membership::IssueError;

/// Download a kubeconfig, with the member's credential
///
/// A gateway kubeconfig points at Daypass. It works until the membership ends, also after an extension. A direct one
/// points at the API server. Its token expires 70 seconds before the member, so that the API server refuses it once
/// the membership ends, even if everything else is down. The installation chooses, or lets each role choose.
#[utoipa::path(
    get,
    path = "/members/{id}/kubeconfig",
    tag = "kubeconfigs",
    params(MemberPath),
    responses((status = 200, description = "The kubeconfig", body = Object, content_type = "application/yaml", headers(
        ("Content-Disposition" = String, description = "An attachment, with the name to save it under"),
    ))),
    security(("memberCredential" = []))
)]
pub(crate) async fn get_kubeconfig(context: RequestContext, session: MemberSession) -> Result<Response, Problem> {
    let AppState { membership, feed, settings, .. } = &*context.state;
    let MemberSession { member, credential, .. } = &session;
    let cause = session.cause(&context.origin);
    let role = feed.roles.get(&member.id.role);
    let rights = feed.rights.grants(&member.id.role).map(|grants| grants.rights(true));
    let kubeconfig = match settings.kubeconfigs.direct_for(role.as_ref(), rights.as_ref()) {
        Some(target) => {
            let issued = membership.issue_kubeconfig(member, credential, cause).await?;
            // If the rights are unknown, warn.
            let streams_outlive = rights.is_none_or(|rights| rights.streams_outlive_member);
            Kubeconfig::direct(settings, target, member, issued, streams_outlive)
        }
        None => {
            let issued = membership.issue_gateway_kubeconfig(member, credential, cause).await?;
            Kubeconfig::gateway(settings, member, issued)
        }
    };
    let headers = [
        (CONTENT_TYPE, "application/yaml".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", kubeconfig.file_name())),
    ];
    let text = kubeconfig.render().map_err(|_| Problem::new(Code::Internal))?;
    Ok(([NO_STORE], headers, text).into_response())
}

impl From<IssueError> for Problem {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::TooLate => Self::detailed(
                Code::MembershipTooShort,
                format!(
                    "too little is left: a kubeconfig's token lasts at least {} seconds and expires {} seconds before \
                     the member; have the membership extended",
                    MIN_TOKEN_LIFETIME.num_seconds(),
                    TOKEN_LEEWAY.num_seconds()
                ),
            ),
            IssueError::TooMany => Self::detailed(
                Code::TooManyKubeconfigs,
                format!("at most {MAX_KUBECONFIGS} may be live at a time; revoke one that is no longer needed"),
            ),
            IssueError::Ended => {
                Self::detailed(Code::Conflict, "the membership or its credential changed at the same time")
            }
            IssueError::NoEntropy(error) => error.into(),
            IssueError::Cluster(error) => error.into(),
        }
    }
}
