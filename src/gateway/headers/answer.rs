//! The headers of an answer that is passed on to the client.

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, TRANSFER_ENCODING, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Upgrade, is_hop_by_hop, is_impersonation, named_by_connection};

/// The headers of an answer that is not an upgrade.
///
/// `services/proxy` returns what a member controls, from the origin of the console. A browser that shows it anyway
/// runs no script of it, and keeps what it remembers of the origin.
pub fn answer(mut headers: HeaderMap) -> HeaderMap {
    // Chunks count, the length does not (RFC 9112, section 6.3). Ours could announce it.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    let named = named_by_connection(&headers);
    let mut passed = HeaderMap::with_capacity(headers.keys_len() + 2);
    for (name, value) in &headers {
        if !is_dropped(name) && !named.contains(name) {
            passed.append(name, value.clone());
        }
    }
    // No other answer has it. HTTP/2 would compare it with those of earlier answers, and keep it for later ones.
    if let Some(id) = passed.get_mut(AUDIT_ID) {
        id.set_sensitive(true);
    }
    passed.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    passed.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    passed
}

/// The headers of a 101 to a request for this protocol; `None` if the API server switches to another one.
pub fn switched(headers: &HeaderMap, asked: Upgrade) -> Option<HeaderMap> {
    if Upgrade::named(headers) != Some(asked) {
        return None;
    }
    let mut passed = HeaderMap::with_capacity(headers.keys_len());
    for (name, value) in headers {
        if is_of_a_switch(name) {
            passed.append(name, value.clone());
        }
    }
    passed.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    passed.insert(UPGRADE, asked.name());
    Some(passed)
}

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Headers by which a server commands the proxy in front of it: to answer with another page or file, to buffer, to
/// take it for ill. That proxy would take them for Daypass's.
const COMMANDS: [&str; 3] = ["x-accel-", "x-envoy-", "x-sendfile"];

/// Whether the header goes no further. `Trailer` does: it announces what follows the body, which passes.
fn is_dropped(name: &HeaderName) -> bool {
    is_hop_by_hop(name)
        || is_impersonation(name)
        || COMMANDS.iter().any(|command| name.as_str().starts_with(command))
        || matches!(
            name.as_str(),
            "alt-svc" | "clear-site-data" | "service-worker-allowed" | "set-cookie" | "strict-transport-security"
        )
}

fn is_of_a_switch(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "audit-id"
            | "sec-websocket-accept"
            | "sec-websocket-extensions"
            | "sec-websocket-protocol"
            | "warning"
            | "x-stream-protocol-version"
    )
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const OURS: [(&str, &str); 2] = [("content-security-policy", "sandbox"), ("x-content-type-options", "nosniff")];

    #[track_caller]
    fn assert_passed(lines: &[(&str, &str)], expected: &[(&str, &str)]) {
        assert_eq!(answer(parse(lines)), parse(&[&OURS, expected].concat()), "{lines:?}");
    }

    #[test]
    fn headers_of_the_api_server_pass() {
        let lines = [
            ("audit-id", "a"),
            ("cache-control", "no-cache, private"),
            ("content-encoding", "gzip"),
            ("content-length", "5"),
            ("content-type", "application/json"),
            ("etag", "\"x\""),
            ("location", "/elsewhere"),
            ("retry-after", "1"),
            ("trailer", "x-sum"),
            ("warning", "299 - \"a\""),
            ("warning", "299 - \"b\""),
            ("x-kubernetes-pf-flowschema-uid", "x"),
        ];
        assert_passed(&lines, &lines);
    }

    #[test]
    fn headers_of_a_connection_and_for_browsers_are_dropped() {
        let lines = [
            ("Connection", "keep-alive, X-Theirs, Content-Security-Policy"),
            ("Connection", "close"),
            ("x-theirs", "a"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Authenticate", "Basic"),
            ("TE", "trailers"),
            ("Upgrade", "h2c"),
            ("Set-Cookie", "a=b"),
            ("Set-Cookie", "c=d"),
            ("Impersonate-User", "admin"),
            ("Service-Worker-Allowed", "/"),
            ("Clear-Site-Data", "\"*\""),
            ("Strict-Transport-Security", "max-age=1"),
            ("Alt-Svc", "h3=\":443\""),
            ("Content-Security-Policy", "default-src *"),
            ("Content-Security-Policy", "sandbox allow-scripts"),
            ("X-Content-Type-Options", "sniff"),
        ];
        assert_passed(&lines, &[]);
    }

    #[test]
    fn commands_to_a_proxy_are_dropped() {
        let lines = [
            ("X-Accel-Redirect", "/internal"),
            ("x-accel-buffering", "yes"),
            ("X-Sendfile", "/etc/passwd"),
            ("X-Sendfile-Type", "x"),
            ("X-Envoy-Immediate-Health-Check-Fail", "true"),
        ];
        assert_passed(&lines, &[]);
    }

    #[test]
    fn length_beside_chunks_is_dropped() {
        for encoding in ["chunked", "gzip, chunked", "identity"] {
            assert_passed(&[("Content-Length", "5"), ("Transfer-Encoding", encoding)], &[]);
        }
        let hidden = [("Connection", "transfer-encoding"), ("Content-Length", "5"), ("Transfer-Encoding", "chunked")];
        assert_passed(&hidden, &[]);
    }

    #[test]
    fn switch_passes_what_the_protocol_needs() {
        let lines = [
            ("Connection", "upgrade, X-Stream-Protocol-Version"),
            ("Upgrade", "WebSocket"),
            ("Sec-WebSocket-Accept", "x"),
            ("Sec-WebSocket-Protocol", "v5.channel.k8s.io"),
            ("X-Stream-Protocol-Version", "v4.channel.k8s.io"),
            ("Audit-Id", "a"),
            ("Content-Length", "5"),
            ("Transfer-Encoding", "chunked"),
            ("Set-Cookie", "a=b"),
            ("X-Other", "b"),
        ];
        let expected = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-accept", "x"),
            ("sec-websocket-protocol", "v5.channel.k8s.io"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("audit-id", "a"),
        ];
        assert_eq!(switched(&parse(&lines), Upgrade::WebSocket), Some(parse(&expected)));
    }

    #[test]
    fn switch_to_another_protocol_is_none() {
        let both = [("upgrade", "websocket"), ("upgrade", "SPDY/3.1")];
        for lines in [&[][..], &[("upgrade", "websocket")], &[("upgrade", "h2c")], &both] {
            assert_eq!(switched(&parse(lines), Upgrade::Spdy), None, "{lines:?}");
        }
    }
}
