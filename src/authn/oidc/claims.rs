//! What the claims of an ID token must say (OpenID Connect Core 1.0, section 3.1.3.7), and whom they name.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;

use super::{EmailVerified, IdToken, Issuer};
use crate::domain::access_token::{Subject, is_reserved};
use crate::domain::grants::AUTHENTICATED;

/// How far the clocks of the issuer and the API server may be apart, for the beginning of a token. There is no leeway
/// for its end.
const LEEWAY: TimeDelta = TimeDelta::seconds(60);
/// How many groups a token may name.
const MAX_GROUPS: usize = 1000;
/// The longest user name, group, UID or subject, in bytes.
const MAX_NAME: usize = 1024;
/// Claims that ID tokens do not have: those of access tokens (RFC 9068), logout tokens (OpenID Connect Back-Channel
/// Logout 1.0) and tokens that are bound to a key that Daypass does not ask for (RFC 7800).
const OF_OTHERS: [&str; 4] = ["scope", "scp", "events", "cnf"];

/// A person, as an issuer names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The user name for Kubernetes, with its prefix.
    pub username: String,
    /// The groups, with their prefixes, and `system:authenticated`.
    pub groups: Vec<String>,
    /// The UID.
    pub uid: Option<String>,
    /// Who this is at the issuer.
    pub subject: Subject,
    /// The id of the token, as the API server puts it into `extra` (KEP-4193).
    pub credential_id: Option<String>,
    /// When the token ends.
    pub expires_at: DateTime<Utc>,
}

/// Why an ID token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each has its message")]
pub enum Refused {
    #[error("it is no ID token")]
    Form,
    #[error("its header is refused")]
    Header,
    #[error("it is larger than any ID token")]
    TooLarge,
    #[error("it is a token of another kind, an access token perhaps")]
    Kind,
    #[error("its signature is wrong")]
    Signature,
    #[error("its issuer is not the one that signed it")]
    Issuer,
    #[error("it has no subject")]
    Subject,
    #[error("it is not for Daypass")]
    Audience,
    #[error("it was given to a client that Daypass does not know")]
    AuthorizedParty,
    #[error("the issuer refused the code")]
    Code,
    #[error("its nonce is not that of this sign-in, or the person did not sign in anew")]
    Login,
    #[error("it has ended, or has no end")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
    #[error("it is too old")]
    TooOld,
    #[error("a claim that is required is missing or another")]
    RequiredClaim,
    #[error("its e-mail address is not verified")]
    Email,
    #[error("its user name is missing or not allowed")]
    Username,
    #[error("its groups are not readable or not allowed")]
    Groups,
    #[error("its UID is missing or not allowed")]
    Uid,
}

/// Decides whom a token names, if its signature is right.
///
/// # Errors
/// The first rule that it breaks.
pub fn person(token: &IdToken<'_>, issuer: &Issuer, now: DateTime<Utc>) -> Result<Person, Refused> {
    let claims = token.claims();
    if text(claims, "iss") != Some(issuer.url.as_str()) {
        return Err(Refused::Issuer);
    }
    // Keycloak says which kind it is.
    if claims.get("typ").is_some_and(|kind| kind != "ID") || OF_OTHERS.iter().any(|name| claims.contains_key(*name)) {
        return Err(Refused::Kind);
    }
    let subject = text(claims, "sub").filter(|subject| is_name(subject)).ok_or(Refused::Subject)?;
    check_audience(claims, issuer)?;
    let expires_at = check_times(token, issuer, now)?;
    if issuer.required_claims.iter().any(|(name, value)| text(claims, name) != Some(value.as_str())) {
        return Err(Refused::RequiredClaim);
    }
    Ok(Person {
        username: username(claims, issuer)?,
        groups: groups(claims, issuer)?,
        uid: uid(claims, issuer)?,
        subject: issuer.subject(subject),
        credential_id: text(claims, "jti").map(|id| format!("JTI={id}")),
        expires_at,
    })
}

/// Checks that an ID token is the answer to this sign-in (OpenID Connect Core 1.0, section 3.1.3.7), before its
/// signature: whoever uses it verifies the same text afterwards. `since` is when the person had to sign in anew.
///
/// # Errors
/// [`Refused::Issuer`], [`Refused::Audience`], [`Refused::AuthorizedParty`] or [`Refused::Login`].
pub(super) fn check_login(
    token: &IdToken<'_>,
    issuer: &Issuer,
    client: &str,
    nonce: &str,
    since: Option<DateTime<Utc>>,
) -> Result<(), Refused> {
    let claims = token.claims();
    if text(claims, "iss") != Some(issuer.url.as_str()) {
        return Err(Refused::Issuer);
    }
    let is_for_client = match claims.get("aud") {
        Some(Value::String(one)) => one == client,
        Some(Value::Array(many)) => many.iter().any(|audience| audience == client),
        _ => false,
    };
    if !is_for_client {
        return Err(Refused::Audience);
    }
    if claims.get("azp").is_some_and(|party| party != client) {
        return Err(Refused::AuthorizedParty);
    }
    let is_anew = since.is_none_or(|since| time(claims, "auth_time").is_some_and(|at| at >= since));
    let has_nonce = text(claims, "nonce").is_some_and(|it| it.as_bytes().ct_eq(nonce.as_bytes()).into());
    if has_nonce && is_anew { Ok(()) } else { Err(Refused::Login) }
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name)?.as_str()
}

