//! Access tokens of users (not service accounts): off by default, with the groups of their creation, short-lived.

use std::fs;
use std::sync::OnceLock;

use chrono::{SecondsFormat, TimeDelta};
use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, SCOPES};
use crate::support::{Cluster, Daypass, Http, NewMember, Role, eventually, now, time};

/// The users: token, name, UID and groups. Eve's name would read as one of bob's.
const USERS: &str = "alice-token,alice,1,\"staff,system:masters\"\nbob-token,bob,2,\"staff,zero\u{200B}width\"\n\
                     ops-token,system:ops,3,staff\neve-token,eve\u{202E}bob,4,staff\n";

/// A cluster that knows these users. `staff` may create and read members of one role, and create tokens.
struct UsersCluster {
    cluster: Cluster,
    daypass: Daypass,
    role: Role,
}

const ON: [&str; 3] = ["--accept-api-server-audience", "--user-tokens", "--user-token-max-days=2"];

fn users_cluster() -> &'static UsersCluster {
    static SHARED: OnceLock<UsersCluster> = OnceLock::new();
    SHARED.get_or_init(|| {
        let cluster = Cluster::own();
        let file = cluster.plane.state_dir().join("users.csv");
        fs::write(&file, USERS).unwrap();
        cluster.restart_apiserver(&[&format!("--token-auth-file={}", file.display())]);
        let role = cluster.reader();
        let (verbs, staff) = ("--verb=create,get", "--group=staff");
        cluster.kubectl(&["create", "role", "staff", "-n", &role.namespace, verbs, "--resource=members.daypass.dev"]);
        cluster.kubectl(&["create", "rolebinding", "staff", "-n", &role.namespace, "--role=staff", staff]);
        cluster.let_group_create_tokens("staff");
        let daypass = Daypass::with_args(&cluster, &ON);
        let bob = daypass.owner.with_token("bob-token");
        eventually("bob has his rights", || {
            let tokens =
                bob.post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES})).status == 201;
            (tokens && bob.get(&format!("/members/{}.nobody", role.id)).status == 404).then_some(())
        });
        UsersCluster { cluster, daypass, role }
    })
}

fn for_a_day(client: &Http) -> AccessToken {
    AccessToken::requested(client, &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES}))
}

#[test]
fn user_with_invisible_characters_in_the_name_owns_no_token_and_is_shown_escaped() {
    let UsersCluster { cluster, daypass, role } = users_cluster();
    let eve = daypass.owner.with_token("eve-token");
    let body = json!({"duration": 1, "roleId": role.id});
    let member = eve.post("/members", &body).expect(201).json();
    assert_eq!(member["createdBy"], r"eve\u{202e}bob");
    eve.post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES})).problem(403, "DP_ERR_FORBIDDEN");
    // Groups are compared, not shown.
    let stored = cluster.stored(&for_a_day(&daypass.owner.with_token("bob-token"))).unwrap();
    assert_eq!(stored["spec"]["owner"]["groups"]["names"], json!(["staff", "zero\u{200B}width"]));
}

#[test]
fn session_of_a_user_has_its_groups_except_system_groups() {
    let UsersCluster { cluster, daypass, role } = users_cluster();
    // Sessions need no right to own tokens.
    let off = Daypass::with_args(cluster, &["--accept-api-server-audience"]);
    let alice = off.owner.with_token("alice-token");
    let session = AccessToken::session_of(&alice);
    assert_eq!((&session.body["kind"], &session.body["tokenId"]), (&json!("KUBERNETES_TOKEN"), &Value::Null));
    let me = session.http.get("/self").expect(200).json();
    let groups = json!(["staff", "system:authenticated"]);
    assert_eq!((&me["username"], &me["uid"], &me["groups"]), (&json!("alice"), &json!("1"), &groups));
    let member = NewMember::new(&session.at(daypass), role, 1);
    assert_eq!(member.body["createdBy"], "alice");
    // Her rights by `system:masters` do not apply to the session.
    alice.get("/members").expect(200);
    session.http.get("/members").problem(403, "DP_ERR_FORBIDDEN");
    for nobody in ["ops-token", "eve-token"] {
        off.owner.with_token(nobody).post("/sessions", &json!({})).problem(403, "DP_ERR_FORBIDDEN");
    }
    // Another audience is another identity configuration.
    let strict = Daypass::with_args(cluster, &[]);
    session.at(&strict).get("/self").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    session.at(&off).delete("/sessions").expect(204);
    session.at(daypass).get("/self").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
}

#[test]
fn user_token_keeps_its_groups_except_system_groups() {
    let UsersCluster { cluster, daypass, role } = users_cluster();
    let alice = daypass.owner.with_token("alice-token");
    let pat = for_a_day(&alice);
    let owner = cluster.stored(&pat).unwrap()["spec"]["owner"].clone();
    assert_eq!(
        (&owner["username"], &owner["groups"]["names"], &owner["uid"]),
        (&json!("alice"), &json!(["staff"]), &Value::Null)
    );
    assert!((now() - time(&owner["groups"]["at"])).abs() < TimeDelta::minutes(5), "{owner}");

    let member = NewMember::new(&pat.http, role, 1);
    assert_eq!(member.body["createdBy"], "alice");
    // Her rights by `system:masters` do not apply to the token.
    alice.get("/members").expect(200);
    alice.delete(&member.path("")).expect(204);
    pat.http.get("/members").problem(403, "DP_ERR_FORBIDDEN");
    pat.http.get("/tokens?owner=*").problem(403, "DP_ERR_FORBIDDEN");
    pat.http.with_basic("alice", &pat.secret).get("/tokens/self").expect(200);
    assert!(alice.token_ids("").contains(&pat.id) && pat.sign_in().http.token_ids("").contains(&pat.id));
    assert!(!daypass.owner.with_token("bob-token").token_ids("").contains(&pat.id));
}

