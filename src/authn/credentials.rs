//! The credentials of a request, classified once by their form: in an Authorization header, in a form that somebody
//! filled in, or in a session's cookie.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::SecretString;

use super::Digest;
use crate::domain::access_token::{IdForm, TokenSecret};
use crate::domain::member::Credential;
use crate::domain::secret::GATEWAY_PREFIX;

/// The longest header, in bytes. Tokens with hundreds of groups fit. A longer one is neither decoded nor sent to the
/// API server.
const MAX_LEN: usize = 16 * 1024;

/// What a request presents.
pub enum Credentials {
    /// No Authorization header, an empty field, or no cookie.
    Nothing,
    /// A header that cannot be parsed, or a cookie that holds no session's secret.
    Malformed,
    /// A secret.
    Presented {
        /// How it came.
        scheme: Scheme,
        /// The user name that came with it (Basic, RFC 7617).
        username: Option<String>,
        /// Identifies the credential.
        digest: Digest,
        /// The secret, by its form.
        secret: PresentedSecret,
    },
}

/// An authentication scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// RFC 6750.
    Bearer,
    /// Another name for Bearer, for some clients of access tokens.
    Token,
    /// RFC 7617.
    Basic,
}

/// A secret, classified by its form alone, before any lookup.
#[derive(Debug)]
pub enum PresentedSecret {
    /// A member's credential; `None` if it is mistyped (its checksum is wrong).
    Member(Option<Credential>),
    /// An access token or a session of any kind; `None` if it is mistyped.
    AccessToken(Option<TokenSecret>),
    /// The token of a gateway kubeconfig. It is refused here, and never sent to the API server.
    Gateway,
    /// Any other bearer token: a person's issuer or the API server can tell.
    Foreign(SecretString),
    /// Any other password.
    Other,
}

impl fmt::Debug for Credentials {
    /// Shows the kind alone: people paste secrets into the field of the user name, too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Malformed => "Malformed",
            Self::Presented { .. } => "Presented",
        })
    }
}

impl Credentials {
    /// Reads the header.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Self::Nothing };
        // Of two headers, a proxy may have read the other one.
        let (Ok(value), None) = (value.to_str(), values.next()) else { return Self::Malformed };
        if value.len() > MAX_LEN {
            return Self::Malformed;
        }
        let Some((scheme, rest)) = value.split_once(' ') else { return Self::Malformed };
        let rest = rest.trim();
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" if !rest.is_empty() => Self::token(Scheme::Bearer, rest),
            "token" if !rest.is_empty() => Self::token(Scheme::Token, rest),
            "basic" => Self::basic(rest).unwrap_or(Self::Malformed),
            _ => Self::Malformed,
        }
    }

    /// What somebody typed into a form: a user name, which tokens do not need, and a secret.
    ///
    /// A user name beside a JWT is ignored, since password managers fill one in. A secret of no known form is refused
    /// without a lookup: it may be the password for something else.
    pub fn of_form(username: Option<&str>, secret: &str) -> Self {
        let secret = secret.trim();
        let username = username.map(str::trim).filter(|name| !name.is_empty());
        if secret.is_empty() {
            return Self::Nothing;
        }
        if secret.len() + username.map_or(0, str::len) > MAX_LEN {
            return Self::Malformed;
        }
        match (PresentedSecret::of(secret), username) {
            (Some(_), None) => Self::token(Scheme::Bearer, secret),
            (None, _) if is_jwt(secret) => Self::token(Scheme::Bearer, secret),
            (_, username) => Self::password(username.unwrap_or_default(), secret),
        }
    }

    /// The secret of a session, from a cookie. Anything else is refused, an access token too: it would outlast the
    /// page.
    pub fn of_session(secret: &str) -> Self {
        if secret.is_empty() {
            return Self::Nothing;
        }
        let is_session = |secret: &TokenSecret| secret.subject().form() != IdForm::Token;
        match TokenSecret::parse(secret).filter(is_session) {
            Some(_) => Self::token(Scheme::Bearer, secret),
            None => Self::Malformed,
        }
    }

    /// The ID token of a sign-in with an identity provider. Anything that is no JWT is refused.
    pub fn of_id_token(token: &SecretString) -> Self {
        let token = secrecy::ExposeSecret::expose_secret(token);
        if token.len() > MAX_LEN || !is_jwt(token) { Self::Malformed } else { Self::token(Scheme::Bearer, token) }
    }

    fn token(scheme: Scheme, token: &str) -> Self {
        let secret = PresentedSecret::of(token).unwrap_or_else(|| PresentedSecret::Foreign(token.into()));
        Self::Presented { scheme, username: None, digest: Digest::of([token.as_bytes()]), secret }
    }

    fn password(username: &str, password: &str) -> Self {
        Self::Presented {
            scheme: Scheme::Basic,
            username: Some(username.to_owned()),
            digest: Digest::of([username.as_bytes(), password.as_bytes()]),
            secret: PresentedSecret::of(password).unwrap_or(PresentedSecret::Other),
        }
    }

    /// Split at the last colon: the user names of callers contain colons, no secret does.
    fn basic(encoded: &str) -> Option<Self> {
        let text = SecretString::from(String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?);
        let (username, password) = secrecy::ExposeSecret::expose_secret(&text).rsplit_once(':')?;
        Some(Self::password(username, password))
    }

    /// The user name that came with the secret.
    pub fn username(&self) -> Option<&str> {
        match self {
            Self::Presented { username, .. } => username.as_deref(),
            Self::Nothing | Self::Malformed => None,
        }
    }

    /// Whether the secret came as a bearer token.
    pub fn is_bearer(&self) -> bool {
        matches!(self, Self::Presented { scheme: Scheme::Bearer, .. })
    }

    /// Whether a user name and a password were sent, which browsers remember and send by themselves.
    pub fn is_basic(&self) -> bool {
        self.username().is_some()
    }

    /// Whether the secret has the form of a member's credential, or of a member's session.
    pub fn is_member(&self) -> bool {
        match self {
            Self::Presented { secret: PresentedSecret::Member(_), .. } => true,
            Self::Presented { secret: PresentedSecret::AccessToken(Some(secret)), .. } => {
                secret.subject().form() == IdForm::SessionOfMember
            }
            _ => false,
        }
    }

    /// The access token, if it is a well-formed one.
    pub fn access_token(&self) -> Option<&TokenSecret> {
        match self {
            Self::Presented { secret: PresentedSecret::AccessToken(secret), .. } => secret.as_ref(),
            _ => None,
        }
    }
}

