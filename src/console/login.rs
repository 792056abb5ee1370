//! The cookie of a sign-in that waits for the identity provider's answer.
//!
//! Nothing is kept on the server, so any replica can handle the answer. The cookie is not signed: whoever can write it
//! has the browser anyway.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use http::HeaderMap;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::ROOT;
use super::cookie;
use super::form::Fields;
use super::sso;
use crate::api::Settings;
use crate::authn::oidc::Attempt;
use crate::clock::{Entropy, NoEntropy};

const COOKIE_NAME: &str = "__Host-daypass-login";
/// How long somebody may take to sign in.
const LIFETIME: TimeDelta = TimeDelta::minutes(10);
/// The longest value. nginx answers 502 if the head of an answer exceeds 4 KiB (its `proxy_buffer_size`), and browsers
/// keep no longer cookie (RFC 6265, section 6.1).
const MAX_VALUE: usize = 3000;

/// A sign-in that has begun. No `Debug`: whoever has it can go on with it.
#[derive(Serialize, Deserialize)]
pub(super) struct Login {
    /// The issuer's name.
    pub(super) issuer: String,
    state: String,
    nonce: String,
    verifier: String,
    /// The page to go on to.
    pub(super) next: String,
    /// In milliseconds since 1970.
    began: i64,
    /// What is to be done once the person has signed in anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deed: Option<Deed>,
}

/// What an owner has to confirm by signing in anew.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Deed {
    /// The access token to rotate; `None` to generate one.
    pub(super) rotate: Option<String>,
    /// The form.
    pub(super) fields: Fields,
}

impl Deed {
    /// The page of the form, filled in.
    pub(super) fn form(&self) -> String {
        self.fields.carried_back_to(sso::TOKENS)
    }
}

impl Login {
    /// Begins one with this issuer. A page to go on to that does not fit into the cookie is left out. A form's longest
    /// texts fit, unless most of their characters are encoded.
    pub(super) fn begin(issuer: &str, next: &str, now: DateTime<Utc>, entropy: &Entropy) -> Result<Self, NoEntropy> {
        let secret = || entropy.bytes::<32>().map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        let mut login = Self {
            issuer: issuer.to_owned(),
            state: secret()?,
            nonce: secret()?,
            // 43 characters of those that RFC 7636, section 4.1, allows.
            verifier: secret()?,
            next: next.to_owned(),
            began: now.timestamp_millis(),
            deed: None,
        };
        if login.is_too_long() {
            login.next.clear();
        }
        Ok(login)
    }

    /// The one in the cookie, unless it took too long.
    pub(super) fn read(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Self> {
        let value = cookie::read(headers, COOKIE_NAME)?;
        let login: Self = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(value.expose_secret()).ok()?).ok()?;
        let age = now - login.began()?;
        (age < LIFETIME && age >= -crate::clock::SKEW_LIMIT).then_some(login)
    }

    /// Whether this is the state that it began with.
    pub(super) fn has_state(&self, state: &str) -> bool {
        self.state.as_bytes().ct_eq(state.as_bytes()).into()
    }

    /// When it began.
    pub(super) fn began(&self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_millis(self.began)
    }

    /// The attempt as the issuer sees it. `anew_since`: the person must sign in anew, not before this time.
    pub(super) fn attempt(&self, settings: &Settings, anew_since: Option<DateTime<Utc>>) -> Attempt {
        let secret = |text: &String| SecretString::from(text.as_str());
        Attempt {
            issuer: self.issuer.clone(),
            redirect_uri: format!("{}{ROOT}/sso/callback/{}", settings.origin(), self.issuer),
            state: secret(&self.state),
            nonce: secret(&self.nonce),
            verifier: secret(&self.verifier),
            anew_since,
        }
    }

    /// The page to go on to if it fails: the form that was to be confirmed, filled in.
    pub(super) fn on_failure(&self) -> String {
        self.deed.as_ref().map_or_else(|| self.next.clone(), Deed::form)
    }

    /// Whether a browser might not keep its cookie.
    pub(super) fn is_too_long(&self) -> bool {
        self.value().len() > MAX_VALUE
    }

    fn value(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Sets the cookie.
    pub(super) fn set_cookie(&self, headers: &mut HeaderMap) {
        cookie::set(headers, COOKIE_NAME, &self.value(), LIFETIME.num_seconds());
    }
}

/// Removes the cookie.
pub(super) fn clear_cookie(headers: &mut HeaderMap) {
    cookie::clear(headers, COOKIE_NAME);
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{COOKIE, SET_COOKIE};

    use super::*;

    fn begin(next: &str) -> Login {
        Login::begin("corp", next, at(0), &Entropy::default()).unwrap()
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    /// The cookie as a browser sends it back.
    fn sent(login: &Login) -> HeaderMap {
        let mut headers = HeaderMap::new();
        login.set_cookie(&mut headers);
        let cookie = headers[SET_COOKIE].to_str().unwrap();
        assert!(headers[SET_COOKIE].is_sensitive() && cookie.len() < 4096, "{}", cookie.len());
        assert!(cookie.ends_with("; Max-Age=600; Path=/; Secure; HttpOnly; SameSite=Lax"));
        let value = HeaderValue::from_str(cookie.split(';').next().unwrap()).unwrap();
        [(COOKIE, value)].into_iter().collect()
    }

    #[test]
    fn login_is_read_for_ten_minutes() {
        let login = begin("/console/me");
        let read = |seconds| Login::read(&sent(&login), at(seconds));
        for seconds in [-29, 0, 599] {
            let read = read(seconds).unwrap();
            assert!(read.has_state(&login.state) && read.next == "/console/me" && read.issuer == "corp");
        }
        for seconds in [-31, 600, 100_000] {
            assert!(read(seconds).is_none(), "{seconds}");
        }
    }

    #[test]
    fn other_states_and_cookies_are_none() {
        let (login, other) = (begin(""), begin(""));
        assert!(!login.has_state(&other.state) && !login.has_state("") && !login.has_state(&login.state[1..]));
        assert_ne!((&login.nonce, &login.verifier), (&other.nonce, &other.verifier));
        for value in ["", "x", "__Host-daypass-login=", "__Host-daypass-login=e30", "__Host-daypass=e30"] {
            let headers = [(COOKIE, HeaderValue::from_str(value).unwrap())].into_iter().collect();
            assert!(Login::read(&headers, at(0)).is_none(), "{value}");
        }
    }

    #[test]
    fn long_page_is_left_out() {
        // A grant with the longest texts.
        let next = format!("/console/grant?roleId=view&duration=48&username=&description={}", "x".repeat(1024 + 255));
        let login = begin(&next);
        assert_eq!(login.next, next);
        sent(&login);
        for length in [1000, 1500, 1900, 2000, 2100, 5000] {
            let (next, login) = ("x".repeat(length), begin(&"x".repeat(length)));
            sent(&login);
            assert!(login.next == next || length > 1900 && login.next.is_empty(), "{length}");
        }
        assert_eq!(begin(&"x".repeat(2100)).next, "");
    }
}
