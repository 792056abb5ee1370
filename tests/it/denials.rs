//! A caller that goes on asking for what it has no right to is slowed down. What it has a right to, it gets.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::tokens::{Pat, at_once, forged};
use crate::support::{Answer, Created, Daypass, Http, Lab, Launch, eventually};

/// Beside the Daypass that reaps, so that all its calls are for requests and the Lease.
fn limited(lab: &Lab, most: u32) -> Daypass {
    let args = vec![format!("--max-denied-requests={most}")];
    Daypass::start(lab, &Launch { args, ..Launch::default() })
}

#[track_caller]
fn assert_too_many(answer: &Answer) {
    answer.problem(429, "DP_ERR_TOO_MANY_DENIALS");
    assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
}

fn denied(daypass: &Daypass, caller: &Http) -> Vec<Value> {
    let name = caller.username();
    daypass.audit_events().into_iter().filter(|event| event["event"] == "DENIED" && event["owner"] == name).collect()
}

#[test]
fn two_hundred_denials_of_one_caller_cost_few_calls_and_few_lines() {
    let (lab, _) = Lab::shared();
    let daypass = limited(lab, 30);
    let nobody = lab.caller(&daypass, &[], &[], None);
    let roles = lab.kubectl(&["get", "namespaces", "-l", "daypass.dev/role-id", "-o", "name"]).lines().count();
    let start = Instant::now();
    let before = daypass.all_calls();
    let answers = at_once(10, |thread| {
        (0..20).map(|n| nobody.get(&format!("/members/role{thread}.member{n}"))).collect::<Vec<_>>()
    });
    let (calls, minutes) = (daypass.all_calls() - before, start.elapsed().as_secs_f64() / 60.0);
    let refused =
        answers.iter().flatten().filter(|answer| answer.status == 429).inspect(|it| assert_too_many(it)).count();
    for answer in answers.iter().flatten().filter(|answer| answer.status != 429) {
        answer.problem(403, "DP_ERR_FORBIDDEN");
    }
    println!("200 denials of one caller, {roles} roles: {calls} calls, {refused} answered with 429");
    // Thirty at once, and as many a minute, are authenticated; those under way at the time of the first denial
    // ask about the roles, and so does one in ten seconds.
    let authenticated = 30.0 + 30.0 * minutes + 10.0;
    let asked = 10.0 + 6.0 * minutes;
    let roles = f64::from(u32::try_from(roles).unwrap());
    assert!(calls <= authenticated + asked * (roles + 5.0), "{calls} in {minutes} minutes");
    assert!(refused as f64 >= 200.0 - 30.0 - 30.0 * minutes - 1.0, "{refused}");
    // The beginning, and the first that was too many.
    let lines = denied(&daypass, &nobody);
    assert!(lines.len() as f64 <= 31.0 + 30.0 * minutes, "{}", lines.len());
    assert_eq!(lines.last().unwrap()["reason"], "DP_ERR_TOO_MANY_DENIALS");

    // It goes on and costs nothing at all, until it may be tried again.
    let again = nobody.get("/members/role.member");
    if again.status == 429 {
        let (start, before) = (Instant::now(), daypass.all_calls());
        let wait = again.header("retry-after").parse::<f64>().unwrap();
        let after = nobody.get("/members/role.other");
        if start.elapsed().as_secs_f64() < wait - 1.0 {
            assert_too_many(&after);
            assert_eq!(daypass.all_calls(), before);
        }
    }
    eventually("waiting helps", || (nobody.get("/members/role.member").status == 403).then_some(()));
}

#[test]
fn job_that_is_denied_locks_out_no_other_of_its_identity() {
    let (lab, _) = Lab::shared();
    let daypass = limited(lab, 5);
    let (own, other) = (lab.reader(), lab.reader());
    let caller = lab.caller(&daypass, &["get", "create"], &["members"], Some(&own));
    let mine = Created::new(&caller, &own, 1);
    let theirs = Created::new(&daypass.owner, &other, 1);
    for n in 0..40 {
        // Of the same operation in another role, of an operation that it may nowhere do, and of a role
        // that is not there.
        let answers =
            [caller.get(&theirs.path("")), caller.delete(&mine.path("")), caller.get(&format!("/members/no{n}.x"))];
        for answer in answers {
            assert!([403, 404, 429].contains(&answer.status), "{}", answer.text);
        }
        caller.get(&mine.path("")).expect(200);
        caller.get("/members/roles").expect(200);
    }
    assert_too_many(&caller.delete(&mine.path("")));
    Created::new(&caller, &own, 1);
    // Somebody else is somebody else.
    lab.caller(&daypass, &[], &[], None).get("/members").problem(403, "DP_ERR_FORBIDDEN");
}

#[test]
fn scopes_and_rights_on_tokens_are_counted_alike_and_tell_nothing_more() {
    let (lab, _) = Lab::shared();
    let daypass = limited(lab, 10);
    let role = lab.reader();
    let caller = lab.with_privilege(lab.caller(&daypass, &["get", "create"], &["members"], Some(&role)), "generate");
    let pat = Pat::new(&caller, &["members:read"]);
    let member = Created::new(&caller, &role, 1);
    for _ in 0..30 {
        let answer = pat.http.delete(&member.path(""));
        assert!([403, 429].contains(&answer.status), "{}", answer.text);
        pat.http.get(&member.path("")).expect(200);
    }
    assert_too_many(&pat.http.delete(&member.path("")));
    let before = daypass.calls("get_access_token");
    if pat.http.delete(&member.path("")).status == 429 {
        assert!(daypass.calls("get_access_token") - before <= 1.0);
    }

    // Which tokens others have is not told, by the one answer or the other.
    let stranger = lab.caller(&daypass, &[], &[], None);
    let looked_up = daypass.calls("get_access_token");
    for n in 0..30 {
        let nobodys = forged(&format!("{}-{n}-abcdef", "a".repeat(16)));
        let ids = [pat.id.clone(), nobodys[4..].rsplit_once('_').unwrap().0.to_owned()];
        let answers = ids.map(|id| stranger.get(&format!("/tokens/{id}")));
        for answer in &answers {
            assert!([404, 429].contains(&answer.status), "{}", answer.text);
        }
    }
    assert_eq!(daypass.calls("get_access_token"), looked_up, "what it may not see is not looked up");
    assert_too_many(&stranger.get("/tokens?owner=*"));
    // Its own are its own.
    stranger.get("/tokens").expect(200);
    lab.may_make_tokens(&stranger, "generate");
    eventually("a denial is forgotten in ten seconds", || {
        let body = json!({"name": "n", "expiresInDays": 1, "scopes": ["members:read"]});
        (stranger.post("/tokens", &body).status == 201).then_some(())
    });
}
