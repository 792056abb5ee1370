//! An access token acts as its owner, as that is at the moment.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::tokens::{Pat, SCOPES};
use crate::support::{Created, Daypass, Http, Lab, Launch, Role, eventually};

/// Binds a caller to this right in a role's namespace.
fn bind(lab: &Lab, role: &Role, name: &str, username: &str, verbs: &str) {
    let (verbs, user) = (format!("--verb={verbs}"), format!("--user={username}"));
    lab.kubectl(&["create", "role", name, "-n", &role.namespace, &verbs, "--resource=members.daypass.dev"]);
    let of = format!("--role={name}");
    lab.kubectl(&["create", "rolebinding", name, "-n", &role.namespace, &of, &user]);
}

#[test]
fn its_rights_are_its_owners_as_they_are() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let owner = lab.caller(daypass, &[], &[], None);
    let (generate, user) = ("--clusterrole=daypass-tokens-generate", format!("--user={}", owner.username()));
    lab.kubectl(&["create", "rolebinding", "pat-generates", "-n", "daypass", generate, &user]);
    lab.wait_privilege(&owner.username(), "generate", true);
    let pat = Pat::new(&owner, &SCOPES);
    let session = pat.sign_in();
    let member = Created::new(&daypass.owner, &role, 1);
    let both = |path: &str| [pat.http.get(path).status, session.http.get(path).status];
    assert_eq!(both(&member.path("")), [403, 403]);

    bind(lab, &role, "pat-reads", &owner.username(), "get");
    // Daypass remembers that it was denied everywhere, for ten seconds; a permission it never remembers.
    eventually("the right is in force", || {
        let found = owner.get(&member.path("")).status;
        ([[found; 2], both(&member.path(""))] == [[200; 2]; 2]).then_some(())
    });
    pat.http.get("/members").problem(403, "DP_ERR_FORBIDDEN");
    pat.http.delete(&member.path("")).problem(403, "DP_ERR_FORBIDDEN");
    lab.kubectl(&["delete", "rolebinding", "pat-reads", "-n", &role.namespace]);
    eventually("the right is gone", || (owner.get(&member.path("")).status == 403).then_some(()));
    assert_eq!(both(&member.path("")), [403, 403]);

    bind(lab, &role, "pat-creates", &owner.username(), "create,get");
    eventually("the right is in force", || (owner.get(&member.path("")).status == 200).then_some(()));
    let made = Created::new(&pat.http, &role, 1);
    assert_eq!(made.body["createdBy"], owner.username());
    let other = lab.reader();
    pat.http.post("/members", &json!({"duration": 1, "roleId": other.id})).refused_field("roleId");
    // And the right to make tokens.
    lab.kubectl(&["delete", "rolebinding", "pat-generates", "-n", "daypass"]);
    lab.wait_privilege(&owner.username(), "generate", false);
    let body = json!({"name": "n", "expiresInDays": 1, "scopes": ["members:read"]});
    for client in [&pat.http, &session.http] {
        client.post("/tokens", &body).problem(403, "DP_ERR_FORBIDDEN");
        client.post("/tokens/self/rotate", &json!({})).problem(403, "DP_ERR_FORBIDDEN");
    }
    pat.http.delete("/tokens/self").expect(204);
}

