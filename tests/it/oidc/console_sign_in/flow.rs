//! The whole way to the provider and back.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Browser, Console, LOGIN, SESSION, parameter, user};
use crate::oidc::Sso;
use crate::support::{Answer, eventually};

#[test]
fn person_signs_in_and_comes_to_the_page_that_was_asked_for() {
    let (sso, browser) = (Sso::shared(), Browser::shared());
    user(&sso.provider, "mary");
    let asked = browser.get("/console/members?roleId=x").expect(303);
    let page = browser.get(asked.header("location")).expect(200);
    assert!(page.text.contains("action=\"/console/sso/corp\"") && page.text.contains("Sign in with corp"));

    let next = format!("/console/members?roleId={}", sso.role.id);
    let begun = browser.begin("corp", &next);
    let cookie = begun.page.header("set-cookie");
    assert!(cookie.starts_with("__Host-daypass-login="), "{cookie}");
    assert!(cookie.ends_with("; Max-Age=600; Path=/; Secure; HttpOnly; SameSite=Lax"), "{cookie}");
    assert_eq!(begun.page.header("cache-control"), "no-store");
    let link = |name: &str| parameter(&begun.link, name);
    let login = browser.login();
    assert!(begun.link.as_str().starts_with(&format!("{}/authorize?", sso.provider.issuer)), "{}", begun.link);
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "console"),
        ("scope", "openid email groups"),
        ("code_challenge_method", "S256"),
        ("redirect_uri", &Console::shared().callback("corp")),
        ("state", login["state"].as_str().unwrap()),
        ("nonce", login["nonce"].as_str().unwrap()),
    ] {
        assert_eq!(link(name), value, "{name}");
    }
    let verifier = login["verifier"].as_str().unwrap();
    assert_eq!(link("code_challenge"), URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)));
    assert!(!begun.link.as_str().contains(verifier) && !begun.page.text.contains(verifier));

    let callback = browser.authorize(&begun.link, "mary");
    let answer = browser.come_back(&callback).expect(303);
    assert_eq!(answer.header("location"), next);
    let session = browser.cookie(SESSION).unwrap();
    assert_eq!(browser.cookie(LOGIN), None, "it is over");
    let page = browser.get(&next).expect(200);
    assert!(page.text.contains("corp:mary@example.com"), "{}", page.text);

    // The session is her own, and its beginning is in the audit trail.
    let me = Console::shared().daypass.owner.with_token(&session).get("/self").expect(200).json();
    assert_eq!((&me["credential"]["type"], &me["subject"]), (&json!("SESSION"), &json!("mary")));
    let events = Console::shared().daypass.audit_events_with("corp:mary@example.com");
    let created = events.iter().find(|event| event["event"] == "SESSION_CREATED").unwrap();
    assert_eq!(created["actor"]["subject"], "mary");

    // Nothing by which somebody could sign in is kept anywhere.
    let code = parameter(&callback, "code");
    let state = login["state"].as_str().unwrap();
    eventually("the callback is logged", || {
        Console::shared().daypass.log().contains("/console/sso/callback").then_some(())
    });
    for secret in [&session, &code, verifier, state, login["nonce"].as_str().unwrap()] {
        assert!(!Console::shared().daypass.log().contains(secret), "in the log");
        assert!(Console::shared().daypass.audit_events_with(secret).is_empty(), "in the audit trail");
        assert!(!answer.header("location").contains(secret) && !answer.text.contains(secret));
    }

    // Always a new session.
    browser.sign_in("corp", "mary");
    assert_ne!(browser.cookie(SESSION).unwrap(), session);
}

#[test]
fn page_to_go_on_to_is_one_of_the_console() {
    let (sso, browser) = (Sso::shared(), Browser::shared());
    user(&sso.provider, "hedy");
    let hostile = [
        "https://evil.example/console/me",
        "//evil.example",
        "/console//evil.example",
        "/console/sign-out",
        "/console/me\r\nset-cookie: a=b",
        "javascript:alert(1)",
        // An engineer's page.
        "/console/me",
        "",
    ];
    for next in hostile {
        let begun = browser.begin("corp", next);
        let callback = browser.authorize(&begun.link, "hedy");
        // Also by whoever can write the cookie.
        browser.change_login("next", |_| json!(next));
        let answer = browser.come_back(&callback).expect(303);
        assert_eq!(answer.header("location"), "/console/members", "{next}");
    }
    for next in ["/console/members/view.a?hours=3", "/console/grant?description=a%20b", "/console/tokens"] {
        let begun = browser.begin("corp", next);
        let answer = browser.come_back(&browser.authorize(&begun.link, "hedy")).expect(303);
        assert_eq!(answer.header("location"), next);
    }
}

#[test]
fn only_a_form_of_the_console_begins_a_sign_in() {
    let browser = Browser::shared();
    let url = format!("{}/console/sso/corp", Console::shared().daypass.url);
    let post = |headers: &[(&'static str, &str)]| {
        let request = browser.client.post(&url).header("content-type", "application/x-www-form-urlencoded");
        Answer::of(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)))
    };
    let own = Console::shared().daypass.url.as_str();
    for headers in [
        &[][..],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site"), ("origin", own)],
        &[("origin", "https://evil.example")],
    ] {
        let answer = post(headers).expect(403);
        assert!(answer.headers.get("set-cookie").is_none() && !answer.text.contains("code_challenge"));
    }
    post(&[("origin", own)]).expect(200);
    browser.press("other", "").expect(404);
    browser.get("/console/sso/corp").expect(405);
}

#[test]
fn without_a_client_for_the_console_there_is_no_button() {
    let sso = Sso::shared();
    let console = Console { daypass: sso.daypass(&[sso.provider.settings(&json!({}))], &[]) };
    let browser = Browser::new(&console, &[]);
    assert!(!browser.get("/console/sign-in").expect(200).text.contains("/console/sso/"));
    browser.press("corp", "").expect(404);
    let callback = console.callback("corp");
    let url = reqwest::Url::parse(&format!("{callback}?code=a&state=b")).unwrap();
    browser.assert_refused(&url, 401, "not started in this browser");
}
