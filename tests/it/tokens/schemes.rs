//! How clients present an access token, and the answers to missing and wrong ones.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, SCOPES, forged};
use crate::support::{Answer, Cluster, Curl, Http, Launch, NewMember, now};

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
fn token_is_accepted_as_bearer_token_or_password() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let pat = AccessToken::new(&caller, &SCOPES);
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
    // Nor does the id of another token of the same owner.
    let other = AccessToken::new(&caller, &SCOPES);
    for name in
        ["", "nobody", "owner", &other.id, &pat.secret, &owner.to_uppercase(), &owner[1..], &format!("{owner}:")]
    {
        let answer = caller.get_as(&basic(name, &pat.secret), "/tokens/self");
        answer.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
    // A Kubernetes token is not accepted as a password.
    caller.get_as(&basic(&owner, caller.token()), "/tokens").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
}

#[test]
fn token_as_password_of_another_name_is_refused() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let pat = AccessToken::new(&caller, &SCOPES);
    caller.get_as(&basic("nobody", &pat.secret), "/tokens/self").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    let unused = caller.get(&pat.path()).expect(200).json();
    assert!(unused.get("lastUsedAt").is_none(), "{unused}");
    caller.get_as(&basic(&pat.id, &pat.secret), "/tokens/self").expect(200);
    assert!(caller.get(&pat.path()).expect(200).json()["lastUsedAt"].is_string());
}

#[test]
fn missing_malformed_and_refused_credentials_have_own_codes() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let pat = AccessToken::new(&caller, &SCOPES);
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
            assert_challenged(
                &answer,
                "DP_ERR_CREDENTIAL_REFUSED",
                r#"Bearer realm="daypass", error="invalid_token""#,
            );
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
fn refusals_do_not_reveal_the_reason() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let long_ago = json!({"lastUsedAt": (now() - chrono::TimeDelta::days(100))});
    let (revoked, idle, good) =
        (AccessToken::new(&caller, &SCOPES), AccessToken::new(&caller, &SCOPES), AccessToken::new(&caller, &SCOPES));
    let rotated = AccessToken::new(&caller, &SCOPES);
    caller.delete(&revoked.path()).expect(204);
    cluster.write_token_status(&idle, &long_ago);
    rotated.http.post("/tokens/self/rotate", &json!({})).expect(200);
    let short = cluster.generator(daypass);
    let orphan = AccessToken::new(&short, &SCOPES);
    cluster.kubectl(&["delete", "serviceaccount", short.username().rsplit_once(':').unwrap().1, "-n", "default"]);
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
fn credentials_for_other_uses_are_refused() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let owner =
        cluster.with_privilege(cluster.caller(daypass, &["create", "list"], &["members"], Some(&role)), "generate");
    let pat = AccessToken::new(&owner, &SCOPES);
    let session = pat.sign_in();
    let member = NewMember::new(&owner, &role, 1);
    // Another data plane in the same cluster.
    let other = crate::support::Daypass::start(
        cluster,
        &Launch { args: vec!["--data-plane-id=dp-2".to_owned()], ..Launch::default() },
    );
    let certificate = cluster.serving_certificate();
    let there = |token: &str| Http::new(&format!("{}/dp-2", other.url), &certificate).with_token(token);
    there(owner.token()).get("/tokens").expect(200);
    for secret in [&pat.secret, &session.secret] {
        there(secret).get("/tokens").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        there(secret).post("/sessions", &json!({})).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
    let theirs = AccessToken::new(&there(owner.token()), &SCOPES);
    theirs.http.get("/tokens/self").expect(200);
    owner.with_token(&theirs.secret).assert_refused();
    // It is suspended at the other one, and active here.
    let status =
        |client: &Http, pat: &AccessToken| -> Value { client.get(&pat.path()).expect(200).json()["status"].clone() };
    assert_eq!((status(&owner, &pat), status(&owner, &theirs)), (json!("ACTIVE"), json!("SUSPENDED")));

    let account = owner.username();
    let account = account.rsplit_once(':').unwrap().1;
    for token in [
        member.password.clone(),
        cluster.token("default", account, ""),
        cluster.token("default", account, "other"),
        cluster.resign(owner.token(), |claims| claims["aud"] = json!(["daypass2"])),
        cluster.resign(owner.token(), |claims| claims["aud"] = json!([])),
    ] {
        for (method, path) in [("GET", "/tokens"), ("POST", "/tokens"), ("DELETE", &pat.path())] {
            let answer = Answer::of(owner.with_token(&token).request(method, path).json(&json!({})));
            answer.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        }
        if token != member.password {
            owner.with_token(&token).post("/sessions", &json!({})).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        }
    }
    // The API server does not accept it.
    let file = cluster.fresh_folder("pat").join("kubeconfig");
    cluster.plane.write_token_kubeconfig(&file, &pat.secret).unwrap();
    let output = cluster.kubectl_with(&file, &["auth", "whoami"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Unauthorized"));
    pat.http.get("/tokens/self").expect(200);
}

#[test]
fn netrc_file_of_id_and_token_is_accepted() {
    let (cluster, daypass) = Cluster::shared();
    let pat = AccessToken::new(&cluster.generator(daypass), &SCOPES);
    // As docs/tokens.md takes the id from a token.
    assert_eq!(pat.secret.split('_').nth(1), Some(pat.id.as_str()));
    let netrc = cluster.save(&format!("machine 127.0.0.1 login {} password {}\n", pat.id, pat.secret));
    let (status, body) =
        Curl::new(cluster, daypass, "/tokens/self").with("netrc-file", netrc.to_str().unwrap()).send();
    assert!(status == 200 && body.contains(&pat.id), "{status}: {body}");
}
