//! What a person with an ID token can do, and what the audit trail and `GET /self` say of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Sso;
use crate::support::{Answer, Daypass, NewMember, eventually};

/// The last audit line of this kind.
fn last(daypass: &Daypass, kind: &str, text: &str) -> Value {
    let events = daypass.audit_events_with(text);
    events.into_iter().rfind(|event| event["event"] == kind).unwrap_or_else(|| panic!("no {kind} with {text}"))
}

#[test]
fn person_signs_in_at_the_issuer_and_manages_members() {
    let sso = Sso::shared();
    sso.provider.post(
        "/users",
        &json!({"name": "grace", "sub": "grace-1", "email": "grace@example.com", "emailVerified": true,
                "groups": ["platform", "on call"]}),
    );
    let tokens = sso.provider.sign_in("grace");
    let grace = sso.daypass.owner.with_token(tokens["id_token"].as_str().unwrap());

    let me = grace.get(&format!("/self?roleId={}", sso.role.id)).expect(200).json();
    assert_eq!((&me["username"], &me["uid"]), (&json!("corp:grace@example.com"), &json!("grace-1")));
    assert_eq!(me["groups"], json!(["corp:platform", "corp:on call", "system:authenticated"]));
    assert_eq!((&me["issuer"], &me["subject"]), (&json!(sso.provider.issuer), &json!("grace-1")));
    assert_eq!(me["credential"]["type"], "ID_TOKEN");
    assert_eq!(me["scopes"].as_array().unwrap().len(), 4);
    assert_eq!(me["privileges"], json!({"generateAccessTokens": true, "manageAccessTokens": false}));

    let roles = grace.get("/members/roles").expect(200).json();
    assert_eq!(roles["items"].as_array().unwrap().len(), 1, "{roles}");
    let member = NewMember::new(&grace, &sso.role, 1);
    assert_eq!(member.body["createdBy"], "corp:grace@example.com");
    let listed = grace.get("/members").expect(200).json();
    assert!(listed["items"].as_array().unwrap().iter().any(|item| item["id"] == member.id));
    grace.patch(&member.path(""), &json!({"duration": "2"})).expect(200);
    member.kubeconfig(&sso.cluster);
    grace.delete(&member.path("")).expect(204);
    for kind in ["MEMBER_CREATED", "EXTENDED", "REVOKED"] {
        let event = last(&sso.daypass, kind, &member.id);
        let actor = json!({"type": "CALLER", "username": "corp:grace@example.com", "issuer": sso.provider.issuer,
                           "subject": "grace-1"});
        assert_eq!((&event["actor"], &event["owner"]), (&actor, &json!("corp:grace@example.com")));
    }

    // Only the ID token is for Daypass, and only as a bearer token.
    let access_token = tokens["access_token"].as_str().unwrap();
    assert_eq!(access_token.split('.').count(), 3, "a JWT, too");
    sso.daypass.owner.with_token(access_token).assert_refused();
    sso.daypass.owner.with_basic("corp:grace@example.com", grace.token()).assert_refused();
    grace.get_as(&format!("Token {}", grace.token()), "/self").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    grace.get_as(&format!("Bearer {}", grace.token()), "/self").expect(200);
}

#[test]
fn rights_come_from_rbac_by_user_and_by_group() {
    let sso = Sso::shared();
    let bind = |name: &str, user: &str| {
        let namespace = &sso.role.namespace;
        sso.cluster.kubectl(&[
            "create",
            "rolebinding",
            name,
            "--clusterrole=daypass-engines-manage",
            &format!("--user={user}"),
            "-n",
            namespace,
        ]);
    };
    bind("linus", "corp:linus@example.com");
    let by_name = json!({"sub": "linus", "email": "linus@example.com", "groups": []});
    let linus = sso.person(&by_name);
    eventually("he has his rights", || (linus.get("/members").status == 200).then_some(()));
    // Another claim or prefix is another name, and one without any right.
    for nobody in [
        json!({"sub": "x", "email": "x@example.com", "groups": []}),
        json!({"sub": "x", "email": "x@example.com", "groups": ["corp:platform", "Platform", "system:masters"]}),
        json!({"sub": "x", "email": "x@example.com", "roles": ["platform"], "groups": null}),
    ] {
        let answer = sso.person(&nobody).get("/members");
        // One of them names a group that is Kubernetes' own only after its prefix, which makes it another.
        answer.problem(403, "DP_ERR_FORBIDDEN");
    }
    let me = sso.person(&json!({"sub": "x", "email": "x@example.com", "groups": []}));
    let me = me.get(&format!("/self?roleId={}", sso.role.id)).expect(200).json();
    let none = me["role"].as_object().unwrap().iter().filter(|(name, _)| *name != "id");
    assert!(none.clone().count() == 7 && none.into_iter().all(|(_, right)| right == false), "{me}");
}

#[test]
fn self_says_the_same_of_a_role_that_does_not_exist() {
    let sso = Sso::shared();
    let ada = sso.person(&json!({}));
    let rights = |id: &str| {
        let mut role = ada.get(&format!("/self?roleId={id}")).expect(200).json()["role"].take();
        assert_eq!(role.as_object_mut().unwrap().remove("id"), Some(json!(id)));
        role
    };
    let hidden = sso.cluster.reader();
    assert_eq!(rights(&hidden.id), rights("no-such-role"));
    assert_eq!(rights("NO ROLE"), rights("no-such-role"));
    assert_eq!(rights(&sso.role.id)["createMembers"], true);
    // Even somebody with the right everywhere has none in a role that does not exist.
    assert_eq!(sso.daypass.owner.get("/self?roleId=no-such-role").expect(200).json()["role"]["getMembers"], false);
    ada.get("/self?roleId=").assert_invalid_field("roleId");
    ada.get("/self?limit=1").assert_invalid_field("limit");
    ada.anonymous().get("/self").problem(401, "DP_ERR_NO_CREDENTIALS");
}

