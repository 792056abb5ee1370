//! Providers that are down, refuse, or answer with what is no ID token for this sign-in.

use reqwest::Url;
use serde_json::{Value, json};

use super::{Browser, Console, parameter, user, with};
use crate::oidc::Sso;
use crate::support::{OpenIdProvider, eventually, now};

const NOT_CONFIRMED: &str = "did not confirm this sign-in";
const NOT_ACCEPTED: &str = "does not accept its ID token";
const UNAVAILABLE: &str = "is unavailable";

/// A console with a provider of its own, which knows the user `grete`.
fn own() -> (OpenIdProvider, Console) {
    let provider = OpenIdProvider::start();
    user(&provider, "grete");
    let console = Console::start(&[("corp", &provider)]);
    Browser::new(&console, &[]).wait_known("corp");
    (provider, console)
}

/// Signs in up to the callback. Returns it, and the nonce.
fn begin(browser: &Browser<'_>) -> (Url, String) {
    let begun = browser.begin("corp", "");
    (browser.authorize(&begun.link, "grete"), parameter(&begun.link, "nonce"))
}

#[test]
fn only_the_id_token_of_this_sign_in_signs_in() {
    let (provider, console) = own();
    let browser = Browser::new(&console, &[&provider]);
    let good = |nonce: &str| json!({"aud": "console", "nonce": nonce, "email": "grete@example.com"});
    let changed = |nonce: &str, changes: &Value| {
        let mut claims = good(nonce);
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        provider.token(&claims)
    };
    // Each is right but for this.
    let (callback, nonce) = begin(&browser);
    provider.post("/faults", &json!({"tokenAnswer": {"id_token": changed(&nonce, &json!({"azp": "console"}))}}));
    browser.come_back(&callback).expect(303);

    let past = now().timestamp() - 10;
    for (changes, words) in [
        (json!({"nonce": "other"}), NOT_CONFIRMED),
        (json!({"nonce": null}), NOT_CONFIRMED),
        (json!({"nonce": ["n"]}), NOT_CONFIRMED),
        // Daypass would take it as a bearer token; it is another client's, though.
        (json!({"aud": "daypass"}), NOT_CONFIRMED),
        (json!({"aud": ["console", "daypass"], "azp": "daypass"}), NOT_CONFIRMED),
        (json!({"aud": "console", "azp": "cli"}), NOT_CONFIRMED),
        (json!({"iss": "https://evil.example"}), NOT_CONFIRMED),
        // By the rules of every ID token.
        (json!({"aud": ["console", "elsewhere"]}), NOT_ACCEPTED),
        (json!({"exp": past}), NOT_ACCEPTED),
        (json!({"iat": now().timestamp() - 3700}), NOT_ACCEPTED),
        (json!({"scope": "openid"}), NOT_ACCEPTED),
        (json!({"groups": ["a\u{0}"]}), NOT_ACCEPTED),
        (json!({"email_verified": false}), NOT_ACCEPTED),
    ] {
        let (callback, nonce) = begin(&browser);
        let before = console.refused();
        provider.post("/faults", &json!({"tokenAnswer": {"id_token": changed(&nonce, &changes)}}));
        browser.assert_refused(&callback, 401, words);
        eventually(&format!("{changes} is counted"), || (console.refused() > before).then_some(()));
    }
}

#[test]
fn only_a_signed_id_token_signs_in() {
    let (provider, console) = own();
    let browser = Browser::new(&console, &[&provider]);
    let stranger = OpenIdProvider::start();
    let claims = |nonce: &str| {
        let changes = json!({"aud": "console", "nonce": nonce, "email": "grete@example.com"});
        provider.claims(&changes)
    };
    let access_token = |nonce: &str| {
        let header = json!({"alg": "ES256", "kid": "main", "typ": "at+jwt"});
        provider.signed(&json!({"kid": "main", "header": header, "claims": claims(nonce)}))
    };
    let unsigned =
        |nonce: &str| provider.signed(&json!({"kid": "main", "header": {"alg": "none"}, "claims": claims(nonce)}));
    let forged = |nonce: &str| stranger.signed(&json!({"kid": "main", "claims": claims(nonce)}));
    let large = |nonce: &str| format!("{}{}", access_token(nonce), "x".repeat(20_000));
    // The last but one is the owner's own token: the provider must not choose who signs in.
    let kubernetes = Sso::shared().cluster.token("default", "owner", "daypass");
    for case in 0..7 {
        let (callback, nonce) = begin(&browser);
        let (words, token) = match case {
            0 => (NOT_CONFIRMED, access_token(&nonce)),
            1 => (NOT_CONFIRMED, unsigned(&nonce)),
            2 => (NOT_ACCEPTED, forged(&nonce)),
            3 => (NOT_CONFIRMED, large(&nonce)),
            4 => (NOT_CONFIRMED, "dpp_made-up".to_owned()),
            5 => (NOT_CONFIRMED, kubernetes.clone()),
            _ => (NOT_CONFIRMED, String::new()),
        };
        provider.post("/faults", &json!({"tokenAnswer": {"id_token": token}}));
        browser.assert_refused(&callback, 401, words);
    }
    let (callback, nonce) = begin(&browser);
    let token = provider.signed(&json!({"kid": "main", "claims": claims(&nonce)}));
    provider.post("/faults", &json!({"tokenAnswer": {"id_token": token}}));
    browser.come_back(&callback).expect(303);
    let log = console.daypass.log();
    assert!(!log.contains(&token) && !log.contains(token.split('.').nth(1).unwrap()), "a token in the log");
}

