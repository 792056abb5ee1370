//! Fuzz targets, which a test also runs on the corpus in `fuzz/corpus`: each parser of what strangers send, and of
//! objects that others wrote and the API server returns.

use std::fmt::Debug;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue};
use k8s_openapi::api::rbac::v1::ClusterRole;
use secrecy::ExposeSecret as _;

use super::body::parse;
use super::members::{CreateMember, UpdateMember};
use super::page::Page as Query;
use super::tokens::{CreateToken, RotateToken, UpdateToken};
use crate::authn::oidc::{IdToken, Issuers, Keys, claims};
use crate::authn::{Credentials, PresentedSecret, client_address};
use crate::crd::{Object, Page, WatchLine, read_access_token, read_member};
use crate::domain::access_token::IdForm;
use crate::domain::member_id::MemberId;
use crate::domain::redact::redacted;
use crate::domain::role::RoleId;
use crate::domain::token::{decode_claims, decode_own_claims};
use crate::gateway::frames::{Frames, Purpose, Spdy, WatchLines, WebSocket};
use crate::gateway::status::Status;

/// Reads an input and panics if a guarantee is broken.
pub type Target = fn(&[u8]);

/// The targets, named as the folders of the corpus.
pub const TARGETS: [(&str, Target); 11] = [
    ("path", path),
    ("authorization", authorization),
    ("forwarded_for", forwarded_for),
    ("body", body),
    ("query", query),
    ("kubernetes", kubernetes),
    ("jwt", jwt),
    ("id_token", id_token),
    ("websocket", websocket),
    ("spdy", spdy),
    ("watch", watch),
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find_map(|(of, target)| (of == name).then_some(target))
}

/// A path: its logged form has no secret, and a parsed id is printed as it was sent.
fn path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let shown = redacted(&text);
    for prefix in ["dpm_", "dpp_", "dpg_"] {
        let is_secret = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphanumeric());
        assert!(!shown.split(prefix).skip(1).any(is_secret), "{shown}");
    }
    for part in text.split('/') {
        if let Some(id) = MemberId::parse(part) {
            assert_eq!(id.to_string(), part);
        }
    }
}

/// Each line as an Authorization header: an access token keeps its prefix, and two headers are malformed.
fn authorization(data: &[u8]) {
    let headers = headers(AUTHORIZATION, data);
    let credentials = Credentials::of(&headers);
    if let Some(secret) = credentials.access_token() {
        assert!(secret.expose().starts_with("dpp_"));
    }
    if headers.get_all(AUTHORIZATION).iter().count() > 1 {
        assert!(matches!(credentials, Credentials::Malformed));
    }
    for line in String::from_utf8_lossy(data).lines() {
        if let Some(session) = Credentials::of_session(line).access_token() {
            assert_ne!(session.subject().form(), IdForm::Token, "an access token in a cookie");
            assert_eq!(session.expose(), line);
        }
        let (username, secret) = line.split_once(':').unzip();
        if let Credentials::Presented { secret, .. } = Credentials::of_form(username, secret.unwrap_or(line)) {
            assert!(!matches!(secret, PresentedSecret::Foreign(token) if token.expose_secret().starts_with("dp")));
        }
    }
}

/// Each line as an `X-Forwarded-For` header: a peer that is no trusted proxy is always the client.
fn forwarded_for(data: &[u8]) {
    let headers = headers(HeaderName::from_static("x-forwarded-for"), data);
    let stranger = IpAddr::from([192, 0, 2, 9]);
    let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap_or_default());
    assert_eq!(client_address(stranger, &headers, &trusted), stranger);
    let client = client_address(IpAddr::from([10, 0, 0, 1]), &headers, &trusted);
    assert_eq!(client, client.to_canonical());
}

/// A request body of each operation.
fn body(data: &[u8]) {
    let _ = parse::<CreateMember>(data);
    let _ = parse::<UpdateMember>(data);
    let _ = parse::<CreateToken>(data);
    let _ = parse::<RotateToken>(data);
    let _ = parse::<UpdateToken>(data);
}

