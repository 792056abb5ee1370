//! Sessions of callers and members, which are issued for a Kubernetes token or a member's credential.

use std::path::PathBuf;

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, SCOPES, forged};
use crate::support::{
    Answer, Cluster, Daypass, Http, Kubeconfig, Launch, NewMember, Role, eventually, now, time, wait_until,
};

/// A member of a role of its own.
fn member(cluster: &Cluster, daypass: &Daypass) -> (Role, NewMember) {
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    (role, member)
}

/// Checks that a session is refused at both replicas.
#[track_caller]
fn assert_ended(session: &AccessToken, path: &str) {
    for client in [&session.http, &session.at(Daypass::second())] {
        client.get(path).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
}

#[test]
fn session_of_a_kubernetes_token_acts_as_its_owner() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let caller =
        cluster.with_privilege(cluster.caller(daypass, &["create", "get"], &["members"], Some(&role)), "generate");
    let pat = AccessToken::new(&caller, &SCOPES);
    let session = AccessToken::session_of(&caller);
    let owner = json!({"username": caller.username()});
    assert_eq!((&session.body["kind"], &session.body["owner"]), (&json!("KUBERNETES_TOKEN"), &owner));
    assert_eq!(session.body["scopes"], json!(SCOPES));
    assert_eq!((&session.body["tokenId"], &session.body["memberId"]), (&Value::Null, &Value::Null));
    let left = time(&session.body["expiresAt"]) - now();
    assert!(left > TimeDelta::minutes(25) && left <= TimeDelta::minutes(30), "{left}");

    let there = session.at(Daypass::second());
    for client in [&session.http, &there] {
        let (me, theirs) = (client.get("/self").expect(200).json(), caller.get("/self").expect(200).json());
        for same in ["username", "uid", "groups", "scopes", "privileges"] {
            assert_eq!(me[same], theirs[same]);
        }
        let credential = json!({
            "type": "SESSION", "issuedFor": "KUBERNETES_TOKEN", "expiresAt": session.body["expiresAt"],
        });
        assert_eq!(me["credential"], credential);
        assert_eq!(client.token_ids(""), [pat.id.as_str()]);
    }
    let member = NewMember::new(&there, &role, 1);
    assert_eq!(member.body["createdBy"], caller.username());
    let created = Daypass::second().wait_event(&member.id, "MEMBER_CREATED");
    assert_eq!(created["actor"], json!({"type": "CALLER", "username": caller.username()}));
    // Its idempotency keys are its owner's.
    let keyed = |client: &Http| {
        let request = client.request("POST", "/members").header("Idempotency-Key", "page");
        Answer::of(request.json(&json!({"duration": 1, "roleId": role.id})))
    };
    keyed(&caller).expect(201);
    keyed(&session.http).problem(409, "DP_ERR_IDEMPOTENCY_KEY_REUSED");
}

#[test]
fn session_of_a_member_does_what_its_credential_does() {
    let (cluster, daypass) = Cluster::shared();
    let (_, member) = member(cluster, daypass);
    for client in [&member.engineer, &daypass.owner.with_token(&member.password)] {
        let session = AccessToken::session_of(client);
        assert_eq!((&session.body["kind"], &session.body["memberId"]), (&json!("MEMBER"), &json!(member.id)));
        for absent in ["owner", "scopes", "tokenId"] {
            assert_eq!(session.body[absent], Value::Null);
        }
        let there = session.at(Daypass::second());
        for client in [&session.http, &there, &there.with_basic(&member.id, &session.secret)] {
            assert_eq!(client.get(&member.path("/me")).expect(200).json()["id"], member.id);
        }
        let kubeconfig = Kubeconfig::new(cluster, &there.get(&member.path("/kubeconfig")).expect(200));
        assert!(kubeconfig.is_accepted(cluster));
        assert!(member.listed(&session.http).contains(&kubeconfig.jti().to_owned()));
        let issued = Daypass::second().wait_event(&member.id, "KUBECONFIG_ISSUED");
        assert_eq!(issued["actor"], json!({"type": "MEMBER", "username": member.id}));
        session.http.delete(&member.path(&format!("/kubeconfigs/{}", kubeconfig.jti()))).expect(204);
        assert!(member.listed(&session.http).is_empty());
    }
    // The session that ends the membership ends with it.
    let session = AccessToken::session_of(&member.engineer);
    session.http.delete(&member.path("/me")).expect(204);
    assert_ended(&session, &member.path("/me"));
}

