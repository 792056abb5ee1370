//! A browser without scripts, for the console: it keeps the one cookie, and says where a form comes from.

use reqwest::blocking::{Client, RequestBuilder};
use reqwest::header::{COOKIE, ORIGIN, SET_COOKIE};
use reqwest::redirect::Policy;

use super::http::IDLE;
use super::{Answer, Cluster, DEADLINE, Daypass, Http};

/// A browser. It follows no redirects.
#[derive(Clone)]
pub struct Browser {
    client: Client,
    url: String,
    /// The value of the cookie `__Host-daypass`.
    pub session: Option<String>,
}

impl Browser {
    pub fn new(cluster: &Cluster, daypass: &Daypass) -> Self {
        let ca = reqwest::Certificate::from_pem(cluster.serving_certificate().as_bytes()).unwrap();
        let client = Client::builder().tls_certs_only([ca]).timeout(DEADLINE).pool_idle_timeout(IDLE);
        Self { client: client.redirect(Policy::none()).build().unwrap(), url: daypass.url.clone(), session: None }
    }

    /// A browser in which somebody has signed in.
    #[track_caller]
    pub fn signed_in(cluster: &Cluster, daypass: &Daypass, username: &str, password: &str) -> Self {
        let mut browser = Self::new(cluster, daypass);
        browser.sign_in(username, password).expect(303);
        browser
    }

    pub fn sign_in(&mut self, username: &str, password: &str) -> Answer {
        let answer = self.post("/console/sign-in", &[("username", username), ("password", password)]);
        let cookies = answer.headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut values = cookies.filter_map(|cookie| cookie.strip_prefix("__Host-daypass=")?.split(';').next());
        if let Some(session) = values.next_back().filter(|value| !value.is_empty()) {
            self.session = Some(session.to_owned());
        }
        answer
    }

    /// The same browser with another cookie.
    pub fn with_session(&self, session: &str) -> Self {
        Self { session: Some(session.to_owned()), ..self.clone() }
    }

    pub fn get(&self, path: &str) -> Answer {
        Answer::of(self.request("GET", path))
    }

    /// Sends a form of a page of Daypass.
    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        Answer::of(
            self.request("POST", path).header(ORIGIN, &self.url).header("Sec-Fetch-Site", "same-origin").form(fields),
        )
    }

    /// A request with the cookie, and nothing about where it comes from.
    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.url));
        match &self.session {
            Some(session) => request.header(COOKIE, format!("theme=dark; __Host-daypass={session}")),
            None => request,
        }
    }

    /// A client of the REST API that uses the same session.
    pub fn rest(&self, daypass: &Daypass) -> Http {
        daypass.owner.with_token(self.session.as_deref().unwrap())
    }
}

impl Answer {
    /// The value of a hidden field, or of an option that is chosen.
    #[track_caller]
    pub fn field(&self, name: &str) -> String {
        let start = format!("name=\"{name}\" value=\"");
        let rest = self.text.split(&start).nth(1).unwrap_or_else(|| panic!("no field {name}: {}", self.text));
        rest.split('"').next().unwrap().to_owned()
    }
}
