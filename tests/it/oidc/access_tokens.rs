//! Access tokens of people: who owns them, and what a change of the issuers means to them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::Sso;
use crate::support::tokens::{AccessToken, MANAGE, SCOPES};
use crate::support::{Daypass, Http, Launch, NewMember, OpenIdProvider};

fn for_a_day(client: &Http) -> AccessToken {
    AccessToken::requested(client, &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES}))
}

#[test]
fn token_acts_as_its_person_and_names_them() {
    let sso = Sso::shared();
    let ada = sso.person(&json!({"sub": "token-ada"}));
    let pat = for_a_day(&ada);
    let owner = json!({"username": "corp:ada@example.com", "issuer": sso.provider.issuer, "subject": "token-ada"});
    assert_eq!(pat.body["owner"], owner);
    let stored = sso.cluster.stored(&pat).unwrap()["spec"]["owner"].clone();
    assert_eq!(
        (&stored["oidc"]["issuer"], &stored["oidc"]["subject"]),
        (&json!(sso.provider.issuer), &json!("token-ada"))
    );
    assert_eq!(stored["groups"]["names"], json!(["corp:platform"]));
    let session = pat.sign_in();
    for client in [&pat.http, &session.http] {
        let member = NewMember::new(client, &sso.role, 1);
        let events = sso.daypass.audit(&member.id);
        let actor = &events.iter().find(|event| event["event"] == "MEMBER_CREATED").unwrap()["actor"];
        assert_eq!((&actor["type"], &actor["tokenId"]), (&json!("ACCESS_TOKEN"), &json!(pat.id)));
        assert_eq!((&actor["issuer"], &actor["subject"]), (&json!(sso.provider.issuer), &json!("token-ada")));
        client.delete(&member.path("")).expect(204);
    }
    // The same person with another ID token, and with the token itself.
    let again = sso.person(&json!({"sub": "token-ada", "jti": "another"}));
    assert!(again.token_ids("").contains(&pat.id) && pat.http.token_ids("").contains(&pat.id));
    again.post(&format!("{}/rotate", pat.path()), &json!({})).expect(200);
    again.delete(&pat.path()).expect(204);
    pat.http.assert_refused();
}

#[test]
fn reassigned_name_inherits_nothing() {
    let sso = Sso::shared();
    let person = |sub: &str| sso.person(&json!({"sub": sub, "email": "desk@example.com"}));
    let (before, after) = (person("desk-1"), person("desk-2"));
    let pat = for_a_day(&before);
    assert!(before.token_ids("").contains(&pat.id));
    assert!(!after.token_ids("").contains(&pat.id));
    for answer in [
        after.get(&pat.path()),
        after.patch(&pat.path(), &json!({"name": "mine"})),
        after.post(&format!("{}/rotate", pat.path()), &json!({})),
        after.delete(&pat.path()),
    ] {
        answer.problem(404, "DP_ERR_NOT_FOUND");
    }
    pat.http.get("/tokens/self").expect(200);
    let theirs = for_a_day(&after);
    before.get(&theirs.path()).problem(404, "DP_ERR_NOT_FOUND");
    // A Kubernetes user with that name is another one, too: a manager tells them apart.
    let manager = sso.cluster.caller(&sso.daypass, &[], &[], None);
    sso.cluster.may_make_tokens(&manager, MANAGE);
    let of_name = manager.get("/tokens?owner=corp:desk@example.com").expect(200).json();
    let items = of_name["items"].as_array().unwrap().iter();
    let subjects: BTreeSet<&str> = items.map(|item| item["owner"]["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["desk-1", "desk-2"].into());
}

#[test]
fn full_limit_of_a_name_ends_nobody_elses_token() {
    let sso = Sso::shared();
    let daypass = sso.daypass(&[sso.provider.settings(&json!({}))], &["--token-max-per-owner=2"]);
    let person = |sub: &str| {
        let claims = json!({"sub": sub, "email": "shared-desk@example.com"});
        daypass.owner.with_token(&sso.provider.token(&claims))
    };
    let first = [for_a_day(&person("desk-a")), for_a_day(&person("desk-a"))];
    let body = json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES});
    person("desk-b").post("/tokens", &body).problem(409, "DP_ERR_TOO_MANY_TOKENS");
    first.iter().for_each(|token| drop(token.at(&daypass).get("/tokens/self").expect(200)));
    person("desk-a").delete(&first[0].path()).expect(204);
    let theirs = for_a_day(&person("desk-b"));
    first[1].at(&daypass).get("/tokens/self").expect(200);
    theirs.http.get("/tokens/self").expect(200);
}

