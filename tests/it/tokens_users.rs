//! Access tokens of users that are no service accounts: only where that is switched on, with the groups of their creation, and not for long.

use std::fs;
use std::sync::OnceLock;

use chrono::{SecondsFormat, TimeDelta};
use daypass_local::{Component, Shutdown};
use serde_json::{Value, json};

use crate::support::tokens::{Pat, SCOPES};
use crate::support::{Created, Daypass, Http, Lab, Launch, Role, eventually, now, time};

/// Who there is: token, name, UID and groups.
const USERS: &str =
    "alice-token,alice,1,\"staff,system:masters\"\nbob-token,bob,2,staff\nops-token,system:ops,3,staff\n";

/// A control plane that knows these users, in which `staff` may create and see members of one role, and make tokens.
struct Site {
    lab: Lab,
    daypass: Daypass,
    role: Role,
}

const ON: [&str; 3] = ["--accept-api-server-audience", "--user-tokens", "--user-token-max-days=2"];

fn with(lab: &Lab, args: &[&str]) -> Daypass {
    Daypass::start(lab, &Launch { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..Launch::default() })
}

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| {
        let lab = Lab::private();
        let file = lab.plane.state_dir().join("users.csv");
        fs::write(&file, USERS).unwrap();
        lab.plane.set_apiserver_args(vec![format!("--token-auth-file={}", file.display())]);
        lab.plane.stop_component(Component::ApiServer, Shutdown::Graceful).unwrap();
        lab.plane.start_component(Component::ApiServer).unwrap();
        let role = lab.reader();
        let (verbs, staff) = ("--verb=create,get", "--group=staff");
        lab.kubectl(&["create", "role", "staff", "-n", &role.namespace, verbs, "--resource=members.daypass.dev"]);
        lab.kubectl(&["create", "rolebinding", "staff", "-n", &role.namespace, "--role=staff", staff]);
        lab.kubectl(&[
            "create",
            "rolebinding",
            "staff",
            "-n",
            "daypass",
            "--clusterrole=daypass-tokens-generate",
            staff,
        ]);
        let daypass = with(&lab, &ON);
        let bob = daypass.owner.with_token("bob-token");
        eventually("they have their rights", || {
            let tokens = bob.post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES})).status == 201;
            (tokens && bob.get(&format!("/members/{}.nobody", role.id)).status == 404).then_some(())
        });
        Site { lab, daypass, role }
    })
}

fn for_a_day(client: &Http) -> Pat {
    Pat::asked(client, &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES}))
}

#[test]
fn a_users_token_has_the_groups_of_its_creation_but_none_of_kubernetes_own() {
    let Site { lab, daypass, role } = site();
    let alice = daypass.owner.with_token("alice-token");
    let pat = for_a_day(&alice);
    let owner = lab.stored(&pat).unwrap()["spec"]["owner"].clone();
    assert_eq!(
        (&owner["username"], &owner["groups"]["names"], &owner["uid"]),
        (&json!("alice"), &json!(["staff"]), &Value::Null)
    );
    assert!((now() - time(&owner["groups"]["at"])).abs() < TimeDelta::minutes(5), "{owner}");

    let member = Created::new(&pat.http, role, 1);
    assert_eq!(member.body["createdBy"], "alice");
    // What she is allowed as a master of the cluster, the token is not.
    alice.get("/members").expect(200);
    alice.delete(&member.path("")).expect(204);
    pat.http.get("/members").problem(403, "DP_ERR_FORBIDDEN");
    pat.http.get("/tokens?owner=*").problem(403, "DP_ERR_FORBIDDEN");
    pat.http.with_basic("alice", &pat.secret).get("/tokens/self").expect(200);
    assert!(alice.token_ids("").contains(&pat.id) && pat.sign_in().http.token_ids("").contains(&pat.id));
    assert!(!daypass.owner.with_token("bob-token").token_ids("").contains(&pat.id));
}