#[test]
fn token_endpoint_that_fails_gives_a_page() {
    let (provider, console) = own();
    let browser = Browser::new(&console, &[&provider]);
    let answers = |status: u16, answer: Value| json!({"tokenStatus": status, "tokenAnswer": answer});
    let secret = "s3cret-in-an-answer";
    for (faults, status, words) in [
        (answers(400, json!({"error": "invalid_grant", "error_description": secret})), 401, NOT_CONFIRMED),
        (answers(400, json!({"error": "invalid_client"})), 503, UNAVAILABLE),
        (answers(401, json!({"error": secret})), 503, UNAVAILABLE),
        (answers(400, json!({})), 503, UNAVAILABLE),
        (answers(200, json!({"access_token": secret})), 503, UNAVAILABLE),
        (answers(200, json!({"id_token": [secret]})), 503, UNAVAILABLE),
        (answers(204, json!({"id_token": secret})), 503, UNAVAILABLE),
        (json!({"token": "500"}), 503, UNAVAILABLE),
        (json!({"token": "html"}), 503, UNAVAILABLE),
        (json!({"token": "large"}), 503, UNAVAILABLE),
        (json!({"token": "endless"}), 503, UNAVAILABLE),
        (json!({"token": "redirect"}), 503, UNAVAILABLE),
        (json!({"token": "drop"}), 503, UNAVAILABLE),
        (json!({"token": "slow"}), 503, UNAVAILABLE),
        (json!({"token": "hang"}), 503, UNAVAILABLE),
    ] {
        let (callback, _) = begin(&browser);
        provider.post("/faults", &faults);
        browser.assert_refused(&callback, status, words);
    }
    let count = |outcome: &str| {
        console.daypass.metric(&format!("daypass_oidc_redemptions_total{{issuer=\"corp\",outcome=\"{outcome}\"}}"))
    };
    assert_eq!((count("ok"), count("refused"), count("failed")), (0.0, 1.0, 14.0));
    assert_eq!(provider.redirected(), 0, "no redirect is followed");
    assert!(!console.daypass.log().contains(secret), "an issuer's own words in the log");
    provider.post("/faults", &json!({}));
    browser.sign_in("corp", "grete");
}

#[test]
fn errors_of_the_provider_are_told_in_our_own_words() {
    let (sso, browser) = (Sso::shared(), Browser::shared());
    user(&sso.provider, "lise");
    let markup = "<script>alert(1)</script>";
    for (error, status, words) in [
        ("access_denied", 403, "denied the sign-in, or you cancelled it"),
        ("login_required", 403, "did not sign you in"),
        ("temporarily_unavailable", 503, "is unavailable"),
        ("invalid_scope", 403, "rejected Daypass&#39;s request"),
        (markup, 403, "rejected Daypass&#39;s request"),
    ] {
        let begun = browser.begin("corp", "");
        let callback = browser.authorize(&begun.link, "lise");
        let callback = with(&with(&callback, "code", None), "error", Some(error));
        let callback = with(&callback, "error_description", Some(markup));
        browser.assert_refused(&callback, status, words);
    }
    let begun = browser.begin("corp", "");
    let callback = browser.authorize(&begun.link, "lise");
    let answer = browser.come_back(&with(&callback, "error", Some(markup))).expect(403);
    assert!(!answer.text.contains("alert(1)"), "{}", answer.text);
    // An error that nobody asked for says nothing.
    let url = format!("{}?error=access_denied&state=x", Console::shared().callback("corp"));
    browser.assert_refused(&Url::parse(&url).unwrap(), 401, "not started in this browser");
}

#[test]
fn issuer_that_is_down_leaves_the_rest_of_the_page() {
    let (good, down) = (&Sso::shared().provider, OpenIdProvider::start());
    down.post("/faults", &json!({"discovery": "hang"}));
    let silent: Vec<(String, OpenIdProvider)> = [
        ("none", json!({"authorization_endpoint": null})),
        ("plain", json!({"authorization_endpoint": "http://127.0.0.1:1/authorize"})),
        ("script", json!({"authorization_endpoint": "javascript:alert(1)"})),
        ("no-token", json!({"token_endpoint": null})),
    ]
    .into_iter()
    .map(|(name, fields)| {
        let provider = OpenIdProvider::start();
        provider.post("/faults", &json!({"discoveryFields": fields}));
        (name.to_owned(), provider)
    })
    .collect();
    let mut providers = vec![("corp", good), ("down", &down)];
    providers.extend(silent.iter().map(|(name, provider)| (name.as_str(), provider)));
    let issuers: Vec<Value> = providers.iter().map(|(name, provider)| super::settings(name, provider)).collect();
    let console = Console { daypass: Sso::shared().daypass(&issuers, &[]) };
    let browser = Browser::new(&console, &[]);
    browser.wait_known("corp");
    let page = browser.get("/console/sign-in").expect(200);
    for (name, provider) in &providers[1..] {
        assert!(page.text.contains(&format!("Sign in with {name}")), "{name}");
        let answer = browser.press(name, "").expect(503);
        assert!(answer.text.contains(UNAVAILABLE) && answer.text.contains(name), "{name}: {}", answer.text);
        assert!(answer.headers.get("set-cookie").is_none(), "{name}");
        if *name != "down" {
            // Its bearer tokens are as good as ever.
            let person = console.daypass.owner.with_token(&provider.token(&json!({})));
            eventually("its keys are known", || (person.get("/self").status == 200).then_some(()));
        }
    }
}
