//! Authenticates members, by their credential.

use super::{Authenticator, Credentials, PresentedSecret, Refusal};
use crate::domain::member::{Credential, Member};
use crate::domain::member_id::MemberId;
use crate::observability::audit::{Actor, Cause, Origin};

/// An authenticated member, and the credential that it presented.
#[derive(Debug)]
pub struct MemberSession {
    /// The member.
    pub member: Member,
    /// Its credential.
    pub credential: Credential,
    actor: Actor,
}

impl MemberSession {
    /// This member as the cause of a change.
    pub fn cause<'a>(&'a self, origin: &'a Origin) -> Cause<'a> {
        Cause { actor: &self.actor, owner: None, origin }
    }
}

impl Authenticator {
    /// Authenticates the member of this id.
    ///
    /// # Errors
    /// The reason for the refusal. A refused credential is counted and recorded.
    pub async fn member(&self, presented: &Credentials, id: &str, origin: &Origin) -> Result<MemberSession, Refusal> {
        let (digest, secret) = self.presented(presented, origin)?;
        let wrong = || self.refuse(Refusal::Refused, origin);
        let PresentedSecret::Member(Some(credential)) = secret else { return Err(wrong()) };
        let is_own = MemberId::parse(id).as_ref() == Some(credential.subject());
        if !is_own || presented.username().is_some_and(|username| username != id) {
            return Err(wrong());
        }
        let look_up = async { Ok(self.membership.authenticate(credential).await?) };
        let member = self.check(digest, origin, look_up).await?.ok_or_else(wrong)?;
        let actor = Actor::Member { username: member.id.to_string() };
        Ok(MemberSession { member, credential: credential.clone(), actor })
    }
}
