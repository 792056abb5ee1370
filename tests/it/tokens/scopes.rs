//! Scopes limit what an access token may do and pass on.

use chrono::{SecondsFormat, TimeDelta};
use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, SCOPES};
use crate::support::{Answer, Cluster, Daypass, Http, Launch, NewMember, now, time};

const VERBS: [&str; 5] = ["create", "list", "get", "update", "delete"];
const RESOURCES: [&str; 3] = ["members", "members/credentials", "members/kubeconfigs"];

const READ: &str = "members:read";
const WRITE: &str = "members:write";
const TOKENS_READ: &str = "tokens:read";
const TOKENS_WRITE: &str = "tokens:write";

/// Every caller operation and the scope that it needs.
const CALLS: [(&str, &str, &str); 16] = [
    ("GET", "/members", READ),
    ("GET", "/members/roles", READ),
    ("GET", "/members/{member}", READ),
    ("GET", "/members/{member}/kubeconfigs", READ),
    ("POST", "/members", WRITE),
    ("PATCH", "/members/{member}", WRITE),
    ("DELETE", "/members/{member}/kubeconfigs/{jti}", WRITE),
    ("POST", "/members/{member}/credentials", WRITE),
    ("DELETE", "/members/{member}", WRITE),
    ("GET", "/tokens", TOKENS_READ),
    ("GET", "/tokens/{token}", TOKENS_READ),
    ("GET", "/tokens/self", TOKENS_READ),
    ("POST", "/tokens", TOKENS_WRITE),
    ("PATCH", "/tokens/{token}", TOKENS_WRITE),
    ("POST", "/tokens/{token}/rotate", TOKENS_WRITE),
    ("DELETE", "/tokens/{token}", TOKENS_WRITE),
];

#[track_caller]
fn assert_lacks(answer: &Answer, scope: &str) {
    let body = answer.problem(403, "DP_ERR_INSUFFICIENT_SCOPE");
    assert!(body["detail"].as_str().unwrap().contains(scope), "{body}");
    let challenge = format!(r#"Bearer realm="daypass", error="insufficient_scope", scope="{scope}""#);
    assert_eq!(answer.headers("www-authenticate"), [challenge]);
}

#[test]
fn scope_allows_exactly_its_operations() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let owner = cluster.with_privilege(cluster.caller(daypass, &VERBS, &RESOURCES, Some(&role)), "generate");
    let end = (now() + TimeDelta::days(10)).to_rfc3339_opts(SecondsFormat::Secs, true);
    for scope in SCOPES {
        // All end in the same second: a token cannot rotate one that ends later than itself.
        let body = json!({"name": "n", "expiresAt": end, "scopes": [scope]});
        // The calls act on the second one.
        let [pat, other] = [(); 2].map(|()| AccessToken::requested(&owner, &body));
        let member = NewMember::new(&owner, &role, 1);
        let jti = member.kubeconfig(cluster).jti().to_owned();
        for (method, path, needed) in CALLS {
            let path = path.replace("{member}", &member.id).replace("{jti}", &jti).replace("{token}", &other.id);
            let request = pat.http.request(method, &path);
            let answer = Answer::of(match (method, path.rsplit('/').next().unwrap()) {
                ("POST", "members") => request.json(&json!({"duration": 1, "roleId": role.id})),
                ("POST", "tokens") => request.json(&json!({"name": "n", "expiresInDays": 1, "scopes": [scope]})),
                ("PATCH", _) if path.starts_with("/members") => request.json(&json!({"duration": 2})),
                ("PATCH", _) => request.json(&json!({"name": "n"})),
                _ => request,
            });
            if needed == scope {
                assert!(answer.status < 300, "{scope} {method} {path}: {}", answer.text);
            } else {
                assert_lacks(&answer, needed);
            }
        }
        // Sign-in and sign-out need no scope. A session has its token's scopes.
        let session = pat.sign_in();
        assert_eq!(session.body["scopes"], json!([scope]));
        let (_, path, needed) = CALLS[if scope == READ { 9 } else { 0 }];
        assert_lacks(&session.http.get(path), needed);
        session.http.delete("/sessions/current").expect(204);
    }
    // A Kubernetes token needs no scope.
    owner.get("/members").expect(200);
    owner.get("/tokens").expect(200);
}

