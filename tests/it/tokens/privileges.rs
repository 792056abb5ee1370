//! Who may create access tokens, and who may see and revoke those of others.

use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, GENERATE, MANAGE, SCOPES};
use crate::support::{Answer, Cluster, Http, NewMember};

fn body() -> Value {
    json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES})
}

fn for_owner(client: &Http, owner: &str) -> Answer {
    let mut body = body();
    body["owner"] = json!(owner);
    client.post("/tokens", &body)
}

#[track_caller]
fn assert_lacks(answer: &Answer, verb: &str, name: &str) {
    let detail = answer.problem(403, "DP_ERR_FORBIDDEN")["detail"].clone();
    let right = format!("{verb} personalaccesstokens.daypass.dev ({name})");
    assert!(detail.as_str().unwrap().contains(&right), "{detail}");
}

#[track_caller]
fn assert_may_not_generate(answer: &Answer) {
    assert_lacks(answer, GENERATE, "Generate Personal Access Tokens");
}

#[track_caller]
fn assert_may_not_manage(answer: &Answer) {
    assert_lacks(answer, MANAGE, "Manage All Access Tokens");
}

#[test]
fn caller_without_the_right_cannot_create_tokens() {
    let (cluster, daypass) = Cluster::shared();
    // With every right on members.
    let caller = cluster.caller(daypass, &["*"], &["members", "members/credentials", "members/kubeconfigs"], None);
    assert_may_not_generate(&caller.post("/tokens", &body()));
    assert_may_not_generate(&for_owner(&caller, &caller.username()));
    assert_may_not_manage(&for_owner(&caller, "system:serviceaccount:default:default"));
    for query in ["?owner=*", "?owner=system:serviceaccount:default:default", "?owner=nobody"] {
        assert_may_not_manage(&caller.get(&format!("/tokens{query}")));
    }
    // Listing and revoking one's own tokens needs no right.
    assert_eq!(caller.token_ids(""), [""; 0]);
    assert_eq!(caller.token_ids(&format!("&owner={}", caller.username())), [""; 0]);
    // Rights on AccessToken objects are not enough.
    let objects = cluster.caller(daypass, &["*"], &["accesstokens", "accesstokens/status", "members"], None);
    assert_may_not_generate(&objects.post("/tokens", &body()));
}

#[test]
fn either_kind_of_binding_grants_token_rights() {
    let (cluster, daypass) = Cluster::shared();
    let (one, two) = (cluster.caller(daypass, &[], &[], None), cluster.caller(daypass, &[], &[], None));
    let bind = |name: &str, privilege: &str, client: &Http| {
        let (role, user) =
            (format!("--clusterrole=daypass-tokens-{privilege}"), format!("--user={}", client.username()));
        cluster.kubectl(&["create", "clusterrolebinding", name, &role, &user]);
        cluster.wait_privilege(&client.username(), privilege, true);
    };
    bind("tests-generate-everywhere", GENERATE, &one);
    bind("tests-manage-everywhere", MANAGE, &two);
    let pat = AccessToken::requested(&one, &body());
    assert_may_not_manage(&one.get("/tokens?owner=*"));
    assert_may_not_manage(&for_owner(&one, &two.username()));
    assert!(two.token_ids("&owner=*").contains(&pat.id));
    two.delete(&pat.path()).expect(204);
    // A manager may create tokens too.
    two.post("/tokens", &body()).expect(201);

    // The right has no effect in other namespaces than Daypass's.
    let elsewhere = cluster.caller(daypass, &[], &[], None);
    let (role, user) = ("--clusterrole=daypass-tokens-manage", format!("--user={}", elsewhere.username()));
    cluster.kubectl(&["create", "rolebinding", "tests-manage-elsewhere", "-n", "default", role, &user]);
    crate::support::eventually("the binding is in force", || {
        cluster.has_privilege(&elsewhere.username(), MANAGE, "default").then_some(())
    });
    assert_may_not_generate(&elsewhere.post("/tokens", &body()));
}

#[test]
fn only_managers_see_tokens_of_others() {
    let (cluster, daypass) = Cluster::shared();
    let (owner, other, manager) = (cluster.generator(daypass), cluster.generator(daypass), cluster.manager(daypass));
    let (pat, mine) = (AccessToken::new(&owner, &SCOPES), AccessToken::new(&other, &SCOPES));
    let rotate = format!("{}/rotate", pat.path());
    for client in [&other, &mine.http, &mine.sign_in().http] {
        for answer in [
            client.get(&pat.path()),
            client.patch(&pat.path(), &json!({"name": "mine"})),
            client.post(&rotate, &json!({})),
            client.delete(&pat.path()),
        ] {
            answer.problem(404, "DP_ERR_NOT_FOUND");
            // The same answer as for an id that does not exist.
            let missing = client.get(&format!("/tokens/{}-0-aaaaaa", "a".repeat(16)));
            let text = |answer: &Answer| ["code", "title", "detail"].map(|field| answer.json()[field].clone());
            assert_eq!(text(&answer), text(&missing));
        }
        assert!(!client.token_ids("").contains(&pat.id));
        assert_may_not_manage(&client.get(&format!("/tokens?owner={}", owner.username())));
    }
    for id in ["no-id", "x", "SELF", "..%2f", "self%00"] {
        owner.get(&format!("/tokens/{id}")).problem(404, "DP_ERR_NOT_FOUND");
    }
    // A Kubernetes token has no `self`.
    owner.get("/tokens/self").problem(404, "DP_ERR_NOT_FOUND");

    assert!(manager.token_ids("&owner=*").contains(&pat.id));
    assert_eq!(manager.token_ids(&format!("&owner={}", owner.username())), [pat.id.as_str()]);
    assert!(!manager.token_ids("").contains(&pat.id));
    let shown = manager.get(&pat.path()).expect(200).json();
    assert_eq!((&shown["owner"]["username"], &shown["status"]), (&json!(owner.username()), &json!("ACTIVE")));
    assert_eq!(manager.patch(&pat.path(), &json!({"name": "known"})).expect(200).json()["name"], "known");
    let rotated = AccessToken::of(&owner, &manager.post(&rotate, &json!({})).expect(200));
    pat.http.assert_refused();
    rotated.http.get("/tokens/self").expect(200);
    manager.delete(&pat.path()).expect(204);
    rotated.http.assert_refused();
}

