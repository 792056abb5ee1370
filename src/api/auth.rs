//! Who sends a request: a caller (a Kubernetes identity) or a member (by its credential), never both.

use axum::extract::{FromRequestParts, Path};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::State;
use super::context::Context;
use super::problem::{Code, Problem};
use crate::audit::{Actor, Event, Kind};
use crate::cluster::{Cause, Identity};
use crate::domain::id::MemberId;
use crate::domain::member::Member;
use crate::domain::role::NAMESPACE_PREFIX;
use crate::domain::secret::Credential;

/// What a caller is told to send (RFC 6750, section 3).
const CALLER_CHALLENGE: &str = r#"Bearer realm="daypass""#;
const CALLER_CHALLENGE_REFUSED: &str = r#"Bearer realm="daypass", error="invalid_token""#;
/// What a member is told to send; a browser asks for user name and password (RFC 7617).
const MEMBER_CHALLENGE: &str = r#"Basic realm="daypass member", charset="UTF-8""#;

/// An authenticated caller.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) identity: Identity,
    actor: Actor,
}

impl Caller {
    pub(super) fn cause<'a>(&'a self, context: &'a Context) -> Cause<'a> {
        Cause { actor: &self.actor, owner: Some(&self.identity.username), origin: &context.origin }
    }
}

/// An authenticated member, and the credential that it came with.
#[derive(Debug)]
pub(super) struct MemberSession {
    pub(super) member: Member,
    pub(super) credential: Credential,
    actor: Actor,
}

impl MemberSession {
    pub(super) fn cause<'a>(&'a self, context: &'a Context) -> Cause<'a> {
        Cause { actor: &self.actor, owner: None, origin: &context.origin }
    }
}

/// Either, for what both may do.
#[derive(Debug)]
pub(super) enum CallerOrMember {
    Caller(Caller),
    Member(Box<MemberSession>),
}

/// What an Authorization header holds.
enum Presented {
    Nothing,
    Malformed,
    Bearer(SecretString),
    Basic { username: String, password: SecretString },
}

impl Presented {
    fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Self::Nothing };
        // Two headers would be read differently by whoever stands in between.
        let (Ok(value), None) = (value.to_str(), values.next()) else { return Self::Malformed };
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

    /// The text that may be a member's credential.
    fn secret(&self) -> Option<&SecretString> {
        match self {
            Self::Bearer(secret) | Self::Basic { password: secret, .. } => Some(secret),
            Self::Nothing | Self::Malformed => None,
        }
    }

    fn is_members(&self) -> bool {
        self.secret().is_some_and(|secret| Credential::is_meant(secret.expose_secret()))
    }
}

/// Refuses, and records it where something was presented: a browser's first request comes without any.
fn refuse(context: &Context, code: Code, challenge: &'static str) -> Problem {
    if code != Code::NoCredentials {
        context.state.cluster.audit.record(&Event {
            kind: Kind::AuthFailed,
            actor: Actor::Anonymous,
            owner: None,
            origin: &context.origin,
            member: None,
            role_id: None,
            jti: None,
            reason: Some(&code.as_string()),
        });
    }
    Problem::unauthenticated(code, challenge)
}

async fn authenticate_caller(context: &Context, presented: &Presented) -> Result<Caller, Problem> {
    let token = match presented {
        Presented::Nothing => return Err(refuse(context, Code::NoCredentials, CALLER_CHALLENGE)),
        Presented::Malformed => return Err(refuse(context, Code::MalformedAuthorization, CALLER_CHALLENGE)),
        // A member is never a caller; its credential is not even shown to Kubernetes.
        _ if presented.is_members() => return Err(refuse(context, Code::CredentialRefused, CALLER_CHALLENGE_REFUSED)),
        Presented::Basic { .. } => return Err(refuse(context, Code::CredentialRefused, CALLER_CHALLENGE_REFUSED)),
        Presented::Bearer(token) => token,
    };
    let settings = &context.state.settings;
    let cluster = &context.state.cluster;
    let mut identity = cluster.review_token(token, Some(&settings.token_audience)).await?;
    if identity.is_none() && settings.accept_api_server_audience {
        identity = cluster.review_token(token, None).await?;
    }
    match identity.filter(|identity| !is_of_a_role(identity)) {
        Some(identity) => {
            let actor = Actor::Caller { username: identity.username.clone() };
            Ok(Caller { identity, actor })
        }
        None => Err(refuse(context, Code::CredentialRefused, CALLER_CHALLENGE_REFUSED)),
    }
}

/// Whoever is in a role namespace's group is a member, by whatever way it got its token. The prefix alone decides: a namespace may
/// lose its label, not its name.
fn is_of_a_role(identity: &Identity) -> bool {
    let group = format!("system:serviceaccounts:{NAMESPACE_PREFIX}");
    let account = format!("system:serviceaccount:{NAMESPACE_PREFIX}");
    identity.username.starts_with(&account) || identity.groups.iter().any(|name| name.starts_with(&group))
}

async fn authenticate_member(context: &Context, presented: &Presented, id: &str) -> Result<MemberSession, Problem> {
    let secret = match presented {
        Presented::Nothing => return Err(refuse(context, Code::NoCredentials, MEMBER_CHALLENGE)),
        Presented::Malformed => return Err(refuse(context, Code::MalformedAuthorization, MEMBER_CHALLENGE)),
        Presented::Basic { username, .. } if username != id => {
            return Err(refuse(context, Code::CredentialRefused, MEMBER_CHALLENGE));
        }
        Presented::Basic { password: secret, .. } | Presented::Bearer(secret) => secret,
    };
    let credential =
        Credential::parse(secret.expose_secret()).filter(|it| MemberId::parse(id).as_ref() == Some(it.subject()));
    let refused = || refuse(context, Code::CredentialRefused, MEMBER_CHALLENGE);
    let credential = credential.ok_or_else(refused)?;
    let cluster = &context.state.cluster;
    // The role may have been taken out of use; its members went with it.
    let member = match cluster.role(&credential.subject().role).await? {
        Some(_) => cluster.authenticate_member(&credential).await?,
        None => None,
    };
    let member = member.ok_or_else(refused)?;
    let actor = Actor::Member { username: member.id.to_string() };
    Ok(MemberSession { member, credential, actor })
}

#[derive(Deserialize)]
struct IdInPath {
    id: String,
}

async fn path_id(parts: &mut Parts, state: &State) -> Result<String, Problem> {
    let path = Path::<IdInPath>::from_request_parts(parts, state).await;
    path.map(|Path(path)| path.id).map_err(|_| Problem::new(Code::NotFound))
}

impl FromRequestParts<State> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let context = Context::from_request_parts(parts, state).await?;
        authenticate_caller(&context, &Presented::of(&parts.headers)).await
    }
}

impl FromRequestParts<State> for MemberSession {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let context = Context::from_request_parts(parts, state).await?;
        let id = path_id(parts, state).await?;
        authenticate_member(&context, &Presented::of(&parts.headers), &id).await
    }
}

impl FromRequestParts<State> for CallerOrMember {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let context = Context::from_request_parts(parts, state).await?;
        let presented = Presented::of(&parts.headers);
        if presented.is_members() {
            let id = path_id(parts, state).await?;
            return Ok(Self::Member(Box::new(authenticate_member(&context, &presented, &id).await?)));
        }
        Ok(Self::Caller(authenticate_caller(&context, &presented).await?))
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
        let mut twice = HeaderMap::new();
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert!(matches!(Presented::of(&twice), Presented::Malformed));
    }
}
