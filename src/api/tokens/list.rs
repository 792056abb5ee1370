//! `GET /tokens`.

use axum::extract::RawQuery;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::is_own;
use super::types::TokenView;
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::api::request_context::RequestContext;
use crate::authn::Caller;
use crate::cluster::Privilege;
use crate::domain::access_token::{AccessToken, Scope};

/// A page of access tokens.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenPage {
    /// The tokens, oldest first.
    pub items: Vec<TokenView>,
    /// The maximum number of items on the page.
    pub limit: usize,
    /// How many items come before the page.
    pub offset: usize,
    /// How many items there are in all.
    pub total: usize,
}

/// List access tokens
///
/// The caller's own tokens. To list those of others, the caller needs the right to manage all.
#[utoipa::path(
    get,
    path = "/tokens",
    tag = "tokens",
    params(
        ("limit" = Option<i32>, Query, description = "The maximum number of items, 1 to 1000; 100 by default.",
            minimum = 1, maximum = 1000),
        ("offset" = Option<i32>, Query, description = "How many items to skip.", minimum = 0, maximum = 2147483647),
        ("owner" = Option<String>, Query, description = "Only the tokens of this user; `*` for those of all users.",
            min_length = 1),
    ),
    responses((status = 200, description = "The tokens", body = TokenPage)),
    security(("kubernetesToken" = []), ("accessToken" = ["tokens:read"]), ("accessTokenBasic" = ["tokens:read"]))
)]
pub(super) async fn list_tokens(
    context: RequestContext,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<axum::Json<TokenPage>, Problem> {
    let page = Page::parse(query.as_deref().unwrap_or_default(), &["owner"])?;
    context.list_tokens(&caller, &page).await.map(axum::Json)
}

impl RequestContext {
    /// A page of access tokens, filtered by `owner`.
    pub(crate) async fn list_tokens(&self, caller: &Caller, page: &Page) -> Result<TokenPage, Problem> {
        self.require(caller, Scope::TokensRead)?;
        let tokens = &self.state.tokens;
        let own = &caller.identity.username;
        let mut found: Vec<AccessToken> = match page.filter("owner").unwrap_or(own) {
            name if name == own => {
                let mut found = tokens.of_owner(own).await?;
                found.retain(|token| is_own(token, &caller.identity));
                found
            }
            name => {
                self.require_privilege(caller, Privilege::Manage).await?;
                if name == "*" { tokens.all().await? } else { tokens.of_owner(name).await? }
            }
        };
        found.retain(|token| token.session.is_none() && tokens.has_not_ended(token));
        found.sort_by(|a, b| (a.created_at, a.id.object_name()).cmp(&(b.created_at, b.id.object_name())));
        let identity = tokens.identity_now().await?;
        let view = |token| TokenView::new(token, self.is_suspended(token, &identity));
        Ok(TokenPage {
            total: found.len(),
            items: page.of(&found).map(view).collect(),
            limit: page.limit,
            offset: page.offset,
        })
    }
}