/// A query: a parsed page is within its bounds.
fn query(data: &[u8]) {
    if let Ok(page) = Query::parse(&String::from_utf8_lossy(data), &["roleId"]) {
        assert!((1..=1000).contains(&page.limit));
    }
}

/// An answer of the API server: a page of a list, a line of a watch, or an object.
fn kubernetes(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(page) = Page::parse(&text) {
        let _ = page.continuation();
        page.objects().flatten().for_each(|object| read(&object));
    }
    if let Ok(line) = WatchLine::parse(&text)
        && let Ok(object) = line.object()
    {
        read(&object);
    }
    if let Ok(object) = Object::parse(&text) {
        read(&object);
    }
}

fn read(object: &Object) {
    let _ = object.decode::<ClusterRole>();
    let _ = read_access_token(object);
    if let Some(role) = RoleId::parse("view")
        && let Ok(member) = read_member(&role, object)
    {
        assert_eq!(member.deleting, object.is_deleting());
        assert!(member.duration.get() <= crate::domain::lifetime::MAX_LIFETIME);
    }
}

/// The claims of a token from the API server.
fn jwt(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = decode_claims(&text);
    let _ = decode_own_claims(&text);
}

/// The claims of an ID token, or a set of keys. Whoever they name has the issuer's prefix, and no group of Kubernetes'
/// own but one.
fn id_token(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = (IdToken::read(&text), IdToken::unverified_issuer(&text));
    if let Ok(set) = serde_json::from_slice(data) {
        let _ = Keys::read(&set, &["RS256".to_owned(), "ES256".to_owned()]);
    }
    let token = format!("eyJhbGciOiJFUzI1NiJ9.{}.AAAA", URL_SAFE_NO_PAD.encode(data));
    let settings = serde_json::json!([{
        "name": "corp", "url": "https://id.example.com", "audiences": ["daypass"], "usernameClaim": "sub",
        "usernamePrefix": "corp:", "groupsClaim": "groups", "groupsPrefix": "corp:",
    }]);
    let issuers = Issuers::read(&settings).unwrap_or_default();
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap_or_default();
    for issuer in issuers.iter() {
        let Ok(token) = IdToken::read(&token) else { continue };
        if let Ok(person) = claims::person(&token, issuer, now) {
            assert!(person.username.starts_with("corp:") && person.expires_at > now);
            let (all, own) = (person.groups.len(), person.groups.iter().filter(|group| !group.starts_with("corp:")));
            assert!(own.eq(["system:authenticated"]) && all <= 1001);
        }
    }
}

/// A WebSocket from the API server, through the gateway.
fn websocket(data: &[u8]) {
    frames(WebSocket::new(Purpose::Command, "v5.channel.k8s.io"), data);
}

/// SPDY from the API server, through the gateway.
fn spdy(data: &[u8]) {
    frames(Spdy::new(Purpose::Command, "v4.channel.k8s.io"), data);
}

/// A watch from the API server, through the gateway.
fn watch(data: &[u8]) {
    frames(WatchLines::default(), data);
}

/// The first byte says where to split the rest. That changes nothing, and an ending that fits in is itself readable.
fn frames<F: Frames + Clone + PartialEq + Debug>(new: F, data: &[u8]) {
    let Some((at, bytes)) = data.split_first() else { return };
    let (mut whole, mut pieces) = (new.clone(), new);
    let (first, second) = bytes.split_at(bytes.len().min(usize::from(*at)));
    let read = whole.follow(bytes);
    let first_read = pieces.follow(first);
    if first_read.is_ok() {
        let mut cut = pieces.clone();
        if let Ok(passed) = cut.follow_to_gap(second) {
            assert!(passed == second.len() || cut.can_insert());
        }
    }
    assert_eq!(first_read.and_then(|()| pieces.follow(second)), read);
    assert_eq!(whole, pieces);
    if whole.can_insert() {
        assert!(read.is_ok());
        assert_eq!(whole.follow(&whole.ending(&Status::unauthorized("ended"))), Ok(()));
    }
}

/// A header for each line that is a valid value.
fn headers(name: HeaderName, data: &[u8]) -> HeaderMap {
    let values = data.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    values.map(|value| (name.clone(), value)).collect()
}
