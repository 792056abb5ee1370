//! The console's cookies: reading, setting and removing one.

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use secrecy::SecretString;

/// Lax: a link from a chat, or an identity provider's answer, is a navigation that begins at another site.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";

/// The value of a cookie; `None` without one. Two cookies of one name are nobody's: a browser sends one.
pub(super) fn read(headers: &HeaderMap, name: &str) -> Option<SecretString> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut found = pairs.filter(|(it, _)| *it == name).map(|(_, value)| value);
    match (found.next(), found.next()) {
        (Some(value), None) if !value.is_empty() => Some(value.into()),
        _ => None,
    }
}

/// Sets a cookie for this many seconds.
pub(super) fn set(headers: &mut HeaderMap, name: &str, value: &str, seconds: i64) {
    if let Ok(mut value) = HeaderValue::from_str(&format!("{name}={value}; Max-Age={}; {ATTRIBUTES}", seconds.max(0)))
    {
        value.set_sensitive(true);
        headers.append(SET_COOKIE, value);
    }
}

/// Removes a cookie.
pub(super) fn clear(headers: &mut HeaderMap, name: &str) {
    set(headers, name, "", 0);
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn value(cookies: &[&str]) -> Option<String> {
        let header = |text: &&str| (COOKIE, HeaderValue::from_str(text).unwrap());
        let found = read(&cookies.iter().map(header).collect(), "__Host-daypass");
        found.map(|value| value.expose_secret().to_owned())
    }

    #[test]
    fn only_the_one_cookie_with_the_prefix_is_read() {
        assert_eq!(value(&["a=b; __Host-daypass=dpp_x; c=d"]).as_deref(), Some("dpp_x"));
        assert_eq!(value(&["a=b", "__Host-daypass=dpp_x"]).as_deref(), Some("dpp_x"));
        for none in [
            &[][..],
            &["daypass=dpp_x"],
            &["__host-daypass=dpp_x"],
            &["__Host-daypass="],
            &["__Host-daypass=a; __Host-daypass=b"],
            &["__Host-daypass=a", "__Host-daypass=a"],
            &["x__Host-daypass=a"],
        ] {
            assert_eq!(value(none), None, "{none:?}");
        }
    }
}
