//! Limits on tokens and sessions hold for concurrent requests to several replicas.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, SCOPES, concurrently};
use crate::support::{Cluster, Daypass, Http, Launch, NewMember, eventually, now, time, wait_until};

fn replica(cluster: &Cluster, most: usize) -> Daypass {
    Daypass::start(cluster, &Launch { args: vec![format!("--token-max-per-owner={most}")], ..Launch::default() })
}

fn ask(client: &Http) -> crate::support::Answer {
    client.post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": ["tokens:read"]}))
}

/// Asks both replicas for tokens concurrently. Returns how many more there are then; all others must be refused.
fn make(count: usize, threads: usize, replicas: [&Http; 2]) -> usize {
    let total = || {
        let total = &replicas[0].get("/tokens").expect(200).json()["total"];
        usize::try_from(total.as_u64().unwrap()).unwrap()
    };
    let (before, next) = (total(), AtomicUsize::new(0));
    concurrently(threads, |_| {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return;
            }
            let answer = ask(replicas[n % 2]);
            match answer.status {
                // On a slow machine, some get a 503. Their token may be there or not.
                201 | 503 => {}
                _ => drop(answer.problem(409, "DP_ERR_TOO_MANY_TOKENS")),
            }
        }
    });
    total() - before
}

#[test]
fn concurrent_creations_stop_at_the_limit() {
    let (cluster, _) = Cluster::shared();
    let (one, two) = (replica(cluster, 5), replica(cluster, 5));
    let here = cluster.generator(&one);
    let there = two.owner.with_token(here.token());
    assert_eq!(make(40, 40, [&here, &there]), 5);
    let ids = here.token_ids("");
    assert_eq!(ids.len(), 5);
    // A deleted token frees one place.
    there.delete(&format!("/tokens/{}", ids[2])).expect(204);
    assert_eq!(make(12, 12, [&here, &there]), 1);
    assert_eq!(there.token_ids("").len(), 5);
    // Other owners have their own limit, and sessions do not count.
    let other = cluster.generator(&one);
    let pat = AccessToken::new(&other, &SCOPES);
    pat.sign_in();
    assert_eq!(make(10, 10, [&other, &two.owner.with_token(other.token())]), 4);
}

#[test]
fn token_after_the_hundred_and_fourth_is_refused() {
    let (cluster, daypass) = Cluster::shared();
    let other = Daypass::second();
    let here = cluster.generator(daypass);
    let there = other.owner.with_token(here.token());
    assert_eq!(make(120, 12, [&here, &there]), 104);
    let refused = ask(&here);
    assert!(refused.problem(409, "DP_ERR_TOO_MANY_TOKENS")["detail"].as_str().unwrap().contains("104"));
    let page = here.get("/tokens?limit=100&offset=100").expect(200).json();
    let shown = page["items"].as_array().unwrap().len();
    assert_eq!((&page["total"], &page["limit"], &page["offset"], shown), (&json!(104), &json!(100), &json!(100), 4));
    here.delete(&format!("/tokens/{}", page["items"][0]["id"].as_str().unwrap())).expect(204);
    ask(&there).expect(201);
}

#[test]
fn ended_token_frees_its_place_and_is_audited() {
    let (cluster, daypass) = Cluster::shared();
    let single = replica(cluster, 1);
    let caller = cluster.generator(&single);
    let end =
        time(&json!((now() + chrono::TimeDelta::seconds(30)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true)));
    let first = AccessToken::requested(&caller, &json!({"name": "n", "scopes": SCOPES, "expiresAt": end}));
    wait_until(end);
    // Whether or not it is swept yet.
    ask(&caller).expect(201);
    ask(&caller).problem(409, "DP_ERR_TOO_MANY_TOKENS");
    let events = [single.token_events(&first.id), daypass.token_events(&first.id)].concat();
    let kinds: Vec<&Value> = events.iter().map(|event| &event["event"]).collect();
    assert_eq!(kinds, ["TOKEN_CREATED", "TOKEN_EXPIRED"]);
}

#[test]
fn token_has_sixteen_sessions_before_and_after_rotation() {
    let (cluster, daypass) = Cluster::shared();
    let other = Daypass::second();
    let pat = AccessToken::new(&cluster.generator(daypass), &SCOPES);
    let open_many = |pat: &AccessToken| {
        concurrently(24, |n| {
            let client = pat.at(if n % 2 == 0 { daypass } else { other });
            // On a slow machine some of these get a 503, or lose a name too often, and are sent again.
            eventually("the session is opened", || {
                let answer = client.post("/sessions", &json!({}));
                assert!([201, 409, 503].contains(&answer.status), "{}", answer.text);
                (answer.status == 201).then_some(())
            });
        });
    };
    // The sessions stored for the token's present secret.
    let stored = |pat: &AccessToken| {
        let hash = cluster.stored(pat).unwrap()["spec"]["tokenHash"].as_str().unwrap().to_owned();
        let is_session = |object: &&Value| {
            let session = &object["spec"]["session"];
            session["token"] == pat.object() && session["secret"].as_str().is_some_and(|it| hash.starts_with(it))
        };
        cluster.list("daypass", "accesstokens").iter().filter(is_session).count()
    };
    open_many(&pat);
    assert_eq!(stored(&pat), 16);
    // Sessions of an earlier secret are dead and do not count.
    let rotated = AccessToken::of(&pat.http, &pat.http.post("/tokens/self/rotate", &json!({})).expect(200));
    assert_eq!(stored(&rotated), 0);
    open_many(&rotated);
    assert_eq!(stored(&rotated), 16);
}

#[test]
fn session_too_many_replaces_the_oldest() {
    let (cluster, daypass) = Cluster::shared();
    let other = Daypass::second();
    let caller = cluster.generator(daypass);
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 1);
    let pat = AccessToken::new(&caller, &SCOPES);
    let me = member.path("/me");
    for (client, most, path) in
        [(&pat.http, 16, "/tokens/self"), (&caller, 16, "/self"), (&member.engineer, 4, me.as_str())]
    {
        let there = other.owner.with_token("");
        let opened: Vec<AccessToken> = (0..most + 2).map(|_| AccessToken::session_of(client)).collect();
        let works = |session: &AccessToken| there.with_token(&session.secret).get(path).status;
        let statuses: Vec<u16> = opened.iter().map(works).collect();
        assert_eq!(statuses, [vec![401; 2], vec![200; most]].concat(), "{path}");
        client.get(path).expect(200);
        let ended = daypass.wait_token_event(&opened[0].id, "SESSION_ENDED");
        let started = daypass.wait_token_event(&opened[0].id, "SESSION_CREATED");
        assert_eq!(ended["actor"], started["actor"], "whoever opened the new one");
    }
}

#[test]
fn list_of_tokens_asks_for_the_issuer_once() {
    let (cluster, daypass) = Cluster::shared();
    let owner = cluster.generator(daypass);
    for _ in 0..5 {
        AccessToken::new(&owner, &SCOPES);
    }
    // A new replica that does not lead has not asked for the issuer yet.
    let other = Daypass::start(cluster, &Launch::default());
    let page = other.owner.with_token(owner.token()).get("/tokens").expect(200).json();
    assert_eq!((&page["total"], &page["items"][4]["status"]), (&json!(5), &json!("ACTIVE")));
    // Two if it has become leader.
    assert!((1.0..=2.0).contains(&other.calls("get_openid_configuration")));
}