#[test]
fn session_of_a_member_reaches_nothing_else() {
    let (cluster, daypass) = Cluster::shared();
    let ((_, member), (_, other)) = (member(cluster, daypass), member(cluster, daypass));
    let session = AccessToken::session_of(&member.engineer);
    let as_other = daypass.owner.with_basic(&other.id, &session.secret);
    for (client, path) in [
        (&session.http, other.path("/me")),
        (&session.http, other.path("/kubeconfig")),
        (&as_other, other.path("/me")),
        (&as_other, member.path("/me")),
        (&session.http, "/members".to_owned()),
        (&session.http, "/tokens".to_owned()),
        (&session.http, member.path("")),
        (&daypass.owner.with_token(&forged(&session.id)), member.path("/me")),
    ] {
        client.get(&path).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
    session.http.get(&member.path("/me")).expect(200);
}

#[test]
fn session_never_outlasts_what_it_was_issued_for() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let end = (now() + TimeDelta::minutes(5)).timestamp();
    let brief = daypass.owner.with_token(&cluster.resign(caller.token(), |claims| claims["exp"] = json!(end)));
    assert_eq!(time(&AccessToken::session_of(&brief).body["expiresAt"]).timestamp(), end);
    let (role, member) = member(cluster, daypass);
    let end = member.end_in_seconds(cluster, &role, 600);
    assert_eq!(time(&AccessToken::session_of(&member.engineer).body["expiresAt"]), end);
}

#[test]
fn session_of_a_member_ends_with_the_membership() {
    let (cluster, daypass) = Cluster::shared();
    let (role, member) = member(cluster, daypass);
    let session = AccessToken::session_of(&member.engineer);
    // Longer and shorter make no difference to it, as long as the member lives.
    for hours in [4, 2] {
        daypass.owner.patch(&member.path(""), &json!({"duration": hours})).expect(200);
        session.at(Daypass::second()).get(&member.path("/me")).expect(200);
    }
    let end = member.end_in_seconds(cluster, &role, 2);
    wait_until(end);
    assert_ended(&session, &member.path("/me"));
    cluster.wait_token_gone(&session);
}

#[test]
fn session_of_a_member_ends_when_it_is_revoked_or_gets_a_new_credential() {
    let (cluster, daypass) = Cluster::shared();
    let (role, member) = member(cluster, daypass);
    let me = member.path("/me");
    let first = AccessToken::session_of(&member.engineer);
    first.at(Daypass::second()).get(&me).expect(200);
    let renewed = daypass.owner.post(&member.path("/credentials"), &json!({})).expect(201).json();
    assert_ended(&first, &me);
    let engineer = daypass.owner.with_basic(&member.id, renewed["password"].as_str().unwrap());
    let second = AccessToken::session_of(&engineer);
    second.http.get(&me).expect(200);
    daypass.owner.delete(&member.path("")).expect(204);
    assert_ended(&second, &me);
    // Another member of that name is another one.
    cluster.wait_gone(&role, member.name());
    let namesake = NewMember::applied(cluster, daypass, &role, member.name(), &json!({"duration": "1h"}));
    assert_ended(&second, &me);
    // Nor do the sessions of the former one take its places.
    let theirs = [(); 4].map(|()| AccessToken::session_of(&namesake.engineer));
    theirs.iter().for_each(|session| drop(session.http.get(&me).expect(200)));
    for session in [&first, &second] {
        cluster.wait_token_gone(session);
        let both = [daypass.token_events(&session.id), Daypass::second().token_events(&session.id)].concat();
        let kinds: Vec<&Value> = both.iter().map(|event| &event["event"]).collect();
        assert_eq!(kinds, ["SESSION_CREATED", "SESSION_ENDED"]);
    }
}

