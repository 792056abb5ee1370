//! An access token ends on time, when it is revoked, or when it is unused.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, SCOPES, concurrently};
use crate::support::{Cluster, Daypass, now, time, wait_until};

fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Checks that every replica refuses it and no longer lists it.
#[track_caller]
fn assert_over(pat: &AccessToken, owner: &[&crate::support::Http], replicas: &[&Daypass]) {
    for replica in replicas {
        pat.at(replica).assert_refused();
    }
    for client in owner {
        assert!(!client.token_ids("").contains(&pat.id));
        for answer in [client.get(&pat.path()), client.patch(&pat.path(), &json!({"name": "n"}))] {
            answer.problem(404, "DP_ERR_NOT_FOUND");
        }
        client.post(&format!("{}/rotate", pat.path()), &json!({})).problem(404, "DP_ERR_NOT_FOUND");
    }
}

#[test]
fn token_end_is_at_most_a_year_ahead() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let ask = |client: &crate::support::Http, end: Value| {
        let mut body = json!({"name": "n", "scopes": ["tokens:read"]});
        body.as_object_mut().unwrap().extend(end.as_object().unwrap().clone());
        client.post("/tokens", &body)
    };
    let late = text(now() + TimeDelta::days(365) + TimeDelta::minutes(5));
    for (end, field) in [
        (json!({}), "expiresAt"),
        (json!({"expiresAt": null}), "expiresAt"),
        (json!({"expiresInDays": null}), "expiresInDays"),
        (json!({"expiresInDays": 0}), "expiresInDays"),
        (json!({"expiresInDays": 366}), "expiresInDays"),
        (json!({"expiresInDays": -1}), "expiresInDays"),
        (json!({"expiresInDays": 4_294_967_295u32}), "expiresInDays"),
        (json!({"expiresInDays": "366"}), "expiresInDays"),
        (json!({"expiresInDays": 1, "expiresAt": text(now() + TimeDelta::days(1))}), "expiresInDays"),
        (json!({"expiresAt": text(now())}), "expiresAt"),
        (json!({"expiresAt": "2020-01-01T00:00:00Z"}), "expiresAt"),
        (json!({"expiresAt": "9999-01-01T00:00:00Z"}), "expiresAt"),
        (json!({"expiresAt": "tomorrow"}), "expiresAt"),
        (json!({"expiresAt": late}), "expiresAt"),
    ] {
        ask(&caller, end).assert_invalid_field(field);
    }
    let year = ask(&caller, json!({"expiresInDays": 365})).expect(201).json();
    let life = time(&year["expiresAt"]) - now();
    assert!(life > TimeDelta::days(365) - TimeDelta::minutes(5) && life <= TimeDelta::days(365), "{life}");
    let end = text(now() + TimeDelta::hours(3));
    let body = ask(&caller, json!({"expiresAt": end})).expect(201).json();
    assert_eq!(body["expiresAt"], end);
    assert_eq!(
        cluster.stored(&AccessToken::new(&caller, &SCOPES)).unwrap()["spec"]["expiresAt"].as_str().unwrap().len(),
        20
    );

    let shorter = Daypass::with_args(cluster, &["--token-max-days=7"]);
    let caller = shorter.owner.with_token(caller.token());
    ask(&caller, json!({"expiresInDays": 8})).assert_invalid_field("expiresInDays");
    ask(&caller, json!({"expiresInDays": 7})).expect(201);
}