#[test]
fn self_tells_credentials_apart() {
    let sso = Sso::shared();
    let kubernetes = sso.daypass.owner.get("/self").expect(200).json();
    assert_eq!(kubernetes["credential"]["type"], "KUBERNETES_TOKEN");
    assert!(kubernetes["credential"]["expiresAt"].is_string(), "a JWT says when it ends");
    assert_eq!(kubernetes["username"], "system:serviceaccount:default:owner");
    assert!(kubernetes.get("issuer").is_none() && kubernetes.get("subject").is_none());
    let ada = sso.person(&json!({"exp": 4_000_000_000_i64}));
    assert_eq!(ada.get("/self").expect(200).json()["credential"]["expiresAt"], "2096-10-02T07:06:40Z");
    let body = json!({"name": "n", "expiresInDays": 1, "scopes": ["members:read"]});
    let pat = crate::support::tokens::AccessToken::requested(&ada, &body);
    let session = pat.sign_in();
    for (client, kind) in [(&pat.http, "ACCESS_TOKEN"), (&session.http, "SESSION")] {
        let me = client.get("/self").expect(200).json();
        assert_eq!((&me["credential"]["type"], &me["credential"]["tokenId"]), (&json!(kind), &json!(pat.id)));
        assert_eq!((&me["scopes"], &me["subject"]), (&json!(["members:read"]), &json!("1")));
        assert_eq!(me["groups"], json!(["corp:platform", "system:authenticated"]));
    }
}

#[test]
fn idempotency_key_belongs_to_the_person() {
    let sso = Sso::shared();
    let ask = |sub: &str, email: &str| {
        let person = sso.person(&json!({"sub": sub, "email": email}));
        let body = json!({"duration": "1", "roleId": sso.role.id});
        Answer::of(person.request("POST", "/members").header("Idempotency-Key", "one-key").json(&body))
    };
    let first = ask("keyed-1", "keyed@example.com").expect(201).json()["id"].clone();
    ask("keyed-1", "keyed@example.com").problem(409, "DP_ERR_IDEMPOTENCY_KEY_REUSED");
    assert_ne!(ask("keyed-2", "keyed@example.com").expect(201).json()["id"], first);
}

#[test]
fn self_remembers_what_a_person_may_not() {
    let sso = Sso::shared();
    let url = format!("/self?roleId={}", sso.role.id);
    // A new token each time, as oidc-agent has them. On a slow machine, the denials may be forgotten in between.
    let client = |sub: &str, id: &str| {
        sso.person(&json!({"sub": sub, "email": format!("{sub}@example.com"), "groups": [], "jti": id}))
    };
    let mut number = 0;
    let (first, second) = eventually("two requests within ten seconds", || {
        number += 1;
        let [one, two] = ["a", "b"].map(|id| client(&format!("nobody-{number}"), id));
        let (start, first, second) = (Instant::now(), one.get(&url).expect(200), two.get(&url).expect(200));
        (start.elapsed() < Duration::from_secs(10)).then_some((first, second))
    });
    let calls = |answer: &Answer| sso.cluster.calls_of(answer).len();
    assert_eq!((calls(&first), calls(&second)), (10, 1), "only the review of the new token");
}

#[test]
fn repeated_denials_are_limited_by_the_person_and_not_by_the_name() {
    let sso = Sso::shared();
    // With a limit of one, Daypass forgets one denial in a minute.
    let daypass = sso.daypass(&[sso.provider.settings(&json!({}))], &["--max-denied-requests=1"]);
    let client = |sub: &str, email: &str| {
        let claims = json!({"sub": sub, "email": email, "groups": []});
        daypass.owner.with_token(&sso.provider.token(&claims))
    };
    let ask = |client: &crate::support::Http| -> Answer { client.get("/members") };
    let denied = |sub: &str, email: &str| (0..2).map(|_| ask(&client(sub, email)).status).collect::<Vec<_>>();
    assert_eq!(denied("mallory", "mallory@example.com"), [403, 429]);
    ask(&client("mallory", "other@example.com")).problem(429, "DP_ERR_TOO_MANY_DENIALS");
    ask(&client("eve", "mallory@example.com")).problem(403, "DP_ERR_FORBIDDEN");
    let event = last(&daypass, "DENIED", "mallory");
    assert_eq!(event["actor"]["issuer"], sso.provider.issuer);
}

#[test]
fn nothing_unverified_enters_the_audit_trail() {
    let sso = Sso::shared();
    let daypass = sso.daypass(&[sso.provider.settings(&json!({}))], &[]);
    let marked = json!({"sub": "unverified-marker", "email": "unverified-marker@example.com", "aud": "other"});
    daypass.owner.with_token(&sso.provider.token(&marked)).assert_refused();
    assert_eq!(daypass.audit_events_with("unverified-marker"), [Value::Null; 0]);
    let event = last(&daypass, "AUTH_FAILED", "AUTH_FAILED");
    assert_eq!(event["actor"], json!({"type": "ANONYMOUS"}));
    assert!(!daypass.log().contains("unverified-marker"), "nor the log");
    assert!(daypass.log().contains("it is not for Daypass"), "the log says why");
}
