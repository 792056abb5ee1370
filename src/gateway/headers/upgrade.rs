//! Requests for another protocol on the same connection.

use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_PROTOCOL, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Version};

use super::{Refused, elements};

/// How a WebSocket client may send a token (k8s.io/apiserver, `pkg/authentication/request/websocket`).
const BEARER_PROTOCOL: &str = "bearer.authorization.k8s.io";

/// A protocol that Kubernetes speaks after an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// WebSocket (RFC 6455).
    WebSocket,
    /// SPDY 3.1.
    Spdy,
}

impl Upgrade {
    /// Its name in `Upgrade`.
    pub(super) fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::WebSocket => "websocket",
            Self::Spdy => "SPDY/3.1",
        })
    }

    /// The one protocol that `Upgrade` names, if it is one of these.
    pub(super) fn named(headers: &HeaderMap) -> Option<Self> {
        let mut names = elements(headers, &UPGRADE);
        let (name, None) = (names.next()?, names.next()) else { return None };
        [Self::WebSocket, Self::Spdy].into_iter().find(|it| name.eq_ignore_ascii_case(it.name().as_bytes()))
    }
}

/// The protocol that a request asks for; `None` if none. HTTP/1.0 and HTTP/2 have no upgrades (RFC 9110, section 7.8),
/// and a server may ignore a protocol that it does not know, such as `h2c`.
///
/// # Errors
/// [`Refused::UpgradeWithBody`]: no client sends one, and where it ends the next protocol begins.
pub fn upgrade(headers: &HeaderMap, version: Version) -> Result<Option<Upgrade>, Refused> {
    let is_asked = elements(headers, &CONNECTION).any(|name| name.eq_ignore_ascii_case(b"upgrade"));
    if version != Version::HTTP_11 || !is_asked {
        return Ok(None);
    }
    let Some(upgrade) = Upgrade::named(headers) else { return Ok(None) };
    let has_length = headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
    if has_length || headers.contains_key(TRANSFER_ENCODING) {
        return Err(Refused::UpgradeWithBody);
    }
    Ok(Some(upgrade))
}

/// The WebSocket protocols that a client offers, without those that are credentials; `None` if nothing is left.
///
/// Visible ASCII only, since the API server trims what Unicode calls a space, and would find a token behind it.
pub(super) fn protocols(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocols = elements(headers, &SEC_WEBSOCKET_PROTOCOL)
        .filter(|protocol| protocol.iter().all(u8::is_ascii_graphic))
        .filter_map(|protocol| str::from_utf8(protocol).ok())
        .filter(|protocol| !protocol.to_ascii_lowercase().contains(BEARER_PROTOCOL))
        .collect::<Vec<_>>();
    if protocols.is_empty() { None } else { HeaderValue::try_from(protocols.join(", ")).ok() }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn asked(lines: &[(&str, &str)]) -> Result<Option<Upgrade>, Refused> {
        upgrade(&parse(lines), Version::HTTP_11)
    }

    #[test]
    fn upgrade_of_each_client_is_known() {
        for (connection, name, expected) in [
            ("Upgrade", "websocket", Upgrade::WebSocket),
            ("upgrade", "WebSocket", Upgrade::WebSocket),
            ("keep-alive, Upgrade", "websocket", Upgrade::WebSocket),
            ("Upgrade", "SPDY/3.1", Upgrade::Spdy),
            (" ,UPGRADE, ", " spdy/3.1 ,", Upgrade::Spdy),
        ] {
            assert_eq!(asked(&[("Connection", connection), ("Upgrade", name)]), Ok(Some(expected)), "{name}");
        }
        let two_lines = [("Connection", "keep-alive"), ("Upgrade", "websocket"), ("Connection", "upgrade")];
        assert_eq!(asked(&two_lines), Ok(Some(Upgrade::WebSocket)));
        let spdy = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("Content-Length", "0")];
        assert_eq!(asked(&spdy), Ok(Some(Upgrade::Spdy)));
    }

    #[test]
    fn anything_else_is_no_upgrade() {
        for name in ["h2c", "SPDY/3", "TLS/1.0", "websocket, SPDY/3.1", "websocket h2c", "websocket/13", "", ","] {
            assert_eq!(asked(&[("Connection", "Upgrade"), ("Upgrade", name)]), Ok(None), "{name}");
        }
        assert_eq!(asked(&[("Upgrade", "websocket")]), Ok(None));
        assert_eq!(asked(&[("Connection", "Upgrade")]), Ok(None));
        assert_eq!(asked(&[("Connection", "upgrade-x"), ("Upgrade", "websocket")]), Ok(None));
        let twice = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Upgrade", "websocket")];
        assert_eq!(asked(&twice), Ok(None));
        let headers = parse(&[("Connection", "Upgrade"), ("Upgrade", "websocket")]);
        for version in [Version::HTTP_10, Version::HTTP_2] {
            assert_eq!(upgrade(&headers, version), Ok(None));
        }
    }

    #[test]
    fn upgrade_with_a_body_is_refused() {
        for line in [
            ("Content-Length", "5"),
            ("Content-Length", "0, 5"),
            ("Content-Length", "+0"),
            ("Transfer-Encoding", "chunked"),
            ("Transfer-Encoding", "identity"),
        ] {
            let lines = [("Connection", "Upgrade"), ("Upgrade", "websocket"), line];
            assert_eq!(asked(&lines), Err(Refused::UpgradeWithBody), "{line:?}");
        }
    }

    #[test]
    fn token_among_websocket_protocols_is_taken_out() {
        let protocols = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|value| ("Sec-WebSocket-Protocol", *value)).collect();
            super::protocols(&parse(&lines)).map(|value| value.to_str().unwrap().to_owned())
        };
        let token = "base64url.bearer.authorization.k8s.io.ZHBnX3g";
        assert_eq!(protocols(&[&format!("{token}, v5.channel.k8s.io")]).as_deref(), Some("v5.channel.k8s.io"));
        assert_eq!(protocols(&["v5,v4", &format!(" {token} ,"), "v3"]).as_deref(), Some("v5, v4, v3"));
        assert_eq!(protocols(&[token]), None);
        assert_eq!(protocols(&[&token.to_uppercase(), ","]), None);
        // Go trims these spaces, too.
        for space in ["\u{a0}", "\u{85}", "\u{2003}", "\u{3000}"] {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_bytes(format!("v5, {space}{token}").as_bytes()).unwrap();
            headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
            assert_eq!(super::protocols(&headers).unwrap(), "v5", "{space:?}");
        }
        let tunnel = "SPDY/3.1+portforward.k8s.io";
        assert_eq!(protocols(&[tunnel]).as_deref(), Some(tunnel));
    }
}
