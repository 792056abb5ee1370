//! An access token has its owner's current rights.

use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, SCOPES};
use crate::support::{Cluster, Daypass, Http, NewMember, Role, eventually};

/// Gives a caller this right in a role's namespace.
fn bind(cluster: &Cluster, role: &Role, name: &str, username: &str, verbs: &str) {
    let (verbs, user) = (format!("--verb={verbs}"), format!("--user={username}"));
    cluster.kubectl(&["create", "role", name, "-n", &role.namespace, &verbs, "--resource=members.daypass.dev"]);
    let of = format!("--role={name}");
    cluster.kubectl(&["create", "rolebinding", name, "-n", &role.namespace, &of, &user]);
}

#[test]
fn token_rights_follow_its_owners() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let owner = cluster.caller(daypass, &[], &[], None);
    let (generate, user) = ("--clusterrole=daypass-tokens-generate", format!("--user={}", owner.username()));
    cluster.kubectl(&["create", "rolebinding", "pat-generates", "-n", "daypass", generate, &user]);
    cluster.wait_privilege(&owner.username(), "generate", true);
    let pat = AccessToken::new(&owner, &SCOPES);
    let session = pat.sign_in();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let both = |path: &str| [pat.http.get(path).status, session.http.get(path).status];
    assert_eq!(both(&member.path("")), [403, 403]);

    bind(cluster, &role, "pat-reads", &owner.username(), "get");
    // Daypass caches a denial for ten seconds, and never a permission.
    eventually("the right is in force", || {
        let found = owner.get(&member.path("")).status;
        ([[found; 2], both(&member.path(""))] == [[200; 2]; 2]).then_some(())
    });
    pat.http.get("/members").problem(403, "DP_ERR_FORBIDDEN");
    pat.http.delete(&member.path("")).problem(403, "DP_ERR_FORBIDDEN");
    cluster.kubectl(&["delete", "rolebinding", "pat-reads", "-n", &role.namespace]);
    eventually("the right is gone", || (owner.get(&member.path("")).status == 403).then_some(()));
    assert_eq!(both(&member.path("")), [403, 403]);

    bind(cluster, &role, "pat-creates", &owner.username(), "create,get");
    eventually("the right is in force", || (owner.get(&member.path("")).status == 200).then_some(()));
    let made = NewMember::new(&pat.http, &role, 1);
    assert_eq!(made.body["createdBy"], owner.username());
    let other = cluster.reader();
    pat.http.post("/members", &json!({"duration": 1, "roleId": other.id})).assert_invalid_field("roleId");
    // The same for the right to create tokens.
    cluster.kubectl(&["delete", "rolebinding", "pat-generates", "-n", "daypass"]);
    cluster.wait_privilege(&owner.username(), "generate", false);
    let body = json!({"name": "n", "expiresInDays": 1, "scopes": ["members:read"]});
    for client in [&pat.http, &session.http] {
        client.post("/tokens", &body).problem(403, "DP_ERR_FORBIDDEN");
        client.post("/tokens/self/rotate", &json!({})).problem(403, "DP_ERR_FORBIDDEN");
    }
    pat.http.delete("/tokens/self").expect(204);
}

#[test]
fn token_ends_with_its_service_account() {
    let (cluster, daypass) = Cluster::shared();
    let other = Daypass::second();
    let owner = cluster.generator(daypass);
    let name = owner.username().rsplit_once(':').unwrap().1.to_owned();
    let pat = AccessToken::new(&owner, &SCOPES);
    let session = pat.sign_in();
    pat.at(other).get("/tokens/self").expect(200);
    let delete = || drop(cluster.kubectl(&["delete", "serviceaccount", &name, "-n", "default"]));
    delete();
    for client in [&pat.http, &pat.at(other), &session.http] {
        client.assert_refused();
    }
    cluster.kubectl(&["create", "serviceaccount", &name, "-n", "default"]);
    for client in [&pat.http, &pat.at(other), &session.http] {
        client.assert_refused();
    }
    // The new account is another owner and has none of the old tokens.
    let anew = daypass.owner.with_token(&cluster.token("default", &name, "daypass"));
    eventually("the API server knows the new account", || (anew.get("/self").status == 200).then_some(()));
    assert_eq!(anew.token_ids(""), [""; 0]);
    anew.get(&pat.path()).problem(404, "DP_ERR_NOT_FOUND");
    anew.delete(&pat.path()).problem(404, "DP_ERR_NOT_FOUND");
    let own = AccessToken::new(&anew, &SCOPES);
    cluster.wait_token_gone(&pat);
    cluster.wait_token_gone(&session);
    own.http.get("/tokens/self").expect(200);
    let events = [daypass.token_events(&pat.id), other.token_events(&pat.id)].concat();
    let end = events.last().unwrap();
    assert_eq!((&end["event"], &end["actor"]), (&json!("TOKEN_REVOKED"), &json!({"type": "DAYPASS"})));
}

