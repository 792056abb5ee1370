//! The headers of a request that is passed on to the API server.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, CONNECTION, HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::upgrade::{Upgrade, protocols};
use super::{Refused, is_hop_by_hop, is_impersonation, named_by_connection};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Fetch Metadata (W3C): how a browser sends a request, and for what. Only browsers send these headers.
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The headers that the gateway itself sets. No `Debug`: it has a token.
pub struct Ours<'a> {
    /// The API server's `Host`.
    pub host: &'a HeaderValue,
    /// An `Origin`, for a watch over WebSocket: the API server refuses one without it, whatever it says.
    pub origin: Option<HeaderValue>,
    /// The client's address, which the API server logs as `sourceIPs`; `None` if it is unknown.
    pub client: Option<IpAddr>,
    /// The request's id, which the API server takes as its `auditID`.
    pub request_id: HeaderValue,
    /// The member's token, with its scheme.
    pub authorization: HeaderValue,
}

/// The headers to send to the API server, for a request with these headers.
///
/// Without those of the body (`Content-Length`, `Transfer-Encoding`): hyper sets them from the body itself, so they
/// always agree with what is sent. The body must tell its exact size if it knows it.
///
/// # Errors
/// [`Refused::Impersonation`], [`Refused::Browser`].
pub fn request(headers: &HeaderMap, upgrade: Option<Upgrade>, ours: Ours<'_>) -> Result<HeaderMap, Refused> {
    refuse_browsers(headers)?;
    let named = named_by_connection(headers);
    if headers.keys().chain(&named).any(is_impersonation) {
        return Err(Refused::Impersonation);
    }
    let mut forwarded = HeaderMap::with_capacity(headers.keys_len() + 6);
    for (name, value) in headers {
        if !is_dropped(name) && !named.contains(name) {
            forwarded.append(name, value.clone());
        }
    }
    // Nothing is set before this: `Connection` could name it.
    if let Some(upgrade) = upgrade {
        forwarded.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        forwarded.insert(UPGRADE, upgrade.name());
    }
    if let (Some(Upgrade::WebSocket), Some(protocols)) = (upgrade, protocols(headers)) {
        forwarded.insert(SEC_WEBSOCKET_PROTOCOL, protocols);
    }
    if let Some(client) = ours.client.and_then(|client| HeaderValue::try_from(client.to_string()).ok()) {
        forwarded.insert(FORWARDED_FOR, client);
    }
    if let Some(origin) = ours.origin {
        forwarded.insert(ORIGIN, origin);
    }
    forwarded.insert(HOST, ours.host.clone());
    forwarded.insert(AUDIT_ID, ours.request_id);
    let mut authorization = ours.authorization;
    authorization.set_sensitive(true);
    forwarded.insert(AUTHORIZATION, authorization);
    Ok(forwarded)
}

/// Refuses what a browser shows or embeds as a page. The gateway shares its origin with the console, and
/// `services/proxy` returns pages that a member controls.
///
/// # Errors
/// [`Refused::Browser`].
pub fn refuse_browsers(headers: &HeaderMap) -> Result<(), Refused> {
    let navigates = |mode: &HeaderValue| mode.as_bytes().to_ascii_lowercase().windows(8).any(|it| it == b"navigate");
    if headers.get_all(MODE).iter().any(navigates) || headers.get_all(DEST).iter().any(|dest| dest != "empty") {
        return Err(Refused::Browser);
    }
    Ok(())
}

