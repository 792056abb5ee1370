use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::json;

use super::super::Issuers;
use super::*;

const NOW: i64 = 1_800_000_000;

fn issuer(changes: &Value) -> Issuer {
    let mut settings = json!({
        "name": "corp", "url": "https://id.example.com", "audiences": ["daypass", "other"],
        "authorizedParties": ["cli"], "usernameClaim": "email", "usernamePrefix": "corp:", "groupsClaim": "groups",
        "groupsPrefix": "corp-", "uidClaim": "sub",
    });
    merge(&mut settings, changes);
    Issuers::read(&json!([settings])).unwrap().iter().next().unwrap().clone()
}

fn merge(into: &mut Value, changes: &Value) {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(into.as_object_mut().unwrap().remove(name)),
            value => into[name] = value.clone(),
        }
    }
}

/// Whom the usual claims with these changes name. `null` takes a claim away.
fn decide(changes: &Value, issuer: &Issuer) -> Result<Person, Refused> {
    let mut claims = json!({
        "iss": "https://id.example.com", "sub": "0815", "aud": "daypass", "exp": NOW + 300, "iat": NOW - 10,
        "email": "ada@example.com", "email_verified": true, "groups": ["admins", "dev"],
    });
    merge(&mut claims, changes);
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}.AAAA", part(&json!({"alg": "RS256"})), part(&claims));
    person(&IdToken::read(&text)?, issuer, DateTime::from_timestamp(NOW, 0).unwrap())
}

#[track_caller]
fn refused(changes: &Value, expected: Refused) {
    assert_eq!(decide(changes, &issuer(&json!({}))), Err(expected), "{changes}");
}

#[track_caller]
fn accepted(changes: &Value) -> Person {
    decide(changes, &issuer(&json!({}))).unwrap_or_else(|why| panic!("{changes}: {why}"))
}

#[test]
fn person_has_prefixed_names_and_is_authenticated() {
    let person = accepted(&json!({}));
    assert_eq!(
        person,
        Person {
            username: "corp:ada@example.com".to_owned(),
            groups: ["corp-admins", "corp-dev", "system:authenticated"].map(str::to_owned).into(),
            uid: Some("0815".to_owned()),
            subject: issuer(&json!({})).subject("0815"),
            credential_id: None,
            expires_at: DateTime::from_timestamp(NOW + 300, 0).unwrap(),
        }
    );
}

#[test]
fn issuer_and_subject_are_one_text_each() {
    for other in [json!(null), json!(["https://id.example.com"]), json!("https://id.example.com/"), json!(1)] {
        refused(&json!({"iss": other}), Refused::Issuer);
    }
    for other in [json!(null), json!(""), json!(["0815"]), json!(815), json!("a\u{0}b"), json!("a".repeat(1025))] {
        refused(&json!({"sub": other}), Refused::Subject);
    }
}

#[test]
fn tokens_of_other_kinds_are_refused() {
    for other in ["scope", "scp", "events", "cnf"] {
        refused(&json!({other: "openid"}), Refused::Kind);
        refused(&json!({other: {}}), Refused::Kind);
    }
    for kind in [json!("Bearer"), json!("Refresh"), json!("id"), json!(["ID"])] {
        refused(&json!({"typ": kind}), Refused::Kind);
    }
    accepted(&json!({"typ": "ID"}));
}

#[test]
fn token_is_for_daypass_and_came_through_a_known_client() {
    for audience in [json!(null), json!("kubernetes"), json!([]), json!([1]), json!(["daypass", 1]), json!({})] {
        refused(&json!({"aud": audience, "azp": "daypass"}), Refused::Audience);
    }
    accepted(&json!({"aud": ["daypass"]}));
    refused(&json!({"aud": ["daypass", "kubernetes"]}), Refused::AuthorizedParty);
    accepted(&json!({"aud": ["daypass", "kubernetes"], "azp": "cli"}));
    accepted(&json!({"azp": "daypass"}));
    for party in [json!("kubernetes"), json!(""), json!(["daypass"]), json!(true)] {
        refused(&json!({"azp": party}), Refused::AuthorizedParty);
    }
}

