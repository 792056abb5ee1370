//! The context of every request: its id, the client's address, the operation and the connection.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request};
use http::request::Parts;

use super::State;
use super::problem::{Code, Problem};
use crate::authn::{Connection, client_address};
use crate::domain::redact::redacted;
use crate::observability::audit::Origin;

/// How much of a request line the audit trail keeps, in characters. A valid one is a third of it.
const MAX_REQUEST: usize = 512;

/// The context of a request. The outermost middleware builds it once.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    pub(crate) state: State,
    /// Where it comes from, and its id.
    pub(crate) origin: Origin,
    /// Method and route, without the ids in the path.
    pub(crate) operation: String,
    /// Its connection, which has to know when a credential is accepted.
    pub(crate) connection: Connection,
}

impl RequestContext {
    /// The context of a request with this id and this (redacted) path.
    pub(crate) fn new(state: State, request: &Request, id: String, path: &str, connection: Connection) -> Self {
        let extensions = request.extensions();
        let route = extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip().to_canonical());
        let address = peer.map(|peer| client_address(peer, request.headers(), &state.settings.trusted_proxies));
        // Without the query: nothing in it matters here, and people paste secrets there.
        // A method can be any token, a secret among them.
        let shown = redacted(&format!("{} {path}", request.method())).chars().take(MAX_REQUEST).collect();
        let origin =
            Origin { address: address.map(|address| address.to_string()), request_id: Some(id), request: Some(shown) };
        Self { operation: format!("{} {route}", request.method()), state, origin, connection }
    }
}

impl FromRequestParts<State> for RequestContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &State) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(|| Problem::new(Code::Internal))
    }
}