#[test]
fn session_of_a_caller_ends_with_its_service_account() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let name = caller.username().rsplit_once(':').unwrap().1.to_owned();
    let session = AccessToken::session_of(&caller);
    session.at(Daypass::second()).get("/self").expect(200);
    cluster.kubectl(&["delete", "serviceaccount", &name, "-n", "default"]);
    assert_ended(&session, "/self");
    cluster.kubectl(&["create", "serviceaccount", &name, "-n", "default"]);
    assert_ended(&session, "/self");
    let again = daypass.owner.with_token(&cluster.token("default", &name, "daypass"));
    eventually("the API server knows the new account", || (again.get("/self").status == 200).then_some(()));
    let anew = AccessToken::session_of(&again);
    anew.http.get("/self").expect(200);
    cluster.wait_token_gone(&session);
    anew.http.get("/self").expect(200);
}

#[test]
fn version_before_refuses_sessions_that_it_does_not_know() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let (_, member) = member(cluster, daypass);
    let pat = AccessToken::new(&caller, &SCOPES);
    let of_token = pat.sign_in();
    let Some(folder) = std::env::var_os("DAYPASS_PREVIOUS") else {
        panic!("the environment variable DAYPASS_PREVIOUS must name a folder: use `make test`, which builds it");
    };
    let program = Some(PathBuf::from(folder).join("daypass"));
    let older = Daypass::start(cluster, &Launch { program, ..Launch::default() });
    let sessions = [
        (AccessToken::session_of(&caller), "/tokens".to_owned()),
        (AccessToken::session_of(&member.engineer), member.path("/me")),
        (AccessToken::session_of(&member.engineer), "/tokens".to_owned()),
    ];
    for (session, path) in &sessions {
        session.at(&older).get(path).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
    // It goes on with those that it knows.
    of_token.at(&older).get("/tokens/self").expect(200);
    let answer = pat.at(&older).post("/sessions", &json!({})).expect(201).json();
    caller.with_token(answer["token"].as_str().unwrap()).get("/tokens/self").expect(200);
    sessions[0].0.http.get("/tokens").expect(200);
    sessions[1].0.http.get(&member.path("/me")).expect(200);
}

#[test]
fn sign_out_ends_one_session_or_all() {
    let (cluster, daypass) = Cluster::shared();
    let other = Daypass::second();
    let (caller, stranger) = (cluster.generator(daypass), cluster.generator(daypass));
    let ((_, member), (_, peer)) = (member(cluster, daypass), member(cluster, daypass));
    let (pat, second_pat) = (AccessToken::new(&caller, &SCOPES), AccessToken::new(&caller, &SCOPES));
    let kinds = [
        (&pat.http, "/tokens/self".to_owned()),
        (&caller, "/self".to_owned()),
        (&member.engineer, member.path("/me")),
    ];
    let unconcerned = [
        (second_pat.sign_in(), "/tokens/self".to_owned()),
        (AccessToken::session_of(&stranger), "/self".to_owned()),
        (AccessToken::session_of(&peer.engineer), peer.path("/me")),
    ];
    for (client, path) in &kinds {
        let [one, two, three] = [(); 3].map(|()| AccessToken::session_of(client));
        one.at(other).delete("/sessions/current").expect(204);
        assert_ended(&one, path);
        two.http.get(path).expect(200);
        // With a session, then with what it was issued for.
        two.at(other).delete("/sessions").expect(204);
        assert_ended(&two, path);
        assert_ended(&three, path);
        let again = AccessToken::session_of(client);
        client.delete("/sessions").expect(204);
        assert_ended(&again, path);
        client.get(path).expect(200);
        client.delete("/sessions").expect(204);
        for session in [&one, &two] {
            let ended = other.wait_token_event(&session.id, "SESSION_ENDED");
            let created = daypass.wait_token_event(&session.id, "SESSION_CREATED");
            assert_eq!(ended["actor"], created["actor"], "{path}");
        }
    }
    // The caller's own session and those of its access tokens are not the same.
    let of_token = pat.sign_in();
    caller.delete("/sessions").expect(204);
    of_token.http.get("/tokens/self").expect(200);
    for (session, path) in &unconcerned {
        session.http.get(path).expect(200);
    }
}

