//! `PATCH /tokens/{id}`.

use axum::extract::Path;
use serde::Deserialize;
use utoipa::ToSchema;

use super::TokenPath;
use super::types::TokenView;
use crate::api::body::Json;
use crate::api::fields::Name;
use crate::api::problem::Problem;
use crate::api::request_context::RequestContext;
use crate::authn::Caller;
use crate::domain::access_token::Scope;

/// A new name. Only rotating changes anything else of a token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateToken {
    /// Display name.
    name: Name,
}

/// Rename an access token
#[utoipa::path(
    patch,
    path = "/tokens/{id}",
    tag = "tokens",
    params(TokenPath),
    request_body(content((UpdateToken = "application/json"), (UpdateToken = "application/merge-patch+json"))),
    responses((status = 200, description = "The token", body = TokenView)),
    security(("kubernetesToken" = []), ("accessToken" = ["tokens:write"]), ("accessTokenBasic" = ["tokens:write"]))
)]
pub(super) async fn update_token(
    context: RequestContext,
    caller: Caller,
    Path(path): Path<TokenPath>,
    Json(body): Json<UpdateToken>,
) -> Result<axum::Json<TokenView>, Problem> {
    context.update_token(&caller, &path.id, body).await.map(axum::Json)
}

impl RequestContext {
    /// Renames an access token.
    pub(crate) async fn update_token(
        &self,
        caller: &Caller,
        id: &str,
        body: UpdateToken,
    ) -> Result<TokenView, Problem> {
        let token = self.token(caller, Scope::TokensWrite, id).await?;
        let renamed = self.state.tokens.rename(&token, &body.name.0, caller.cause(&self.origin)).await?;
        self.token_view(&renamed).await
    }
}