#[test]
fn token_may_always_revoke_itself() {
    let (cluster, daypass) = Cluster::shared();
    let owner = cluster.generator(daypass);
    let revoke = |pat: &AccessToken, id: &str| pat.http.delete(&format!("/tokens/{id}"));
    for scope in [READ, WRITE, TOKENS_READ] {
        let (pat, other) = (AccessToken::new(&owner, &[scope]), AccessToken::new(&owner, &[scope]));
        // Nothing else: no other token, no change, and not by its session.
        assert_lacks(&revoke(&pat, &other.id), TOKENS_WRITE);
        assert_lacks(&pat.http.patch("/tokens/self", &json!({"name": "n"})), TOKENS_WRITE);
        assert_lacks(&pat.http.post("/tokens/self/rotate", &json!({})), TOKENS_WRITE);
        let session = pat.sign_in();
        for id in ["self", &pat.id] {
            assert_lacks(&session.http.delete(&format!("/tokens/{id}")), TOKENS_WRITE);
        }
        revoke(&pat, "self").expect(204);
        revoke(&other, &other.id).expect(204);
        for revoked in [&pat.http, &other.http, &session.http] {
            revoked.assert_refused();
        }
    }
}

#[test]
fn token_may_revoke_itself_after_too_many_denials() {
    let (cluster, _) = Cluster::shared();
    let args = vec!["--max-denied-requests=3".to_owned()];
    let daypass = Daypass::start(cluster, &Launch { args, ..Launch::default() });
    let owner = cluster.generator(&daypass);
    let [pat, other] = [(); 2].map(|()| AccessToken::new(&owner, &[READ]));
    let denied = (0..10).map(|_| pat.http.delete(&other.path()).status).collect::<Vec<_>>();
    assert!(denied[0] == 403 && denied.contains(&429), "{denied:?}");
    pat.http.delete("/tokens/self").expect(204);
    pat.http.assert_refused();
}

#[test]
fn scopes_are_unique_and_not_empty() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    for scopes in [json!([]), json!(["tokens:read", "tokens:read"])] {
        caller
            .post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": scopes}))
            .assert_invalid_field("scopes");
    }
    for scopes in [
        json!(["members:all"]),
        json!(["Members:read"]),
        json!("members:read"),
        Value::Null,
        json!([null]),
        json!([7]),
    ] {
        let answer = caller.post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": scopes}));
        let field = answer.problem(400, "DP_ERR_VALIDATION")["errors"][0]["field"].clone();
        assert!(field.as_str().unwrap().starts_with("scopes"), "{field}");
    }
    caller.post("/tokens", &json!({"name": "n", "expiresInDays": 1})).assert_invalid_field("scopes");
}

/// Asks for a token like `of` with this change.
fn ask(client: &Http, of: &AccessToken, change: Value) -> Answer {
    let mut body = json!({"name": "n", "expiresAt": of.body["expiresAt"], "scopes": of.body["scopes"]});
    body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    client.post("/tokens", &body)
}

