//! Daypass and the API server agree on who a person is, or Daypass is stricter.

use serde_json::{Value, json};

use super::{KUBERNETES, Sso};
use crate::support::{Answer, now};

/// Who the API server says that a token names: user name, UID, groups and attributes.
fn kubernetes(sso: &Sso, changes: &Value) -> Option<Value> {
    let mut changes = changes.clone();
    changes["aud"] = json!(KUBERNETES);
    let answer = sso.cluster.api.self_review(&sso.provider.token(&changes));
    let user = &answer.json()["status"]["userInfo"];
    (answer.status == 201).then(|| identity(user))
}

/// Who Daypass says that it names.
fn daypass(sso: &Sso, changes: &Value) -> Option<Value> {
    let answer: Answer = sso.person(changes).get("/self");
    assert!([200, 401].contains(&answer.status), "{}", answer.text);
    (answer.status == 200).then(|| identity(&answer.json()))
}

fn identity(user: &Value) -> Value {
    let mut groups: Vec<&str> = user["groups"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    groups.sort_unstable();
    let extra = user.get("extra").cloned().unwrap_or(json!({}));
    json!({"username": user["username"], "uid": user["uid"], "groups": groups, "extra": extra})
}

#[test]
fn daypass_and_the_api_server_agree_or_daypass_is_stricter() {
    let sso = Sso::shared();
    let now = now().timestamp();
    // Both accept these.
    for changes in [
        json!({}),
        json!({"groups": null}),
        json!({"groups": "one"}),
        json!({"groups": ["a", "b", "corp:c", "system:masters", "on call"]}),
        json!({"email": "Ada.Lovelace+x@Example.com"}),
        json!({"email": "ünï@example.com", "sub": "ä"}),
        json!({"jti": "an-id"}),
        json!({"nbf": now - 5}),
        json!({"iat": now - 600}),
        json!({"aud": ["daypass"]}),
        json!({"extra": "ignored", "name": "Ada", "typ": "ID"}),
    ] {
        let ours = daypass(sso, &changes);
        assert!(ours.is_some(), "{changes}");
        assert_eq!(ours, kubernetes(sso, &changes), "{changes}");
    }
    // The API server may accept these; Daypass does not.
    let mut stricter = 0;
    for changes in [
        json!({"email_verified": null}),
        json!({"iat": now - 7200}),
        json!({"iat": null}),
        json!({"sub": null}),
        json!({"groups": [""]}),
        json!({"scope": "openid"}),
        json!({"cnf": {"jkt": "x"}}),
        json!({"typ": "Bearer"}),
        json!({"azp": "somebody"}),
        json!({"exp": now - 5}),
        json!({"nbf": now + 600}),
        json!({"email": null}),
        json!({"email_verified": false}),
        json!({"groups": [1]}),
        json!({"groups": {"a": "b"}}),
        json!({"iss": "https://other.example.com"}),
    ] {
        assert_eq!(daypass(sso, &changes), None, "{changes}");
        stricter += usize::from(kubernetes(sso, &changes).is_some());
    }
    assert!(stricter > 3, "the table has tokens that only the API server accepts: {stricter}");
}

#[test]
fn token_for_daypass_is_of_no_use_at_the_api_server() {
    let sso = Sso::shared();
    let ours = sso.provider.token(&json!({}));
    sso.daypass.owner.with_token(&ours).get("/self").expect(200);
    assert!(!sso.cluster.api.accepts(&ours));
    assert!(sso.cluster.token_review(&ours, "daypass").is_none());
    // The control: the same token for the API server.
    let theirs = sso.provider.token(&json!({"aud": KUBERNETES}));
    assert!(sso.cluster.api.accepts(&theirs));
    sso.daypass.owner.with_token(&theirs).get("/self").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
}
