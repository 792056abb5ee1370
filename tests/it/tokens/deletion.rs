//! The audit trail has a deletion of an access token with `kubectl` once, and Daypass's own deletions not a second
//! time.

use chrono::{SecondsFormat, TimeDelta};
use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, SCOPES};
use crate::support::{Cluster, Daypass, Http, eventually, now, replica};

fn delete(cluster: &Cluster, pat: &AccessToken, cascade: &str) {
    cluster.kubectl(&["delete", "accesstoken", pat.object(), "-n", "daypass", &format!("--cascade={cascade}")]);
}

/// The end events of a token that any replica recorded: event and actor.
fn ends(replicas: &[&Daypass], pat: &AccessToken) -> Vec<(Value, Value)> {
    let events = replicas.iter().flat_map(|it| it.token_events(&pat.id));
    let kinds = ["TOKEN_REVOKED", "TOKEN_EXPIRED", "TOKEN_REUSED", "SESSION_ENDED"];
    let ends = events.filter(|event| kinds.iter().any(|kind| event["event"] == *kind));
    ends.map(|event| (event["event"].clone(), event["actor"]["type"].clone())).collect()
}

#[track_caller]
fn assert_ended_once(replicas: &[&Daypass], pat: &AccessToken, kind: &str, actor: &str) {
    assert_eq!(ends(replicas, pat), [(json!(kind), json!(actor))], "{}", pat.id);
}

/// Deletes tokens until a replica records one: from then on its watch works.
fn wait_watched(cluster: &Cluster, caller: &Http, replicas: &[&Daypass]) {
    let mut probes: Vec<AccessToken> = Vec::new();
    eventually("deletions are watched", || {
        let probe = AccessToken::new(caller, &SCOPES);
        delete(cluster, &probe, "background");
        probes.push(probe);
        probes.iter().any(|probe| !ends(replicas, probe).is_empty()).then_some(())
    });
}

/// Waits until earlier deletions are handled, too: the watch is ordered.
fn wait_dealt_with(cluster: &Cluster, caller: &Http, replicas: &[&Daypass]) {
    let last = AccessToken::new(caller, &SCOPES);
    delete(cluster, &last, "background");
    eventually("the last deletion is recorded", || (!ends(replicas, &last).is_empty()).then_some(()));
}

#[test]
fn kubectl_deletion_is_audited_once() {
    let cluster = Cluster::breakable();
    let mut one = Daypass::start(&cluster, &replica("deletion-one"));
    let mut two = Daypass::start(&cluster, &replica("deletion-two"));
    let both = [&one, &two];
    let caller = cluster.generator(&one);
    wait_watched(&cluster, &caller, &both);

    let make = || AccessToken::new(&caller, &SCOPES);
    let (deleted, in_foreground, signed_in, reused) = (make(), make(), make(), make());
    let (revoked_here, revoked_there) = (make(), make());
    let end = (now() + TimeDelta::seconds(30)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let expired = AccessToken::requested(&caller, &json!({"name": "n", "scopes": SCOPES, "expiresAt": end}));
    let its_sessions = [deleted.sign_in(), in_foreground.sign_in(), revoked_here.sign_in()];
    let (session, signed_out) = (signed_in.sign_in(), signed_in.sign_in());

    delete(&cluster, &deleted, "background");
    delete(&cluster, &in_foreground, "foreground");
    delete(&cluster, &session, "background");
    caller.delete(&revoked_here.path()).expect(204);
    two.owner.with_token(caller.token()).delete(&revoked_there.path()).expect(204);
    signed_out.http.delete("/sessions/current").expect(204);
    reused.http.post("/tokens/self/rotate", &json!({})).expect(200);
    reused.http.post("/tokens/self/rotate", &json!({})).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    for gone in [&deleted, &in_foreground, &expired].into_iter().chain(&its_sessions) {
        cluster.wait_token_gone(gone);
    }
    wait_dealt_with(&cluster, &caller, &both);
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
        // It ended with its token. Kubernetes deletes it, or the leader's sweep is faster and says so.
        let ends = ends(&both, session);
        assert!(ends.is_empty() || ends == [(json!("SESSION_ENDED"), json!("DAYPASS"))], "{ends:?}");
    }
    signed_in.http.get("/tokens/self").expect(200);
    let event =
        both.iter().find_map(|it| it.token_events(&deleted.id).into_iter().find(|it| it["event"] == "TOKEN_REVOKED"));
    let event = event.unwrap();
    assert_eq!(
        (&event["token"]["owner"], &event["token"]["name"]),
        (&json!(caller.username()), &deleted.body["name"])
    );

    // Another replica takes the lead.
    if one.metric("daypass_leader") > 0.5 {
        one.stop()
    } else {
        two.stop()
    }
    let left = if one.is_alive() { &one } else { &two };
    let caller = left.owner.with_token(caller.token());
    wait_watched(&cluster, &caller, &both_of(&one, &two));
    let (later, kept) = (AccessToken::new(&caller, &SCOPES), AccessToken::new(&caller, &SCOPES));
    delete(&cluster, &later, "background");
    wait_dealt_with(&cluster, &caller, &both_of(&one, &two));
    assert_ended_once(&both_of(&one, &two), &later, "TOKEN_REVOKED", "KUBERNETES");
    assert_ended_once(&both_of(&one, &two), &deleted, "TOKEN_REVOKED", "KUBERNETES");
    assert_eq!(ends(&both_of(&one, &two), &kept), []);
}

fn both_of<'a>(one: &'a Daypass, two: &'a Daypass) -> [&'a Daypass; 2] {
    [one, two]
}

#[test]
fn marked_token_is_dead_until_its_object_is_removed() {
    let cluster = Cluster::breakable();
    let daypass = Daypass::start(&cluster, &replica("deletion-marked"));
    let caller = cluster.generator(&daypass);
    let pat = AccessToken::new(&caller, &SCOPES);
    let session = pat.sign_in();
    // As left by a replica that was killed after it recorded the end and before the deletion.
    cluster.write_token_status(&pat, &json!({"endedAt": now()}));
    for dead in [&pat, &session] {
        dead.http.assert_refused();
    }
    pat.http.post("/sessions", &json!({})).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    assert_eq!(caller.token_ids(""), [""; 0]);
    caller.get(&pat.path()).problem(404, "DP_ERR_NOT_FOUND");
    caller.delete(&pat.path()).problem(404, "DP_ERR_NOT_FOUND");
    cluster.wait_token_gone(&pat);
    cluster.wait_token_gone(&session);
    wait_watched(&cluster, &caller, &[&daypass]);
    assert_eq!(ends(&[&daypass], &pat), [], "the end was recorded before");
}
