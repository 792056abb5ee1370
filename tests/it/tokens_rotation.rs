//! Rotation: a new secret, the old one dead at once, and the end of the token where the old one turns up again.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::support::tokens::{Pat, SCOPES, at_once};
use crate::support::{Daypass, Http, Lab, Launch, now, time};

#[track_caller]
fn rotate(client: &Http, pat: &Pat) -> Pat {
    Pat::of(client, &client.post(&format!("{}/rotate", pat.path()), &json!({})).expect(200))
}

#[test]
fn the_old_secret_and_its_sessions_are_dead_at_once_everywhere() {
    let (lab, daypass) = Lab::shared();
    let other = Daypass::start(lab, &Launch::default());
    let caller = lab.generator(daypass);
    let old = Pat::new(&caller, &SCOPES);
    let session = old.sign_in();
    let answer = old.http.post("/tokens/self/rotate", &json!({"expiresInDays": 3})).expect(200);
    assert_eq!(answer.header("cache-control"), "no-store");
    let new = Pat::of(&caller, &answer);
    for dead in [&old, &session] {
        dead.http.assert_refused();
        dead.at(&other).assert_refused();
    }
    let shown = new.at(&other).get("/tokens/self").expect(200).json();
    assert_eq!((&new.id, &shown["id"], &shown["name"]), (&old.id, &json!(old.id), &old.body["name"]));
    assert_eq!(shown["createdAt"], old.body["createdAt"]);
    assert_ne!(new.secret, old.secret);
    assert!((time(&shown["expiresAt"]) - now() - TimeDelta::days(3)).abs() < TimeDelta::minutes(5));
    // As it was, where nothing is asked for; no later than a new one would end; as the owner, or whoever manages, sees fit.
    let again = rotate(&caller, &new);
    assert_eq!(again.body["expiresAt"], new.body["expiresAt"]);
    let managed = rotate(&lab.manager(daypass), &again);
    again.http.assert_refused();
    let ask = |body: Value| caller.post(&format!("{}/rotate", managed.path()), &body);
    ask(json!({"expiresInDays": 366})).refused_field("expiresInDays");
    ask(json!({"expiresAt": "2020-01-01T00:00:00Z"})).refused_field("expiresAt");
    ask(json!({"scopes": ["members:read"]})).refused_field("scopes");
    managed.at(&other).get("/tokens/self").expect(200);
    ask(json!({"expiresInDays": 100})).expect(200);
    let events = [daypass.token_events(&old.id), other.token_events(&old.id)].concat();
    assert_eq!(events.iter().filter(|event| event["event"] == "TOKEN_ROTATED").count(), 4, "{events:?}");
}

/// Checks that nothing of the family is good any more, and that it is recorded why.
#[track_caller]
fn assert_family_ended(lab: &Lab, daypass: &Daypass, family: &[&Pat]) {
    for pat in family {
        pat.http.assert_refused();
        lab.wait_token_gone(pat);
    }
    let event = daypass.token_event(&family[0].id, "TOKEN_REUSED");
    assert_eq!((&event["actor"], &event["sourceAddress"]), (&json!({"type": "ANONYMOUS"}), &json!("127.0.0.1")));
    assert!(event["requestId"].is_string());
}

#[test]
fn who_rotates_with_an_old_secret_ends_the_family() {
    let (lab, daypass) = Lab::shared();
    let caller = lab.generator(daypass);
    let spared = Pat::new(&caller, &SCOPES);
    for (generations, path) in
        [(1, "/tokens/self/rotate"), (4, "/tokens/self/rotate"), (1, "/tokens/{id}/rotate"), (1, "/tokens/x/rotate")]
    {
        let first = Pat::new(&caller, &SCOPES);
        let mut newest = rotate(&caller, &first);
        (1..generations).for_each(|_| newest = rotate(&caller, &newest));
        let session = newest.sign_in();
        // Elsewhere it is a wrong secret like any other.
        first.http.assert_refused();
        first.http.post("/sessions", &json!({})).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        first.http.delete(&first.path()).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        caller.with_token(&first.forged()).post(path, &json!({})).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        caller.anonymous().post(path, &json!({})).problem(401, "DP_ERR_NO_CREDENTIALS");
        newest.http.get("/tokens/self").expect(200);
        // It is not said what it did.
        let refused = first.http.post(&path.replace("{id}", &first.id), &json!({}));
        refused.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        assert_family_ended(lab, daypass, &[&newest, &first, &session]);
        caller.delete(&first.path()).problem(404, "DP_ERR_NOT_FOUND");
    }
    spared.http.get("/tokens/self").expect(200);
}

#[test]
fn of_many_rotations_at_once_one_wins() {
    let (lab, daypass) = Lab::shared();
    let other = Daypass::start(lab, &Launch::default());
    let caller = lab.generator(daypass);
    for with_token in [false, true] {
        let pat = Pat::new(&caller, &SCOPES);
        let clients = if with_token {
            [pat.at(daypass), pat.at(&other)]
        } else {
            [caller.clone(), other.owner.with_token(caller.token())]
        };
        let path = format!("{}/rotate", pat.path());
        let answers = at_once(10, |n| clients[n % 2].post(&path, &json!({})));
        let won: Vec<Pat> = answers.iter().filter(|it| it.status == 200).map(|it| Pat::of(&caller, it)).collect();
        pat.http.assert_refused();
        if with_token {
            // Who comes with the secret a moment later has an old one, and that ends the token.
            assert!(answers.iter().all(|it| [200, 401, 404, 409].contains(&it.status)), "{answers:?}");
            assert_eq!(won.len(), 1);
            continue;
        }
        // One after the other each would win; the last has the secret.
        assert!(answers.iter().all(|it| [200, 409].contains(&it.status)), "{answers:?}");
        let good = won.iter().filter(|pat| pat.http.get("/tokens/self").status == 200).count();
        assert_eq!((good, won.is_empty()), (1, false));
    }
}
