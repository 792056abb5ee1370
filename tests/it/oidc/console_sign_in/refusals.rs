//! Answers that are not those of this browser's sign-in.

use reqwest::Url;
use serde_json::json;

use super::{Browser, Console, LOGIN, parameter, settings, user, with};
use crate::oidc::Sso;
use crate::support::{OpenIdProvider, eventually};

const NOT_STARTED: &str = "not started in this browser";
const MISMATCH: &str = "does not match this sign-in";
const NOT_CONFIRMED: &str = "did not confirm this sign-in";

/// The query with this parameter once more.
fn twice(url: &Url, name: &str) -> Url {
    let value = parameter(url, name);
    let mut url = url.clone();
    url.query_pairs_mut().append_pair(name, &value);
    url
}

#[test]
fn answer_belongs_to_one_browser_and_one_sign_in() {
    let (sso, console) = (Sso::shared(), Console::shared());
    user(&sso.provider, "emmy");
    type Case = (&'static str, &'static str, fn(&Browser<'_>, &Url) -> Url);
    let cases: [Case; 15] = [
        ("without the cookie", NOT_STARTED, |browser, url| {
            browser.cookies.borrow_mut().clear();
            url.clone()
        }),
        ("another sign-in of the same browser", NOT_STARTED, |browser, url| {
            browser.begin("corp", "");
            url.clone()
        }),
        ("another state", NOT_STARTED, |_, url| with(url, "state", Some("x"))),
        ("an empty state", NOT_STARTED, |_, url| with(url, "state", Some(""))),
        ("no state", NOT_STARTED, |_, url| with(url, "state", None)),
        ("two states", MISMATCH, |_, url| twice(url, "state")),
        ("two codes", MISMATCH, |_, url| twice(url, "code")),
        ("no code", MISMATCH, |_, url| with(url, "code", None)),
        ("an endless code", MISMATCH, |_, url| with(url, "code", Some(&"x".repeat(8193)))),
        ("another issuer", MISMATCH, |_, url| with(url, "iss", Some("https://evil.example"))),
        ("another code", NOT_CONFIRMED, |_, url| with(url, "code", Some("made-up"))),
        ("another verifier", NOT_CONFIRMED, |browser, url| {
            browser.change_login("verifier", |_| json!("v".repeat(43)));
            url.clone()
        }),
        ("another nonce", NOT_CONFIRMED, |browser, url| {
            browser.change_login("nonce", |_| json!("n"));
            url.clone()
        }),
        ("after ten minutes", NOT_STARTED, |browser, url| {
            browser.change_login("began", |began| json!(began.as_i64().unwrap() - 600_000));
            url.clone()
        }),
        ("a cookie that says nothing", NOT_STARTED, |browser, url| {
            browser.set_cookie(LOGIN, "e30");
            url.clone()
        }),
    ];
    for (what, words, change) in cases {
        let browser = Browser::shared();
        let begun = browser.begin("corp", "");
        let callback = browser.authorize(&begun.link, "emmy");
        let (before, changed) = (console.refused(), change(&browser, &callback));
        browser.assert_refused(&changed, 401, words);
        eventually(&format!("{what} is counted"), || (console.refused() > before).then_some(()));
    }
    // The same without a change.
    let browser = Browser::shared();
    let begun = browser.begin("corp", "");
    let callback = browser.authorize(&begun.link, "emmy");
    let cookie = browser.cookie(LOGIN).unwrap();
    browser.come_back(&callback).expect(303);
    // Replayed, also by somebody who kept the cookie.
    browser.assert_refused(&callback, 401, NOT_STARTED);
    browser.set_cookie(LOGIN, &cookie);
    browser.assert_refused(&callback, 401, NOT_CONFIRMED);
}

#[test]
fn code_of_somebody_else_signs_nobody_in() {
    let sso = Sso::shared();
    user(&sso.provider, "mallory");
    let (attacker, victim) = (Browser::shared(), Browser::shared());
    let stolen = attacker.begin("corp", "");
    let code = parameter(&attacker.authorize(&stolen.link, "mallory"), "code");
    // In the victim's own sign-in, with the victim's own state.
    let begun = victim.begin("corp", "");
    let state = parameter(&begun.link, "state");
    let url = format!("{}?code={code}&state={state}", Console::shared().callback("corp"));
    victim.assert_refused(&Url::parse(&url).unwrap(), 401, NOT_CONFIRMED);
}

#[test]
fn issuers_are_not_mixed_up() {
    let (one, other) = (OpenIdProvider::start(), OpenIdProvider::start());
    let console = Console::start(&[("corp", &one), ("two", &other)]);
    let browser = Browser::new(&console, &[&one, &other]);
    for (name, provider) in [("corp", &one), ("two", &other)] {
        user(provider, "edith");
        browser.wait_known(name);
        browser.sign_in(name, "edith");
    }

    // The answer of one at the redirect URI of the other.
    let begun = browser.begin("corp", "");
    let callback = browser.authorize(&begun.link, "edith");
    let elsewhere = Url::parse(&callback.as_str().replace("/callback/corp", "/callback/two")).unwrap();
    browser.assert_refused(&elsewhere, 401, NOT_STARTED);

    // The code of one for the other: it is sent to the other, which does not know it.
    let begun = browser.begin("corp", "");
    let code = parameter(&browser.authorize(&begun.link, "edith"), "code");
    let begun = browser.begin("two", "");
    let callback = browser.authorize(&begun.link, "edith");
    browser.assert_refused(&with(&callback, "code", Some(&code)), 401, NOT_CONFIRMED);

    // An ID token of one from the token endpoint of the other, right in all else.
    let begun = browser.begin("two", "");
    let callback = browser.authorize(&begun.link, "edith");
    let nonce = parameter(&begun.link, "nonce");
    let claims = json!({"aud": "console", "nonce": nonce, "email": "edith@example.com"});
    other.post("/faults", &json!({"tokenAnswer": {"id_token": one.token(&claims)}}));
    browser.assert_refused(&callback, 401, NOT_CONFIRMED);
}

#[test]
fn issuer_that_names_itself_must() {
    let provider = OpenIdProvider::start();
    provider.post("/faults", &json!({"discoveryFields": {"authorization_response_iss_parameter_supported": true}}));
    user(&provider, "rosa");
    let console = Console::start(&[("corp", &provider)]);
    let browser = Browser::new(&console, &[&provider]);
    browser.wait_known("corp");
    for (iss, is_right) in
        [(None, false), (Some("https://evil.example"), false), (Some(provider.issuer.as_str()), true)]
    {
        let begun = browser.begin("corp", "");
        let callback = with(&browser.authorize(&begun.link, "rosa"), "iss", iss);
        if is_right {
            browser.come_back(&callback).expect(303);
        } else {
            browser.assert_refused(&callback, 401, MISMATCH);
        }
    }
}

#[test]
fn refused_answers_count_against_their_address() {
    let sso = Sso::shared();
    // With a limit of one, Daypass forgets one attempt in a minute.
    let args = ["--max-refused-credentials=1"];
    let console = Console { daypass: sso.daypass(&[settings("corp", &sso.provider)], &args) };
    let browser = Browser::new(&console, &[]);
    let url = Url::parse(&format!("{}?code=a&state=b", console.callback("corp"))).unwrap();
    browser.assert_refused(&url, 401, NOT_STARTED);
    let answer = browser.come_back(&url).expect(429);
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
}
