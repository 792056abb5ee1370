//! What an Authorization header holds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret as _, SecretString};

use crate::authn::Digest;
use crate::domain::access_token::TokenSecret;
use crate::domain::secret::Credential;

/// The longest header. Tokens with hundreds of groups fit, and no more is decoded, or sent to the API server, for a
/// stranger.
const MAX_LEN: usize = 16 * 1024;

/// What was presented.
pub(in crate::api) enum Presented {
    Nothing,
    Malformed,
    Bearer(SecretString),
    Basic { username: String, password: SecretString },
}

impl Presented {
    pub(in crate::api) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Self::Nothing };
        // Two headers would be read differently by whoever stands in between.
        let (Ok(value), None) = (value.to_str(), values.next()) else { return Self::Malformed };
        if value.len() > MAX_LEN {
            return Self::Malformed;
        }
        let Some((scheme, rest)) = value.split_once(' ') else { return Self::Malformed };
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" | "token" if !rest.trim().is_empty() => Self::Bearer(rest.trim().into()),
            "basic" => Self::basic(rest.trim()).unwrap_or(Self::Malformed),
            _ => Self::Malformed,
        }
    }

    /// Split at the last colon: the user names of callers have colons, no secret has one.
    fn basic(encoded: &str) -> Option<Self> {
        let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        let (username, password) = text.rsplit_once(':')?;
        Some(Self::Basic { username: username.to_owned(), password: password.into() })
    }

    /// Names what was presented, where something was.
    pub(super) fn digest(&self) -> Option<Digest> {
        match self {
            Self::Bearer(secret) => Some(Digest::of([secret.expose_secret().as_bytes()])),
            Self::Basic { username, password } => {
                Some(Digest::of([username.as_bytes(), password.expose_secret().as_bytes()]))
            }
            Self::Nothing | Self::Malformed => None,
        }
    }

    fn secret(&self) -> Option<&str> {
        match self {
            Self::Bearer(secret) | Self::Basic { password: secret, .. } => Some(secret.expose_secret()),
            Self::Nothing | Self::Malformed => None,
        }
    }

    /// Whether it came as a user name and a password.
    pub(super) fn is_basic(&self) -> bool {
        matches!(self, Self::Basic { .. })
    }

    /// Whether it is meant to be a member's credential.
    pub(super) fn is_members(&self) -> bool {
        self.secret().is_some_and(Credential::is_meant)
    }

    /// Whether it is meant to be an access token.
    pub(super) fn is_access_token(&self) -> bool {
        self.secret().is_some_and(TokenSecret::is_meant)
    }

    /// The access token, if it is one by its form.
    pub(in crate::api) fn access_token(&self) -> Option<TokenSecret> {
        self.secret().and_then(TokenSecret::parse)
    }

    /// The user name that came with it, where one did.
    pub(super) fn username(&self) -> Option<&str> {
        match self {
            Self::Basic { username, .. } => Some(username),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn presented(value: &str) -> Presented {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        Presented::of(&headers)
    }

    #[test]
    fn the_header_is_read_as_the_rfcs_say() {
        assert!(matches!(Presented::of(&HeaderMap::new()), Presented::Nothing));
        for value in ["Bearer abc", "bearer  abc", "TOKEN abc"] {
            assert!(matches!(presented(value), Presented::Bearer(token) if token.expose_secret() == "abc"), "{value}");
        }
        for value in ["Bearer", "Bearer ", "Digest x", "Basic ???", "Basic YQ==", ""] {
            assert!(matches!(presented(value), Presented::Malformed), "{value}");
        }
        let basic = format!("Basic {}", STANDARD.encode("system:serviceaccount:a:b:secret"));
        assert!(matches!(presented(&basic), Presented::Basic { username, password }
            if username == "system:serviceaccount:a:b" && password.expose_secret() == "secret"));
        for scheme in ["Bearer", "Token", "Basic"] {
            let long = |len: usize| format!("{scheme} {}", "YTpi".repeat(len / 4));
            assert!(!matches!(presented(&long(MAX_LEN - 8)), Presented::Malformed), "{scheme}");
            assert!(matches!(presented(&long(MAX_LEN + 4)), Presented::Malformed), "{scheme}");
        }
        let mut twice = HeaderMap::new();
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert!(matches!(Presented::of(&twice), Presented::Malformed));
    }
}
