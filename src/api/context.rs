//! What is known of every request: its id, and the address it came from.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts, OriginalUri};
use http::HeaderMap;
use http::request::Parts;
use ipnet::IpNet;

use super::State;
use super::problem::Problem;
use crate::audit::Origin;
use crate::domain::secret::redacted;

/// As much of a request as the audit trail keeps; a valid path is a third of it.
const MAX_REQUEST: usize = 512;

/// A request's id, made by the outermost middleware.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

/// A request's surroundings.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) state: State,
    pub(super) origin: Origin,
}

impl FromRequestParts<State> for Context {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let Ok(origin) = origin(parts, &state.settings.trusted_proxies);
        Ok(Self { state: state.clone(), origin })
    }
}

/// The whole path: a nested router sees only its own part.
fn path(parts: &Parts) -> &str {
    parts.extensions.get::<OriginalUri>().map_or(parts.uri.path(), |OriginalUri(uri)| uri.path())
}

fn origin(parts: &Parts, trusted: &[IpNet]) -> Result<Origin, Infallible> {
    let peer =
        parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip().to_canonical());
    Ok(Origin {
        address: peer.map(|peer| client_address(peer, &parts.headers, trusted).to_string()),
        request_id: parts.extensions.get::<RequestId>().map(|RequestId(id)| id.clone()),
        // Not the query: nothing in it matters, and people paste secrets there.
        request: Some(format!("{} {}", parts.method, redacted(path(parts))).chars().take(MAX_REQUEST).collect()),
    })
}

/// The client's address: `X-Forwarded-For` is believed as far as trusted proxies wrote it, so read from its end, up to the first
/// address that is none of theirs.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer;
    let forwarded: Vec<String> = headers
        .get_all("x-forwarded-for")
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .flat_map(|value| value.split(',').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    for entry in forwarded.iter().rev() {
        if !is_trusted(&client) {
            break;
        }
        // What is no address was not written by a proxy that is to be believed.
        let Ok(address) = entry.trim().parse::<IpAddr>() else { break };
        client = address.to_canonical();
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn address(peer: &str, forwarded: &[&'static str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn forwarded_for_counts_only_as_far_as_trusted_proxies_wrote_it() {
        assert_eq!(address("192.0.2.9", &["203.0.113.1"], &[]), "192.0.2.9");
        assert_eq!(address("10.0.0.1", &["203.0.113.1"], &["10.0.0.0/8"]), "203.0.113.1");
        assert_eq!(address("10.0.0.1", &["6.6.6.6, 203.0.113.1, 10.0.0.2"], &["10.0.0.0/8"]), "203.0.113.1");
        assert_eq!(address("10.0.0.1", &["6.6.6.6", "203.0.113.1"], &["10.0.0.0/8"]), "203.0.113.1");
        assert_eq!(address("10.0.0.1", &["6.6.6.6, \u{e4}, 203.0.113.1"], &["10.0.0.0/8"]), "203.0.113.1");
        assert_eq!(address("10.0.0.1", &["junk"], &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(address("10.0.0.1", &[], &["10.0.0.0/8"]), "10.0.0.1");
    }
}
