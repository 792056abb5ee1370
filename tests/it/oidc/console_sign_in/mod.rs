//! People sign in to the console with a real OpenID provider, by a browser's own requests.

mod clients;
mod flow;
mod hostile;
mod in_chromium;
mod refusals;
mod step_up;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use reqwest::blocking::{Client, RequestBuilder};
use reqwest::redirect::Policy;
use serde_json::{Value, json};

use super::Sso;
use crate::support::{Answer, DEADLINE, Daypass, OpenIdProvider, eventually};

/// The cookie of a session, and that of a sign-in.
const SESSION: &str = "__Host-daypass";
const LOGIN: &str = "__Host-daypass-login";

/// A Daypass whose console people sign in to with these providers.
struct Console {
    daypass: Daypass,
}

impl Console {
    /// One with the shared provider.
    fn shared() -> &'static Self {
        static SHARED: OnceLock<Console> = OnceLock::new();
        SHARED.get_or_init(|| {
            let console = Self::start(&[("corp", &Sso::shared().provider)]);
            Browser::new(&console, &[]).wait_known("corp");
            console
        })
    }

    /// One with these providers, by their names.
    fn start(providers: &[(&str, &OpenIdProvider)]) -> Self {
        let issuers: Vec<Value> = providers.iter().map(|(name, provider)| settings(name, provider)).collect();
        Self::of(Sso::shared().daypass(&issuers, &[]), providers)
    }

    /// This Daypass, with a public client at each provider.
    fn of(daypass: Daypass, providers: &[(&str, &OpenIdProvider)]) -> Self {
        let console = Self { daypass };
        for (name, provider) in providers {
            provider.post("/clients", &json!({"clientId": "console", "redirectUris": [console.callback(name)]}));
        }
        console
    }

    fn callback(&self, name: &str) -> String {
        format!("{}/console/sso/callback/{name}", self.daypass.url)
    }

    /// How many refused credentials of callbacks were recorded.
    fn refused(&self) -> usize {
        let events = self.daypass.audit_events_with("/console/sso/callback/");
        events.iter().filter(|event| event["event"] == "AUTH_FAILED").count()
    }
}

/// The settings of an issuer of this name, with a client for the console.
fn settings(name: &str, provider: &OpenIdProvider) -> Value {
    provider.settings(&json!({
        "name": name, "usernamePrefix": format!("{name}:"), "groupsPrefix": format!("{name}:"),
        "audiences": ["daypass", "console"],
        "console": {"clientId": "console", "scopes": ["email", "groups"]},
    }))
}

/// Makes a user at a provider, who may manage members with `corp`.
fn user(provider: &OpenIdProvider, name: &str) {
    let email = format!("{name}@example.com");
    let user = json!({"name": name, "email": email, "emailVerified": true, "groups": ["platform"]});
    provider.post("/users", &user);
}

/// A browser, with its cookies by origin.
struct Browser<'a> {
    console: &'a Console,
    client: Client,
    cookies: RefCell<BTreeMap<(String, String), String>>,
}

/// A sign-in that waits for the person.
struct Begun {
    page: Answer,
    link: Url,
}

impl Begun {
    #[track_caller]
    fn of(page: Answer) -> Self {
        let tag = page.text.split("<a ").find(|tag| tag.contains("data-continue"));
        let tag = tag.unwrap_or_else(|| panic!("no link: {}", page.text));
        let link = tag.split("href=\"").nth(1).unwrap().split('"').next().unwrap();
        let link = Url::parse(&link.replace("&#38;", "&").replace("&amp;", "&")).unwrap();
        Self { page, link }
    }
}

impl<'a> Browser<'a> {
    fn new(console: &'a Console, providers: &[&OpenIdProvider]) -> Self {
        let mut trusted = vec![Sso::shared().cluster.serving_certificate()];
        trusted.extend(providers.iter().map(|provider| fs::read_to_string(&provider.ca_file).unwrap()));
        let trusted = trusted.iter().map(|pem| reqwest::Certificate::from_pem(pem.as_bytes()).unwrap());
        let client = Client::builder().tls_certs_only(trusted).redirect(Policy::none()).timeout(DEADLINE);
        Self { console, client: client.build().unwrap(), cookies: RefCell::default() }
    }

