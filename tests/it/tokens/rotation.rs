//! Rotation: a new secret; the old one is dead at once, and using it to rotate revokes the token.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, SCOPES, concurrently};
use crate::support::{Cluster, Daypass, Http, now, time};

#[track_caller]
fn rotate(client: &Http, pat: &AccessToken) -> AccessToken {
    AccessToken::of(client, &client.post(&format!("{}/rotate", pat.path()), &json!({})).expect(200))
}

#[test]
fn rotation_revokes_old_secret_and_sessions_on_all_replicas() {
    let (cluster, daypass) = Cluster::shared();
    let other = Daypass::second();
    let caller = cluster.generator(daypass);
    let old = AccessToken::new(&caller, &SCOPES);
    let session = old.sign_in();
    let answer = old.http.post("/tokens/self/rotate", &json!({"expiresInDays": 3})).expect(200);
    assert_eq!(answer.header("cache-control"), "no-store");
    let new = AccessToken::of(&caller, &answer);
    for dead in [&old, &session] {
        dead.http.assert_refused();
        dead.at(other).assert_refused();
    }
    let shown = new.at(other).get("/tokens/self").expect(200).json();
    assert_eq!((&new.id, &shown["id"], &shown["name"]), (&old.id, &json!(old.id), &old.body["name"]));
    assert_eq!(shown["createdAt"], old.body["createdAt"]);
    assert_ne!(new.secret, old.secret);
    assert!((time(&shown["expiresAt"]) - now() - TimeDelta::days(3)).abs() < TimeDelta::minutes(5));
    // By default the end stays. Owner and manager may set one within the limit of a new token.
    let again = rotate(&caller, &new);
    assert_eq!(again.body["expiresAt"], new.body["expiresAt"]);
    let managed = rotate(&cluster.manager(daypass), &again);
    again.http.assert_refused();
    let ask = |body: Value| caller.post(&format!("{}/rotate", managed.path()), &body);
    ask(json!({"expiresInDays": 366})).assert_invalid_field("expiresInDays");
    ask(json!({"expiresAt": "2020-01-01T00:00:00Z"})).assert_invalid_field("expiresAt");
    ask(json!({"scopes": ["members:read"]})).assert_invalid_field("scopes");
    managed.at(other).get("/tokens/self").expect(200);
    ask(json!({"expiresInDays": 100})).expect(200);
    let events = [daypass.token_events(&old.id), other.token_events(&old.id)].concat();
    assert_eq!(events.iter().filter(|event| event["event"] == "TOKEN_ROTATED").count(), 4, "{events:?}");
}

/// Checks that all secrets and sessions of a token are dead, and the audited reason.
#[track_caller]
fn assert_family_ended(cluster: &Cluster, daypass: &Daypass, family: &[&AccessToken]) {
    for pat in family {
        pat.http.assert_refused();
        cluster.wait_token_gone(pat);
    }
    let event = daypass.wait_token_event(&family[0].id, "TOKEN_REUSED");
    assert_eq!((&event["actor"], &event["sourceAddress"]), (&json!({"type": "ANONYMOUS"}), &json!("127.0.0.1")));
    assert!(event["requestId"].is_string());
}

#[test]
fn rotation_with_an_old_secret_revokes_the_token() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let spared = AccessToken::new(&caller, &SCOPES);
    for (generations, path) in
        [(1, "/tokens/self/rotate"), (4, "/tokens/self/rotate"), (1, "/tokens/{id}/rotate"), (1, "/tokens/x/rotate")]
    {
        let first = AccessToken::new(&caller, &SCOPES);
        let mut newest = rotate(&caller, &first);
        (1..generations).for_each(|_| newest = rotate(&caller, &newest));
        let session = newest.sign_in();
        // For other operations an old secret is just wrong.
        first.http.assert_refused();
        first.http.post("/sessions", &json!({})).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        first.http.delete(&first.path()).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        caller.with_token(&first.forged()).post(path, &json!({})).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        caller.anonymous().post(path, &json!({})).problem(401, "DP_ERR_NO_CREDENTIALS");
        newest.http.get("/tokens/self").expect(200);
        // The answer does not reveal the revocation.
        let refused = first.http.post(&path.replace("{id}", &first.id), &json!({}));
        refused.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        assert_family_ended(cluster, daypass, &[&newest, &first, &session]);
        caller.delete(&first.path()).problem(404, "DP_ERR_NOT_FOUND");
    }
    spared.http.get("/tokens/self").expect(200);
}

#[test]
fn last_hundred_secrets_are_recognized_however_often_a_token_is_rotated() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let mut secrets = vec![AccessToken::new(&caller, &SCOPES)];
    for _ in 0..102 {
        secrets.push(rotate(&caller, secrets.last().unwrap()));
    }
    let object = cluster.stored(&secrets[0]).unwrap();
    assert_eq!(object["spec"]["rotatedHashes"].as_array().unwrap().len(), 100);
    // All of an owner's tokens fit into a page or two of a list.
    assert!(object.to_string().len() < 12 * 1024, "{}", object.to_string().len());
    // What a list has left out is still there: the third secret revokes the token, the second is just wrong.
    assert_eq!(caller.get("/tokens").expect(200).json()["total"], 1);
    let newest = secrets.last().unwrap();
    caller.patch(&newest.path(), &json!({"name": "renamed"})).expect(200);
    secrets[1].http.post("/tokens/self/rotate", &json!({})).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    newest.http.get("/tokens/self").expect(200);
    secrets[2].http.post("/tokens/self/rotate", &json!({})).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    assert_family_ended(cluster, daypass, &[newest]);
}

#[test]
fn one_of_concurrent_rotations_wins() {
    let (cluster, daypass) = Cluster::shared();
    let other = Daypass::second();
    let caller = cluster.generator(daypass);
    for with_token in [false, true] {
        let pat = AccessToken::new(&caller, &SCOPES);
        let clients = if with_token {
            [pat.at(daypass), pat.at(other)]
        } else {
            [caller.clone(), other.owner.with_token(caller.token())]
        };
        let path = format!("{}/rotate", pat.path());
        let answers = concurrently(10, |n| clients[n % 2].post(&path, &json!({})));
        let won: Vec<AccessToken> =
            answers.iter().filter(|it| it.status == 200).map(|it| AccessToken::of(&caller, it)).collect();
        pat.http.assert_refused();
        if with_token {
            // The losers come with an old secret, which revokes the token.
            assert!(answers.iter().all(|it| [200, 401, 404, 409].contains(&it.status)), "{answers:?}");
            assert_eq!(won.len(), 1);
            continue;
        }
        // Several may win one after the other; only the last secret works.
        assert!(answers.iter().all(|it| [200, 409].contains(&it.status)), "{answers:?}");
        let good = won.iter().filter(|pat| pat.http.get("/tokens/self").status == 200).count();
        assert_eq!((good, won.is_empty()), (1, false));
    }
}
