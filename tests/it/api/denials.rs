//! Daypass slows down callers with many denied requests and still serves what they may do.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, concurrently, forged};
use crate::support::{Answer, Cluster, Daypass, Http, Launch, NewMember, eventually};

/// A replica with this limit. Another one leads, so all calls of this one are for requests and the Lease.
fn limited(cluster: &Cluster, most: u32) -> Daypass {
    let args = vec![format!("--max-denied-requests={most}")];
    Daypass::start(cluster, &Launch { args, ..Launch::default() })
}

#[track_caller]
fn assert_too_many(answer: &Answer) {
    answer.problem(429, "DP_ERR_TOO_MANY_DENIALS");
    assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
}

/// Asks until that is too many. Daypass forgets a denial every few seconds, so a single request may still get a 403.
#[track_caller]
fn wait_too_many(ask: impl Fn() -> Answer) {
    let answer = eventually("the limit is reached", || Some(ask()).filter(|answer| answer.status == 429));
    assert_too_many(&answer);
}

fn denied(daypass: &Daypass, caller: &Http) -> Vec<Value> {
    let name = caller.username();
    daypass.audit_events().into_iter().filter(|event| event["event"] == "DENIED" && event["owner"] == name).collect()
}

#[test]
fn repeated_denials_cost_few_calls_and_audit_lines() {
    let (cluster, _) = Cluster::shared();
    let daypass = limited(cluster, 30);
    let nobody = cluster.caller(&daypass, &[], &[], None);
    let count_roles = || {
        cluster
            .list("", "namespace")
            .iter()
            .filter(|it| it["metadata"]["labels"]["daypass.dev/role-id"].is_string())
            .count()
    };
    let start = Instant::now();
    let before = daypass.all_calls();
    let answers = concurrently(10, |thread| {
        (0..20).map(|n| nobody.get(&format!("/members/role{thread}.member{n}"))).collect::<Vec<_>>()
    });
    // Other tests make roles meanwhile.
    let roles = count_roles();
    let (calls, minutes) = (daypass.all_calls() - before, start.elapsed().as_secs_f64() / 60.0);
    let refused =
        answers.iter().flatten().filter(|answer| answer.status == 429).inspect(|it| assert_too_many(it)).count();
    for answer in answers.iter().flatten().filter(|answer| answer.status != 429) {
        answer.problem(403, "DP_ERR_FORBIDDEN");
    }
    println!("200 denials of one caller, {roles} roles: {calls} calls, {refused} answered with 429");
    // Daypass authenticates thirty at once and thirty a minute. It asks about the roles for requests in flight at the
    // first denial, and for one every ten seconds.
    let authenticated = 30.0 + 30.0 * minutes + 10.0;
    let asked = 10.0 + 6.0 * minutes;
    let roles = f64::from(u32::try_from(roles).unwrap());
    assert!(calls <= authenticated + asked * (roles + 5.0), "{calls} in {minutes} minutes");
    assert!(refused as f64 >= 200.0 - 30.0 - 30.0 * minutes - 1.0, "{refused}");
    // The denials before the limit, and the first one over it. Requests that are denied at once may be recorded in
    // another order than they were counted.
    let lines = denied(&daypass, &nobody);
    assert!(lines.len() as f64 <= 31.0 + 30.0 * minutes, "{}", lines.len());
    let floods = lines.iter().filter(|line| line["reason"] == "DP_ERR_TOO_MANY_DENIALS").count();
    assert!(floods >= 1 && floods as f64 <= 1.0 + 2.0 * minutes, "{floods} of {}", lines.len());

    // Further requests cost no call until `Retry-After` has passed.
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
    eventually("a denial is forgotten", || (nobody.get("/members/role.member").status == 403).then_some(()));
}

#[test]
fn denied_job_does_not_lock_out_its_identity() {
    let (cluster, _) = Cluster::shared();
    let daypass = limited(cluster, 5);
    let (own, other) = (cluster.reader(), cluster.reader());
    let caller = cluster.caller(&daypass, &["get", "create"], &["members"], Some(&own));
    let mine = NewMember::new(&caller, &own, 1);
    let theirs = NewMember::new(&daypass.owner, &other, 1);
    for n in 0..40 {
        // The same operation in another role, an operation that it may do in no role, and a role that does not
        // exist.
        let answers =
            [caller.get(&theirs.path("")), caller.delete(&mine.path("")), caller.get(&format!("/members/no{n}.x"))];
        for answer in answers {
            assert!([403, 404, 429].contains(&answer.status), "{}", answer.text);
        }
        caller.get(&mine.path("")).expect(200);
        caller.get("/members/roles").expect(200);
    }
    wait_too_many(|| caller.delete(&mine.path("")));
    NewMember::new(&caller, &own, 1);
    // Another caller is not limited.
    cluster.caller(&daypass, &[], &[], None).get("/members").problem(403, "DP_ERR_FORBIDDEN");
}

#[test]
fn denials_for_scopes_and_token_rights_count_alike() {
    let (cluster, _) = Cluster::shared();
    let daypass = limited(cluster, 10);
    let role = cluster.reader();
    let caller =
        cluster.with_privilege(cluster.caller(&daypass, &["get", "create"], &["members"], Some(&role)), "generate");
    let pat = AccessToken::new(&caller, &["members:read"]);
    let member = NewMember::new(&caller, &role, 1);
    for _ in 0..30 {
        let answer = pat.http.delete(&member.path(""));
        assert!([403, 429].contains(&answer.status), "{}", answer.text);
        pat.http.get(&member.path("")).expect(200);
    }
    wait_too_many(|| pat.http.delete(&member.path("")));
    let before = daypass.calls("get_access_token");
    if pat.http.delete(&member.path("")).status == 429 {
        assert!(daypass.calls("get_access_token") - before <= 1.0);
    }

    // Neither answer reveals which tokens others have.
    let stranger = cluster.caller(&daypass, &[], &[], None);
    let looked_up = daypass.calls("get_access_token");
    for n in 0..30 {
        let nobodys = forged(&format!("{}-{n}-abcdef", "a".repeat(16)));
        let ids = [pat.id.clone(), nobodys[4..].rsplit_once('_').unwrap().0.to_owned()];
        let answers = ids.map(|id| stranger.get(&format!("/tokens/{id}")));
        for answer in &answers {
            assert!([404, 429].contains(&answer.status), "{}", answer.text);
        }
    }
    assert_eq!(daypass.calls("get_access_token"), looked_up, "hidden tokens are not looked up");
    wait_too_many(|| stranger.get("/tokens?owner=*"));
    // It may list its own tokens.
    stranger.get("/tokens").expect(200);
    cluster.may_make_tokens(&stranger, "generate");
    eventually("a denial is forgotten in ten seconds", || {
        let body = json!({"name": "n", "expiresInDays": 1, "scopes": ["members:read"]});
        (stranger.post("/tokens", &body).status == 201).then_some(())
    });
}