#[test]
fn with_its_service_account_it_is_gone_and_one_of_the_same_name_does_not_bring_it_back() {
    let (lab, daypass) = Lab::shared();
    let other = Daypass::start(lab, &Launch::default());
    let owner = lab.generator(daypass);
    let name = owner.username().rsplit_once(':').unwrap().1.to_owned();
    let pat = Pat::new(&owner, &SCOPES);
    let session = pat.sign_in();
    pat.at(&other).get("/tokens/self").expect(200);
    let delete = || drop(lab.kubectl(&["delete", "serviceaccount", &name, "-n", "default"]));
    delete();
    let deleted = Instant::now();
    for client in [&pat.http, &pat.at(&other), &session.http] {
        client.assert_refused();
    }
    assert!(deleted.elapsed() < Duration::from_secs(60));
    lab.kubectl(&["create", "serviceaccount", &name, "-n", "default"]);
    for client in [&pat.http, &pat.at(&other), &session.http] {
        client.assert_refused();
    }
    // The new one is another owner, who has none of it.
    let anew = daypass.owner.with_token(&lab.token("default", &name, "daypass"));
    assert_eq!(anew.token_ids(""), [""; 0]);
    anew.get(&pat.path()).problem(404, "DP_ERR_NOT_FOUND");
    anew.delete(&pat.path()).problem(404, "DP_ERR_NOT_FOUND");
    let own = Pat::new(&anew, &SCOPES);
    lab.wait_token_gone(&pat);
    lab.wait_token_gone(&session);
    own.http.get("/tokens/self").expect(200);
    let events = [daypass.token_events(&pat.id), other.token_events(&pat.id)].concat();
    let end = events.last().unwrap();
    assert_eq!((&end["event"], &end["actor"]), (&json!("TOKEN_REVOKED"), &json!({"type": "DAYPASS"})));
}

#[test]
fn one_whose_service_account_is_being_deleted_is_refused() {
    let (lab, daypass) = Lab::shared();
    let owner = lab.generator(daypass);
    let name = owner.username().rsplit_once(':').unwrap().1.to_owned();
    let pat = Pat::new(&owner, &SCOPES);
    pat.http.get("/tokens/self").expect(200);
    let finalizers =
        |list: Value| lab.patch("default", "serviceaccount", &name, &json!({"metadata": {"finalizers": list}}));
    finalizers(json!(["example.com/keep"]));
    lab.kubectl(&["delete", "serviceaccount", &name, "-n", "default", "--wait=false"]);
    pat.http.assert_refused();
    finalizers(Value::Null);
}

#[test]
fn a_member_owns_none() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let member = Created::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(lab);
    let account = format!("system:serviceaccount:{}:{}", role.namespace, member.name());
    let default = format!("system:serviceaccount:{}:default", role.namespace);
    // With all the rights that there are, and a token that the API server does not give.
    let user = format!("--user={account}");
    lab.kubectl(&[
        "create",
        "rolebinding",
        member.name(),
        "-n",
        "daypass",
        "--clusterrole=daypass-tokens-manage",
        &user,
    ]);
    lab.wait_privilege(&account, "manage", true);
    let signed = lab.resign(&kubeconfig.token, |claims| claims["aud"] = json!(["daypass"]));
    assert_eq!(lab.token_review(&signed, "daypass").as_ref(), Some(&account));
    let body = json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES});
    for client in
        [daypass.owner.with_token(&signed), daypass.owner.with_token(&member.password), member.engineer.clone()]
    {
        client.post("/tokens", &body).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        client.get("/tokens").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        client.post("/sessions", &json!({})).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
    let manager = lab.manager(daypass);
    for owner in [&*account, &*default, &*member.id] {
        let mut body = body.clone();
        body["owner"] = json!(owner);
        manager.post("/tokens", &body).refused_field("owner");
    }
    assert_eq!(manager.token_ids(&format!("&owner={account}")), [""; 0]);
}

#[test]
fn a_token_is_no_members_credential_and_opens_what_is_a_members_to_nobody() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let owner = lab.with_privilege(lab.caller(daypass, &["create", "get"], &["members"], Some(&role)), "generate");
    let pat = Pat::new(&owner, &SCOPES);
    let member = Created::new(&pat.http, &role, 1);
    member.kubeconfig(lab);
    let basic: Http = owner.with_basic(&member.id, &pat.secret);
    for client in [pat.http.clone(), pat.sign_in().http, basic, owner.with_basic(&pat.id, &pat.secret)] {
        for (method, path) in [("GET", "/kubeconfig"), ("GET", "/me"), ("DELETE", "/me")] {
            let answer = crate::support::Answer::of(client.request(method, &member.path(path)));
            answer.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        }
    }
    assert_eq!(pat.http.get(&member.path("")).expect(200).json()["status"], "ACTIVE");
}
