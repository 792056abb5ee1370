//! An access token's secret appears only in the answer that shows it.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::tokens::{AccessToken, SCOPES};
use crate::support::{Cluster, Curl, Daypass, Launch, NewMember};

fn hash(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The random part of a secret.
fn random(secret: &str) -> &str {
    secret.rsplit_once('_').unwrap().1
}

/// Texts that must not appear.
#[derive(Default)]
struct Secrets(Vec<String>);

impl Secrets {
    fn keep(&mut self, secret: &str, usernames: &[&str]) {
        self.0.extend([random(secret).to_owned(), hash(secret)]);
        // As in the header. Half of it identifies it.
        let basic = usernames.iter().map(|username| STANDARD.encode(format!("{username}:{secret}")));
        self.0.extend(basic.map(|text| text[text.len() / 2..].trim_end_matches('=').to_owned()));
    }

    #[track_caller]
    fn assert_absent(&self, place: &str, text: &str) {
        for secret in &self.0 {
            assert!(secret.len() > 20, "{secret}");
            let Some(at) = text.find(secret.as_str()) else { continue };
            let line = text[..at].rsplit('\n').next().unwrap();
            panic!("a secret in {place}, after: {}", &line[line.len().saturating_sub(400)..]);
        }
    }
}

#[test]
fn token_is_shown_once_and_stored_as_a_hash() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let answer = caller.post("/tokens", &json!({"name": "CI", "expiresInDays": 1, "scopes": ["tokens:read"]}));
    assert_eq!((answer.status, answer.header("cache-control")), (201, "no-store"), "{}", answer.text);
    let pat = AccessToken::of(&caller, &answer);
    assert!(answer.header("location").ends_with(&format!("/processing/data-planes/dp-1{}", pat.path())));
    let random = random(&pat.secret);
    assert_eq!(pat.secret, format!("dpp_{}_{random}", pat.id));
    assert!(random.len() == 43 + 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{random}");

    let (stored, hash) = (cluster.stored(&pat).unwrap(), hash(&pat.secret));
    assert_eq!(stored["spec"]["tokenHash"], hash);
    assert!(!stored.to_string().contains(random));
    for client in [&caller, &pat.http] {
        for path in ["/tokens", &pat.path()] {
            let text = client.get(path).expect(200).text;
            assert!(text.contains(&pat.id) && !text.contains(random) && !text.contains(&hash), "{text}");
        }
    }
    let renamed = caller.patch(&pat.path(), &json!({"name": "other"})).expect(200);
    assert!(renamed.json()["name"] == "other" && !renamed.text.contains(random), "{}", renamed.text);
    // An uninstall removes it, and nothing holds it.
    let owner = json!([{
        "apiVersion": "v1", "kind": "ServiceAccount",
        "name": "daypass", "uid": cluster.uid("daypass", "serviceaccount", "daypass"),
    }]);
    assert_eq!((&stored["metadata"]["ownerReferences"], &stored["metadata"]["finalizers"]), (&owner, &Value::Null));
    let session = cluster.stored(&pat.sign_in()).unwrap();
    assert_eq!(session["metadata"]["ownerReferences"][0]["uid"], stored["metadata"]["uid"]);
}

/// Calls everything that shows, accepts or refuses a token. Returns the refusals.
fn use_all(cluster: &Cluster, daypass: &Daypass, secrets: &mut Secrets) -> String {
    let caller = cluster.with_privilege(cluster.caller(daypass, &["list"], &["members"], None), "generate");
    let username = caller.username();
    let owner = username.as_str();
    let pat = AccessToken::new(&caller, &SCOPES);
    secrets.keep(&pat.secret, &[owner, &pat.id, "nobody"]);
    let mut refused = Vec::new();
    for scheme in ["Bearer", "Token"] {
        caller.get_as(&format!("{scheme} {}", pat.secret), "/members").expect(200);
        refused.push(caller.get_as(&format!("X{scheme} {}", pat.secret), "/members"));
    }
    for username in [owner, &pat.id] {
        caller.with_basic(username, &pat.secret).get("/members").expect(200);
    }
    let bearer = format!("Authorization: Bearer {}", pat.secret);
    let (status, _) = Curl::new(cluster, daypass, "/tokens").with("http2", "").with("header", &bearer).send();
    assert_eq!(status, 200);
    let session = pat.sign_in();
    secrets.keep(&session.secret, &[owner]);
    session.http.get("/members").expect(200);
    let session = AccessToken::session_of(&caller);
    secrets.keep(&session.secret, &[owner]);
    session.http.get("/members").expect(200);
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 1);
    let session = AccessToken::session_of(&member.engineer);
    secrets.keep(&session.secret, &[&member.id]);
    session.http.get(&member.path("/me")).expect(200);
    refused.push(session.http.get("/members"));
    refused.push(session.http.get("/members/view.nobody/me"));
    caller.with_basic(&member.id, &session.secret).delete("/sessions").expect(204);
    let less = json!({"name": "less", "expiresInDays": 1, "scopes": ["members:read"]});
    let child = AccessToken::requested(&pat.http, &less);
    secrets.keep(&child.secret, &[owner]);

    // Wrong, in the wrong place, or pasted into another field.
    let forged = pat.forged();
    secrets.keep(&forged, &[owner]);
    let typo = format!("{}x", pat.secret);
    refused.push(caller.with_token(&typo).get("/tokens"));
    refused.push(caller.with_token(&forged).get("/tokens"));
    refused.push(caller.with_basic("nobody", &pat.secret).get("/tokens"));
    let pasted = format!("/tokens/{}", pat.secret);
    for client in [&caller, &caller.anonymous(), &caller.with_token("wrong"), &child.http] {
        refused.push(client.get(&pasted));
        refused.push(client.delete(&pasted));
        refused.push(client.get(&format!("/members/{}", pat.secret)));
        refused.push(client.get(&format!("/tokens?owner={}", pat.secret)));
    }
    refused.push(caller.post("/tokens", &json!({"name": "a", "scopes": [pat.secret], "expiresInDays": 1})));
    assert!(refused.iter().all(|answer| answer.status >= 400), "{refused:?}");

    let rotated = AccessToken::of(&caller, &pat.http.post("/tokens/self/rotate", &json!({})).expect(200));
    secrets.keep(&rotated.secret, &[owner, &pat.id]);
    refused.push(pat.http.get("/tokens"));
    refused.push(pat.http.post("/tokens/self/rotate", &json!({})));
    refused.push(rotated.http.get("/tokens"));
    refused.iter().map(|answer| format!("{} {:?}\n", answer.text, answer.headers)).collect()
}

