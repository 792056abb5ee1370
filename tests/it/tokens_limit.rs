//! How many access tokens an owner may have, whatever arrives at once and where.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::tokens::{Pat, SCOPES, at_once};
use crate::support::{Daypass, Http, Lab, Launch, eventually, now, time, wait_until};

fn replica(lab: &Lab, most: usize) -> Daypass {
    Daypass::start(lab, &Launch { args: vec![format!("--token-max-per-owner={most}")], ..Launch::default() })
}

fn ask(client: &Http) -> crate::support::Answer {
    client.post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": ["tokens:read"]}))
}

/// Asks for so many at once, at both, by so many threads; how many were made. All others were too many.
fn make(count: usize, threads: usize, replicas: [&Http; 2]) -> usize {
    let (next, made) = (AtomicUsize::new(0), AtomicUsize::new(0));
    at_once(threads, |_| {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return;
            }
            let answer = ask(replicas[n % 2]);
            match answer.status {
                201 => drop(made.fetch_add(1, Ordering::Relaxed)),
                _ => drop(answer.problem(409, "DP_ERR_TOO_MANY_TOKENS")),
            }
        }
    });
    made.into_inner()
}

#[test]
fn as_many_as_are_allowed_are_made_and_no_more() {
    let (lab, _) = Lab::shared();
    let (one, two) = (replica(lab, 5), replica(lab, 5));
    let here = lab.generator(&one);
    let there = two.owner.with_token(here.token());
    assert_eq!(make(40, 40, [&here, &there]), 5);
    let ids = here.token_ids("");
    assert_eq!(ids.len(), 5);
    // By whatever way it is freed, a place is one.
    there.delete(&format!("/tokens/{}", ids[2])).expect(204);
    assert_eq!(make(12, 12, [&here, &there]), 1);
    assert_eq!(there.token_ids("").len(), 5);
    // Another owner has places of its own, and none of the sessions takes one.
    let other = lab.generator(&one);
    let pat = Pat::new(&other, &SCOPES);
    pat.sign_in();
    assert_eq!(make(10, 10, [&other, &two.owner.with_token(other.token())]), 4);
}

#[test]
fn of_a_hundred_and_four_the_next_is_refused() {
    let (lab, daypass) = Lab::shared();
    let other = Daypass::start(lab, &Launch::default());
    let here = lab.generator(daypass);
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
fn one_that_has_ended_takes_no_place_and_its_end_is_recorded() {
    let (lab, daypass) = Lab::shared();
    let single = replica(lab, 1);
    let caller = lab.generator(&single);
    let end = time(&json!((now() + chrono::TimeDelta::seconds(10)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true)));
    let first = Pat::asked(&caller, &json!({"name": "n", "scopes": SCOPES, "expiresAt": end}));
    wait_until(end);
    // Swept or not.
    ask(&caller).expect(201);
    ask(&caller).problem(409, "DP_ERR_TOO_MANY_TOKENS");
    let events = [single.token_events(&first.id), daypass.token_events(&first.id)].concat();
    let kinds: Vec<&Value> = events.iter().map(|event| &event["event"]).collect();
    assert_eq!(kinds, ["TOKEN_CREATED", "TOKEN_EXPIRED"]);
}

#[test]
fn a_token_has_sixteen_sessions_of_its_present_secret() {
    let (lab, daypass) = Lab::shared();
    let other = Daypass::start(lab, &Launch::default());
    let pat = Pat::new(&lab.generator(daypass), &SCOPES);
    let statuses = |pat: &Pat| {
        at_once(24, |n| {
            let client = pat.at(if n % 2 == 0 { daypass } else { &other });
            // So many at once may have to be asked again (503), on a machine that is slow enough.
            let answer = eventually("it is answered", || {
                Some(client.post("/sessions", &json!({}))).filter(|answer| answer.status != 503)
            });
            if answer.status != 201 {
                answer.problem(409, "DP_ERR_TOO_MANY_SESSIONS");
            }
            answer.status
        })
    };
    // One whose answer was lost to a 503 has its place all the same.
    let made = |pat: &Pat| statuses(pat).iter().filter(|status| **status == 201).count();
    assert!((1..=16).contains(&made(&pat)));
    // By the objects it is exactly sixteen.
    let sessions = format!("{}-s", pat.id.rsplit_once('-').unwrap().0);
    let names = lab.names("daypass", "accesstokens");
    assert_eq!(names.iter().filter(|name| name.starts_with(&sessions)).count(), 16);
    pat.http.post("/sessions", &json!({})).problem(409, "DP_ERR_TOO_MANY_SESSIONS");
    // Those of an earlier secret are dead, and take no place.
    let rotated = Pat::of(&pat.http, &pat.http.post("/tokens/self/rotate", &json!({})).expect(200));
    assert!((1..=16).contains(&made(&rotated)));
    rotated.http.post("/sessions", &json!({})).problem(409, "DP_ERR_TOO_MANY_SESSIONS");
}

#[test]
fn a_list_asks_for_the_issuer_once_however_long_it_is() {
    let (lab, daypass) = Lab::shared();
    let owner = lab.generator(daypass);
    for _ in 0..5 {
        Pat::new(&owner, &SCOPES);
    }
    // Another replica, which does not reap and so has asked for nothing yet.
    let other = Daypass::start(lab, &Launch::default());
    let page = other.owner.with_token(owner.token()).get("/tokens").expect(200).json();
    assert_eq!((&page["total"], &page["items"][4]["status"]), (&json!(5), &json!("ACTIVE")));
    // One more, if it has come to reap after all.
    assert!((1.0..=2.0).contains(&other.calls("get_openid_configuration")));
}
