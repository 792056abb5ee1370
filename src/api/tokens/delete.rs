//! `DELETE /tokens/{id}`.

use axum::extract::Path;
use http::StatusCode;

use super::TokenPath;
use crate::api::auth::Caller;
use crate::api::context::Context;
use crate::api::problem::Problem;
use crate::audit::Kind;
use crate::cluster::Lane;
use crate::domain::access_token::Scope;

/// Revoke an access token now
///
/// When this answers, the token and its sessions are refused by every replica.
#[utoipa::path(
    delete,
    path = "/tokens/{id}",
    tag = "tokens",
    params(TokenPath),
    responses((status = 204, description = "It is gone")),
    security(("kubernetesToken" = []), ("accessToken" = ["tokens:write"]), ("accessTokenBasic" = ["tokens:write"]))
)]
pub(super) async fn delete_token(
    context: Context,
    caller: Caller,
    Path(path): Path<TokenPath>,
) -> Result<StatusCode, Problem> {
    let token = context.token(&caller, Scope::TokensWrite, &path.id).await?;
    context.state.tokens.in_lane(Lane::Ends).end(&token, Kind::TokenRevoked, caller.cause(&context)).await?;
    Ok(StatusCode::NO_CONTENT)
}