#[test]
fn token_cannot_create_a_stronger_one() {
    let (cluster, daypass) = Cluster::shared();
    let owner = cluster.generator(daypass);
    let other = cluster.generator(daypass).username();
    let pat = AccessToken::new(&owner, &[READ, TOKENS_WRITE]);
    let later = time(&pat.body["expiresAt"]) + TimeDelta::seconds(1);
    let later = json!(later.to_rfc3339_opts(SecondsFormat::Secs, true));
    let client = &pat.http;
    assert_lacks(&ask(client, &pat, json!({"scopes": [READ, WRITE]})), WRITE);
    assert_lacks(&ask(client, &pat, json!({"scopes": [TOKENS_READ]})), TOKENS_READ);
    ask(client, &pat, json!({"expiresAt": later})).problem(403, "DP_ERR_FORBIDDEN");
    ask(client, &pat, json!({"owner": other})).problem(403, "DP_ERR_FORBIDDEN");
    let body = ask(client, &pat, json!({"owner": owner.username()})).expect(201).json();
    assert_eq!((&body["owner"]["username"], &body["createdBy"]), (&json!(owner.username()), &json!(owner.username())));
    ask(client, &pat, json!({"scopes": [READ]})).expect(201);
    let without = AccessToken::new(&owner, &[READ]);
    assert_lacks(&ask(&without.http, &without, json!({})), TOKENS_WRITE);
}

#[test]
fn rotation_by_token_grants_no_more() {
    let (cluster, daypass) = Cluster::shared();
    let owner = cluster.generator(daypass);
    let pat = AccessToken::new(&owner, &[TOKENS_READ, TOKENS_WRITE]);
    let end = now() + TimeDelta::days(10);
    let longer = AccessToken::requested(&owner, &json!({"name": "n", "expiresInDays": 60, "scopes": [TOKENS_READ]}));
    let wider = AccessToken::requested(&owner, &json!({"name": "n", "expiresAt": end, "scopes": [TOKENS_READ, READ]}));
    let lesser = AccessToken::requested(&owner, &json!({"name": "n", "expiresAt": end, "scopes": [TOKENS_READ]}));
    let rotate = |pat: &AccessToken, of: &str, body: Value| pat.http.post(&format!("/tokens/{of}/rotate"), &body);
    rotate(&pat, &longer.id, json!({})).problem(403, "DP_ERR_FORBIDDEN");
    assert_lacks(&rotate(&pat, &wider.id, json!({})), READ);
    for of in [&*pat.id, "self", &lesser.id] {
        rotate(&pat, of, json!({"expiresInDays": 31})).problem(403, "DP_ERR_FORBIDDEN");
    }
    for untouched in [&longer, &wider, &lesser] {
        untouched.http.get("/tokens/self").expect(200);
    }
    // It may rotate what is no stronger than itself.
    let body = rotate(&pat, &lesser.id, json!({"expiresAt": pat.body["expiresAt"]})).expect(200).json();
    assert_eq!((&body["expiresAt"], &body["scopes"]), (&pat.body["expiresAt"], &json!([TOKENS_READ])));
    rotate(&pat, &longer.id, json!({"expiresInDays": 1})).expect(200);
    rotate(&pat, "self", json!({})).expect(200);
}

#[test]
fn managers_token_manages_within_its_scopes() {
    let (cluster, daypass) = Cluster::shared();
    let (manager, owner) = (cluster.manager(daypass), cluster.generator(daypass));
    let (theirs, more) = (AccessToken::new(&owner, &SCOPES), AccessToken::new(&owner, &SCOPES));
    let (pat, reading) = (AccessToken::new(&manager, &SCOPES), AccessToken::new(&manager, &[TOKENS_READ]));
    ask(&pat.http, &pat, json!({"owner": owner.username()})).problem(403, "DP_ERR_FORBIDDEN");
    pat.http.post(&format!("{}/rotate", theirs.path()), &json!({})).problem(403, "DP_ERR_FORBIDDEN");
    theirs.http.get("/tokens/self").expect(200);
    assert!(reading.http.token_ids("&owner=*").contains(&theirs.id));
    assert_lacks(&reading.http.delete(&theirs.path()), TOKENS_WRITE);
    pat.http.delete(&theirs.path()).expect(204);
    theirs.http.assert_refused();
    more.http.get("/tokens/self").expect(200);
}