#[test]
fn token_of_terminating_service_account_is_refused() {
    let (cluster, daypass) = Cluster::shared();
    let owner = cluster.generator(daypass);
    let name = owner.username().rsplit_once(':').unwrap().1.to_owned();
    let pat = AccessToken::new(&owner, &SCOPES);
    pat.http.get("/tokens/self").expect(200);
    let finalizers =
        |list: Value| cluster.patch("default", "serviceaccount", &name, &json!({"metadata": {"finalizers": list}}));
    finalizers(json!(["example.com/keep"]));
    cluster.kubectl(&["delete", "serviceaccount", &name, "-n", "default", "--wait=false"]);
    pat.http.assert_refused();
    finalizers(Value::Null);
}

#[test]
fn member_cannot_own_tokens() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(cluster);
    let account = format!("system:serviceaccount:{}:{}", role.namespace, member.name());
    let default = format!("system:serviceaccount:{}:default", role.namespace);
    // With all rights, and a token that the API server would not issue.
    let user = format!("--user={account}");
    cluster.kubectl(&[
        "create",
        "rolebinding",
        member.name(),
        "-n",
        "daypass",
        "--clusterrole=daypass-tokens-manage",
        &user,
    ]);
    cluster.wait_privilege(&account, "manage", true);
    let signed = cluster.resign(&kubeconfig.token, |claims| claims["aud"] = json!(["daypass"]));
    assert_eq!(cluster.token_review(&signed, "daypass").as_ref(), Some(&account));
    let body = json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES});
    let of_account = daypass.owner.with_token(&signed);
    of_account.post("/sessions", &json!({})).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    let session = AccessToken::session_of(&member.engineer).http;
    for client in [of_account, daypass.owner.with_token(&member.password), member.engineer.clone(), session] {
        client.post("/tokens", &body).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        client.get("/tokens").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        client.get("/self").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
    let manager = cluster.manager(daypass);
    for owner in [&*account, &*default, &*member.id] {
        let mut body = body.clone();
        body["owner"] = json!(owner);
        manager.post("/tokens", &body).assert_invalid_field("owner");
    }
    assert_eq!(manager.token_ids(&format!("&owner={account}")), [""; 0]);
}

#[test]
fn token_cannot_act_as_a_member() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let owner =
        cluster.with_privilege(cluster.caller(daypass, &["create", "get"], &["members"], Some(&role)), "generate");
    let pat = AccessToken::new(&owner, &SCOPES);
    let member = NewMember::new(&pat.http, &role, 1);
    member.kubeconfig(cluster);
    let basic: Http = owner.with_basic(&member.id, &pat.secret);
    let session = AccessToken::session_of(&owner);
    let session_as_member = owner.with_basic(&member.id, &session.secret);
    for client in [
        pat.http.clone(),
        pat.sign_in().http,
        session.http,
        session_as_member,
        basic,
        owner.with_basic(&pat.id, &pat.secret),
    ] {
        for (method, path) in [("GET", "/kubeconfig"), ("GET", "/me"), ("DELETE", "/me")] {
            let answer = crate::support::Answer::of(client.request(method, &member.path(path)));
            answer.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        }
    }
    assert_eq!(pat.http.get(&member.path("")).expect(200).json()["status"], "ACTIVE");
}