#[test]
fn user_token_ends_with_its_groups() {
    let UsersCluster { cluster, daypass, .. } = users_cluster();
    let bob = daypass.owner.with_token("bob-token");
    let ask = |client: &Http, end: Value| {
        let mut body = json!({"name": "n", "scopes": SCOPES});
        body.as_object_mut().unwrap().extend(end.as_object().unwrap().clone());
        client.post("/tokens", &body)
    };
    ask(&bob, json!({"expiresInDays": 3})).assert_invalid_field("expiresInDays");
    ask(&bob, json!({"expiresAt": now() + TimeDelta::days(2) + TimeDelta::minutes(5)}))
        .assert_invalid_field("expiresAt");
    let pat = AccessToken::of(&bob, &ask(&bob, json!({"expiresInDays": 2})).expect(201));
    let groups_at = |pat: &AccessToken| time(&cluster.stored(pat).unwrap()["spec"]["owner"]["groups"]["at"]);
    let latest = groups_at(&pat) + TimeDelta::days(2);
    let text = |add: i64| (latest + TimeDelta::seconds(add)).to_rfc3339_opts(SecondsFormat::Secs, true);
    for client in [&bob, &pat.http] {
        let rotate = |body: Value| client.post(&format!("{}/rotate", pat.path()), &body);
        rotate(json!({"expiresAt": text(2)})).assert_invalid_field("expiresAt");
        rotate(json!({"expiresInDays": 3})).assert_invalid_field("expiresInDays");
    }
    // A token that it creates has its groups and their date; only Kubernetes confirms newer ones.
    let child = for_a_day(&pat.http);
    assert_eq!(groups_at(&child), groups_at(&pat));
    // A lower limit applies to existing tokens.
    let less =
        Daypass::with_args(cluster, &["--accept-api-server-audience", "--user-tokens", "--user-token-max-days=1"]);
    let end = (groups_at(&pat) + TimeDelta::days(1)).to_rfc3339_opts(SecondsFormat::Secs, true);
    assert_eq!(pat.at(&less).get("/tokens/self").expect(200).json()["expiresAt"], end);
    assert_eq!(pat.http.get("/tokens/self").expect(200).json()["expiresAt"], pat.body["expiresAt"]);
    let rotated = AccessToken::of(
        &bob,
        &bob.post(&format!("{}/rotate", child.path()), &json!({"expiresAt": text(-60)})).expect(200),
    );
    assert_eq!((groups_at(&rotated), time(&rotated.body["expiresAt"])), (groups_at(&pat), time(&json!(text(-60)))));
}

#[test]
fn disabled_user_tokens_are_refused() {
    let UsersCluster { cluster, daypass, .. } = users_cluster();
    let on = for_a_day(&daypass.owner.with_token("bob-token"));
    let service = for_a_day(&cluster.generator(daypass));
    let off = Daypass::with_args(cluster, &["--accept-api-server-audience"]);
    let bob = off.owner.with_token("bob-token");
    bob.post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES})).problem(403, "DP_ERR_FORBIDDEN");
    on.at(&off).assert_refused();
    assert_eq!(bob.get(&on.path()).expect(200).json()["status"], "SUSPENDED");
    bob.post(&format!("{}/rotate", on.path()), &json!({})).problem(403, "DP_ERR_FORBIDDEN");
    service.at(&off).get("/tokens/self").expect(200);
    on.http.get("/tokens/self").expect(200);
    bob.delete(&on.path()).expect(204);
    on.http.assert_refused();
    // Without `--accept-api-server-audience` Daypass does not accept such a user.
    let strict = Daypass::with_args(cluster, &["--user-tokens"]);
    strict.owner.with_token("bob-token").get("/tokens").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
}

#[test]
fn manager_creates_user_token_without_groups() {
    let UsersCluster { cluster, daypass, role } = users_cluster();
    let manager = cluster.manager(daypass);
    let ask = |owner: &str| {
        manager.post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES, "owner": owner}))
    };
    let pat = AccessToken::of(&manager, &ask("bob").expect(201));
    assert_eq!(cluster.stored(&pat).unwrap()["spec"]["owner"]["groups"]["names"], json!([]));
    assert_eq!(pat.http.get("/tokens/self").expect(200).json()["createdBy"], manager.username());
    pat.http.get(&format!("/members/{}.nobody", role.id)).problem(403, "DP_ERR_FORBIDDEN");
    let user = "--user=bob";
    cluster.kubectl(&["create", "rolebinding", "bob", "-n", &role.namespace, "--role=staff", user]);
    eventually("the right is in force", || {
        (pat.http.get(&format!("/members/{}.nobody", role.id)).status == 404).then_some(())
    });
    for nobody in
        ["", "system:ops", "system:masters", "system:serviceaccount:default:nobody", "a\nb", &"a".repeat(1025)]
    {
        ask(nobody).assert_invalid_field("owner");
    }
    let account = format!("system:serviceaccount:{}:default", role.namespace);
    ask(&account).assert_invalid_field("owner");
    let ops = daypass.owner.with_token("ops-token");
    ops.post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES})).problem(403, "DP_ERR_FORBIDDEN");
}
