//! Daypass limits wrong credentials from one address and locks nobody out.

use reqwest::header::AUTHORIZATION;
use serde_json::Value;

use crate::support::tokens::{AccessToken, SCOPES, forged};
use crate::support::{Answer, Cluster, Daypass, Http, Launch, NewMember, eventually};

fn limited(cluster: &Cluster, more: &[&str]) -> Daypass {
    let args = [&["--max-refused-credentials=10"], more].concat();
    Daypass::start(cluster, &Launch { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..Launch::default() })
}

/// A request with this token and this `X-Forwarded-For` header.
fn forwarded(client: &Http, token: &str, forwarded_for: &str) -> Answer {
    let request = client.anonymous().request("GET", "/tokens").header(AUTHORIZATION, format!("Bearer {token}"));
    Answer::of(request.header("x-forwarded-for", forwarded_for))
}

/// Sends wrong credentials until Daypass answers 429. Returns how many it refused before; it forgets one in 6 s.
#[track_caller]
fn flood(send: impl Fn(usize) -> Answer) -> usize {
    for n in 0..200 {
        let answer = send(n);
        if answer.status == 429 {
            answer.problem(429, "DP_ERR_TOO_MANY_ATTEMPTS");
            assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
            return n;
        }
        assert_eq!(answer.status, 401, "{}", answer.text);
    }
    panic!("never too many");
}

#[test]
fn wrong_tokens_are_limited_and_right_ones_are_not() {
    let (cluster, _) = Cluster::shared();
    let daypass = limited(cluster, &[]);
    let role = cluster.reader();
    let caller = cluster.generator(&daypass);
    let pat = AccessToken::new(&caller, &SCOPES);
    let member = NewMember::new(&daypass.owner, &role, 1);
    let dead = AccessToken::new(&caller, &SCOPES);
    caller.delete(&dead.path()).expect(204);
    // Any kind of credential, scheme and path counts. A request without credentials does not.
    let wrong = |n: usize| match n % 9 {
        0 => caller.with_token("garbage").get("/tokens"),
        1 => caller.with_token(&pat.forged()).get("/tokens"),
        2 => caller.with_basic(&member.id, "wrong").get(&member.path("/me")),
        3 => dead.http.get("/members"),
        4 => caller.with_basic(&pat.id, &dead.secret).post("/sessions", &Value::Null),
        5 => caller.get_as("Digest x", "/tokens"),
        6 => caller.with_basic("view.nobody", &member.password).post("/sessions", &Value::Null),
        7 => caller.with_token(&forged(&format!("{}-m0-abcdef", &pat.id[..16]))).get(&member.path("/me")),
        _ => caller.with_token(&cluster.resign(caller.token(), |claims| claims["aud"] = "x".into())).get("/tokens"),
    };
    (0..30).for_each(|_| drop(caller.anonymous().get("/tokens").problem(401, "DP_ERR_NO_CREDENTIALS")));
    let refused = flood(wrong);
    assert!(refused >= 10, "{refused}");
    for n in 0..20 {
        caller.with_token("garbage").get("/tokens");
        if n % 5 == 0 {
            pat.http.get("/tokens/self").expect(200);
            caller.get("/tokens").expect(200);
            caller.with_basic(&caller.username(), &pat.secret).get("/tokens").expect(200);
            member.engineer.get(&member.path("/me")).expect(200);
        }
    }
    pat.sign_in().http.get("/tokens/self").expect(200);
    // After a while Daypass accepts attempts again, however many came meanwhile.
    let answer = eventually("another attempt is allowed", || {
        let answer = caller.with_token("garbage").get("/tokens");
        (answer.status == 401).then_some(answer)
    });
    answer.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    let failed: Vec<Value> =
        daypass.audit_events().into_iter().filter(|event| event["event"] == "AUTH_FAILED").collect();
    let floods = failed.iter().filter(|event| event["reason"] == "DP_ERR_TOO_MANY_ATTEMPTS").count();
    // On a slow machine Daypass forgets some meanwhile and audits the next flood again.
    let others = failed.len() - floods;
    assert!(floods >= 1 && floods <= others - 9, "{floods} of {}", failed.len());
}

