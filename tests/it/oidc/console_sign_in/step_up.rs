//! Access tokens of people who sign in to the console: each is confirmed by signing in anew.

use reqwest::Url;
use serde_json::{Value, json};

use super::{Begun, Browser, Console, LOGIN, SESSION, parameter, user, with};
use crate::oidc::Sso;
use crate::support::{Answer, eventually};

/// The fields of a form.
fn form(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

impl Browser<'_> {
    fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let url = &self.console.daypass.url;
        let request = self.client.post(format!("{url}{path}")).body(form(fields));
        let request = request.header("content-type", "application/x-www-form-urlencoded").header("origin", url);
        self.send(url, request.header("sec-fetch-site", "same-origin"))
    }

    /// Asks for an access token of this name.
    #[track_caller]
    fn ask(&self, name: &str) -> Begun {
        let key: String = name.chars().take(10).collect();
        let fields = [("name", name), ("expiresInDays", "3"), ("scopes", "members:read"), ("key", &key)];
        Begun::of(self.post("/console/tokens", &fields).expect(200))
    }

    /// The names of the person's access tokens.
    fn tokens(&self) -> Vec<String> {
        let client = self.console.daypass.owner.with_token(&self.cookie(SESSION).unwrap());
        let list = client.get("/tokens").expect(200).json();
        let items = list["items"].as_array().unwrap();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Asks for a token and confirms it, in a later second than the session began.
    #[track_caller]
    fn make(&self, name: &str, person: &str) -> Answer {
        eventually("the confirmation is later than the session", || {
            let begun = self.ask(name);
            let answer = self.come_back(&self.authorize(&begun.link, person));
            (answer.status != 401).then_some(answer)
        })
    }
}

/// A browser in which this person has signed in.
fn signed_in(person: &str) -> Browser<'static> {
    let browser = Browser::shared();
    user(&Sso::shared().provider, person);
    browser.sign_in("corp", person);
    browser
}

/// The secret on a page.
#[track_caller]
fn secret(page: &Answer) -> String {
    let secret = page.text.split("<code id=\"secret\">").nth(1).unwrap_or_else(|| panic!("{}", page.text));
    secret.split('<').next().unwrap().to_owned()
}

#[test]
fn token_is_made_once_by_signing_in_anew() {
    let browser = signed_in("annie");
    let page = browser.get("/console/tokens").expect(200);
    assert!(page.text.contains("Generate token: confirm with corp"), "{}", page.text);
    let begun = browser.ask("made");
    assert_eq!((parameter(&begun.link, "prompt"), parameter(&begun.link, "max_age")), ("login".into(), "0".into()));
    assert!(browser.tokens().is_empty(), "nothing is made yet");

    let before = browser.cookie(SESSION).unwrap();
    let made = browser.make("made", "annie").expect(201);
    let token = Console::shared().daypass.owner.with_token(&secret(&made));
    let me = token.get("/self").expect(200).json();
    assert_eq!((&me["credential"]["type"], &me["subject"]), (&json!("ACCESS_TOKEN"), &json!("annie")));
    assert_eq!(me["scopes"], json!(["members:read"]));
    assert_eq!(browser.tokens(), ["made"]);
    assert_eq!(made.header("cache-control"), "no-store");

    // In another session; the old one has ended.
    let now = browser.cookie(SESSION).unwrap();
    assert_ne!(now, before);
    let old = Console::shared().daypass.owner.with_token(&before);
    eventually("the old session has ended", || (old.get("/self").status == 401).then_some(()));

    // The same form again makes no second token.
    let again = browser.make("made", "annie").expect(409);
    assert!(!again.text.contains("id=\"secret\""));
    assert_eq!(browser.tokens(), ["made"]);

    // Rotating it.
    let page = browser.get("/console/tokens").expect(200);
    let id = page.text.split("/rotate\"").next().unwrap().rsplit('/').next().unwrap().to_owned();
    let replaces = page.text.split("name=\"replaces\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let rotated = eventually("the confirmation is later than the session", || {
        let begun = Begun::of(browser.post(&format!("/console/tokens/{id}/rotate"), &[("replaces", &replaces)]));
        let answer = browser.come_back(&browser.authorize(&begun.link, "annie"));
        (answer.status != 401).then_some(answer)
    });
    let rotated = secret(&rotated.expect(201));
    Console::shared().daypass.owner.with_token(&rotated).get("/self").expect(200);
    for secret in [&rotated, &secret(&made)] {
        assert!(!Console::shared().daypass.log().contains(secret.as_str()), "in the log");
    }
}