#[test]
fn manager_who_makes_a_token_for_a_person_names_them() {
    let sso = Sso::shared();
    let manager = sso.cluster.caller(&sso.daypass, &[], &[], None);
    sso.cluster.may_make_tokens(&manager, MANAGE);
    let ask = |more: Value| {
        let mut body = json!({"name": "n", "expiresInDays": 1, "scopes": ["members:read"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        manager.post("/tokens", &body)
    };
    let name = "corp:made-for@example.com";
    for wrong in [
        json!({"owner": name}),
        json!({"owner": name, "ownerSubject": ""}),
        json!({"owner": name, "ownerSubject": "a\nb"}),
        json!({"owner": name, "ownerSubject": "x".repeat(1025)}),
        json!({"ownerSubject": "made-for"}),
        json!({"owner": "somebody", "ownerSubject": "made-for"}),
        json!({"owner": "system:serviceaccount:default:owner", "ownerSubject": "made-for"}),
    ] {
        ask(wrong).assert_invalid_field("ownerSubject");
    }
    let made = AccessToken::of(&manager, &ask(json!({"owner": name, "ownerSubject": "made-for"})).expect(201));
    assert_eq!(made.body["owner"]["subject"], "made-for");
    let me = made.http.get("/self").expect(200).json();
    assert_eq!((&me["username"], &me["groups"]), (&json!(name), &json!(["system:authenticated"])));
    let person = |sub: &str| sso.person(&json!({"sub": sub, "email": "made-for@example.com"}));
    assert!(person("made-for").token_ids("").contains(&made.id));
    assert!(!person("somebody-else").token_ids("").contains(&made.id));
    // A person names themselves as they like, and nobody else.
    let ada = sso.person(&json!({"sub": "names-herself"}));
    let body = |subject: &str| {
        let mut body = json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES, "owner": "corp:ada@example.com"});
        body["ownerSubject"] = json!(subject);
        body
    };
    ada.post("/tokens", &body("names-herself")).expect(201);
    ada.post("/tokens", &body("names-another")).problem(403, "DP_ERR_FORBIDDEN");
}

#[test]
fn change_of_an_issuer_refuses_its_own_tokens_alone() {
    let (sso, other) = (Sso::shared(), OpenIdProvider::start());
    let settings = |changes: Value| sso.provider.settings(&changes);
    let two = other.settings(&json!({"name": "two", "usernamePrefix": "two:", "groupsPrefix": "two:"}));
    sso.cluster.let_group_create_tokens("two:platform");
    let both = sso.daypass(&[settings(json!({})), two.clone()], &[]);
    let ada = both.owner.with_token(&sso.provider.token(&json!({"sub": "mapped"})));
    let bob = both.owner.with_token(&other.token(&json!({"email": "bob@example.com"})));
    crate::support::eventually("the second group has its rights", || {
        let me = bob.get("/self").expect(200).json();
        (me["privileges"]["generateAccessTokens"] == true).then_some(())
    });
    let (of_ada, of_bob, of_account) =
        (for_a_day(&ada), for_a_day(&bob), for_a_day(&sso.cluster.generator(&sso.daypass)));
    let works = |token: &AccessToken, at: &Daypass| match token.at(at).get("/tokens/self").status {
        200 => true,
        401 => false,
        status => panic!("{status}"),
    };
    let all = |at: &Daypass| [&of_ada, &of_bob, &of_account].map(|token| works(token, at));
    assert_eq!(all(&both), [true, true, true]);
    // Clients, ages and the CA name nobody.
    let unmapped = settings(json!({"audiences": ["daypass", "console"], "maxTokenAge": "10m", "caFile": null}));
    assert_eq!(all(&sso.daypass(&[unmapped, two.clone()], &[])), [true, true, true]);
    for changed in [
        vec![two.clone()],
        vec![settings(json!({"usernameClaim": "sub"})), two.clone()],
        vec![settings(json!({"usernamePrefix": "other:"})), two.clone()],
        vec![settings(json!({"groupsClaim": null, "groupsPrefix": null})), two.clone()],
        vec![settings(json!({"requiredClaims": {"tenant": "a"}})), two.clone()],
        vec![settings(json!({"emailVerified": "ifPresent"})), two.clone()],
    ] {
        assert_eq!(all(&sso.daypass(&changed, &[])), [false, true, true], "{changed:?}");
    }
    let off = Daypass::with_args(&sso.cluster, &["--user-tokens"]);
    assert_eq!(all(&off), [false, false, true], "without the method");
    // A person under another mapping does not own what was made under the old one; back again, nothing is lost.
    let moved = sso.daypass(&[settings(json!({"emailVerified": "ifPresent"})), two], &[]);
    let there = moved.owner.with_token(&sso.provider.token(&json!({"sub": "mapped"})));
    assert!(!there.token_ids("").contains(&of_ada.id));
    assert_eq!(all(&both), [true, true, true]);
}

#[test]
fn version_before_refuses_the_token_of_a_person() {
    let sso = Sso::shared();
    let pat = for_a_day(&sso.person(&json!({"sub": "upgrade"})));
    let of_account = for_a_day(&sso.cluster.generator(&sso.daypass));
    let Some(folder) = std::env::var_os("DAYPASS_PREVIOUS") else {
        panic!("the environment variable DAYPASS_PREVIOUS must name a folder: use `make test`, which builds it");
    };
    let program = Some(PathBuf::from(folder).join("daypass"));
    let launch = Launch { program, args: vec!["--user-tokens".to_owned()], ..Launch::default() };
    let older = Daypass::start(&sso.cluster, &launch);
    // It knows nothing of issuers, and would take the person for a Kubernetes user.
    pat.at(&older).assert_refused();
    of_account.at(&older).get("/tokens/self").expect(200);
}
