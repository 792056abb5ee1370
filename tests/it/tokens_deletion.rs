//! Who deletes an access token with `kubectl` is in the audit trail too, once, and nobody is there for what somebody
//! else did.

use chrono::{SecondsFormat, TimeDelta};
use serde_json::{Value, json};

use crate::support::tokens::{Pat, SCOPES};
use crate::support::{Daypass, Http, Lab, eventually, now, replica, site};

fn delete(lab: &Lab, pat: &Pat, cascade: &str) {
    lab.kubectl(&["delete", "accesstoken", pat.object(), "-n", "daypass", &format!("--cascade={cascade}")]);
}

/// The ends of a token that any of these has recorded: event and actor.
fn ends(replicas: &[&Daypass], pat: &Pat) -> Vec<(Value, Value)> {
    let events = replicas.iter().flat_map(|it| it.token_events(&pat.id));
    let kinds = ["TOKEN_REVOKED", "TOKEN_EXPIRED", "TOKEN_REUSED", "SESSION_ENDED"];
    let ends = events.filter(|event| kinds.iter().any(|kind| event["event"] == *kind));
    ends.map(|event| (event["event"].clone(), event["actor"]["type"].clone())).collect()
}

#[track_caller]
fn assert_ended_once(replicas: &[&Daypass], pat: &Pat, kind: &str, actor: &str) {
    assert_eq!(ends(replicas, pat), [(json!(kind), json!(actor))], "{}", pat.id);
}

/// Deletes tokens until one is seen: from then on a replica watches.
fn wait_watched(lab: &Lab, caller: &Http, replicas: &[&Daypass]) {
    let mut probes: Vec<Pat> = Vec::new();
    eventually("deletions are watched", || {
        let probe = Pat::new(caller, &SCOPES);
        delete(lab, &probe, "background");
        probes.push(probe);
        probes.iter().any(|probe| !ends(replicas, probe).is_empty()).then_some(())
    });
}

/// What was deleted before this one is dealt with when this one is: the watch is in order.
fn wait_dealt_with(lab: &Lab, caller: &Http, replicas: &[&Daypass]) {
    let last = Pat::new(caller, &SCOPES);
    delete(lab, &last, "background");
    eventually("the last deletion is recorded", || (!ends(replicas, &last).is_empty()).then_some(()));
}

#[test]
fn a_deletion_by_kubectl_is_recorded_once_and_none_of_daypasss_own_a_second_time() {
    let lab = site();
    let mut one = Daypass::start(&lab, &replica("deletion-one"));
    let mut two = Daypass::start(&lab, &replica("deletion-two"));
    let both = [&one, &two];
    let caller = lab.generator(&one);
    wait_watched(&lab, &caller, &both);

    let make = || Pat::new(&caller, &SCOPES);
    let (deleted, in_foreground, signed_in, reused) = (make(), make(), make(), make());
    let (revoked_here, revoked_there) = (make(), make());
    let end = (now() + TimeDelta::seconds(10)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let expired = Pat::asked(&caller, &json!({"name": "n", "scopes": SCOPES, "expiresAt": end}));
    let its_sessions = [deleted.sign_in(), in_foreground.sign_in(), revoked_here.sign_in()];
    let (session, signed_out) = (signed_in.sign_in(), signed_in.sign_in());

    delete(&lab, &deleted, "background");
    delete(&lab, &in_foreground, "foreground");
    delete(&lab, &session, "background");
    caller.delete(&revoked_here.path()).expect(204);
    two.owner.with_token(caller.token()).delete(&revoked_there.path()).expect(204);
    signed_out.http.delete("/sessions/current").expect(204);
    reused.http.post("/tokens/self/rotate", &json!({})).expect(200);
    reused.http.post("/tokens/self/rotate", &json!({})).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    for gone in [&deleted, &in_foreground, &expired].into_iter().chain(&its_sessions) {
        lab.wait_token_gone(gone);
    }
    wait_dealt_with(&lab, &caller, &both);
    for by_kubectl in [&deleted, &in_foreground] {
        assert_ended_once(&both, by_kubectl, "TOKEN_REVOKED", "KUBERNETES");
    }
    assert_ended_once(&both, &session, "SESSION_ENDED", "KUBERNETES");
    assert_ended_once(&both, &revoked_here, "TOKEN_REVOKED", "CALLER");
    assert_ended_once(&both, &revoked_there, "TOKEN_REVOKED", "CALLER");
    assert_ended_once(&both, &signed_out, "SESSION_ENDED", "ACCESS_TOKEN");
    assert_ended_once(&both, &reused, "TOKEN_REUSED", "ANONYMOUS");
    assert_ended_once(&both, &expired, "TOKEN_EXPIRED", "DAYPASS");
    for session in &its_sessions {
        assert_eq!(ends(&both, session), [], "it went with its token");
    }
    signed_in.http.get("/tokens/self").expect(200);
    let event =
        both.iter().find_map(|it| it.token_events(&deleted.id).into_iter().find(|it| it["event"] == "TOKEN_REVOKED"));
    let event = event.unwrap();
    assert_eq!((&event["token"]["owner"], &event["token"]["name"]), (&json!(caller.username()), &deleted.body["name"]));

    // Another one leads.
    if one.metric("daypass_leader") > 0.5 {
        one.stop()
    } else {
        two.stop()
    }
    let left = if one.is_alive() { &one } else { &two };
    let caller = left.owner.with_token(caller.token());
    wait_watched(&lab, &caller, &both_of(&one, &two));
    let (later, kept) = (Pat::new(&caller, &SCOPES), Pat::new(&caller, &SCOPES));
    delete(&lab, &later, "background");
    wait_dealt_with(&lab, &caller, &both_of(&one, &two));
    assert_ended_once(&both_of(&one, &two), &later, "TOKEN_REVOKED", "KUBERNETES");
    assert_ended_once(&both_of(&one, &two), &deleted, "TOKEN_REVOKED", "KUBERNETES");
    assert_eq!(ends(&both_of(&one, &two), &kept), []);
}

fn both_of<'a>(one: &'a Daypass, two: &'a Daypass) -> [&'a Daypass; 2] {
    [one, two]
}

#[test]
fn one_that_was_marked_is_dead_and_only_its_object_is_left_to_be_removed() {
    let lab = site();
    let daypass = Daypass::start(&lab, &replica("deletion-marked"));
    let caller = lab.generator(&daypass);
    let pat = Pat::new(&caller, &SCOPES);
    let session = pat.sign_in();
    // As by a replica that was killed between the mark, with which it recorded the end, and the deletion.
    lab.write_token_status(&pat, &json!({"endedAt": now()}));
    for dead in [&pat, &session] {
        dead.http.assert_refused();
    }
    pat.http.post("/sessions", &json!({})).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    assert_eq!(caller.token_ids(""), [""; 0]);
    caller.get(&pat.path()).problem(404, "DP_ERR_NOT_FOUND");
    caller.delete(&pat.path()).problem(404, "DP_ERR_NOT_FOUND");
    lab.wait_token_gone(&pat);
    lab.wait_token_gone(&session);
    wait_watched(&lab, &caller, &[&daypass]);
    assert_eq!(ends(&[&daypass], &pat), [], "that was recorded before");
}