#[test]
fn times_are_checked_on_one_clock() {
    for end in [json!(null), json!(NOW), json!(NOW - 1), json!("9999999999"), json!(1e300), json!(NOW as f64 + 0.9)] {
        refused(&json!({"exp": end}), Refused::Expired);
    }
    accepted(&json!({"exp": NOW + 1}));
    accepted(&json!({"exp": NOW as f64 + 1.5}));
    refused(&json!({"iat": null}), Refused::TooOld);
    refused(&json!({"iat": NOW - 3601}), Refused::TooOld);
    accepted(&json!({"iat": NOW - 3600}));
    accepted(&json!({"iat": NOW + 60}));
    refused(&json!({"iat": NOW + 61}), Refused::NotYet);
    accepted(&json!({"nbf": NOW + 60}));
    refused(&json!({"nbf": NOW + 61}), Refused::NotYet);
    refused(&json!({"nbf": "soon"}), Refused::NotYet);
    let short = issuer(&json!({"maxTokenAge": "1m"}));
    assert_eq!(decide(&json!({"iat": NOW - 61}), &short), Err(Refused::TooOld));
}

#[test]
fn required_claims_have_their_values() {
    let strict = issuer(&json!({"requiredClaims": {"hd": "example.com"}}));
    assert!(decide(&json!({"hd": "example.com"}), &strict).is_ok());
    for other in [json!(null), json!("example.org"), json!(["example.com"]), json!(true)] {
        assert_eq!(decide(&json!({"hd": other}), &strict), Err(Refused::RequiredClaim), "{other}");
    }
}

#[test]
fn email_is_verified() {
    let lenient = issuer(&json!({"emailVerified": "ifPresent"}));
    for (verified, strictly, leniently) in [
        (json!(true), true, true),
        (json!(null), false, true),
        (json!(false), false, false),
        (json!("true"), false, false),
    ] {
        let changes = json!({"email_verified": verified});
        assert_eq!(decide(&changes, &issuer(&json!({}))).is_ok(), strictly, "{changes}");
        assert_eq!(decide(&changes, &lenient).is_ok(), leniently, "{changes}");
    }
    let by_subject = issuer(&json!({"usernameClaim": "sub"}));
    assert_eq!(decide(&json!({"email_verified": null}), &by_subject).unwrap().username, "corp:0815");
}

#[test]
fn names_are_never_kubernetes_own() {
    for name in [json!(null), json!(""), json!(["ada"]), json!(1), json!("a\nb"), json!("a".repeat(1025))] {
        refused(&json!({"email": name}), Refused::Username);
    }
    let bare = issuer(&json!({"usernamePrefix": "", "groupsPrefix": "", "unprefixed": true}));
    assert_eq!(decide(&json!({"email": "system:admin"}), &bare), Err(Refused::Username));
    assert_eq!(decide(&json!({"groups": ["dev", "system:masters"]}), &bare), Err(Refused::Groups));
    let half = issuer(&json!({"usernamePrefix": "sys", "groupsPrefix": "sys"}));
    assert_eq!(decide(&json!({"email": "tem:admin"}), &half), Err(Refused::Username));
    assert_eq!(decide(&json!({"groups": "tem:masters"}), &half), Err(Refused::Groups));
}