#[test]
fn a_users_token_lives_as_long_as_its_groups_may_and_nothing_puts_that_off() {
    let Site { lab, daypass, .. } = site();
    let bob = daypass.owner.with_token("bob-token");
    let ask = |client: &Http, end: Value| {
        let mut body = json!({"name": "n", "scopes": SCOPES});
        body.as_object_mut().unwrap().extend(end.as_object().unwrap().clone());
        client.post("/tokens", &body)
    };
    ask(&bob, json!({"expiresInDays": 3})).refused_field("expiresInDays");
    ask(&bob, json!({"expiresAt": now() + TimeDelta::days(2) + TimeDelta::minutes(5)})).refused_field("expiresAt");
    let pat = Pat::of(&bob, &ask(&bob, json!({"expiresInDays": 2})).expect(201));
    let groups_at = |pat: &Pat| time(&lab.stored(pat).unwrap()["spec"]["owner"]["groups"]["at"]);
    let latest = groups_at(&pat) + TimeDelta::days(2);
    let text = |add: i64| (latest + TimeDelta::seconds(add)).to_rfc3339_opts(SecondsFormat::Secs, true);
    for client in [&bob, &pat.http] {
        let rotate = |body: Value| client.post(&format!("{}/rotate", pat.path()), &body);
        rotate(json!({"expiresAt": text(2)})).refused_field("expiresAt");
        rotate(json!({"expiresInDays": 3})).refused_field("expiresInDays");
    }
    // What it makes has its groups, of the same date; only Kubernetes vouches for newer ones.
    let child = for_a_day(&pat.http);
    assert_eq!(groups_at(&child), groups_at(&pat));
    // Where that becomes less, it is less for those that there are.
    let less = with(lab, &["--accept-api-server-audience", "--user-tokens", "--user-token-max-days=1"]);
    let end = (groups_at(&pat) + TimeDelta::days(1)).to_rfc3339_opts(SecondsFormat::Secs, true);
    assert_eq!(pat.at(&less).get("/tokens/self").expect(200).json()["expiresAt"], end);
    assert_eq!(pat.http.get("/tokens/self").expect(200).json()["expiresAt"], pat.body["expiresAt"]);
    let rotated =
        Pat::of(&bob, &bob.post(&format!("{}/rotate", child.path()), &json!({"expiresAt": text(-60)})).expect(200));
    assert_eq!((groups_at(&rotated), time(&rotated.body["expiresAt"])), (groups_at(&pat), time(&json!(text(-60)))));
}

#[test]
fn where_users_own_none_none_is_made_and_those_there_are_are_refused() {
    let Site { lab, daypass, .. } = site();
    let on = for_a_day(&daypass.owner.with_token("bob-token"));
    let service = for_a_day(&lab.generator(daypass));
    let off = with(lab, &["--accept-api-server-audience"]);
    let bob = off.owner.with_token("bob-token");
    bob.post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES})).problem(403, "DP_ERR_FORBIDDEN");
    on.at(&off).assert_refused();
    assert_eq!(bob.get(&on.path()).expect(200).json()["status"], "SUSPENDED");
    bob.post(&format!("{}/rotate", on.path()), &json!({})).problem(403, "DP_ERR_FORBIDDEN");
    service.at(&off).get("/tokens/self").expect(200);
    on.http.get("/tokens/self").expect(200);
    bob.delete(&on.path()).expect(204);
    on.http.assert_refused();
    // Without the switch for its audience, such a user is nobody at all.
    let strict = with(lab, &["--user-tokens"]);
    strict.owner.with_token("bob-token").get("/tokens").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
}

#[test]
fn who_manages_makes_one_for_a_user_without_groups_and_none_for_kubernetes_own() {
    let Site { lab, daypass, role } = site();
    let manager = lab.manager(daypass);
    let ask = |owner: &str| {
        manager.post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES, "owner": owner}))
    };
    let pat = Pat::of(&manager, &ask("bob").expect(201));
    assert_eq!(lab.stored(&pat).unwrap()["spec"]["owner"]["groups"]["names"], json!([]));
    assert_eq!(pat.http.get("/tokens/self").expect(200).json()["createdBy"], manager.username());
    pat.http.get(&format!("/members/{}.nobody", role.id)).problem(403, "DP_ERR_FORBIDDEN");
    let user = "--user=bob";
    lab.kubectl(&["create", "rolebinding", "bob", "-n", &role.namespace, "--role=staff", user]);
    eventually("the right is in force", || {
        (pat.http.get(&format!("/members/{}.nobody", role.id)).status == 404).then_some(())
    });
    for nobody in
        ["", "system:ops", "system:masters", "system:serviceaccount:default:nobody", "a\nb", &"a".repeat(1025)]
    {
        ask(nobody).refused_field("owner");
    }
    let account = format!("system:serviceaccount:{}:default", role.namespace);
    ask(&account).refused_field("owner");
    let ops = daypass.owner.with_token("ops-token");
    ops.post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES})).problem(403, "DP_ERR_FORBIDDEN");
}
