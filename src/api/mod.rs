//! The REST API.

mod answer;
pub(crate) mod authentication;
mod authorization;
pub(crate) mod body;
mod error_codes;
mod errors_page;
mod fields;
#[doc(hidden)]
pub mod fuzz;
pub(crate) mod identity;
mod kubeconfig;
pub(crate) mod members;
mod middleware;
mod openapi;
pub(crate) mod page;
pub(crate) mod problem;
pub(crate) mod request_context;
mod schemas;
pub(crate) mod sessions;
mod settings;
pub(crate) mod tokens;

pub use errors_page::errors_page;
pub use openapi::document;
pub use settings::{DirectSettings, Kubeconfigs, Settings};

/// The bodies of answers, for clients that decode them.
pub mod wire {
    pub use super::members::{CreatedMember, Credentials, MemberState, MemberView};
    pub use super::tokens::{IssuedToken, OwnerView, TokenPage, TokenStatus, TokenView};
}

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::{get, head};
use bytes::Bytes;
use http::HeaderValue;
use http::header::{ALLOW, CONTENT_TYPE};
use serde::Deserialize;
use tokio_util::task::TaskTracker;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;

use self::problem::{Code, Problem};
use crate::access_tokens::AccessTokens;
use crate::authn::{Authenticator, Capacity};
use crate::clock::{Clock, Entropy};
use crate::cluster::Cluster;
use crate::feed::Feed;
use crate::membership::Membership;
use crate::observability::audit::Audit;
use crate::observability::metrics::Metrics;

/// What handlers use.
#[expect(missing_docs, reason = "the types say it")]
pub struct AppState {
    pub cluster: Cluster,
    pub feed: Feed,
    pub membership: Membership,
    pub tokens: AccessTokens,
    pub authn: Authenticator,
    pub clock: Clock,
    pub entropy: Entropy,
    pub audit: Audit,
    pub metrics: Metrics,
    pub settings: Settings,
    /// The tasks that answer requests.
    pub tasks: TaskTracker,
    /// How many requests may be in progress.
    pub capacity: Capacity,
}

impl fmt::Debug for AppState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppState").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The state that all requests share.
pub type State = Arc<AppState>;

/// A member in a path. Middleware checks the data plane's id in front of it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct MemberPath {
    /// The member's id.
    #[param(example = "projects-view.k7f3x9qm")]
    id: String,
}

/// The operations, by their paths below the data plane's.
fn calls() -> OpenApiRouter<State> {
    members::router().merge(tokens::router()).merge(sessions::router()).merge(identity::router())
}

/// The whole API, with these routes beside it, if there are any.
///
/// # Errors
/// If the OpenAPI document cannot be written as JSON.
pub fn router(state: State, console: Option<Router<State>>) -> serde_json::Result<Router> {
    // Anyone may fetch it, so all answers share one copy.
    let document = Bytes::from(serde_json::to_vec(&document(Some(&state.settings.data_plane_id)))?);
    let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let (calls, _) = calls().split_for_parts();
    let calls = calls
        // axum would handle HEAD as GET and issue a token that nobody sees.
        .route("/members/{id}/kubeconfig", head(only_get).fallback(only_get))
        .layer(axum::middleware::from_fn_with_state(state.clone(), middleware::to_console))
        .layer(axum::middleware::from_fn_with_state(state.clone(), middleware::check_data_plane));
    let router = Router::new()
        .nest("/processing/data-planes/{dataPlaneId}", calls.clone())
        .nest("/{dataPlaneId}", calls)
        .route("/openapi.json", get(move || async move { (json, document) }))
        .merge(console.unwrap_or_default())
        .fallback(|| async { Problem::new(Code::NotFound) })
        .layer(axum::middleware::from_fn_with_state(state.clone(), middleware::finish))
        .with_state(state);
    Ok(router)
}

async fn only_get() -> impl IntoResponse {
    ([(ALLOW, HeaderValue::from_static("GET"))], Problem::new(Code::MethodNotAllowed))
}
