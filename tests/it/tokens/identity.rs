//! Disabled access tokens, and tokens of another issuer or audience.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, SCOPES};
use crate::support::{Cluster, Daypass, Http, Launch, NewMember, eventually, now};

const DISABLED: &str = "Token based authentication is disabled";

fn body() -> Value {
    json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES})
}

#[test]
fn disabled_tokens_can_only_be_revoked() {
    let (cluster, daypass) = Cluster::shared();
    let off = Daypass::with_args(cluster, &["--auth-methods=kubernetes"]);
    let role = cluster.reader();
    let caller = cluster.with_privilege(cluster.caller(daypass, &["create"], &["members"], Some(&role)), "generate");
    let (pat, rotated) = (AccessToken::new(&caller, &SCOPES), AccessToken::new(&caller, &SCOPES));
    let session = pat.sign_in();
    caller.post(&format!("{}/rotate", rotated.path()), &json!({})).expect(200);
    let there = off.owner.with_token(caller.token());

    let basic = there.with_basic(&pat.id, &pat.secret);
    for client in [pat.at(&off), session.at(&off), there.with_token(&pat.forged()), there.with_token("dpp_"), basic] {
        for answer in [client.get("/tokens"), client.get("/members"), client.post("/sessions", &json!({}))] {
            let problem = answer.problem(401, "DP_ERR_TOKEN_AUTHENTICATION_DISABLED");
            assert_eq!((&problem["title"], &problem["detail"]), (&json!(DISABLED), &json!(DISABLED)));
            assert_eq!(answer.headers("www-authenticate"), [r#"Bearer realm="daypass""#]);
        }
    }
    let rotate = format!("{}/rotate", pat.path());
    for answer in [there.post("/tokens", &body()), there.post(&rotate, &json!({}))] {
        assert_eq!(answer.problem(403, "DP_ERR_TOKENS_DISABLED")["detail"], DISABLED);
    }
    assert_eq!(there.anonymous().get("/tokens").headers("www-authenticate"), [r#"Bearer realm="daypass""#]);
    // Sessions of other credentials work.
    let member = NewMember::new(&there, &role, 1);
    for (client, path) in [(&there, "/tokens"), (&member.engineer, &*member.path("/me"))] {
        let session = AccessToken::session_of(client);
        session.at(&off).get(path).expect(200);
        session.at(daypass).get(path).expect(200);
    }
    // Then an old secret does not revoke the token either.
    rotated.at(&off).post("/tokens/self/rotate", &json!({})).problem(401, "DP_ERR_TOKEN_AUTHENTICATION_DISABLED");
    caller.get(&rotated.path()).expect(200);
    NewMember::new(&there, &role, 1);
    assert_eq!(there.token_ids("").len(), 2);
    there.get(&pat.path()).expect(200);
    pat.http.get("/tokens/self").expect(200);
    there.delete(&pat.path()).expect(204);
    pat.http.assert_refused();

    // Only access tokens are enabled here.
    let only = Daypass::with_args(cluster, &["--auth-methods=access-token"]);
    let pat = AccessToken::new(&caller, &SCOPES);
    pat.at(&only).get("/tokens/self").expect(200);
    only.owner.with_token(caller.token()).get("/tokens").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    let session = AccessToken::session_of(&caller);
    session.http.get("/tokens").expect(200);
    session.at(&only).get("/tokens").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    AccessToken::session_of(&member.engineer).at(&only).get(&member.path("/me")).expect(200);
}

/// Waits until the log tells of so many. After a conflict with another write, a sweep tells of a token once more.
fn wait_counts(daypass: &Daypass, least: [u64; 3]) {
    eventually("the log says how many tokens changed", || {
        let is_told = |(told, least): (u64, u64)| told >= least && (told > 0) == (least > 0);
        counts(daypass).into_iter().zip(least).all(is_told).then_some(())
    });
}

/// How many tokens were suspended, restored and deleted, from the log.
fn counts(daypass: &Daypass) -> [u64; 3] {
    let log = daypass.log();
    let lines = log.lines().filter(|line| line.contains("made under another issuer, audience or mapping"));
    let told = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    told.fold([0; 3], |sums, line| {
        let told = ["suspended", "restored", "deleted"].map(|field| line[field].as_u64().unwrap());
        std::array::from_fn(|n| sums[n] + told[n])
    })
}

fn statuses(client: &Http, pats: &[&AccessToken]) -> Vec<String> {
    let status =
        |pat: &&AccessToken| client.get(&pat.path()).expect(200).json()["status"].as_str().unwrap().to_owned();
    pats.iter().map(status).collect()
}

#[test]
fn tokens_of_another_audience_are_suspended_for_a_day() {
    let cluster = Cluster::exclusive();
    // The log counts all tokens.
    cluster.kubectl(&["delete", "accesstokens.daypass.dev", "--all", "-n", "daypass"]);
    let mut daypass = Daypass::with_args(&cluster, &[]);
    let caller = cluster.generator(&daypass);
    let account = caller.username().rsplit_once(':').unwrap().1.to_owned();
    let pats = [(); 3].map(|()| AccessToken::new(&caller, &SCOPES));
    let [one, two, three] = &pats;
    one.http.get("/tokens/self").expect(200);
    let stale_since = |pat: &AccessToken| cluster.stored(pat).unwrap()["status"]["staleSince"].clone();
    daypass.stop();

    let mut changed = Daypass::with_args(&cluster, &["--token-audience=other"]);
    let there = changed.owner.with_token(&cluster.token("default", &account, "other"));
    pats.iter().for_each(|pat| pat.at(&changed).assert_refused());
    changed.owner.with_token(caller.token()).get("/tokens").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    assert_eq!(statuses(&there, &[one, two, three]), ["SUSPENDED"; 3]);
    assert_eq!(there.token_ids("").len(), 3, "suspended tokens are listed");
    let new = AccessToken::new(&there, &SCOPES);
    assert_eq!(new.http.get("/tokens/self").expect(200).json()["status"], "ACTIVE");
    // A rotation does not restore it.
    let still = AccessToken::of(&there, &there.post(&format!("{}/rotate", three.path()), &json!({})).expect(200));
    assert_eq!(still.body["status"], "SUSPENDED");
    still.http.assert_refused();
    eventually("all tokens are marked", || pats.iter().all(|pat| stale_since(pat).is_string()).then_some(()));
    wait_counts(&changed, [3, 0, 0]);
    changed.stop();
    cluster.write_token_status(two, &json!({"staleSince": now() - TimeDelta::hours(23)}));
    cluster.write_token_status(three, &json!({"staleSince": now() - TimeDelta::hours(25)}));
    assert!(cluster.stored(two).is_some());

    // With the other audience still set, the token whose day is over is deleted.
    let mut changed = Daypass::with_args(&cluster, &["--token-audience=other"]);
    cluster.wait_token_gone(three);
    assert_eq!(changed.wait_token_event(&three.id, "TOKEN_REVOKED")["actor"], json!({"type": "DAYPASS"}));
    wait_counts(&changed, [0, 0, 1]);
    assert!(stale_since(two).is_string());
    changed.stop();

    // Rolled back.
    let mut daypass = Daypass::with_args(&cluster, &[]);
    for pat in [one, two] {
        pat.at(&daypass).get("/tokens/self").expect(200);
    }
    new.at(&daypass).assert_refused();
    let here = daypass.owner.with_token(caller.token());
    assert_eq!(statuses(&here, &[one, two, &new]), ["ACTIVE", "ACTIVE", "SUSPENDED"]);
    eventually("the tokens are no longer marked", || {
        [one, two].iter().all(|pat| stale_since(pat).is_null()).then_some(())
    });
    wait_counts(&daypass, [1, 2, 0]);
    daypass.stop();
}

#[test]
fn issuer_without_url_is_read_from_daypasss_own_token() {
    let cluster = Cluster::breakable();
    let mut daypass = Daypass::with_args(&cluster, &[]);
    let old = AccessToken::new(&cluster.generator(&daypass), &SCOPES);
    daypass.stop();
    // The API server signs with the first issuer and accepts both.
    cluster.restart_apiserver(&[
        "--service-account-issuer=kubernetes",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--api-audiences=https://kubernetes.default.svc",
    ]);
    cluster.chart.write_kubeconfig(&cluster.plane, &cluster.kubeconfig).unwrap();
    let mut daypass = Daypass::with_args(&cluster, &[]);
    let caller = cluster.generator(&daypass);
    let pat = AccessToken::new(&caller, &SCOPES);
    pat.http.get("/tokens/self").expect(200);
    assert_eq!(statuses(&caller, &[&pat]), ["ACTIVE"]);
    old.at(&daypass).assert_refused();
    assert!(daypass.calls("get_openid_configuration") > 0.0);
    daypass.stop();
    cluster.restart_apiserver(&[]);
    cluster.chart.write_kubeconfig(&cluster.plane, &cluster.kubeconfig).unwrap();
}

#[test]
fn api_server_audience_is_refused_at_start() {
    let (cluster, _) = Cluster::shared();
    let own = "--token-audience=https://kubernetes.default.svc".to_owned();
    let launch = |args: &[String]| Launch { args: args.to_vec(), impatient: true, ..Launch::default() };
    let mut refused = Daypass::start(cluster, &launch(std::slice::from_ref(&own)));
    eventually("the process has exited", || refused.ended());
    let log = refused.log();
    assert!(log.contains("https://kubernetes.default.svc is an audience of the API server itself"), "{log}");
    let mut accepted = Daypass::start(cluster, &launch(&[own, "--accept-api-server-audience".to_owned()]));
    accepted.wait_ready();
}

#[test]
fn tokens_of_another_issuer_are_suspended_until_rollback() {
    let cluster = Cluster::breakable();
    let mut daypass = Daypass::with_args(&cluster, &[]);
    let caller = cluster.generator(&daypass);
    let old = AccessToken::new(&caller, &SCOPES);
    let session = old.sign_in();
    let restart = |daypass: &mut Daypass, issuers: &[&str]| {
        let args: Vec<String> = issuers.iter().map(|issuer| format!("--service-account-issuer={issuer}")).collect();
        cluster.restart_apiserver(&args.iter().map(String::as_str).collect::<Vec<_>>());
        daypass.wait_ready();
    };
    restart(&mut daypass, &["https://new.example.com", "https://kubernetes.default.svc"]);
    // Daypass caches the issuer for a second.
    let refused = |pat: &AccessToken| (pat.http.get("/tokens/self").status == 401).then_some(());
    eventually("the token is refused", || refused(&old));
    old.http.assert_refused();
    session.http.assert_refused();
    // The API server, and so Daypass, still accepts Kubernetes tokens of the old issuer.
    assert_eq!(statuses(&caller, &[&old]), ["SUSPENDED"]);
    let new = AccessToken::new(&caller, &SCOPES);
    new.http.get("/tokens/self").expect(200);

    restart(&mut daypass, &[]);
    eventually("the token is refused", || refused(&new));
    old.http.get("/tokens/self").expect(200);
    assert_eq!(statuses(&caller, &[&old, &new]), ["ACTIVE", "SUSPENDED"]);
    daypass.stop();
}