#[test]
fn form_is_kept_when_the_confirmation_is_cancelled() {
    let browser = signed_in("noemi");
    let begun = browser.ask("a & b");
    let callback = browser.authorize(&begun.link, "noemi");
    let cancelled = with(&with(&callback, "code", None), "error", Some("access_denied"));
    let page = browser.come_back(&cancelled).expect(403);
    // Whoever signs in again comes to the form as it was: as the same form, so that it makes one token.
    let next = page.text.split("name=\"next\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let next = next.replace("&#38;", "&");
    assert_eq!(next, "/console/tokens?name=a+%26+b&expiresInDays=3&scopes=members%3Aread&key=a+%26+b");
    let form = browser.get(&next).expect(200).text;
    for kept in
        ["value=\"a &#38; b\"></p>", "value=\"3\"", "value=\"members:read\" checked", "name=\"key\" value=\"a &"]
    {
        assert!(form.contains(kept), "{kept}: {form}");
    }
    assert!(browser.tokens().is_empty());
}

#[test]
fn earlier_sign_in_confirms_nothing() {
    let browser = signed_in("berta");
    let silent = |link: &Url| with(&with(link, "prompt", None), "max_age", None);
    // The provider still knows her, and answers without asking.
    let begun = browser.ask("silent");
    let callback = browser.authorize(&silent(&begun.link), "berta");
    browser.assert_refused(&callback, 401, "did not confirm this sign-in");
    // Nor if the cookie says that it began five minutes ago.
    let begun = browser.ask("silent");
    browser.change_login("began", |began| json!(began.as_i64().unwrap() - 300_000));
    let callback = browser.authorize(&silent(&begun.link), "berta");
    browser.assert_refused(&callback, 401, "did not confirm this sign-in");
    assert!(browser.tokens().is_empty());

    // Neither does the sign-in that has confirmed something else.
    browser.make("first", "berta").expect(201);
    let begun = browser.ask("second");
    browser.change_login("began", |began| json!(began.as_i64().unwrap() - 300_000));
    let callback = browser.authorize(&silent(&begun.link), "berta");
    browser.assert_refused(&callback, 401, "did not confirm this sign-in");
    assert_eq!(browser.tokens(), ["first"]);
}

#[test]
fn only_the_same_person_in_the_same_browser_confirms() {
    let browser = signed_in("carol");
    user(&Sso::shared().provider, "dora");
    eventually("the confirmation is later than the session", || {
        let begun = browser.ask("other");
        let answer = browser.come_back(&browser.authorize(&begun.link, "dora")).expect(401);
        answer.text.contains("a different person").then_some(())
    });
    assert!(browser.tokens().is_empty());

    // Without the session: signed out meanwhile, or in another browser.
    let begun = browser.ask("gone");
    let (callback, login) = (browser.authorize(&begun.link, "carol"), browser.cookie(LOGIN).unwrap());
    let session = browser.cookie(SESSION).unwrap();
    browser.cookies.borrow_mut().retain(|(_, name), _| name != SESSION);
    browser.assert_refused(&callback, 401, "Your session has ended. Nothing was changed");
    browser.set_cookie(SESSION, &session);
    assert!(browser.tokens().is_empty());

    // In a session of another kind.
    let owner = Console::shared().daypass.owner.post("/sessions", &Value::Null).expect(201).json();
    browser.set_cookie(SESSION, owner["token"].as_str().unwrap());
    browser.set_cookie(LOGIN, &login);
    browser.assert_refused(&callback, 401, "Your session has ended. Nothing was changed");

    // Nothing is asked for that could not be made.
    browser.set_cookie(SESSION, &session);
    let fields = [("name", "x"), ("expiresInDays", "many"), ("scopes", "members:read")];
    browser.post("/console/tokens", &fields).expect(400);
    // The longest name fits into the cookie.
    let name = "\u{1F512}".repeat(255);
    let begun = browser.ask(&name);
    assert!(begun.page.header("set-cookie").len() < 4096, "{}", begun.page.header("set-cookie").len());
}

#[test]
fn typed_credential_still_confirms() {
    let browser = signed_in("elsa");
    let provider = &Sso::shared().provider;
    let token = provider.token(&json!({"sub": "elsa", "email": "elsa@example.com"}));
    let fields =
        [("name", "typed"), ("expiresInDays", "3"), ("scopes", "members:read"), ("key", "k"), ("password", &token)];
    browser.post("/console/tokens", &fields).expect(201);
    assert_eq!(browser.tokens(), ["typed"]);
}
