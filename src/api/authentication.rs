//! Extractors that authenticate REST requests, and the errors for refused credentials.

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;

use super::State;
use super::problem::{Code, Problem};
use super::request_context::RequestContext;
use crate::authn::{Caller, Credentials, MemberSession, Refusal, is_cross_site};
use crate::observability::audit::Cause;

/// The challenges to a caller (RFC 6750, section 3; RFC 7617).
const CALLER: [&str; 3] =
    [r#"Bearer realm="daypass""#, r#"Token realm="daypass""#, r#"Basic realm="daypass", charset="UTF-8""#];
/// The same, after a credential was refused.
const CALLER_REFUSED: [&str; 3] = [r#"Bearer realm="daypass", error="invalid_token""#, CALLER[1], CALLER[2]];
/// The challenge to a member. It makes a browser ask for user name and password (RFC 7617).
const MEMBER: [&str; 1] = [r#"Basic realm="daypass member", charset="UTF-8""#];

/// The operation that a link on another site may open.
pub(super) const DOWNLOAD: &str = "/members/{id}/kubeconfig";

/// A caller or a member, for operations that are open to both.
#[derive(Debug)]
pub(crate) enum CallerOrMember {
    Caller(Box<Caller>),
    Member(Box<MemberSession>),
}

impl CallerOrMember {
    pub(crate) fn cause<'a>(&'a self, context: &'a RequestContext) -> Cause<'a> {
        match self {
            Self::Caller(caller) => caller.cause(&context.origin),
            Self::Member(session) => session.cause(&context.origin),
        }
    }
}

/// Reads the credentials of a request. Refuses Basic credentials that a browser sent for a page of another site,
/// before any lookup.
///
/// # Errors
/// 403, counted and recorded like any refused credential.
pub(super) fn credentials(context: &RequestContext, parts: &Parts) -> Result<Credentials, Problem> {
    let credentials = Credentials::of(&parts.headers);
    let is_download = context.operation.starts_with("GET ") && context.operation.ends_with(DOWNLOAD);
    if credentials.is_basic() && is_cross_site(&parts.headers, &context.state.settings.origin(), is_download) {
        return Err(problem(context.state.authn.refuse(Refusal::CrossSite, &context.origin), &[]));
    }
    Ok(credentials)
}

/// Authenticates a caller or a member, as the form of the credential says.
///
/// # Errors
/// The error for the client.
pub(crate) async fn caller_or_member(
    context: &RequestContext,
    credentials: &Credentials,
    id: Option<&str>,
) -> Result<CallerOrMember, Problem> {
    if credentials.is_member() {
        return Ok(CallerOrMember::Member(Box::new(member(context, credentials, id).await?)));
    }
    let caller = caller(context, credentials).await.map_err(|refusal| caller_problem(context, refusal))?;
    Ok(CallerOrMember::Caller(Box::new(caller)))
}

/// Authenticates a caller.
pub(crate) async fn caller(context: &RequestContext, credentials: &Credentials) -> Result<Caller, Refusal> {
    let caller = context.state.authn.caller(credentials, &context.operation, &context.origin).await?;
    context.connection.authenticate();
    Ok(caller)
}

/// The error for a caller that was not authenticated.
pub(crate) fn caller_problem(context: &RequestContext, refusal: Refusal) -> Problem {
    let challenges = if matches!(refusal, Refusal::Refused) { &CALLER_REFUSED } else { &CALLER };
    // Without access tokens, Bearer is the only scheme left.
    let accepted = if context.state.authn.methods().access_tokens { challenges.len() } else { 1 };
    problem(refusal, &challenges[..accepted])
}

/// Authenticates a member: the one of this id, if the path names one.
pub(crate) async fn member(
    context: &RequestContext,
    credentials: &Credentials,
    id: Option<&str>,
) -> Result<MemberSession, Problem> {
    let session = context.state.authn.member(credentials, id, &context.origin).await;
    let session = session.map_err(|refusal| problem(refusal, &MEMBER))?;
    context.connection.authenticate();
    Ok(session)
}

/// The member's id in the path, if its route has one.
async fn id_in_path(parts: &mut Parts) -> Result<Option<String>, Problem> {
    let found = RawPathParams::from_request_parts(parts, &()).await.map_err(|_| Problem::new(Code::NotFound))?;
    Ok(found.iter().find(|(name, _)| *name == "id").map(|(_, id)| id.to_owned()))
}

fn problem(refusal: Refusal, challenges: &[&'static str]) -> Problem {
    match refusal {
        Refusal::NoCredentials => Problem::unauthenticated(Code::NoCredentials, challenges),
        Refusal::Malformed => Problem::unauthenticated(Code::MalformedAuthorization, challenges),
        Refusal::Refused => Problem::unauthenticated(Code::CredentialRefused, challenges),
        Refusal::AccessTokensDisabled => Problem::unauthenticated(Code::TokenAuthenticationDisabled, challenges),
        Refusal::CrossSite => Problem::new(Code::CrossSite),
        Refusal::TooManyAttempts { wait } => Problem::too_many(Code::TooManyAttempts, wait),
        Refusal::TooManyDenials { wait } => Problem::too_many(Code::TooManyDenials, wait),
        Refusal::Busy => {
            Problem::detailed(Code::Unavailable, "too many credentials are waiting to be checked; try again")
        }
        Refusal::TooManyRequests => {
            Problem::detailed(Code::Unavailable, "the caller has too many requests in progress; try again")
        }
        Refusal::IssuerUnavailable => {
            let why = "the issuer of the ID token does not answer, or its keys are being fetched; try again";
            Problem::detailed(Code::Unavailable, why)
        }
        Refusal::Unavailable(error) => error.into(),
    }
}

impl FromRequestParts<State> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let context = RequestContext::from_request_parts(parts, state).await?;
        let credentials = credentials(&context, parts)?;
        caller(&context, &credentials).await.map_err(|refusal| caller_problem(&context, refusal))
    }
}

impl FromRequestParts<State> for MemberSession {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let context = RequestContext::from_request_parts(parts, state).await?;
        let credentials = credentials(&context, parts)?;
        let id = id_in_path(parts).await?;
        member(&context, &credentials, id.as_deref()).await
    }
}

impl FromRequestParts<State> for CallerOrMember {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let context = RequestContext::from_request_parts(parts, state).await?;
        let credentials = credentials(&context, parts)?;
        let id = id_in_path(parts).await?;
        caller_or_member(&context, &credentials, id.as_deref()).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn audit_trail_has_the_code_that_the_client_gets() {
        let wait = Duration::from_secs(1);
        for refusal in [
            Refusal::NoCredentials,
            Refusal::Malformed,
            Refusal::Refused,
            Refusal::AccessTokensDisabled,
            Refusal::CrossSite,
            Refusal::TooManyAttempts { wait },
            Refusal::TooManyDenials { wait },
        ] {
            let code = refusal.code();
            assert_eq!(code, Some(problem(refusal, &[]).code.as_str()));
        }
    }
}