impl PresentedSecret {
    /// A secret of one of Daypass's own forms.
    fn of(text: &str) -> Option<Self> {
        if Credential::has_prefix(text) {
            return Some(Self::Member(Credential::parse(text)));
        }
        if TokenSecret::has_prefix(text) {
            return Some(Self::AccessToken(TokenSecret::parse(text)));
        }
        text.starts_with(GATEWAY_PREFIX).then_some(Self::Gateway)
    }
}

/// Whether a text has the form of a signed JWT (RFC 7515, section 3.1).
fn is_jwt(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    text.split('.').count() == 3 && text.split('.').all(is_part)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::domain::access_token::{TokenId, owner_key};
    use crate::domain::member_id::MemberId;
    use crate::domain::secret::SecretSubject as _;

    fn read(value: &str) -> Credentials {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        Credentials::of(&headers)
    }

    fn is_foreign(credentials: &Credentials, expected: &str) -> bool {
        matches!(credentials, Credentials::Presented { secret: PresentedSecret::Foreign(token), username: None, .. }
            if token.expose_secret() == expected)
    }

    #[test]
    fn header_is_read_as_the_rfcs_say() {
        assert!(matches!(Credentials::of(&HeaderMap::new()), Credentials::Nothing));
        for value in ["Bearer abc", "bearer  abc", "TOKEN abc"] {
            assert!(is_foreign(&read(value), "abc"), "{value}");
        }
        for value in ["Bearer", "Bearer ", "Digest x", "Basic ???", "Basic YQ==", ""] {
            assert!(matches!(read(value), Credentials::Malformed), "{value}");
        }
        let basic = read(&format!("Basic {}", STANDARD.encode("system:serviceaccount:a:b:secret")));
        assert_eq!(basic.username(), Some("system:serviceaccount:a:b"));
        assert!(matches!(basic, Credentials::Presented { secret: PresentedSecret::Other, .. }));
        for scheme in ["Bearer", "Token", "Basic"] {
            let long = |len: usize| format!("{scheme} {}", "YTpi".repeat(len / 4));
            assert!(!matches!(read(&long(MAX_LEN - 8)), Credentials::Malformed), "{scheme}");
            assert!(matches!(read(&long(MAX_LEN + 4)), Credentials::Malformed), "{scheme}");
        }
        let mut twice = HeaderMap::new();
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert!(matches!(Credentials::of(&twice), Credentials::Malformed));
    }

    #[test]
    fn secret_is_classified_by_its_form() {
        let member = Credential::new(MemberId::parse("view.a").unwrap(), &[7; 32]);
        for scheme in ["Bearer", "Basic"] {
            let present = |secret: &str| match scheme {
                "Basic" => read(&format!("Basic {}", STANDARD.encode(format!("view.a:{secret}")))),
                _ => read(&format!("Bearer {secret}")),
            };
            let Credentials::Presented { secret: PresentedSecret::Member(Some(found)), .. } = present(member.expose())
            else {
                panic!("{scheme}: no member's credential")
            };
            assert_eq!(found.subject(), member.subject());
            let mistyped = present("dpm_view.a_x");
            assert!(mistyped.is_member(), "{scheme}");
            assert!(matches!(mistyped, Credentials::Presented { secret: PresentedSecret::Member(None), .. }));
            let token = present("dpp_x");
            assert!(token.access_token().is_none(), "{scheme}");
            assert!(matches!(token, Credentials::Presented { secret: PresentedSecret::AccessToken(None), .. }));
            // Never sent to the API server.
            assert!(matches!(present("dpg_x"), Credentials::Presented { secret: PresentedSecret::Gateway, .. }));
        }
    }

    fn token(name: &str) -> String {
        let id = TokenId::parse(&format!("{}-{name}-abcdef", owner_key("a"))).unwrap();
        TokenSecret::new(id, &[7; 32]).expose().to_owned()
    }

    #[test]
    fn session_of_a_member_is_told_from_others_by_its_form() {
        for (name, of_member) in [("1", false), ("1-s2", false), ("o3", false), ("m3", true)] {
            let credentials = read(&format!("Bearer {}", token(name)));
            assert_eq!(credentials.is_member(), of_member, "{name}");
            assert!(credentials.access_token().is_some());
        }
    }

    #[test]
    fn cookie_holds_the_secret_of_a_session_or_nothing() {
        assert!(matches!(Credentials::of_session(""), Credentials::Nothing));
        for name in ["1-s2", "o3", "m3"] {
            let credentials = Credentials::of_session(&token(name));
            assert!(credentials.access_token().is_some() && credentials.is_bearer(), "{name}");
        }
        let member = Credential::new(MemberId::parse("view.a").unwrap(), &[7; 32]);
        let mistyped = token("o3").replace("-o3-", "-o4-");
        for other in [&token("1"), &mistyped, member.expose(), "e30.e30.c2ln", "dpp_", " "] {
            assert!(matches!(Credentials::of_session(other), Credentials::Malformed), "{other}");
        }
    }

    #[test]
    fn form_takes_any_secret_with_or_without_a_name() {
        let member = Credential::new(MemberId::parse("view.a").unwrap(), &[7; 32]);
        for empty in ["", "  "] {
            assert!(matches!(Credentials::of_form(Some("a"), empty), Credentials::Nothing));
        }
        assert!(matches!(Credentials::of_form(None, &"a".repeat(MAX_LEN + 1)), Credentials::Malformed));
        for name in [None, Some(""), Some(" ")] {
            let pasted = Credentials::of_form(name, &format!(" {}\n", member.expose()));
            assert!(pasted.is_member() && pasted.is_bearer() && pasted.username().is_none());
            assert!(is_foreign(&Credentials::of_form(name, "e30.e30.c2ln"), "e30.e30.c2ln"));
        }
        let named = Credentials::of_form(Some("view.a "), member.expose());
        assert_eq!((named.is_member(), named.username()), (true, Some("view.a")));
        assert!(is_foreign(&Credentials::of_form(Some("filled in"), "e30.e30.c2ln"), "e30.e30.c2ln"));
        for (name, other) in
            [(None, "hunter2"), (Some("ada"), "hunter2"), (None, "a.b"), (None, "a..b"), (None, "é.b.c")]
        {
            let credentials = Credentials::of_form(name, other);
            assert!(matches!(credentials, Credentials::Presented { secret: PresentedSecret::Other, .. }), "{other}");
        }
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let member = Credential::new(MemberId::parse("view.a").unwrap(), &[7; 32]);
        let secret = member.expose().rsplit('_').next().unwrap();
        let as_username = STANDARD.encode(format!("{}:x", member.expose()));
        let values =
            ["Bearer opaque".to_owned(), format!("Bearer {}", member.expose()), format!("Basic {as_username}")];
        for value in values {
            let text = format!("{:?}", read(&value));
            assert!(!text.contains("opaque") && !text.contains(secret), "{text}");
        }
    }
}
