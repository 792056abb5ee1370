//! The operations on access tokens, one file each.

mod access;
mod create;
mod delete;
mod get;
mod list;
mod rotate;
mod types;
mod update;

pub use list::TokenPage;
pub use types::{IssuedToken, OwnerView, TokenStatus, TokenView};

pub(crate) use create::CreateToken;
pub(crate) use rotate::RotateToken;
pub(crate) use update::UpdateToken;

use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::State;

/// An access token in a path. Middleware checks the data plane's id in front of it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct TokenPath {
    /// The token's id, or `self` for the one that this request is made with, directly or by its session.
    #[param(example = "self")]
    id: String,
}

pub(super) fn router() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(list::list_tokens, create::create_token))
        .routes(routes!(get::get_token, update::update_token, delete::delete_token))
        .routes(routes!(rotate::rotate_token))
}
