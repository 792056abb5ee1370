//! How an access token is presented, and what is said to who presents none, or a wrong one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};

use crate::support::tokens::{Pat, SCOPES, forged};
use crate::support::{Answer, Created, Http, Lab, Launch, now};

const BEARER: &str = r#"Bearer realm="daypass""#;
const REST: [&str; 2] = [r#"Token realm="daypass""#, r#"Basic realm="daypass", charset="UTF-8""#];

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

#[track_caller]
fn assert_challenged(answer: &Answer, code: &str, first: &str) {
    answer.problem(401, code);
    assert_eq!(answer.headers("www-authenticate"), [first, REST[0], REST[1]]);
}

#[test]
fn it_comes_as_a_bearer_a_token_or_a_password() {
    let (lab, daypass) = Lab::shared();
    let caller = lab.generator(daypass);
    let pat = Pat::new(&caller, &SCOPES);
    let session = pat.sign_in();
    let owner = caller.username();
    assert!(owner.contains(':'));
    for secret in [&pat.secret, &session.secret] {
        for header in [
            format!("Bearer {secret}"),
            format!("bearer {secret}"),
            format!("Token {secret}"),
            format!("TOKEN  {secret}"),
            basic(&owner, secret),
        ] {
            assert_eq!(caller.get_as(&header, "/tokens/self").expect(200).json()["id"], pat.id.as_str());
        }
    }
    caller.get_as(&basic(&pat.id, &pat.secret), "/tokens/self").expect(200);
    // One's own other token's id is another name too.
    let other = Pat::new(&caller, &SCOPES);
    for name in
        ["", "nobody", "owner", &other.id, &pat.secret, &owner.to_uppercase(), &owner[1..], &format!("{owner}:")]
    {
        let answer = caller.get_as(&basic(name, &pat.secret), "/tokens/self");
        answer.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
    // A Kubernetes token is no password.
    caller.get_as(&basic(&owner, caller.token()), "/tokens").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
}

#[test]
fn a_password_under_a_wrong_name_is_no_use_of_the_token() {
    let (lab, daypass) = Lab::shared();
    let caller = lab.generator(daypass);
    let pat = Pat::new(&caller, &SCOPES);
    caller.get_as(&basic("nobody", &pat.secret), "/tokens/self").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    let unused = caller.get(&pat.path()).expect(200).json();
    assert!(unused.get("lastUsedAt").is_none(), "{unused}");
    caller.get_as(&basic(&pat.id, &pat.secret), "/tokens/self").expect(200);
    assert!(caller.get(&pat.path()).expect(200).json()["lastUsedAt"].is_string());
}

#[test]
fn three_codes_tell_nothing_nonsense_and_a_refusal_apart_and_all_say_what_is_accepted() {
    let (lab, daypass) = Lab::shared();
    let caller = lab.generator(daypass);
    let pat = Pat::new(&caller, &SCOPES);
    let secret = &pat.secret;
    for path in ["/tokens", "/tokens/self", "/members"] {
        assert_challenged(&caller.anonymous().get(path), "DP_ERR_NO_CREDENTIALS", BEARER);
        for header in [
            "Bearer".to_owned(),
            "Token".to_owned(),
            "Basic".to_owned(),
            secret.clone(),
            format!("Digest {secret}"),
            format!("ApiKey {secret}"),
            format!("Bearer:{secret}"),
            format!("Basic {secret}"),
            format!("Basic {}", STANDARD.encode(secret)),
        ] {
            assert_challenged(&caller.get_as(&header, path), "DP_ERR_MALFORMED_AUTHORIZATION", BEARER);
        }
        let twice = caller.request("GET", path).header(AUTHORIZATION, format!("Bearer {secret}"));
        assert_challenged(&Answer::of(twice), "DP_ERR_MALFORMED_AUTHORIZATION", BEARER);
        for wrong in [&forged(&pat.id), "garbage", "dpp_"] {
            let answer = caller.get_as(&format!("Bearer {wrong}"), path);
            assert_challenged(&answer, "DP_ERR_CREDENTIAL_REFUSED", r#"Bearer realm="daypass", error="invalid_token""#);
        }
    }
    for (method, path) in
        [("POST", "/tokens"), ("POST", "/sessions"), ("DELETE", "/sessions/current"), ("POST", "/tokens/self/rotate")]
    {
        let answer = Answer::of(caller.anonymous().request(method, path));
        assert_challenged(&answer, "DP_ERR_NO_CREDENTIALS", BEARER);
    }
}

#[test]
fn a_refusal_does_not_say_why() {
    let (lab, daypass) = Lab::shared();
    let caller = lab.generator(daypass);
    let long_ago = json!({"lastUsedAt": (now() - chrono::TimeDelta::days(100))});
    let (revoked, idle, good) = (Pat::new(&caller, &SCOPES), Pat::new(&caller, &SCOPES), Pat::new(&caller, &SCOPES));
    let rotated = Pat::new(&caller, &SCOPES);
    caller.delete(&revoked.path()).expect(204);
    lab.write_token_status(&idle, &long_ago);
    rotated.http.post("/tokens/self/rotate", &json!({})).expect(200);
    let short = lab.generator(daypass);
    let orphan = Pat::new(&short, &SCOPES);
    lab.kubectl(&["delete", "serviceaccount", short.username().rsplit_once(':').unwrap().1, "-n", "default"]);
    let nobodys = good.id.replace(&good.id[..16], &"a".repeat(16));
    let ask = |header: &str| caller.get_as(header, "/tokens/self");
    let bearer = |secret: &str| ask(&format!("Bearer {secret}"));
    let answers = [
        bearer(&good.forged()),
        bearer(&good.secret[..good.secret.len() - 1]),
        bearer(&forged(&nobodys)),
        bearer(&revoked.secret),
        bearer(&idle.secret),
        bearer(&rotated.secret),
        bearer(&orphan.secret),
        bearer("garbage"),
        bearer("eyJhbGciOiJSUzI1NiJ9.e30.x"),
        ask(&basic("nobody", &good.secret)),
        ask(&basic(&good.id, &good.forged())),
    ];
    for (n, answer) in answers.iter().enumerate() {
        answer.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        assert_eq!(answer.comparable(), answers[0].comparable(), "{n}");
        assert_eq!(answer.headers("www-authenticate"), answers[0].headers("www-authenticate"), "{n}");
    }
    good.http.get("/tokens/self").expect(200);
}

#[test]
fn what_belongs_elsewhere_is_refused() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let owner = lab.with_privilege(lab.caller(daypass, &["create", "list"], &["members"], Some(&role)), "generate");
    let pat = Pat::new(&owner, &SCOPES);
    let session = pat.sign_in();
    let member = Created::new(&owner, &role, 1);
    // Another data plane, which shares all but its name with this one.
    let other = crate::support::Daypass::start(
        lab,
        &Launch { args: vec!["--data-plane-id=dp-2".to_owned()], ..Launch::default() },
    );
    let certificate = lab.serving_certificate();
    let there = |token: &str| Http::new(&format!("{}/dp-2", other.url), &certificate).with_token(token);
    there(owner.token()).get("/tokens").expect(200);
    for secret in [&pat.secret, &session.secret] {
        there(secret).get("/tokens").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        there(secret).post("/sessions", &json!({})).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
    let theirs = Pat::new(&there(owner.token()), &SCOPES);
    theirs.http.get("/tokens/self").expect(200);
    owner.with_token(&theirs.secret).assert_refused();
    // Nor is it one of ours; there it is listed for what it is here.
    let status = |client: &Http, pat: &Pat| -> Value { client.get(&pat.path()).expect(200).json()["status"].clone() };
    assert_eq!((status(&owner, &pat), status(&owner, &theirs)), (json!("ACTIVE"), json!("SUSPENDED")));

    let account = owner.username();
    let account = account.rsplit_once(':').unwrap().1;
    for token in [
        member.password.clone(),
        lab.token("default", account, ""),
        lab.token("default", account, "other"),
        lab.resign(owner.token(), |claims| claims["aud"] = json!(["daypass2"])),
        lab.resign(owner.token(), |claims| claims["aud"] = json!([])),
    ] {
        for (method, path) in [("GET", "/tokens"), ("POST", "/tokens"), ("POST", "/sessions"), ("DELETE", &pat.path())]
        {
            let answer = Answer::of(owner.with_token(&token).request(method, path).json(&json!({})));
            answer.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        }
    }
    // The API server knows nothing of it.
    let file = lab.fresh_folder("pat").join("kubeconfig");
    lab.plane.write_token_kubeconfig(&file, &pat.secret).unwrap();
    let output = lab.kubectl_with(&file, &["auth", "whoami"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Unauthorized"));
    pat.http.get("/tokens/self").expect(200);
}