/// Whether a client's header goes no further: it is for this connection, of the body, a credential, or it says
/// something that only a proxy may say.
fn is_dropped(name: &HeaderName) -> bool {
    let is_known = matches!(
        name.as_str(),
        "audit-id"
            | "authorization"
            | "content-length"
            | "cookie"
            | "expect"
            | "forwarded"
            | "host"
            | "origin"
            | "sec-websocket-protocol"
            | "trailer"
            | "x-real-ip"
    );
    let starts_with = |prefix| name.as_str().starts_with(prefix);
    is_known || is_hop_by_hop(name) || starts_with("x-forwarded-") || starts_with("x-remote-")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parse;
    use super::*;

    const OURS: [(&str, &str); 4] = [
        ("authorization", "Bearer member"),
        ("audit-id", "our-id"),
        ("host", "10.0.0.1:6443"),
        ("x-forwarded-for", "192.0.2.7"),
    ];

    fn sent(headers: &HeaderMap, upgrade: Option<Upgrade>) -> Result<HeaderMap, Refused> {
        let host = HeaderValue::from_static("10.0.0.1:6443");
        let ours = Ours {
            host: &host,
            origin: None,
            client: Some([192, 0, 2, 7].into()),
            request_id: HeaderValue::from_static("our-id"),
            authorization: HeaderValue::from_static("Bearer member"),
        };
        request(headers, upgrade, ours)
    }

    #[track_caller]
    fn assert_sent(lines: &[(&str, &str)], upgrade: Option<Upgrade>, expected: &[(&str, &str)]) {
        assert_eq!(sent(&parse(lines), upgrade).unwrap(), parse(&[&OURS, expected].concat()), "{lines:?}");
    }

    #[test]
    fn headers_of_a_client_pass() {
        let lines = [
            ("accept", "application/json;as=Table"),
            ("accept", "application/json"),
            ("accept-encoding", "gzip"),
            ("content-type", "application/apply-patch+yaml"),
            ("if-none-match", "\"x\""),
            ("kubectl-command", "kubectl get"),
            ("user-agent", "kubectl/v1.37.1"),
            ("sec-fetch-mode", "cors"),
            ("sec-fetch-dest", "empty"),
        ];
        assert_sent(&lines, None, &lines);
    }

    #[test]
    fn client_cannot_say_who_it_is() {
        let lines = [
            ("Authorization", "Bearer dpg_x"),
            ("Proxy-Authorization", "Basic x"),
            ("X-Remote-User", "admin"),
            ("x-REMOTE-group", "system:masters"),
            ("X-Remote-Extra-a", "b"),
            ("Cookie", "a=b"),
            ("Origin", "https://evil.example"),
            ("Forwarded", "for=10.0.0.1"),
            ("X-Forwarded-For", "10.0.0.1"),
            ("X-Forwarded-For", "10.0.0.2"),
            ("X-Forwarded-Client-Cert", "x"),
            ("X-Real-IP", "10.0.0.1"),
            ("Audit-ID", "theirs"),
            ("audit-id", "theirs too"),
            ("Host", "evil.example"),
            ("Host", "evil.example"),
        ];
        assert_sent(&lines, None, &[]);
        assert!(sent(&HeaderMap::new(), None).unwrap()[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn headers_of_this_connection_and_of_the_body_are_dropped() {
        let lines = [
            ("Connection", "keep-alive, X-Mine,,X-Other , not a name"),
            ("Connection", "CLOSE,x-third"),
            ("X-Mine", "a"),
            ("X-Mine", "b"),
            ("x-other", "c"),
            ("X-Third", "d"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("TE", "trailers"),
            ("Trailer", "Impersonate-User"),
            ("Transfer-Encoding", "chunked"),
            ("Transfer-Encoding", "xchunked, identity"),
            ("Content-Length", "5"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "x"),
            ("Expect", "100-continue"),
            ("X-Kept", "e"),
        ];
        assert_sent(&lines, None, &[("x-kept", "e")]);
    }

    #[test]
    fn connection_cannot_name_what_the_gateway_sets() {
        let names = "authorization, Host, Audit-ID, X-Forwarded-For, Upgrade, Connection, Sec-WebSocket-Protocol";
        let lines = [("Connection", names), ("Upgrade", "websocket"), ("Sec-WebSocket-Protocol", "v5.channel.k8s.io")];
        let expected =
            [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-protocol", "v5.channel.k8s.io")];
        assert_sent(&lines, Some(Upgrade::WebSocket), &expected);
    }

    #[test]
    fn impersonation_is_refused() {
        for lines in [
            &[("Impersonate-User", "admin")][..],
            &[("iMPERSONATE-gROUP", "system:masters")],
            &[("Impersonate-Uid", "")],
            &[("Impersonate-Extra-scopes", "a")],
            &[("Impersonate-", "a")],
            &[("Connection", "Impersonate-User")],
            &[("Connection", "close"), ("Connection", " x,\timpersonate-extra-a ,y")],
            &[("Connection", "Impersonate-User"), ("Impersonate-User", "admin")],
        ] {
            assert_eq!(sent(&parse(lines), None), Err(Refused::Impersonation), "{lines:?}");
        }
    }

    #[test]
    fn browsers_are_refused() {
        for (name, value) in [
            ("Sec-Fetch-Mode", "navigate"),
            ("Sec-Fetch-Mode", "Nested-Navigate"),
            ("Sec-Fetch-Dest", "document"),
            ("Sec-Fetch-Dest", "iframe"),
            ("Sec-Fetch-Dest", "serviceworker"),
            ("Sec-Fetch-Dest", ""),
            ("Sec-Fetch-Dest", "empty, document"),
        ] {
            assert_eq!(sent(&parse(&[(name, value)]), None), Err(Refused::Browser), "{name}: {value}");
            let hidden = [("Connection", name), ("Sec-Fetch-Dest", "empty"), (name, value)];
            assert_eq!(sent(&parse(&hidden), None), Err(Refused::Browser), "{name}: {value}");
        }
    }

    #[test]
    fn stream_protocols_keep_a_line_each() {
        let versions = ["v5", "v4", "v3"].map(|version| ("x-stream-protocol-version", version));
        let lines = [&versions[..], &[("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")]].concat();
        let expected = [&versions[..], &[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]].concat();
        assert_sent(&lines, Some(Upgrade::Spdy), &expected);
    }

    proptest! {
        #[test]
        fn api_server_sees_our_values_alone(lines in proptest::collection::vec(
            (
                "[Aa]uthorization|HOST|audit-I[Dd]|X-Forwarded-for|[Xx]-remote-user|[Cc]onnection|te|x-a|Cookie",
                "[ -~]{0,12}|(AUTHORIZATION|[Hh]ost|audit-id|X-A|upgrade|close)(, ?[a-z-]{1,9}){0,2}",
            ),
            0..8,
        )) {
            let lines: Vec<_> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let mut sent = sent(&parse(&lines), None).unwrap();
            sent.remove("x-a");
            prop_assert_eq!(sent, parse(&OURS));
        }
    }
}
