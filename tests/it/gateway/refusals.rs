//! What the gateway refuses, and in which words.

use serde_json::{Value, json};

use super::{Gateways, Guest};
use crate::support::tokens::AccessToken;
use crate::support::{Answer, Cluster, NewMember, RawConnection};

const LIST: &str = "/api/v1/namespaces/default/configmaps";

/// Checks that an answer is a `Status` that kubectl shows, with the same text as a warning.
#[track_caller]
pub(super) fn refused(answer: &Answer, code: u16, text: &str) {
    assert_eq!(answer.status, code, "{}", answer.text);
    let status: Value = answer.json();
    assert_eq!(
        (&status["kind"], &status["status"], &status["code"]),
        (&json!("Status"), &json!("Failure"), &code.into())
    );
    let message = status["message"].as_str().unwrap();
    assert!(message.contains(text), "{message}");
    assert!(answer.header("warning").starts_with("299 - \"") && answer.header("warning").contains(text));
    assert_eq!(answer.headers.get("retry-after").is_some(), code == 429);
    assert_eq!(answer.header("www-authenticate"), "");
}

#[test]
fn only_the_token_of_a_gateway_kubeconfig_is_taken() {
    let gateways = Gateways::shared();
    let (cluster, guest) = (gateways.cluster, gateways.member(&gateways.role()));
    let kubernetes = cluster.token("default", "owner", "");
    let (_, direct) = Cluster::shared();
    let direct = NewMember::new(&direct.owner, &gateways.role(), 1).kubeconfig(cluster).token;
    let (start, last) = guest.token.split_at(guest.token.len() - 1);
    let typo = format!("{start}{}", if last == "x" { "y" } else { "x" });
    let access = AccessToken::new(&gateways.first.owner, &["members:read"]);
    let session = access.sign_in();
    let ours = [&guest.member.password, &access.secret, &session.secret];
    for token in ours.into_iter().map(String::as_str).chain([
        gateways.first.owner.token(),
        &kubernetes,
        &direct,
        &typo,
        "dpg_",
        "",
        "a b",
    ]) {
        refused(&guest.api.with_token(token).get(LIST), 401, "the token of a member's kubeconfig");
    }
    refused(&guest.api.anonymous().get(LIST), 401, "the token of a member's kubeconfig");
    refused(&guest.api.anonymous().get("/version"), 401, "the token of a member's kubeconfig");
    refused(
        &guest.api.with_basic(&guest.member.id, &guest.token).get(LIST),
        401,
        "the token of a member's kubeconfig",
    );
    let twice = guest.api.request("GET", LIST).header("authorization", format!("Bearer {}", guest.token));
    refused(&Answer::of(twice), 401, "two Authorization headers");
}

#[test]
fn gateway_token_is_good_for_nothing_else() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    let rest = gateways.first.owner.with_token(&guest.token);
    for path in ["/members", "/tokens", &guest.member.path("/kubeconfig"), &guest.member.path("/me")] {
        assert_eq!(rest.get(path).status, 401, "{path}");
    }
    let basic = gateways.first.owner.with_basic(&guest.member.id, &guest.token);
    assert_eq!(basic.get(&guest.member.path("/kubeconfig")).status, 401);
    assert!(!gateways.cluster.api.accepts(&guest.token));
}

#[test]
fn unknown_token_is_never_answered_429() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    gateways.first.owner.delete(&guest.member.path("")).expect(204);
    for _ in 0..100 {
        refused(&guest.api.get(LIST), 401, "this membership was ended early");
    }
}

#[test]
fn impersonation_is_refused_in_any_form() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    let ask = |headers: &[(&str, &str)]| {
        let request = guest.api.request("GET", LIST);
        Answer::of(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)))
    };
    refused(&ask(&[("Impersonate-User", "system:admin")]), 403, "mpersonat");
    refused(&ask(&[("impersonate-group", "system:masters")]), 403, "mpersonat");
    refused(&ask(&[("Impersonate-Extra-Scopes", "a")]), 403, "mpersonat");
    refused(&ask(&[("Impersonate-User", "a"), ("Impersonate-User", "b")]), 403, "mpersonat");
    let mut raw = RawConnection::connect(gateways.cluster, &gateways.first);
    raw.send(&format!(
        "GET /dp-1/gateway{LIST} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\
         Connection: Impersonate-User\r\nImpersonate-User: system:admin\r\n\r\n",
        guest.token
    ));
    assert!(raw.answer().starts_with("HTTP/1.1 403 "));
}

/// Sends a request by hand. Returns the head of its answer.
#[track_caller]
fn raw(gateways: &Gateways, guest: &Guest, target: &str, headers: &str) -> String {
    let mut raw = RawConnection::connect(gateways.cluster, &gateways.first);
    raw.send(&format!("GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n{headers}\r\n", guest.token));
    raw.answer()
}

#[test]
fn smuggled_headers_do_not_arrive() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    for (name, value) in [
        ("X-Remote-User", "system:admin"),
        ("X-Remote-Group", "system:masters"),
        ("X-Remote-Extra-Foo", "a"),
        ("Connection", "authorization"),
        ("Connection", "close, Authorization"),
        ("X-Forwarded-For", "203.0.113.1"),
        ("Cookie", "a=b"),
        ("Origin", "https://example.com"),
        ("Expect", "100-continue"),
        ("TE", "trailers"),
        ("Upgrade", "h2c"),
    ] {
        let answer = Answer::of(guest.api.request("POST", path).header(name, value).json(&review)).expect(201);
        assert_eq!(answer.json()["status"]["userInfo"]["username"], guest.username(), "{name}: {value}");
    }
}

#[test]
fn browser_gets_nothing() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    for (name, value) in [("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document"), ("Sec-Fetch-Dest", "iframe")]
    {
        refused(&Answer::of(guest.api.request("GET", LIST).header(name, value)), 403, "browser");
    }
    Answer::of(guest.api.request("GET", LIST).header("Sec-Fetch-Mode", "cors").header("Sec-Fetch-Dest", "empty"))
        .expect(200);
}

#[test]
fn odd_targets_are_refused() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    let absolute = format!("https://127.0.0.1/dp-1/gateway{LIST}");
    assert!(raw(gateways, &guest, &absolute, "").starts_with("HTTP/1.1 400 "));
    for target in ["/dp-1/gatewayx", "/DP-1/gateway/version", "/dp-1/%67ateway/version", "/dp-2/gateway/version"] {
        let answer = raw(gateways, &guest, target, "");
        assert!(answer.contains("application/problem+json"), "not the gateway's: {answer}");
    }
}

#[test]
fn upgrade_to_another_protocol_is_none() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    // What is no upgrade is forwarded as an ordinary request.
    let target = "/dp-1/gateway/version";
    for upgrade in ["h2c", "websocket, SPDY/3.1", "SPDY/3"] {
        let answer = raw(gateways, &guest, target, &format!("Connection: Upgrade\r\nUpgrade: {upgrade}\r\n"));
        assert!(!answer.starts_with("HTTP/1.1 101 "), "{upgrade}: {answer}");
    }
    // The API server answers 200 to this one.
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
                     Sec-WebSocket-Version: 13\r\n";
    let answer = raw(gateways, &guest, target, websocket);
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}