#[test]
fn trace_log_audit_trail_errors_and_metrics_hold_no_token() {
    let (cluster, _) = Cluster::shared();
    let daypass = Daypass::start(cluster, &Launch { log: Some("trace".to_owned()), ..Launch::default() });
    let mut secrets = Secrets::default();
    let refusals = use_all(cluster, &daypass, &mut secrets);
    secrets.assert_absent("an error", &refusals);

    let log = daypass.log();
    assert!(log.contains("TRACE"), "the log level must be trace");
    secrets.assert_absent("the log", &log);
    let trail = daypass.audit_events();
    assert!(trail.len() > 20, "{trail:?}");
    secrets.assert_absent("the audit trail", &Value::Array(trail).to_string());
    secrets.assert_absent("the metrics", &daypass.metrics());
    let kubernetes = fs::read_to_string(cluster.plane.audit_log()).unwrap();
    secrets.assert_absent("the API server's audit log", &kubernetes);
    let process = Path::new("/proc").join(daypass.pid().to_string());
    for file in ["cmdline", "environ"] {
        secrets.assert_absent(file, &String::from_utf8_lossy(&fs::read(process.join(file)).unwrap()));
    }
    secrets
        .assert_absent("the events", &cluster.kubectl(&["get", "events,secrets,serviceaccounts", "-A", "-o", "json"]));
}

#[test]
fn malformed_token_is_refused_without_lookup() {
    let (cluster, _) = Cluster::shared();
    let daypass = Daypass::start(cluster, &Launch::default());
    let caller = cluster.generator(&daypass);
    let pat = AccessToken::new(&caller, &SCOPES);
    pat.http.get("/tokens").expect(200);
    let before = (daypass.calls("get_access_token"), daypass.calls("list_access_tokens"));
    let secret = &pat.secret;
    let changed = |at: usize| {
        let mut bytes = secret.clone().into_bytes();
        bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
        String::from_utf8(bytes).unwrap()
    };
    let mut wrong: Vec<String> = (0..secret.len()).step_by(3).map(changed).collect();
    wrong.push(secret[..secret.len() - 1].to_owned());
    wrong.push(format!("{secret}0"));
    wrong.push(secret.to_uppercase());
    wrong.push(secret.replace("dpp_", "dpm_"));
    wrong.push(secret.replace("dpp_", ""));
    wrong.push("dpp_".to_owned());
    wrong.push(format!("dpp_{}_", pat.id));
    for text in &wrong {
        for client in [caller.with_token(text), caller.with_basic(&pat.id, text)] {
            client.get("/tokens").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        }
    }
    assert_eq!((daypass.calls("get_access_token"), daypass.calls("list_access_tokens")), before);
    // A well-formed token is looked up once.
    caller.with_token(&pat.forged()).get("/tokens").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    assert_eq!(daypass.calls("get_access_token"), before.0 + 1.0);
    pat.http.get("/tokens").expect(200);
}