#[test]
fn flood_of_wrong_tokens_makes_no_calls_and_one_audit_line() {
    let (cluster, _) = Cluster::shared();
    // With a limit of one, Daypass forgets one attempt in a minute, and tells of a flood again after half of that.
    let args = vec!["--max-refused-credentials=1".to_owned()];
    let daypass = Daypass::start(cluster, &Launch { args, ..Launch::default() });
    let client = &daypass.owner;
    let start = std::time::Instant::now();
    client.with_token("garbage").get("/tokens").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    let before = daypass.calls("create_token_review");
    for n in 0..30 {
        let answer = client.with_token("garbage").get("/tokens");
        if start.elapsed().as_secs() < 30 {
            answer.problem(429, "DP_ERR_TOO_MANY_ATTEMPTS");
            assert!((1..=60).contains(&answer.header("retry-after").parse::<u32>().unwrap()), "{n}");
        }
    }
    if start.elapsed().as_secs() < 30 {
        // Once it has been refused for ten seconds, the same credential is reviewed again.
        let most = (start.elapsed().as_secs() / 10) as f64;
        assert!(daypass.calls("create_token_review") - before <= most);
        let events = daypass.audit_events();
        let reasons: Vec<&Value> =
            events.iter().filter(|it| it["event"] == "AUTH_FAILED").map(|it| &it["reason"]).collect();
        assert_eq!(reasons, ["DP_ERR_CREDENTIAL_REFUSED", "DP_ERR_TOO_MANY_ATTEMPTS"]);
    }
    client.get("/members").expect(200);
}

#[test]
fn clients_behind_trusted_proxy_are_limited_separately() {
    let (cluster, _) = Cluster::shared();
    let daypass = limited(cluster, &["--trusted-proxies=127.0.0.1/32"]);
    let client = &daypass.owner;
    let refused = flood(|_| forwarded(client, "garbage", "203.0.113.1"));
    assert!(refused >= 10);
    // The client's own entries come before the proxy's.
    for spoofed in [
        "203.0.113.77, 203.0.113.1",
        "10.0.0.1,203.0.113.1",
        "127.0.0.1, 203.0.113.1",
        // With the client's port, which differs in each connection.
        "203.0.113.1:4711",
        "203.0.113.77:1, \"203.0.113.1:65535\"",
        "[::ffff:203.0.113.1]:4712",
    ] {
        // Daypass may have forgotten one meanwhile.
        let again = flood(|_| forwarded(client, "garbage", spoofed));
        assert!(again < 10, "{spoofed}: {again}");
    }
    for other in ["203.0.113.2", "203.0.113.1, 203.0.113.3", "2001:db8::1"] {
        let again = flood(|_| forwarded(client, "garbage", other));
        assert!(again >= 10, "{other}: {again}");
    }
    let again = flood(|n| forwarded(client, "garbage", &format!("[2001:db8::{:x}]:{n}", n + 2)));
    assert!(again < 10, "one network: {again}");
    forwarded(client, client.token(), "203.0.113.1");
    assert_eq!(forwarded(client, client.token(), "203.0.113.1").status, 200);
    let events = daypass.audit_events();
    assert!(events.iter().any(|event| event["sourceAddress"] == "203.0.113.1"));

    // Without trusted proxies, the connection's address counts.
    let direct = limited(cluster, &[]);
    let refused = flood(|n| forwarded(&direct.owner, "garbage", &format!("203.0.113.{n}")));
    assert!(refused >= 10);
    let again = flood(|n| forwarded(&direct.owner, "garbage", &format!("198.51.100.{n}")));
    assert!(again < 10, "{again}");
}