fn check_audience(claims: &Map<String, Value>, issuer: &Issuer) -> Result<(), Refused> {
    let audiences: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().map(Value::as_str).collect::<Option<_>>().ok_or(Refused::Audience)?,
        _ => return Err(Refused::Audience),
    };
    if !audiences.iter().any(|audience| issuer.audiences.contains(*audience)) {
        return Err(Refused::Audience);
    }
    let is_known = |party: &str| issuer.audiences.contains(party) || issuer.authorized_parties.contains(party);
    match claims.get("azp") {
        None if audiences.len() == 1 => Ok(()),
        Some(Value::String(party)) if is_known(party) => Ok(()),
        _ => Err(Refused::AuthorizedParty),
    }
}

/// Checks the times, and returns the end.
///
/// # Errors
/// The first rule that they break.
pub(super) fn check_times(token: &IdToken<'_>, issuer: &Issuer, now: DateTime<Utc>) -> Result<DateTime<Utc>, Refused> {
    let claims = token.claims();
    let expires_at = time(claims, "exp").ok_or(Refused::Expired)?;
    let issued_at = time(claims, "iat").ok_or(Refused::TooOld)?;
    if now >= expires_at {
        return Err(Refused::Expired);
    }
    let begins = match claims.get("nbf") {
        None => issued_at,
        Some(_) => time(claims, "nbf").ok_or(Refused::NotYet)?,
    };
    if begins > now + LEEWAY || issued_at > now + LEEWAY {
        return Err(Refused::NotYet);
    }
    if now - issued_at > issuer.max_token_age {
        return Err(Refused::TooOld);
    }
    Ok(expires_at)
}

/// A time in seconds, which may have a fraction (RFC 7519, section 2: NumericDate). The fraction is cut off.
fn time(claims: &Map<String, Value>, name: &str) -> Option<DateTime<Utc>> {
    let number = claims.get(name)?;
    let seconds = number.as_i64().or_else(|| number.as_f64().filter(|it| it.abs() < 1e11).map(|it| it as i64))?;
    DateTime::from_timestamp(seconds, 0)
}

fn username(claims: &Map<String, Value>, issuer: &Issuer) -> Result<String, Refused> {
    let name = text(claims, &issuer.username_claim).filter(|name| is_name(name)).ok_or(Refused::Username)?;
    if issuer.username_claim == "email" {
        match (claims.get("email_verified"), issuer.email_verified) {
            (Some(Value::Bool(true)), _) | (None, EmailVerified::IfPresent) => {}
            _ => return Err(Refused::Email),
        }
    }
    mapped(&issuer.username_prefix, name).ok_or(Refused::Username)
}

fn groups(claims: &Map<String, Value>, issuer: &Issuer) -> Result<Vec<String>, Refused> {
    let mut groups = Vec::new();
    if let Some(claim) = &issuer.groups_claim {
        // Groups that are somewhere else (OpenID Connect Core 1.0, section 5.6.2). They are never fetched.
        if claims.get("_claim_names").is_some_and(|names| names.get(claim).is_some() || !names.is_object()) {
            return Err(Refused::Groups);
        }
        let named: Vec<&str> = match claims.get(claim) {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => {
                many.iter().map(Value::as_str).collect::<Option<_>>().ok_or(Refused::Groups)?
            }
            Some(_) => return Err(Refused::Groups),
        };
        if named.len() > MAX_GROUPS || !named.iter().all(|group| is_name(group)) {
            return Err(Refused::Groups);
        }
        for group in named {
            groups.push(mapped(&issuer.groups_prefix, group).ok_or(Refused::Groups)?);
        }
    }
    groups.push(AUTHENTICATED.to_owned());
    Ok(groups)
}

fn uid(claims: &Map<String, Value>, issuer: &Issuer) -> Result<Option<String>, Refused> {
    let Some(claim) = &issuer.uid_claim else { return Ok(None) };
    let uid = text(claims, claim).filter(|uid| is_name(uid)).ok_or(Refused::Uid)?;
    Ok(Some(uid.to_owned()))
}

/// Whether a claim can name somebody: not empty, not endless, and nothing in it that hides.
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// A name for Kubernetes; `None` if it would be one of Kubernetes' own.
fn mapped(prefix: &str, name: &str) -> Option<String> {
    let name = format!("{prefix}{name}");
    (!is_reserved(&name)).then_some(name)
}

#[cfg(test)]
mod tests;
