//! The bearer token of a request.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::Refused;

/// The longest token, in bytes. Those of Daypass are much shorter.
const MAX_LEN: usize = 1024;

/// The one bearer token of a request (RFC 6750, section 2.1).
///
/// Nothing else counts: browsers remember Basic credentials and send them by themselves, and of two headers a proxy
/// may have read the other one.
///
/// # Errors
/// [`Refused::NoBearer`], [`Refused::TwoCredentials`].
pub fn bearer(headers: &HeaderMap) -> Result<&str, Refused> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refused::NoBearer)?;
    if values.next().is_some() {
        return Err(Refused::TwoCredentials);
    }
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(Refused::NoBearer)?;
    let token = token.trim_matches(' ');
    let is_bearer = scheme.eq_ignore_ascii_case("bearer") && token.len() <= MAX_LEN && is_b64token(token);
    is_bearer.then_some(token).ok_or(Refused::NoBearer)
}

/// Whether a text has the form of a token (RFC 6750).
fn is_b64token(text: &str) -> bool {
    let token = text.trim_end_matches('=');
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::super::parse;
    use super::*;

    #[test]
    fn one_bearer_token_is_read() {
        for value in ["Bearer dpg_view.a.0_x", "bearer dpg_view.a.0_x", "BEARER   dpg_view.a.0_x "] {
            assert_eq!(bearer(&parse(&[("authorization", value)])), Ok("dpg_view.a.0_x"), "{value}");
        }
        // For this connection alone: it is, and we are its other end.
        let headers = parse(&[("Connection", "authorization"), ("AUTHORIZATION", "Bearer a+/=")]);
        assert_eq!(bearer(&headers), Ok("a+/="));
    }

    #[test]
    fn anything_else_is_no_credential() {
        assert_eq!(bearer(&HeaderMap::new()), Err(Refused::NoBearer));
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer =",
            "Bearera",
            "Bearer\ta",
            "Basic YTpi",
            "Token a",
            "dpg_a",
            "Bearer a b",
            "Bearer a,b",
            "Bearer a, Bearer b",
            "Bearer a=b",
            "Bearer \"a\"",
            " Bearer a",
        ] {
            assert_eq!(bearer(&parse(&[("authorization", value)])), Err(Refused::NoBearer), "{value}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer a\xff").unwrap());
        assert_eq!(bearer(&headers), Err(Refused::NoBearer));
        headers.insert(AUTHORIZATION, format!("Bearer {}", "a".repeat(MAX_LEN + 1)).parse().unwrap());
        assert_eq!(bearer(&headers), Err(Refused::NoBearer));
    }

    #[test]
    fn other_ways_to_send_a_token_are_no_credential() {
        let protocol = "base64url.bearer.authorization.k8s.io.YQ, v5.channel.k8s.io";
        let headers = parse(&[("Sec-WebSocket-Protocol", protocol), ("Proxy-Authorization", "Bearer a")]);
        assert_eq!(bearer(&headers), Err(Refused::NoBearer));
    }

    #[test]
    fn two_credentials_are_refused_even_if_they_are_the_same() {
        for second in ["Bearer a", "Basic YTpi", ""] {
            let headers = parse(&[("Authorization", "Bearer a"), ("authorization", second)]);
            assert_eq!(bearer(&headers), Err(Refused::TwoCredentials));
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_a_token(value in "([Bb]earer )?[ -~]{0,20}") {
            if let Ok(token) = bearer(&parse(&[("authorization", &value)])) {
                prop_assert!(value.to_ascii_lowercase().starts_with("bearer ") && value.contains(token));
                prop_assert!(!token.contains([' ', ',', '"', ';', ':']));
            }
        }
    }
}
