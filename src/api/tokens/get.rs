//! `GET /tokens/{id}`.

use axum::extract::Path;

use super::TokenPath;
use super::types::TokenView;
use crate::api::problem::Problem;
use crate::api::request_context::RequestContext;
use crate::authn::Caller;
use crate::domain::access_token::Scope;

/// Get an access token
#[utoipa::path(
    get,
    path = "/tokens/{id}",
    tag = "tokens",
    params(TokenPath),
    responses((status = 200, description = "The token, without its secret", body = TokenView)),
    security(("kubernetesToken" = []), ("accessToken" = ["tokens:read"]), ("accessTokenBasic" = ["tokens:read"]))
)]
pub(super) async fn get_token(
    context: RequestContext,
    caller: Caller,
    Path(path): Path<TokenPath>,
) -> Result<axum::Json<TokenView>, Problem> {
    let token = context.token(&caller, Scope::TokensRead, &path.id).await?;
    context.token_view(&token).await.map(axum::Json)
}
