//! Clients with a secret, and settings that are refused at the start.

use std::fs;

use serde_json::json;

use super::{Browser, Console, settings, user};
use crate::oidc::Sso;
use crate::support::{Daypass, Launch, OpenIdProvider, eventually, oidc_args};

/// With all that RFC 6749, section 2.3.1, has encoded.
const SECRET: &str = "s3c:ret +%/ü&=?";

#[test]
fn client_may_have_a_secret() {
    let (sso, provider) = (Sso::shared(), OpenIdProvider::start());
    user(&provider, "ilse");
    let file = sso.cluster.save(&format!("{SECRET}\n"));
    let mut issuer = settings("corp", &provider);
    issuer["console"]["clientSecretFile"] = json!(file);
    let console = Console { daypass: sso.daypass(&[issuer], &[]) };
    let client = |secret: &str| {
        let redirects = [console.callback("corp")];
        let client = json!({"clientId": "console", "clientSecret": secret, "redirectUris": redirects});
        provider.post("/clients", &client);
    };
    client(SECRET);
    let browser = Browser::new(&console, &[&provider]);
    browser.wait_known("corp");
    browser.sign_in("corp", "ilse");

    // Another secret: Daypass has the old one until the file has the new one.
    client("another-secret");
    let begun = browser.begin("corp", "");
    let callback = browser.authorize(&begun.link, "ilse");
    browser.assert_refused(&callback, 503, "is unavailable");
    fs::write(&file, "another-secret").unwrap();
    browser.sign_in("corp", "ilse");
    for secret in [SECRET, "another-secret", "s3c%3Aret"] {
        assert!(!console.daypass.log().contains(secret));
    }
    // A public client is none of this issuer's.
    fs::remove_file(&file).unwrap();
    let begun = browser.begin("corp", "");
    let callback = browser.authorize(&begun.link, "ilse");
    browser.assert_refused(&callback, 503, "is unavailable");
}

#[test]
fn client_that_cannot_work_is_refused_at_the_start() {
    let sso = Sso::shared();
    for (console, reason) in [
        (json!({"clientId": "cli"}), "console.clientId must be one of audiences"),
        (json!({"clientId": "console", "clientSecretFile": "/none"}), "the client secret in /none"),
        (json!({"clientId": "console", "clientSecret": {"name": "a", "key": "b"}}), "unknown field"),
        (json!({"clientId": "console", "scopes": ["offline_access"]}), "no offline_access"),
    ] {
        let mut issuer = settings("corp", &sso.provider);
        issuer["console"] = console;
        let args = oidc_args(&sso.cluster, &[issuer]);
        let mut daypass = Daypass::start(&sso.cluster, &Launch { args, impatient: true, ..Launch::default() });
        eventually("it gives up", || daypass.ended());
        assert!(daypass.log().contains(reason), "{reason}: {}", daypass.log());
    }
}