#[test]
fn audit_trail_says_what_a_session_was_issued_for() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let (_, member) = member(cluster, daypass);
    let pat = AccessToken::new(&caller, &SCOPES);
    for (session, actor, issued_for, of_member) in [
        (pat.sign_in(), "ACCESS_TOKEN", "ACCESS_TOKEN", Value::Null),
        (AccessToken::session_of(&caller), "CALLER", "KUBERNETES_TOKEN", Value::Null),
        (AccessToken::session_of(&member.engineer), "MEMBER", "MEMBER", json!(member.id)),
    ] {
        let event = daypass.wait_token_event(&session.id, "SESSION_CREATED");
        assert_eq!((&event["actor"]["type"], &event["token"]["issuedFor"]), (&json!(actor), &json!(issued_for)));
        assert_eq!(event["token"]["member"], of_member);
        let random = session.secret.rsplit_once('_').unwrap().1;
        assert!(daypass.audit_events_with(random).is_empty());
        // Whoever deletes the object signs out.
        cluster.kubectl(&["delete", "accesstoken", session.object(), "-n", "daypass"]);
        let path = if of_member.is_null() { "/self".to_owned() } else { member.path("/me") };
        assert_ended(&session, &path);
        let ended = eventually("the end is recorded", || {
            let both = [daypass, Daypass::second()].map(|daypass| daypass.token_events(&session.id)).concat();
            both.into_iter().find(|event| event["event"] == "SESSION_ENDED")
        });
        assert_eq!(ended["actor"]["type"], "KUBERNETES");
    }
}

#[test]
fn refused_sign_in_is_counted_like_any_refusal() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let (_, member) = member(cluster, daypass);
    let typo = member.password.replace("dpm_", "dpm-");
    let expired = cluster.resign(caller.token(), |claims| claims["exp"] = json!((now().timestamp()) - 90));
    for client in [
        caller.with_token("garbage"),
        caller.with_token(&expired),
        caller.with_basic(&member.id, &typo),
        caller.with_basic("view.nobody", &member.password),
        caller.with_token(&forged(&format!("{}-o0-abcdef", "a".repeat(16)))),
        caller.with_token(&forged(&format!("{}-m0-abcdef", "a".repeat(16)))),
    ] {
        let answer = client.post("/sessions", &json!({}));
        answer.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        let id = answer.header("x-request-id");
        let recorded = daypass.audit_events_with(id);
        assert_eq!(recorded[0]["event"], "AUTH_FAILED", "{recorded:?}");
    }
    // A session's own refusals are recorded as its owner's denials, also a member's.
    for (client, actor) in [(&caller, "CALLER"), (&member.engineer, "MEMBER")] {
        let answer = AccessToken::session_of(client).http.post("/sessions", &json!({}));
        answer.problem(403, "DP_ERR_FORBIDDEN");
        let recorded = daypass.audit_events_with(answer.header("x-request-id"));
        assert_eq!((&recorded[0]["event"], &recorded[0]["actor"]["type"]), (&json!("DENIED"), &json!(actor)));
    }
}

#[test]
fn stored_session_holds_no_more_than_it_needs() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let (role, member) = member(cluster, daypass);
    let (of_owner, of_member) = (AccessToken::session_of(&caller), AccessToken::session_of(&member.engineer));
    let stored = [&of_owner, &of_member].map(|session| cluster.stored(session).unwrap());
    let uid = cluster.uid("daypass", "serviceaccount", "daypass");
    for object in &stored {
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], uid, "an uninstall removes it");
        assert!(object["metadata"].get("finalizers").is_none());
    }
    assert_eq!((&stored[0]["spec"]["session"], &stored[0]["spec"]["name"]), (&json!({}), &json!("session")));
    let account = format!("system:serviceaccount:{}:{}", role.namespace, member.name());
    assert_eq!(
        (&stored[1]["spec"]["owner"], &stored[1]["spec"]["scopes"]),
        (&json!({"username": account}), &json!([]))
    );
    let session = &stored[1]["spec"]["session"];
    let member_uid = cluster.uid(&role.namespace, "member", member.name());
    assert_eq!((&session["member"], &session["memberUid"]), (&json!(member.id), &json!(member_uid)));
    let secrets = [&of_owner.secret, &of_member.secret, &member.password].map(|it| it.rsplit_once('_').unwrap().1);
    let text = Value::from(stored.to_vec()).to_string();
    assert!(secrets.iter().all(|secret| !text.contains(secret)));
}
