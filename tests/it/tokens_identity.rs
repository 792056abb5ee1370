//! Access tokens switched off, and those that were made under another identity configuration.

use chrono::TimeDelta;
use daypass_local::{Component, Shutdown};
use serde_json::{Value, json};

use crate::support::tokens::{Pat, SCOPES};
use crate::support::{Created, Daypass, Http, Lab, Launch, eventually, now};

const DISABLED: &str = "Token based authentication is disabled";

fn with(lab: &Lab, args: &[&str]) -> Daypass {
    Daypass::start(lab, &Launch { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..Launch::default() })
}

fn body() -> Value {
    json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES})
}

#[test]
fn switched_off_they_are_neither_taken_nor_made_but_can_be_taken_away() {
    let (lab, daypass) = Lab::shared();
    let off = with(lab, &["--auth-methods=kubernetes"]);
    let role = lab.reader();
    let caller = lab.with_privilege(lab.caller(daypass, &["create"], &["members"], Some(&role)), "generate");
    let (pat, rotated) = (Pat::new(&caller, &SCOPES), Pat::new(&caller, &SCOPES));
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
    for answer in [there.post("/tokens", &body()), there.post(&rotate, &json!({})), there.post("/sessions", &json!({}))]
    {
        assert_eq!(answer.problem(403, "DP_ERR_TOKENS_DISABLED")["detail"], DISABLED);
    }
    assert_eq!(there.anonymous().get("/tokens").headers("www-authenticate"), [r#"Bearer realm="daypass""#]);
    // Then an old secret decides nothing either.
    rotated.at(&off).post("/tokens/self/rotate", &json!({})).problem(401, "DP_ERR_TOKEN_AUTHENTICATION_DISABLED");
    caller.get(&rotated.path()).expect(200);
    Created::new(&there, &role, 1);
    assert_eq!(there.token_ids("").len(), 2);
    there.get(&pat.path()).expect(200);
    pat.http.get("/tokens/self").expect(200);
    there.delete(&pat.path()).expect(204);
    pat.http.assert_refused();

    // The other way round.
    let only = with(lab, &["--auth-methods=access-token"]);
    let pat = Pat::new(&caller, &SCOPES);
    pat.at(&only).get("/tokens/self").expect(200);
    only.owner.with_token(caller.token()).get("/tokens").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
}

/// How many tokens were suspended, brought back and deleted, as the log says.
fn counts(daypass: &Daypass) -> [u64; 3] {
    let log = daypass.log();
    let lines = log.lines().filter(|line| line.contains("made under another issuer or audience"));
    let told = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    told.fold([0; 3], |sums, line| {
        let told = ["suspended", "restored", "deleted"].map(|field| line[field].as_u64().unwrap());
        std::array::from_fn(|n| sums[n] + told[n])
    })
}

fn statuses(client: &Http, pats: &[&Pat]) -> Vec<String> {
    let status = |pat: &&Pat| client.get(&pat.path()).expect(200).json()["status"].as_str().unwrap().to_owned();
    pats.iter().map(status).collect()
}

#[test]
fn another_audience_suspends_them_and_the_old_one_brings_them_back_within_a_day() {
    let lab = Lab::private();
    let mut daypass = with(&lab, &[]);
    let caller = lab.generator(&daypass);
    let account = caller.username().rsplit_once(':').unwrap().1.to_owned();
    let pats = [(); 3].map(|()| Pat::new(&caller, &SCOPES));
    let [one, two, three] = &pats;
    one.http.get("/tokens/self").expect(200);
    let stale_since = |pat: &Pat| lab.stored(pat).unwrap()["status"]["staleSince"].clone();
    daypass.stop();

    let mut changed = with(&lab, &["--token-audience=other"]);
    let there = changed.owner.with_token(&lab.token("default", &account, "other"));
    pats.iter().for_each(|pat| pat.at(&changed).assert_refused());
    changed.owner.with_token(caller.token()).get("/tokens").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    assert_eq!(statuses(&there, &[one, two, three]), ["SUSPENDED"; 3]);
    assert_eq!(there.token_ids("").len(), 3, "they are listed for what they are");
    let new = Pat::new(&there, &SCOPES);
    assert_eq!(new.http.get("/tokens/self").expect(200).json()["status"], "ACTIVE");
    // To rotate one does not bring it back.
    let still = Pat::of(&there, &there.post(&format!("{}/rotate", three.path()), &json!({})).expect(200));
    assert_eq!(still.body["status"], "SUSPENDED");
    still.http.assert_refused();
    eventually("all are marked", || pats.iter().all(|pat| stale_since(pat).is_string()).then_some(()));
    eventually("it is said how many", || (counts(&changed) == [3, 0, 0]).then_some(()));
    lab.write_token_status(two, &json!({"staleSince": now() - TimeDelta::hours(23)}));
    lab.write_token_status(three, &json!({"staleSince": now() - TimeDelta::hours(25)}));
    changed.stop();
    assert!(lab.stored(two).is_some());

    // Still the other: the one whose day is over is deleted.
    let mut changed = with(&lab, &["--token-audience=other"]);
    lab.wait_token_gone(three);
    assert_eq!(changed.token_event(&three.id, "TOKEN_REVOKED")["actor"], json!({"type": "DAYPASS"}));
    eventually("it is said how many", || (counts(&changed) == [0, 0, 1]).then_some(()));
    assert!(stale_since(two).is_string());
    changed.stop();

    // Rolled back.
    let daypass = with(&lab, &[]);
    for pat in [one, two] {
        pat.at(&daypass).get("/tokens/self").expect(200);
    }
    new.at(&daypass).assert_refused();
    let here = daypass.owner.with_token(caller.token());
    assert_eq!(statuses(&here, &[one, two, &new]), ["ACTIVE", "ACTIVE", "SUSPENDED"]);
    eventually("they are marked no more", || [one, two].iter().all(|pat| stale_since(pat).is_null()).then_some(()));
    eventually("it is said how many", || (counts(&daypass) == [1, 2, 0]).then_some(()));
}

#[test]
fn issuer_that_is_no_url_is_that_of_daypasss_own_token() {
    let lab = Lab::private();
    lab.expect_refusals();
    let mut daypass = with(&lab, &[]);
    let old = Pat::new(&lab.generator(&daypass), &SCOPES);
    daypass.stop();
    // The first signs; the tokens of the second are still good.
    lab.restart_apiserver(&[
        "--service-account-issuer=kubernetes",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--api-audiences=https://kubernetes.default.svc",
    ]);
    lab.chart.write_kubeconfig(&lab.plane, &lab.kubeconfig).unwrap();
    let daypass = with(&lab, &[]);
    let caller = lab.generator(&daypass);
    let pat = Pat::new(&caller, &SCOPES);
    pat.http.get("/tokens/self").expect(200);
    assert_eq!(statuses(&caller, &[&pat]), ["ACTIVE"]);
    old.at(&daypass).assert_refused();
    assert!(daypass.calls("get_openid_configuration") > 0.0);
}

#[test]
fn audience_of_the_api_server_itself_is_refused_at_the_start() {
    let (lab, _) = Lab::shared();
    let own = "--token-audience=https://kubernetes.default.svc".to_owned();
    let launch = |args: &[String]| Launch { args: args.to_vec(), impatient: true, ..Launch::default() };
    let mut refused = Daypass::start(lab, &launch(std::slice::from_ref(&own)));
    eventually("it ends", || refused.ended());
    let log = refused.log();
    assert!(log.contains("https://kubernetes.default.svc is an audience of the API server itself"), "{log}");
    let mut accepted = Daypass::start(lab, &launch(&[own, "--accept-api-server-audience".to_owned()]));
    accepted.wait_ready();
}

#[test]
fn another_issuer_suspends_them_until_it_is_rolled_back() {
    let lab = Lab::without_walls();
    // An API server that has just been started knows no bindings for a moment.
    lab.expect_refusals();
    let mut daypass = with(&lab, &[]);
    let caller = lab.generator(&daypass);
    let old = Pat::new(&caller, &SCOPES);
    let session = old.sign_in();
    let restart = |daypass: &mut Daypass, issuers: &[&str]| {
        let args = issuers.iter().map(|issuer| format!("--service-account-issuer={issuer}"));
        lab.plane.set_apiserver_args(args.collect());
        lab.plane.stop_component(Component::ApiServer, Shutdown::Graceful).unwrap();
        lab.plane.start_component(Component::ApiServer).unwrap();
        daypass.wait_ready();
    };
    restart(&mut daypass, &["https://new.example.com", "https://kubernetes.default.svc"]);
    // The issuer is remembered for a second.
    let refused = |pat: &Pat| (pat.http.get("/tokens/self").status == 401).then_some(());
    eventually("it is refused", || refused(&old));
    old.http.assert_refused();
    session.http.assert_refused();
    // Tokens of the old issuer are still good for the API server, and so for Daypass.
    assert_eq!(statuses(&caller, &[&old]), ["SUSPENDED"]);
    let new = Pat::new(&caller, &SCOPES);
    new.http.get("/tokens/self").expect(200);

    restart(&mut daypass, &[]);
    eventually("it is refused", || refused(&new));
    old.http.get("/tokens/self").expect(200);
    assert_eq!(statuses(&caller, &[&old, &new]), ["ACTIVE", "SUSPENDED"]);
}
