//! Tests what of a stored token or session is believed.

use super::*;
use serde_json::{Value, json};

fn read(change: impl Fn(&mut Value)) -> Result<access_token::AccessToken, Unreadable> {
    let name = format!("{}-3", owner_key("system:serviceaccount:a:b"));
    let mut object = json!({
        "apiVersion": "daypass.dev/v1alpha1", "kind": "AccessToken",
        "metadata": {"name": name, "namespace": "daypass", "uid": "u", "resourceVersion": "7",
                     "creationTimestamp": "2026-11-23T00:00:00Z"},
        "spec": {
            "id": format!("{name}-abcdef"), "name": "ci", "createdBy": "alice", "scopes": ["members:read"],
            "owner": {"username": "system:serviceaccount:a:b", "uid": "v"},
            "expiresAt": "2026-12-23T00:00:00Z", "tokenHash": "a".repeat(64), "identity": "i",
        },
    });
    change(&mut object);
    read_access_token(&Object::parse(&object.to_string()).unwrap())
}

#[test]
fn token_written_by_daypass_is_decoded() {
    let token = read(|_| {}).unwrap();
    assert_eq!(token.owner.service_account(), Some(("a", "b")));
    assert_eq!((token.scopes, token.last_used_at), (vec![Scope::MembersRead], None));
}

#[test]
fn token_that_daypass_would_not_write_is_refused() {
    let user = |name: &str, groups: Value| json!({"username": name, "groups": groups});
    let since = "2026-11-23T00:00:00Z";
    for (field, value) in [
        ("owner", user("system:admin", json!({"names": [], "at": since}))),
        ("owner", user("alice", json!({"names": ["system:masters"], "at": since}))),
        ("owner", json!({"username": "alice"})),
        ("owner", json!({"username": "system:serviceaccount:a:b"})),
        ("owner", json!({"username": "system:serviceaccount:a:other", "uid": "v"})),
        (
            "owner",
            json!({"username": "system:serviceaccount:a:b", "uid": "v",
                   "oidc": {"issuer": "https://a", "subject": "s", "mapping": "m"}}),
        ),
        ("scopes", json!(["members:everything"])),
        ("tokenHash", json!("secret")),
        ("expiresAt", json!("never")),
        ("expiresAt", Value::Null),
        ("id", json!("abc")),
    ] {
        let read = read(|object| object["spec"][field] = value.clone());
        assert!(read.is_err(), "{field}: {value}");
    }
}

/// A session under this name, of this owner.
fn read_session_of(name: &str, owner: &Value, session: Value) -> Result<access_token::AccessToken, Unreadable> {
    read(|object| {
        let name = format!("{}-{name}", owner_key(owner["username"].as_str().unwrap()));
        object["metadata"]["name"] = json!(name);
        object["spec"]["id"] = json!(format!("{name}-abcdef"));
        object["spec"]["owner"] = owner.clone();
        object["spec"]["session"] = session.clone();
    })
}

#[test]
fn session_is_decoded_if_its_id_says_what_it_is() {
    let account = json!({"username": "system:serviceaccount:a:b", "uid": "v"});
    let user = json!({"username": "alice", "uid": "w", "groups": {"names": [], "at": "2026-11-23T00:00:00Z"}});
    let member = json!({"username": "system:serviceaccount:daypass-view:m"});
    let of_token = json!({"token": "t", "tokenUid": "u", "secret": "s"});
    let of_member = json!({"member": "view.m", "memberUid": "u", "secret": "s"});
    let of_another = json!({"member": "view.n", "memberUid": "u", "secret": "s"});
    let rightful = [
        ("3-s1", &account, &of_token),
        ("o1", &account, &json!({})),
        ("o1", &user, &json!({})),
        ("m1", &member, &of_member),
    ];
    for (name, owner, session) in rightful {
        let read = read_session_of(name, owner, session.clone()).unwrap();
        assert_eq!(json!(SessionSpec::from(read.session.clone().unwrap())), *session, "{name}");
        for field in session.as_object().unwrap().keys() {
            let mut less = session.clone();
            less.as_object_mut().unwrap().remove(field);
            assert!(read_session_of(name, owner, less).is_err(), "{name} without {field}");
        }
    }
    for (name, owner, session) in [
        ("3", &account, &of_token),
        ("3", &account, &json!({})),
        ("o1", &account, &of_token),
        ("o1", &account, &Value::Null),
        ("3-s1", &account, &json!({})),
        ("3-s1", &account, &of_member),
        ("m1", &account, &of_member),
        ("m1", &member, &of_another),
        ("m1", &member, &json!({})),
        ("m1", &member, &json!({"member": "no id", "memberUid": "u", "secret": "s"})),
        ("m1", &json!({"username": member["username"], "uid": "v"}), &of_member),
        ("o1", &member, &json!({})),
        ("o1", &json!({"username": "alice"}), &json!({})),
        ("o1", &account, &json!({"secret": "s"})),
    ] {
        assert!(read_session_of(name, owner, session.clone()).is_err(), "{name} of {owner}: {session}");
    }
}

#[test]
fn groups_of_a_user_are_decoded() {
    let token = read(|object| {
        let name = format!("{}-3", owner_key("alice"));
        object["metadata"]["name"] = json!(name);
        object["spec"]["id"] = json!(format!("{name}-abcdef"));
        object["spec"]["owner"] =
            json!({"username": "alice", "groups": {"names": ["staff"], "at": "2026-11-23T00:00:00Z"}});
    });
    assert_eq!(token.unwrap().owner.groups.unwrap().names, ["staff"]);
}