    /// One of the shared console.
    fn shared() -> Browser<'static> {
        Browser::new(Console::shared(), &[&Sso::shared().provider])
    }

    fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.borrow().get(&(self.console.daypass.url.clone(), name.to_owned())).cloned()
    }

    fn set_cookie(&self, name: &str, value: &str) {
        self.cookies.borrow_mut().insert((self.console.daypass.url.clone(), name.to_owned()), value.to_owned());
    }

    /// Changes a field of the sign-in's cookie, which is not signed.
    fn change_login(&self, field: &str, change: impl Fn(&Value) -> Value) {
        let mut login = self.login();
        login[field] = change(&login[field]);
        self.set_cookie(LOGIN, &URL_SAFE_NO_PAD.encode(login.to_string()));
    }

    /// What the sign-in's cookie says.
    fn login(&self) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(self.cookie(LOGIN).unwrap()).unwrap()).unwrap()
    }

    fn send(&self, origin: &str, request: RequestBuilder) -> Answer {
        let own: Vec<String> = (self.cookies.borrow().iter())
            .filter(|((of, _), _)| of == origin)
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        let request = if own.is_empty() { request } else { request.header("cookie", own.join("; ")) };
        let answer = Answer::of(request);
        for set in answer.headers.get_all("set-cookie") {
            let set = set.to_str().unwrap();
            let (name, value) = set.split(';').next().unwrap().split_once('=').unwrap();
            let key = (origin.to_owned(), name.to_owned());
            match set.contains("Max-Age=0") {
                true => drop(self.cookies.borrow_mut().remove(&key)),
                false => drop(self.cookies.borrow_mut().insert(key, value.to_owned())),
            }
        }
        answer
    }

    /// Gets a page of the console.
    fn get(&self, path: &str) -> Answer {
        let url = &self.console.daypass.url;
        self.send(url, self.client.get(format!("{url}{path}")).header("sec-fetch-site", "same-origin"))
    }

    /// Presses the button of this issuer on the sign-in page.
    fn press(&self, issuer: &str, next: &str) -> Answer {
        let url = &self.console.daypass.url;
        let form = url::form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
        let request = self.client.post(format!("{url}/console/sso/{issuer}")).body(form);
        let request = request.header("content-type", "application/x-www-form-urlencoded").header("origin", url);
        self.send(url, request.header("sec-fetch-site", "same-origin"))
    }

    /// Waits until Daypass knows where this issuer signs people in.
    fn wait_known(&self, issuer: &str) {
        eventually("the issuer is known", || (self.press(issuer, "").status == 200).then_some(()));
    }

    /// Begins to sign in.
    #[track_caller]
    fn begin(&self, issuer: &str, next: &str) -> Begun {
        Begun::of(self.press(issuer, next).expect(200))
    }

    /// Follows the link to the provider and signs in there. Returns where the provider sends the browser back to.
    #[track_caller]
    fn authorize(&self, link: &Url, user: &str) -> Url {
        let mut url = link.clone();
        url.query_pairs_mut().append_pair("login_hint", user);
        while !url.as_str().starts_with(&self.console.daypass.url) {
            let origin = url.origin().ascii_serialization();
            let answer = self.send(&origin, self.client.get(url.clone()));
            let Some(location) = answer.headers.get("location") else { panic!("no redirect: {}", answer.text) };
            url = url.join(location.to_str().unwrap()).unwrap();
        }
        url
    }

    /// Comes back, as a browser does: a navigation that began at another site.
    fn come_back(&self, url: &Url) -> Answer {
        let request = self.client.get(url.clone()).header("sec-fetch-site", "cross-site");
        let request = request.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document");
        self.send(&self.console.daypass.url, request)
    }

    /// Signs in, and checks that it went well.
    #[track_caller]
    fn sign_in(&self, issuer: &str, user: &str) {
        let begun = self.begin(issuer, "");
        self.come_back(&self.authorize(&begun.link, user)).expect(303);
    }

    /// Comes back, and checks that this is refused with a page and no session.
    #[track_caller]
    fn assert_refused(&self, url: &Url, status: u16, words: &str) {
        let session = self.cookie(SESSION);
        let answer = self.come_back(url).expect(status);
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        assert!(answer.text.contains(words) && answer.text.contains("role=\"alert\""), "{words}: {}", answer.text);
        assert_eq!((self.cookie(SESSION), self.cookie(LOGIN)), (session, None));
        let set: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
        assert_eq!(set, ["__Host-daypass-login=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"]);
    }
}

/// The value of a parameter.
#[track_caller]
fn parameter(url: &Url, name: &str) -> String {
    let mut found = url.query_pairs().filter(|(it, _)| it == name).map(|(_, value)| value.into_owned());
    let value = found.next().unwrap_or_else(|| panic!("no {name} in {url}"));
    assert_eq!(found.next(), None, "{name} once in {url}");
    value
}

/// The URL with this parameter instead; `None` takes it away.
fn with(url: &Url, name: &str, value: Option<&str>) -> Url {
    let others =
        url.query_pairs().filter(|(it, _)| it != name).map(|(it, value)| (it.into_owned(), value.into_owned()));
    let others: Vec<(String, String)> = others.chain(value.map(|value| (name.to_owned(), value.to_owned()))).collect();
    let mut changed = url.clone();
    changed.query_pairs_mut().clear().extend_pairs(others);
    changed
}
