//! Authenticates members, by their credential or by a session.

use super::{Authenticator, Credentials, Digest, PresentedSecret, Refusal};
use crate::domain::access_token::{AccessToken, IdForm, TokenSecret};
use crate::domain::member::{Credential, Member};
use crate::domain::member_id::MemberId;
use crate::domain::secret::SecretHash;
use crate::domain::session::SessionOrigin;
use crate::observability::audit::{Actor, Cause, Origin};

/// An authenticated member.
#[derive(Debug)]
pub struct MemberSession {
    /// The member.
    pub member: Member,
    /// The hash of its credential: the one that it presented, or that its session was issued for.
    pub credential: SecretHash,
    /// Its session, if it presented one.
    pub session: Option<AccessToken>,
    actor: Actor,
}

impl MemberSession {
    /// This member as the cause of a change.
    pub fn cause<'a>(&'a self, origin: &'a Origin) -> Cause<'a> {
        Cause { actor: &self.actor, owner: None, origin }
    }

    /// The actor in the audit trail.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The origin of its sessions.
    pub fn origin(&self) -> SessionOrigin {
        SessionOrigin::Member {
            id: self.member.id.clone(),
            uid: self.member.uid.clone(),
            credential: self.credential.fingerprint().to_owned(),
        }
    }

    /// Identifies it among callers and members.
    pub fn digest(&self) -> Digest {
        Digest::of([b"member", self.member.uid.as_bytes()])
    }
}

/// The result of looking up a credential or a session.
struct Login {
    member: Member,
    credential: SecretHash,
    session: Option<AccessToken>,
}

impl Authenticator {
    /// Authenticates a member: the one of this id, if the request names one.
    ///
    /// # Errors
    /// The reason for the refusal. A refused credential is counted and recorded.
    pub async fn member(
        &self,
        presented: &Credentials,
        id: Option<&str>,
        origin: &Origin,
    ) -> Result<MemberSession, Refusal> {
        let (digest, secret) = self.presented(presented, origin)?;
        let wrong = || self.refuse(Refusal::Refused, origin);
        let found = match secret {
            PresentedSecret::Member(Some(credential)) => {
                if !is_asked(credential.subject(), presented, id) {
                    return Err(wrong());
                }
                self.check(digest, origin, self.by_credential(credential)).await?
            }
            PresentedSecret::AccessToken(Some(secret)) if secret.subject().form() == IdForm::SessionOfMember => {
                // The secret does not name its member.
                let found = self.check(digest, origin, self.by_member_session(secret)).await?;
                found.filter(|login| is_asked(&login.member.id, presented, id))
            }
            PresentedSecret::Member(None)
            | PresentedSecret::AccessToken(_)
            | PresentedSecret::Gateway
            | PresentedSecret::Foreign(_)
            | PresentedSecret::Other => return Err(wrong()),
        };
        let Login { member, credential, session } = found.ok_or_else(wrong)?;
        let actor = Actor::Member { username: member.id.to_string() };
        Ok(MemberSession { member, credential, session, actor })
    }

    async fn by_credential(&self, credential: &Credential) -> Result<Option<Login>, Refusal> {
        let found = self.membership.authenticate(credential).await?;
        Ok(found.map(|member| Login { member, credential: credential.hash(), session: None }))
    }

    /// The member is read live, too: its end, a shorter one and a new credential end the session.
    async fn by_member_session(&self, secret: &TokenSecret) -> Result<Option<Login>, Refusal> {
        let Some(session) = self.tokens.session_of_member(secret).await? else { return Ok(None) };
        let Some(SessionOrigin::Member { id, .. }) = &session.session else { return Ok(None) };
        let member = self.membership.living(id).await?;
        let is_of = |member: &Member| session.session.as_ref().is_some_and(|of| of.is_member(member));
        let Some(member) = member.filter(is_of) else { return Ok(None) };
        let credential = member.status.credential.clone();
        Ok(credential.map(|credential| Login { member, credential, session: Some(session) }))
    }
}

/// Whether this is the member that the path and the user name mean, if there are any.
fn is_asked(of: &MemberId, presented: &Credentials, id: Option<&str>) -> bool {
    let is_it = |name: &str| MemberId::parse(name).as_ref() == Some(of);
    id.is_none_or(is_it) && presented.username().is_none_or(|name| name == of.to_string())
}