#[test]
fn expired_token_is_refused_unlisted_and_deleted() {
    let (cluster, daypass) = Cluster::shared();
    let other = Daypass::second();
    let caller = cluster.generator(daypass);
    let there = other.owner.with_token(caller.token());
    let end = text(now() + TimeDelta::seconds(30));
    let short = AccessToken::requested(&caller, &json!({"name": "n", "scopes": SCOPES, "expiresAt": end}));
    // This one is known to work until then.
    let used = AccessToken::new(&caller, &SCOPES);
    for replica in [daypass, other] {
        used.at(replica).get("/tokens/self").expect(200);
    }
    let session = used.sign_in();
    cluster.write_token_end(&used, time(&json!(end)));
    wait_until(time(&json!(end)));
    for pat in [&short, &used] {
        assert_over(pat, &[&caller, &there], &[daypass, other]);
    }
    session.at(other).assert_refused();
    for pat in [&short, &used] {
        cluster.wait_token_gone(pat);
        let events = [daypass.token_events(&pat.id), other.token_events(&pat.id)].concat();
        let ends: Vec<&Value> = events.iter().filter(|event| event["event"] == "TOKEN_EXPIRED").collect();
        assert_eq!(ends.len(), 1, "{events:?}");
        assert_eq!(ends[0]["actor"], json!({"type": "DAYPASS"}));
    }
    cluster.wait_token_gone(&session);
}

#[test]
fn revoked_token_is_refused_at_once_by_every_replica() {
    let (cluster, daypass) = Cluster::shared();
    let other = Daypass::second();
    let here = cluster.generator(daypass);
    let there = other.owner.with_token(here.token());
    for n in 0..6 {
        let (revoking, asking) = if n % 2 == 0 { (&here, other) } else { (&there, daypass) };
        let pat = AccessToken::new(revoking, &SCOPES);
        let session = pat.sign_in();
        for client in [pat.at(asking), session.at(asking)] {
            client.get("/tokens/self").expect(200);
        }
        let revoker = if n < 4 { revoking.clone() } else { pat.http.clone() };
        revoker.delete(&pat.path()).expect(204);
        for client in [pat.at(asking), session.at(asking), pat.http.clone(), session.http.clone()] {
            client.assert_refused();
        }
        assert_over(&pat, &[&here, &there], &[daypass, other]);
        revoking.delete(&pat.path()).problem(404, "DP_ERR_NOT_FOUND");
        assert!(cluster.stored(&pat).is_none_or(|it| it["spec"]["id"] != pat.id));
        let events = [daypass.token_events(&pat.id), other.token_events(&pat.id)].concat();
        assert_eq!(events.iter().filter(|event| event["event"] == "TOKEN_REVOKED").count(), 1, "{events:?}");
    }
}

#[test]
fn token_unused_for_fifteen_days_ends() {
    let (cluster, daypass) = Cluster::shared();
    let other = Daypass::second();
    let strict = Daypass::with_args(cluster, &["--token-max-idle-days=1"]);
    let caller = cluster.generator(daypass);
    let used =
        |pat: &AccessToken, ago: TimeDelta| cluster.write_token_status(pat, &json!({"lastUsedAt": text(now() - ago)}));
    let (idle, recent) = (AccessToken::new(&caller, &SCOPES), AccessToken::new(&caller, &SCOPES));
    used(&recent, TimeDelta::days(15) - TimeDelta::hours(1));
    // The operator chooses the idle limit.
    recent.at(&strict).assert_refused();
    recent.http.get("/tokens/self").expect(200);
    recent.at(&strict).get("/tokens/self").expect(200);
    let last = time(&caller.get(&recent.path()).expect(200).json()["lastUsedAt"]);
    assert!((now() - last).abs() < TimeDelta::minutes(5), "{last}");

    used(&idle, TimeDelta::days(16));
    assert_over(&idle, &[&caller], &[daypass, other]);
    cluster.wait_token_gone(&idle);
    let events =
        [daypass.token_events(&idle.id), other.token_events(&idle.id), strict.token_events(&idle.id)].concat();
    assert_eq!(events.last().unwrap()["event"], "TOKEN_EXPIRED", "{events:?}");
    assert!(cluster.stored(&recent).is_some());
}