#[test]
fn groups_are_a_text_or_a_list() {
    assert_eq!(accepted(&json!({"groups": "dev"})).groups, ["corp-dev", "system:authenticated"]);
    assert_eq!(accepted(&json!({"groups": null})).groups, ["system:authenticated"]);
    assert_eq!(accepted(&json!({"groups": []})).groups, ["system:authenticated"]);
    assert_eq!(accepted(&json!({"groups": vec!["a"; 1000]})).groups.len(), 1001);
    for groups in [json!(1), json!({}), json!([1]), json!([""]), json!(["a\u{7}"]), json!(vec!["a"; 1001])] {
        refused(&json!({"groups": groups}), Refused::Groups);
    }
    refused(&json!({"groups": null, "_claim_names": {"groups": "src1"}}), Refused::Groups);
    accepted(&json!({"_claim_names": {"address": "src1"}}));
    let none = issuer(&json!({"groupsClaim": null, "groupsPrefix": null}));
    assert_eq!(decide(&json!({"groups": 1}), &none).unwrap().groups, ["system:authenticated"]);
}

#[test]
fn uid_is_there_if_it_is_asked_for() {
    let by_oid = issuer(&json!({"uidClaim": "oid"}));
    assert_eq!(decide(&json!({}), &by_oid), Err(Refused::Uid));
    assert_eq!(decide(&json!({"oid": "a-b"}), &by_oid).unwrap().uid.as_deref(), Some("a-b"));
    assert_eq!(decide(&json!({}), &issuer(&json!({"uidClaim": null}))).unwrap().uid, None);
}

proptest! {
    #[test]
    fn no_claims_name_anybody_without_a_prefix(
        name in "\\PC{0,20}", groups in prop::collection::vec("\\PC{0,12}", 0..5), exp in NOW - 10..NOW + 10,
    ) {
        let claims = json!({"email": name, "groups": groups, "exp": exp});
        if let Ok(person) = decide(&claims, &issuer(&json!({}))) {
            prop_assert!(exp > NOW);
            prop_assert!(person.username.starts_with("corp:") && person.username.len() > 5);
            let (last, named) = person.groups.split_last().unwrap();
            prop_assert_eq!(last, "system:authenticated");
            prop_assert!(named.iter().all(|group| group.starts_with("corp-") && group.len() > 5));
        }
    }
}

#[test]
fn token_is_the_answer_to_one_sign_in() {
    let check = |changes: &Value, since: Option<i64>| {
        let mut claims = json!({"iss": "https://id.example.com", "aud": "daypass", "nonce": "n", "auth_time": NOW});
        merge(&mut claims, changes);
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}.AAAA", part(&json!({"alg": "RS256"})), part(&claims));
        let since = since.and_then(|since| DateTime::from_timestamp(since, 0));
        check_login(&IdToken::read(&text).unwrap(), &issuer(&json!({})), "daypass", "n", since)
    };
    for (changes, expected) in [
        (json!({}), Ok(())),
        (json!({"aud": ["other", "daypass"], "azp": "daypass"}), Ok(())),
        (json!({"iss": "https://two.example.com"}), Err(Refused::Issuer)),
        (json!({"iss": null}), Err(Refused::Issuer)),
        (json!({"aud": "other"}), Err(Refused::Audience)),
        (json!({"aud": null}), Err(Refused::Audience)),
        (json!({"azp": "other"}), Err(Refused::AuthorizedParty)),
        (json!({"azp": ["daypass"]}), Err(Refused::AuthorizedParty)),
        (json!({"nonce": "m"}), Err(Refused::Login)),
        (json!({"nonce": ""}), Err(Refused::Login)),
        (json!({"nonce": null}), Err(Refused::Login)),
    ] {
        assert_eq!(check(&changes, None), expected, "{changes}");
    }
    for (auth_time, since, is_anew) in [
        (json!(NOW), Some(NOW), true),
        (json!(NOW as f64 + 0.5), Some(NOW), true),
        (json!(NOW), Some(NOW + 1), false),
        (json!(null), Some(NOW), false),
        (json!(NOW.to_string()), Some(NOW), false),
        (json!(null), None, true),
    ] {
        let expected = if is_anew { Ok(()) } else { Err(Refused::Login) };
        assert_eq!(check(&json!({"auth_time": auth_time}), since), expected, "{auth_time} {since:?}");
    }
}
