//! Who sends a request: a caller (a Kubernetes identity, or the owner of an access token) or a member (by its credential), never both.

mod browser;
mod caller;
mod member;
mod presented;

pub(super) use caller::{Caller, authenticate_caller};
pub(super) use member::MemberSession;
pub(super) use presented::Presented;

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use serde::Deserialize;

use self::member::authenticate_member;
use super::State;
use super::context::Context;
use super::problem::{Code, Problem};
use crate::audit::{Actor, Event, Kind};
use crate::authn::Turn;

/// Either, for what both may do.
#[derive(Debug)]
pub(super) enum CallerOrMember {
    Caller(Box<Caller>),
    Member(Box<MemberSession>),
}

/// Refuses with the schemes that would be accepted, and records it where something was presented: a browser's first request comes without
/// any. Who goes on with wrong ones is told to wait.
fn refuse(context: &Context, code: Code, challenges: &[&'static str]) -> Problem {
    let refused = match code {
        Code::NoCredentials => return Problem::unauthenticated(code, challenges),
        _ => context.state.attempts.refused(context.origin.address.as_deref()),
    };
    let problem = match refused.wait {
        None => Problem::unauthenticated(code, challenges),
        Some(wait) => Problem::too_many(Code::TooManyAttempts, wait),
    };
    if refused.record {
        context.state.cluster.audit.record(&Event {
            reason: Some(&problem.code.as_string()),
            ..Event::new(Kind::AuthFailed, Actor::Anonymous, &context.origin)
        });
    }
    problem
}

/// What a request presents. The only way to it: Basic credentials that a browser sends for another site's page are
/// refused here, before anything is looked up.
///
/// # Errors
/// 403, recorded as a refused credential is.
pub(super) fn presented(context: &Context, parts: &Parts) -> Result<Presented, Problem> {
    let presented = Presented::of(&parts.headers);
    if presented.is_basic() && browser::is_foreign(parts, &context.state.settings) {
        return Err(refuse(context, Code::CrossSite, &[]));
    }
    Ok(presented)
}

/// Whose credential it is, as the API server says; `None` for nobody's. From where many wrong ones come they are
/// checked a few at a time, but for one that was right a moment ago.
///
/// # Errors
/// 503 where too many wait already; 503, too, where the API server cannot say.
async fn check<T>(
    context: &Context,
    presented: &Presented,
    ask: impl Future<Output = Result<Option<T>, Problem>>,
) -> Result<Option<T>, Problem> {
    let Some(credential) = presented.digest() else { return Ok(None) };
    let checks = &context.state.checks;
    let mut turn = None;
    if context.state.attempts.is_flooding(context.origin.address.as_deref()) && !checks.was_accepted(&credential) {
        if checks.was_refused(&credential) {
            return Ok(None);
        }
        turn = Some(context.turn().await?);
    }
    let whose = ask.await?;
    checks.note(credential, whose.is_some());
    if let Some(turn) = turn.filter(|_| whose.is_none()) {
        turn.keep_pace().await;
    }
    Ok(whose)
}

impl Context {
    /// Waits for a turn among what comes from addresses that many wrong credentials come from.
    pub(in crate::api) async fn turn(&self) -> Result<Turn<'_>, Problem> {
        let turn = self.state.checks.turn().await;
        turn.ok_or_else(|| Problem::detailed(Code::Unavailable, "too many credentials wait to be checked; try again"))
    }
}

#[derive(Deserialize)]
struct IdInPath {
    id: String,
}

async fn path_id(parts: &mut Parts, state: &State) -> Result<String, Problem> {
    let path = Path::<IdInPath>::from_request_parts(parts, state).await;
    path.map(|Path(path)| path.id).map_err(|_| Problem::new(Code::NotFound))
}

impl FromRequestParts<State> for CallerOrMember {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let context = Context::from_request_parts(parts, state).await?;
        let presented = presented(&context, parts)?;
        if presented.is_members() {
            let id = path_id(parts, state).await?;
            return Ok(Self::Member(Box::new(authenticate_member(&context, &presented, &id).await?)));
        }
        Ok(Self::Caller(Box::new(authenticate_caller(&context, &presented).await?)))
    }
}