#[test]
fn last_use_is_written_every_ten_minutes() {
    let (cluster, daypass) = Cluster::shared();
    let other = Daypass::second();
    let pat = AccessToken::new(&cluster.generator(daypass), &SCOPES);
    assert_eq!(pat.body["lastUsedAt"], Value::Null);
    let use_much = || {
        concurrently(20, |n| {
            let client = pat.at(if n % 2 == 0 { daypass } else { other });
            (0..15).for_each(|_| drop(client.get("/tokens/self").expect(200)));
        })
    };
    let writes =
        || cluster.audited("accesstokens", pat.object()).iter().filter(|call| *call == "patch status").count();
    let version = || cluster.stored(&pat).unwrap()["metadata"]["resourceVersion"].clone();
    use_much();
    assert_eq!(writes(), 1);
    let last = time(&cluster.stored(&pat).unwrap()["status"]["lastUsedAt"]);
    assert!((now() - last).abs() < TimeDelta::minutes(5), "{last}");
    assert_eq!(pat.http.get("/tokens/self").expect(200).json()["lastUsedAt"], text(last));

    // The test writes earlier times.
    let write = |minutes: i64| {
        let at = text(now() - TimeDelta::minutes(minutes));
        cluster.write_token_status(&pat, &json!({"lastUsedAt": at}));
        version()
    };
    let unchanged = write(5);
    use_much();
    assert_eq!(version(), unchanged);
    write(11);
    let before = writes();
    use_much();
    assert_eq!(writes(), before + 1);
    assert!(now() - time(&cluster.stored(&pat).unwrap()["status"]["lastUsedAt"]) < TimeDelta::minutes(5));
}

#[test]
fn lower_day_limit_suspends_existing_tokens() {
    let (cluster, daypass) = Cluster::shared();
    let shorter = Daypass::with_args(cluster, &["--token-max-days=7"]);
    let caller = cluster.generator(daypass);
    let there = shorter.owner.with_token(caller.token());
    let shown = |client: &crate::support::Http, path: &str| client.get(path).expect(200).json()["expiresAt"].clone();
    let week = |since: &Value| json!(text(time(since) + TimeDelta::days(7)));

    let pat = AccessToken::new(&caller, &SCOPES);
    let (made, short) = (pat.body["expiresAt"].clone(), week(&pat.body["createdAt"]));
    assert_eq!((shown(&there, &pat.path()), shown(&caller, &pat.path())), (short.clone(), made));
    assert_eq!(shown(&pat.at(&shorter), "/tokens/self"), short);
    let page = there.get("/tokens").expect(200).json();
    assert_eq!(page["items"][0]["expiresAt"], short);
    // Neither a token that it creates nor its rotation ends later, even on a replica with a higher limit.
    let later = json!(text(time(&short) + TimeDelta::seconds(1)));
    let child = json!({"name": "n", "expiresAt": later, "scopes": ["tokens:read"]});
    // Otherwise it would be later than a week from now, too, which is another error.
    wait_until(time(&pat.body["createdAt"]) + TimeDelta::seconds(2));
    pat.at(&shorter).post("/tokens", &child).problem(403, "DP_ERR_FORBIDDEN");
    let rotated = AccessToken::of(&there, &there.post(&format!("{}/rotate", pat.path()), &json!({})).expect(200));
    assert_eq!((&rotated.body["expiresAt"], &shown(&caller, &pat.path())), (&short, &short));
    assert_eq!(shorter.wait_token_event(&pat.id, "TOKEN_ROTATED")["token"]["expiresAt"], short);

    // The limit counts from the last rotation.
    let old = AccessToken::new(&caller, &SCOPES);
    cluster.write_token_rotation(&old, now() - TimeDelta::days(8));
    old.at(&shorter).assert_refused();
    there.get(&old.path()).problem(404, "DP_ERR_NOT_FOUND");
    old.http.get("/tokens/self").expect(200);
    let new = AccessToken::of(&caller, &caller.post(&format!("{}/rotate", old.path()), &json!({})).expect(200));
    let rotated_at = cluster.stored(&new).unwrap()["spec"]["rotatedAt"].clone();
    assert!((now() - time(&rotated_at)).abs() < TimeDelta::minutes(5), "{rotated_at}");
    assert_eq!(shown(&new.at(&shorter), "/tokens/self"), week(&rotated_at));
    assert_eq!(new.body["expiresAt"], old.body["expiresAt"]);
}
