//! Confirming with the identity provider what a session alone may not do: generating and rotating access tokens.
//!
//! The same person signs in again. Meanwhile the form waits in the cookie of that sign-in. It is carried out once,
//! since the issuer redeems a code once. Changing the cookie does not make an earlier sign-in count: it must be later
//! than the session, which the API server dates, and each confirmation starts another session.

use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use http::HeaderMap;
use secrecy::SecretString;

use super::form::Fields;
use super::frame::{When, Who};
use super::login::{Deed, Login};
use super::visitor::{self, Owner, set_cookie};
use super::{sign_in, sso, tokens};
use crate::api::authentication::{CallerOrMember, caller_problem};
use crate::api::problem::{Code, Problem};
use crate::api::request_context::RequestContext;
use crate::api::sessions;
use crate::authn::{Credentials, Refusal};
use crate::domain::session::SessionKind;

/// How far the issuer's clock may be behind, and its fractions of a second, which `auth_time` leaves out.
const LEEWAY: TimeDelta = TimeDelta::seconds(5);

const SESSION_ENDED: &str = "Your session has ended. Nothing was changed. Sign in and start again.";
const SOMEBODY_ELSE: &str = "You confirmed as a different person. Nothing was changed.";

/// The issuer with which this owner confirms; `None` if the session is not of an ID token.
pub(super) fn issuer(context: &RequestContext, owner: &Owner) -> Option<String> {
    let kind = owner.caller.session.as_ref()?.session_kind()?;
    let subject = owner.caller.identity.subject.as_ref().filter(|_| kind == SessionKind::IdToken)?;
    let issuer = context.state.authn.people().issuer(&subject.issuer)?;
    issuer.console.as_ref().map(|_| issuer.name.clone())
}

/// Sends the owner off to confirm this, if that is how they do. A typed credential confirms as well.
pub(super) fn begin(
    context: &RequestContext,
    owner: &Owner,
    fields: &Fields,
    deed: &Deed,
) -> Option<Result<Response, Problem>> {
    let issuer = issuer(context, owner).filter(|_| fields.get("password").is_none())?;
    let state = &context.state;
    let begun = Login::begin(&issuer, sso::TOKENS, state.clock.now(), &state.entropy);
    Some(begun.map_err(Problem::from).and_then(|mut login| {
        login.deed = Some(deed.clone());
        if login.is_too_long() {
            return Err(Problem::field("name", "is too long to be confirmed in this way: choose a shorter one"));
        }
        sso::depart(context, owner.frame(context), &login)
    }))
}

/// The owner whose session wants something confirmed, and since when a sign-in confirms it.
pub(super) async fn owner(
    context: &RequestContext,
    headers: &HeaderMap,
    login: &Login,
) -> Result<(Owner, DateTime<Utc>), Problem> {
    let ended = || Problem::detailed(Code::CredentialRefused, SESSION_ENDED);
    let owner = visitor::owner(context, headers).await?.ok_or_else(ended)?;
    if issuer(context, &owner).is_none_or(|issuer| issuer != login.issuer) {
        return Err(ended());
    }
    let session = owner.caller.session.as_ref().ok_or_else(ended)?;
    // The API server dates it in whole seconds, and the sign-in that began the session may be in the same one.
    let after_session = session.created_at + TimeDelta::seconds(1);
    let since = login.began().map_or(after_session, |began| after_session.max(began - LEEWAY));
    Ok((owner, since))
}

/// Does what has been confirmed by this ID token, in a new session.
pub(super) async fn finish(
    context: &RequestContext,
    owner: Owner,
    deed: &Deed,
    token: &SecretString,
) -> Result<Response, Problem> {
    let (authn, credentials) = (&context.state.authn, Credentials::of_id_token(token));
    let again = authn.same_owner(&owner.caller, &credentials, &context.operation, &context.origin).await;
    let confirmed = again.map_err(|refusal| match refusal {
        Refusal::Refused => Problem::detailed(Code::CredentialRefused, SOMEBODY_ELSE),
        refusal => caller_problem(context, refusal),
    })?;
    let signed_in = sessions::sign_in(context, &credentials).await?;
    let CallerOrMember::Caller(caller) = signed_in.who else { return Err(Problem::new(Code::Internal)) };
    match sessions::sign_out(context, &CallerOrMember::Caller(Box::new(owner.caller))).await {
        Err(problem) if problem.code != Code::NotFound => return Err(problem),
        _ => {}
    }
    let who = Who { signed_in_until: When(signed_in.session.expires_at), ..owner.who };
    let owner = Owner { caller: *caller, who };
    let done = tokens::carry_out(context, &owner, &confirmed, deed).await;
    let refused = |problem| sign_in::refused(context, &Fields::default(), &deed.form(), &problem);
    let mut response = done.or_else(refused)?;
    let seconds = (signed_in.session.expires_at - context.state.clock.now()).num_seconds();
    set_cookie(&mut response, &signed_in.secret, seconds);
    Ok(response)
}
