//! Sessions issued for an access token end with it.

use chrono::{SecondsFormat, TimeDelta};
use serde_json::json;

use crate::support::tokens::{AccessToken, SCOPES};
use crate::support::{Cluster, Daypass, NewMember, now, time, wait_until};

#[test]
fn session_lasts_half_an_hour_at_most() {
    let (cluster, daypass) = Cluster::shared();
    let other = Daypass::second();
    let caller = cluster.generator(daypass);
    let pat = AccessToken::new(&caller, &SCOPES);
    let answer = pat.http.post("/sessions", &json!({})).expect(201);
    assert_eq!(answer.header("cache-control"), "no-store");
    let body = answer.json();
    assert_eq!((&body["tokenId"], &body["owner"]["username"]), (&json!(pat.id), &json!(caller.username())));
    let left = time(&body["expiresAt"]) - now();
    assert!(left > TimeDelta::minutes(25) && left <= TimeDelta::minutes(30), "{left}");
    let session = caller.with_token(body["token"].as_str().unwrap());
    for client in [&session, &other.owner.with_token(session.token())] {
        assert_eq!(client.get("/tokens/self").expect(200).json()["id"], pat.id.as_str());
        // A session is not in the owner's list of tokens.
        assert_eq!(client.token_ids(""), [pat.id.as_str()]);
    }
    let soon = (now() + TimeDelta::minutes(10)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let brief = AccessToken::requested(&caller, &json!({"name": "n", "scopes": SCOPES, "expiresAt": soon}));
    assert_eq!(brief.sign_in().body["expiresAt"], soon);
}

#[test]
fn expired_session_is_refused_and_swept() {
    let (cluster, daypass) = Cluster::shared();
    let other = Daypass::second();
    let pat = AccessToken::new(&cluster.generator(daypass), &SCOPES);
    let session = pat.sign_in();
    session.at(other).get("/tokens/self").expect(200);
    let end = now() + TimeDelta::seconds(1);
    cluster.write_token_end(&session, end);
    wait_until(end);
    session.http.assert_refused();
    session.at(other).assert_refused();
    cluster.wait_token_gone(&session);
    pat.http.get("/tokens/self").expect(200);
    let events = [daypass.token_events(&session.id), other.token_events(&session.id)].concat();
    let kinds: Vec<_> = events.iter().map(|event| event["event"].clone()).collect();
    assert_eq!(kinds, ["SESSION_CREATED", "SESSION_ENDED"]);
    assert_eq!(events[1]["token"]["sessionOf"], pat.object());
}

#[test]
fn sign_out_ends_the_session_but_not_the_token() {
    let (cluster, daypass) = Cluster::shared();
    let other = Daypass::second();
    let pat = AccessToken::new(&cluster.generator(daypass), &SCOPES);
    let (one, two) = (pat.sign_in(), pat.sign_in());
    one.http.get("/tokens/self").expect(200);
    one.at(other).delete("/sessions/current").expect(204);
    for client in [&one.http, &one.at(other)] {
        client.assert_refused();
        client.delete("/sessions/current").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
    two.at(other).get("/tokens/self").expect(200);
    pat.http.get("/tokens/self").expect(200);
    let event = other.wait_token_event(&one.id, "SESSION_ENDED");
    assert_eq!((&event["actor"]["tokenId"], &event["token"]["sessionOf"]), (&json!(pat.id), &json!(pat.object())));
}

#[test]
fn session_is_no_token() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 1);
    let pat = AccessToken::new(&caller, &SCOPES);
    let sessions = [pat.sign_in(), AccessToken::session_of(&caller), AccessToken::session_of(&member.engineer)];
    for session in &sessions {
        session.http.post("/sessions", &json!({})).problem(403, "DP_ERR_FORBIDDEN");
        // Its object cannot be read or changed as a token.
        for client in [&caller, &pat.http, &sessions[0].http, &sessions[1].http, &cluster.manager(daypass)] {
            client.get(&session.path()).problem(404, "DP_ERR_NOT_FOUND");
            client.delete(&session.path()).problem(404, "DP_ERR_NOT_FOUND");
            client.post(&format!("{}/rotate", session.path()), &json!({})).problem(404, "DP_ERR_NOT_FOUND");
        }
    }
    for client in [&pat.http, &caller, &member.engineer] {
        client.delete("/sessions/current").problem(404, "DP_ERR_NOT_FOUND");
    }
    for (session, path) in sessions.iter().zip(["/tokens/self", "/self", &member.path("/me")]) {
        session.http.get(path).expect(200);
    }
}

#[test]
fn session_creates_nothing_that_outlives_it() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let pat = AccessToken::new(&caller, &SCOPES);
    let (session, of_owner) = (pat.sign_in(), AccessToken::session_of(&caller));
    let body = json!({"name": "n", "expiresInDays": 1, "scopes": ["members:read"]});
    for refused in [
        session.http.post("/tokens", &body),
        session.http.post("/tokens/self/rotate", &json!({})),
        session.http.post(&format!("{}/rotate", pat.path()), &json!({})),
        of_owner.http.post("/tokens", &body),
        of_owner.http.post(&format!("{}/rotate", pat.path()), &json!({})),
    ] {
        refused.problem(403, "DP_ERR_FORBIDDEN");
        let id = refused.header("x-request-id");
        let recorded = daypass.audit_events().into_iter().find(|event| event["requestId"] == id).unwrap();
        assert_eq!((&recorded["event"], &recorded["reason"]), (&json!("DENIED"), &json!("DP_ERR_FORBIDDEN")));
    }
    pat.http.post("/tokens", &body).expect(201);
    session.http.patch("/tokens/self", &json!({"name": "another"})).expect(200);
    of_owner.http.patch(&pat.path(), &json!({"name": "a third"})).expect(200);
}

#[test]
fn session_acts_as_its_token() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let caller =
        cluster.with_privilege(cluster.caller(daypass, &["create", "get"], &["members"], Some(&role)), "generate");
    let pat = AccessToken::new(&caller, &SCOPES);
    let session = pat.sign_in();
    let member = NewMember::new(&session.http, &role, 1);
    let event = daypass.wait_event(&member.id, "MEMBER_CREATED");
    let actor = json!({
        "type": "ACCESS_TOKEN", "username": caller.username(), "tokenId": pat.id, "createdBy": caller.username(),
    });
    assert_eq!(event["actor"], actor);
    // Using the session counts as using the token.
    assert!(caller.get(&pat.path()).expect(200).json()["lastUsedAt"].is_string());
    // It ends with its token, which the session itself revokes here.
    session.http.delete("/tokens/self").expect(204);
    session.http.assert_refused();
    pat.http.assert_refused();
    cluster.wait_token_gone(&session);
}
