//! Sessions: what an access token is exchanged for, and no longer good than that.

use chrono::{SecondsFormat, TimeDelta};
use serde_json::json;

use crate::support::tokens::{Pat, SCOPES};
use crate::support::{Created, Daypass, Lab, Launch, now, time, wait_until};

#[test]
fn a_session_lasts_half_an_hour_and_never_longer_than_its_token() {
    let (lab, daypass) = Lab::shared();
    let other = Daypass::start(lab, &Launch::default());
    let caller = lab.generator(daypass);
    let pat = Pat::new(&caller, &SCOPES);
    let answer = pat.http.post("/sessions", &json!({})).expect(201);
    assert_eq!(answer.header("cache-control"), "no-store");
    let body = answer.json();
    assert_eq!((&body["tokenId"], &body["owner"]["username"]), (&json!(pat.id), &json!(caller.username())));
    let left = time(&body["expiresAt"]) - now();
    assert!(left > TimeDelta::minutes(25) && left <= TimeDelta::minutes(30), "{left}");
    let session = caller.with_token(body["token"].as_str().unwrap());
    for client in [&session, &other.owner.with_token(session.token())] {
        assert_eq!(client.get("/tokens/self").expect(200).json()["id"], pat.id.as_str());
        // It is none of the owner's tokens.
        assert_eq!(client.token_ids(""), [pat.id.as_str()]);
    }
    let soon = (now() + TimeDelta::minutes(10)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let brief = Pat::asked(&caller, &json!({"name": "n", "scopes": SCOPES, "expiresAt": soon}));
    assert_eq!(brief.sign_in().body["expiresAt"], soon);
}

#[test]
fn a_session_that_is_over_is_refused_and_swept() {
    let (lab, daypass) = Lab::shared();
    let other = Daypass::start(lab, &Launch::default());
    let pat = Pat::new(&lab.generator(daypass), &SCOPES);
    let session = pat.sign_in();
    session.at(&other).get("/tokens/self").expect(200);
    let end = now() + TimeDelta::seconds(1);
    lab.write_token_end(&session, end);
    wait_until(end);
    session.http.assert_refused();
    session.at(&other).assert_refused();
    lab.wait_token_gone(&session);
    pat.http.get("/tokens/self").expect(200);
    let events = [daypass.token_events(&session.id), other.token_events(&session.id)].concat();
    let kinds: Vec<_> = events.iter().map(|event| event["event"].clone()).collect();
    assert_eq!(kinds, ["SESSION_CREATED", "SESSION_ENDED"]);
    assert_eq!(events[1]["token"]["sessionOf"], pat.object());
}

#[test]
fn signed_out_it_is_over_everywhere_and_the_token_is_not() {
    let (lab, daypass) = Lab::shared();
    let other = Daypass::start(lab, &Launch::default());
    let pat = Pat::new(&lab.generator(daypass), &SCOPES);
    let (one, two) = (pat.sign_in(), pat.sign_in());
    one.http.get("/tokens/self").expect(200);
    one.at(&other).delete("/sessions/current").expect(204);
    for client in [&one.http, &one.at(&other)] {
        client.assert_refused();
        client.delete("/sessions/current").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
    two.at(&other).get("/tokens/self").expect(200);
    pat.http.get("/tokens/self").expect(200);
    let event = other.token_event(&one.id, "SESSION_ENDED");
    assert_eq!((&event["actor"]["tokenId"], &event["token"]["sessionOf"]), (&json!(pat.id), &json!(pat.object())));
}

#[test]
fn only_a_token_signs_in_and_only_a_session_signs_out() {
    let (lab, daypass) = Lab::shared();
    let caller = lab.generator(daypass);
    let pat = Pat::new(&caller, &SCOPES);
    let session = pat.sign_in();
    session.http.post("/sessions", &json!({})).problem(403, "DP_ERR_FORBIDDEN");
    caller.post("/sessions", &json!({})).problem(403, "DP_ERR_FORBIDDEN");
    for client in [&pat.http, &caller] {
        client.delete("/sessions/current").problem(404, "DP_ERR_NOT_FOUND");
    }
    // It has an object, but is no token to be shown or changed.
    for client in [&caller, &pat.http, &session.http, &lab.manager(daypass)] {
        client.get(&session.path()).problem(404, "DP_ERR_NOT_FOUND");
        client.delete(&session.path()).problem(404, "DP_ERR_NOT_FOUND");
        client.post(&format!("{}/rotate", session.path()), &json!({})).problem(404, "DP_ERR_NOT_FOUND");
    }
    session.http.get("/tokens/self").expect(200);
}

#[test]
fn a_session_leaves_nothing_that_lasts_longer_than_itself() {
    let (lab, daypass) = Lab::shared();
    let pat = Pat::new(&lab.generator(daypass), &SCOPES);
    let session = pat.sign_in();
    let body = json!({"name": "n", "expiresInDays": 1, "scopes": ["members:read"]});
    for refused in [
        session.http.post("/tokens", &body),
        session.http.post("/tokens/self/rotate", &json!({})),
        session.http.post(&format!("{}/rotate", pat.path()), &json!({})),
    ] {
        refused.problem(403, "DP_ERR_FORBIDDEN");
        let id = refused.header("x-request-id");
        let recorded = daypass.audit_events().into_iter().find(|event| event["requestId"] == id).unwrap();
        assert_eq!((&recorded["event"], &recorded["reason"]), (&json!("DENIED"), &json!("DP_ERR_FORBIDDEN")));
    }
    pat.http.post("/tokens", &body).expect(201);
    session.http.patch("/tokens/self", &json!({"name": "another"})).expect(200);
}

#[test]
fn what_is_done_in_a_session_is_its_tokens_doing() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let caller = lab.with_privilege(lab.caller(daypass, &["create", "get"], &["members"], Some(&role)), "generate");
    let pat = Pat::new(&caller, &SCOPES);
    let session = pat.sign_in();
    let member = Created::new(&session.http, &role, 1);
    let event = daypass.recorded(&member.id, "MEMBER_CREATED");
    let actor = json!({
        "type": "ACCESS_TOKEN", "username": caller.username(), "tokenId": pat.id, "createdBy": caller.username(),
    });
    assert_eq!(event["actor"], actor);
    // A use of the session is one of the token.
    assert!(caller.get(&pat.path()).expect(200).json()["lastUsedAt"].is_string());
    // With the token it ends: revoked in the session itself.
    session.http.delete("/tokens/self").expect(204);
    session.http.assert_refused();
    pat.http.assert_refused();
    lab.wait_token_gone(&session);
}
