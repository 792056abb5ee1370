//! The headers of what the gateway passes on, and what they may not say.

mod answer;
mod bearer;
mod request;
mod upgrade;

pub use answer::{answer, switched};
pub use bearer::bearer;
pub use request::{Ours, refuse_browsers, request};
pub use upgrade::{Upgrade, upgrade};

use http::header::CONNECTION;
use http::{HeaderMap, HeaderName};

/// Why a request's headers are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has no bearer token, or a malformed one.
    #[error("the gateway takes the token of a member's kubeconfig, as a bearer token, and nothing else")]
    NoBearer,
    /// It has more than one credential.
    #[error("the request has two Authorization headers")]
    TwoCredentials,
    /// It impersonates.
    #[error("a member cannot impersonate")]
    Impersonation,
    /// A browser shows or embeds the answer as a page.
    #[error("the gateway does not serve browsers")]
    Browser,
    /// It asks for another protocol, and has a body.
    #[error("a request that upgrades its connection cannot have a body")]
    UpgradeWithBody,
}

impl Refused {
    /// The HTTP status.
    pub fn code(self) -> u16 {
        match self {
            Self::NoBearer | Self::TwoCredentials => 401,
            Self::Impersonation | Self::Browser => 403,
            Self::UpgradeWithBody => 400,
        }
    }
}

/// The elements of a list that may have several lines (RFC 9110, section 5.6.1).
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).iter();
    let elements = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// The headers that `Connection` says are for this connection alone.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    elements(headers, &CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok()).collect()
}

/// Whether a header is for one connection alone (RFC 9110, section 7.6.1), whatever `Connection` says.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "connection" | "http2-settings" | "keep-alive" | "te" | "transfer-encoding" | "upgrade")
        || name.starts_with("proxy-")
}

fn is_impersonation(name: &HeaderName) -> bool {
    name.as_str().starts_with("impersonate-")
}

/// Headers as they were sent, for tests.
#[cfg(test)]
fn parse(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), http::HeaderValue::from_str(value).unwrap());
    }
    headers
}
