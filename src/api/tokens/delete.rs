//! `DELETE /tokens/{id}`.

use axum::extract::Path;
use http::StatusCode;

use super::TokenPath;
use crate::api::problem::Problem;
use crate::api::request_context::RequestContext;
use crate::authn::Caller;
use crate::cluster::Lane;
use crate::observability::audit::Kind;

/// Revoke an access token now
///
/// By the time of the answer, every replica refuses the token and its sessions. A token needs no scope to revoke
/// itself.
#[utoipa::path(
    delete,
    path = "/tokens/{id}",
    tag = "tokens",
    params(TokenPath),
    responses((status = 204, description = "The token is revoked")),
    security(("kubernetesToken" = []), ("accessToken" = ["tokens:write"]), ("accessTokenBasic" = ["tokens:write"]))
)]
pub(super) async fn delete_token(
    context: RequestContext,
    caller: Caller,
    Path(path): Path<TokenPath>,
) -> Result<StatusCode, Problem> {
    context.delete_token(&caller, &path.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl RequestContext {
    /// Revokes an access token.
    pub(crate) async fn delete_token(&self, caller: &Caller, id: &str) -> Result<(), Problem> {
        let token = self.token_to_revoke(caller, id).await?;
        let tokens = self.state.tokens.in_lane(Lane::Ends);
        tokens.end(&token, Kind::TokenRevoked, caller.cause(&self.origin)).await?;
        Ok(())
    }
}
