//! The web console: the operations of the REST API as pages, for owners and engineers.
//!
//! It calls the same functions as the REST API and renders what they return as HTML. Only its routes read the cookie.
//! Every page works without JavaScript; the script adds countdowns, copying and local times.

mod assets;
mod cookie;
mod form;
mod frame;
mod grant;
mod guard;
mod login;
mod me;
mod member;
mod members;
mod sign_in;
mod sso;
mod step_up;
mod tokens;
mod visitor;
mod words;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Redirect;
use axum::routing::{any, get, post};

use crate::api::State;
use crate::api::problem::{Code, Problem};

/// Where the console is, below the public URL.
pub(crate) const ROOT: &str = "/console";

/// The console's routes.
pub fn router(state: State) -> Router<State> {
    let pages = Router::new()
        .route("/sign-in", get(sign_in::page).post(sign_in::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/sign-out/everywhere", post(sign_in::sign_out_everywhere))
        .route("/sso/{issuer}", post(sso::start))
        .route("/sso/callback/{issuer}", get(sso::callback))
        .route("/members", get(members::page))
        .route("/grant", get(grant::page).post(grant::grant))
        .route("/members/{id}", get(member::page))
        .route("/members/{id}/end", post(member::end))
        .route("/members/{id}/extend", post(member::extend))
        .route("/members/{id}/credentials", post(member::new_credential))
        .route("/members/{id}/kubeconfigs/{jti}/revoke", post(member::revoke_kubeconfig))
        .route("/me", get(me::page))
        .route("/me/kubeconfig", post(me::download))
        .route("/me/kubeconfigs/{jti}/revoke", post(me::revoke_kubeconfig))
        .route("/me/end", post(me::end))
        .route("/tokens", get(tokens::page).post(tokens::generate))
        .route("/tokens/{id}/rename", post(tokens::rename))
        .route("/tokens/{id}/rotate", post(tokens::rotate))
        .route("/tokens/{id}/revoke", post(tokens::revoke))
        .route("/time", get(assets::time))
        .route("/assets/{name}", get(assets::asset))
        .route("/{*rest}", any(|| async { Problem::new(Code::NotFound) }))
        .layer(from_fn_with_state(state, guard::guard));
    let entrances = Router::new()
        .route("/", get(|| async { Redirect::to("/console/") }))
        .route(ROOT, get(|| async { Redirect::to("/console/") }))
        .route("/console/", get(sign_in::start))
        .layer(from_fn(guard::headers));
    entrances.nest(ROOT, pages)
}