#[test]
fn manager_creates_tokens_for_possible_owners() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let owner = cluster.caller(daypass, &["create", "get"], &["members"], Some(&role));
    let manager = cluster.manager(daypass);
    let pat = AccessToken::of(&owner, &for_owner(&manager, &owner.username()).expect(201));
    assert_eq!(pat.body["owner"]["username"], owner.username());
    assert_eq!(pat.body["createdBy"], manager.username());
    let stored = cluster.stored(&pat).unwrap()["spec"].clone();
    let uid = cluster.uid("default", "serviceaccount", owner.username().rsplit_once(':').unwrap().1);
    assert_eq!(stored["owner"], json!({"username": owner.username(), "uid": uid}));
    // It has its owner's rights, not its creator's.
    let member = NewMember::new(&pat.http, &role, 1);
    assert_may_not_manage(&pat.http.get("/tokens?owner=*"));
    assert_may_not_generate(&pat.http.post("/tokens", &body()));
    assert_eq!(owner.token_ids(""), [pat.id.as_str()]);
    assert_eq!(manager.token_ids(""), [""; 0]);

    // The audit trail distinguishes owner, creator and token.
    let event = daypass.wait_token_event(&pat.id, "TOKEN_CREATED");
    assert_eq!(event["actor"], json!({"type": "CALLER", "username": manager.username()}));
    let token = |field: &str| event["token"][field].as_str().unwrap().to_owned();
    assert_eq!((token("owner"), token("createdBy")), (owner.username(), manager.username()));
    let event = daypass.wait_event(&member.id, "MEMBER_CREATED");
    let actor = json!({
        "type": "ACCESS_TOKEN", "username": owner.username(), "tokenId": pat.id, "createdBy": manager.username(),
    });
    assert_eq!((&event["actor"], &event["owner"]), (&actor, &json!(owner.username())));
    assert_eq!(event["member"]["createdBy"], owner.username());

    let long = "a".repeat(2000);
    for nobody in [
        "",
        "alice",
        "*",
        "system:masters",
        "system:admin",
        "system:node:a",
        "system:kube-controller-manager",
        "system:serviceaccount:default:nobody-of-this-name",
        "system:serviceaccount:nowhere:default",
        "system:serviceaccount:default",
        "system:serviceaccount:default:",
        "system:serviceaccount::default",
        "system:serviceaccount:default:owner:x",
        "system:serviceaccount:default:owner?a=b",
        "system:serviceaccount:default/serviceaccounts/owner?a=:b",
        "system:serviceaccount:%64efault:owner",
        "system:serviceaccount:default:own%65r",
        "system:serviceaccount:default:a b",
        "system:serviceaccount:a\u{7}:b",
        "system:serviceaccount:default:..",
        "system:serviceaccounts:default",
        &long,
    ] {
        for_owner(&manager, nobody).assert_invalid_field("owner");
    }
    manager
        .post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES, "owner": null}))
        .assert_invalid_field("owner");
}

#[test]
fn token_name_is_bounded_text() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let pat = AccessToken::new(&caller, &SCOPES);
    let hidden = ["a\nb", "a\u{202E}b", "a\u{200B}b", "\u{3164}", "\u{E000}"].map(|name| json!(name));
    let others = [json!(""), json!("  "), json!("a".repeat(256)), Value::Null, json!(7)];
    for name in hidden.into_iter().chain(others) {
        let asked = json!({"name": name, "expiresInDays": 1, "scopes": SCOPES});
        caller.post("/tokens", &asked).assert_invalid_field("name");
        caller.patch(&pat.path(), &json!({"name": name})).assert_invalid_field("name");
    }
    for field in ["scopes", "expiresAt", "owner", "tokenHash", "createdBy"] {
        caller.patch(&pat.path(), &json!({"name": "n", (field): "x"})).assert_invalid_field(field);
    }
    let name = "ü".repeat(255);
    assert_eq!(pat.http.patch("/tokens/self", &json!({"name": name})).expect(200).json()["name"], name);
    assert_eq!(caller.get(&pat.path()).expect(200).json()["name"], name);
    let event = daypass.wait_token_event(&pat.id, "TOKEN_RENAMED");
    assert_eq!((&event["token"]["name"], &event["actor"]["tokenId"]), (&json!(name), &json!(pat.id)));
}
