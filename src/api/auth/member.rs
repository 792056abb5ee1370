//! Members.

use axum::extract::FromRequestParts;
use http::request::Parts;
use secrecy::ExposeSecret as _;

use super::{Presented, check, path_id, presented, refuse};
use crate::api::State;
use crate::api::context::Context;
use crate::api::problem::{Code, Problem};
use crate::audit::Actor;
use crate::cluster::Cause;
use crate::domain::id::MemberId;
use crate::domain::member::Member;
use crate::domain::secret::Credential;

/// What a member is told to send; a browser asks for user name and password (RFC 7617).
const CHALLENGE: [&str; 1] = [r#"Basic realm="daypass member", charset="UTF-8""#];

/// An authenticated member, and the credential that it came with.
#[derive(Debug)]
pub(in crate::api) struct MemberSession {
    pub(in crate::api) member: Member,
    pub(in crate::api) credential: Credential,
    actor: Actor,
}

impl MemberSession {
    pub(in crate::api) fn cause<'a>(&'a self, context: &'a Context) -> Cause<'a> {
        Cause { actor: &self.actor, owner: None, origin: &context.origin }
    }
}

pub(super) async fn authenticate_member(
    context: &Context,
    presented: &Presented,
    id: &str,
) -> Result<MemberSession, Problem> {
    let refused = |code| refuse(context, code, &CHALLENGE);
    let secret = match presented {
        Presented::Nothing => return Err(refused(Code::NoCredentials)),
        Presented::Malformed => return Err(refused(Code::MalformedAuthorization)),
        Presented::Basic { username, .. } if username != id => return Err(refused(Code::CredentialRefused)),
        Presented::Basic { password: secret, .. } | Presented::Bearer(secret) => secret,
    };
    let credential =
        Credential::parse(secret.expose_secret()).filter(|it| MemberId::parse(id).as_ref() == Some(it.subject()));
    let credential = credential.ok_or_else(|| refused(Code::CredentialRefused))?;
    let cluster = &context.state.cluster;
    let ask = async {
        // The role may have been taken out of use; its members went with it.
        Ok(match cluster.role(&credential.subject().role).await? {
            Some(_) => cluster.authenticate_member(&credential).await?,
            None => None,
        })
    };
    let member = check(context, presented, ask).await?.ok_or_else(|| refused(Code::CredentialRefused))?;
    context.connection.authenticate();
    let actor = Actor::Member { username: member.id.to_string() };
    Ok(MemberSession { member, credential, actor })
}

impl FromRequestParts<State> for MemberSession {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let context = Context::from_request_parts(parts, state).await?;
        let presented = presented(&context, parts)?;
        let id = path_id(parts, state).await?;
        authenticate_member(&context, &presented, &id).await
    }
}
