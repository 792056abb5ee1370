//! Sign-in sessions: how long one lasts, how many there are, and what ends one early.
//!
//! A session is an [`AccessToken`] with a [`SessionOrigin`].

use chrono::TimeDelta;

use super::access_token::AccessToken;
use super::member::Member;
use super::member_id::MemberId;
use super::token_id::IdForm;

/// How long a session lasts, unless what it was issued for ends earlier.
pub const SESSION_LIFETIME: TimeDelta = TimeDelta::minutes(30);
/// The most live sessions of an access token, and of a caller that signs in with another token.
pub const MAX_SESSIONS: usize = 16;
/// The most live sessions of a member.
pub const MAX_MEMBER_SESSIONS: usize = 4;

/// What a session was issued for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionOrigin {
    /// An access token.
    Token {
        /// The name of the token's object.
        token: String,
        /// Its UID.
        token_uid: String,
        /// The fingerprint of its secret, so that rotating the token ends the session.
        secret: String,
    },
    /// A Kubernetes token or an ID token. The session's owner is whoever it names.
    Owner,
    /// A member's credential.
    Member {
        /// The member.
        id: MemberId,
        /// The UID of its object.
        uid: String,
        /// The fingerprint of its credential, so that a new one ends the session.
        credential: String,
    },
}

/// The kind of credential that a session was issued for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// An access token.
    AccessToken,
    /// A token that the API server vouches for.
    KubernetesToken,
    /// A person's ID token.
    IdToken,
    /// A member's credential.
    Member,
}

impl SessionKind {
    /// Its name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => "ACCESS_TOKEN",
            Self::KubernetesToken => "KUBERNETES_TOKEN",
            Self::IdToken => "ID_TOKEN",
            Self::Member => "MEMBER",
        }
    }
}

impl SessionOrigin {
    /// The form of the ids of such sessions.
    pub fn form(&self) -> IdForm {
        match self {
            Self::Token { .. } => IdForm::SessionOfToken,
            Self::Owner => IdForm::SessionOfOwner,
            Self::Member { .. } => IdForm::SessionOfMember,
        }
    }

    /// The most live sessions of one origin.
    pub fn most(&self) -> usize {
        match self {
            Self::Token { .. } | Self::Owner => MAX_SESSIONS,
            Self::Member { .. } => MAX_MEMBER_SESSIONS,
        }
    }

    /// Whether it is this member with its present credential.
    pub fn is_member(&self, member: &Member) -> bool {
        match self {
            Self::Member { id, uid, credential } => {
                let present = member.status.credential.as_ref();
                *id == member.id && *uid == member.uid && present.is_some_and(|hash| hash.fingerprint() == credential)
            }
            Self::Token { .. } | Self::Owner => false,
        }
    }
}

impl Member {
    /// The origin of its sessions; `None` if it has no credential.
    pub fn as_origin(&self) -> Option<SessionOrigin> {
        let credential = self.status.credential.as_ref()?.fingerprint().to_owned();
        Some(SessionOrigin::Member { id: self.id.clone(), uid: self.uid.clone(), credential })
    }
}

impl AccessToken {
    /// The origin of its sessions; call it for access tokens only.
    pub fn as_origin(&self) -> SessionOrigin {
        SessionOrigin::Token {
            token: self.id.object_name().to_owned(),
            token_uid: self.uid.clone(),
            secret: self.hash.fingerprint().to_owned(),
        }
    }

    /// What it was issued for, if it is a session.
    pub fn session_kind(&self) -> Option<SessionKind> {
        Some(match self.session.as_ref()? {
            SessionOrigin::Token { .. } => SessionKind::AccessToken,
            SessionOrigin::Owner if self.owner.subject.is_some() => SessionKind::IdToken,
            SessionOrigin::Owner => SessionKind::KubernetesToken,
            SessionOrigin::Member { .. } => SessionKind::Member,
        })
    }

    /// Whether it is a session of something else than an access token. The limits on tokens do not apply to it.
    pub fn is_session_without_token(&self) -> bool {
        matches!(self.session, Some(SessionOrigin::Owner | SessionOrigin::Member { .. }))
    }

    /// Whether it is a session of `token` with its present secret.
    pub fn is_session_of(&self, token: &Self) -> bool {
        match &self.session {
            Some(SessionOrigin::Token { token: name, token_uid, secret }) => {
                name == token.id.object_name() && *token_uid == token.uid && secret == token.hash.fingerprint()
            }
            Some(SessionOrigin::Owner | SessionOrigin::Member { .. }) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::access_token::{Subject, TokenSecret};
    use crate::domain::examples::{hash, member, token, token_rules};
    use crate::domain::member::RecordedStatus;

    #[test]
    fn session_belongs_to_one_secret_of_one_token() {
        let of = token();
        let session = AccessToken { session: Some(of.as_origin()), expires_at: token().created_at, ..token() };
        assert!(session.is_session_of(&of));
        assert_eq!(session.ends_at(&token_rules()), token().created_at);
        let rotated = AccessToken { hash: TokenSecret::new(of.id.clone(), &[2; 32]).hash(), ..token() };
        assert!(!session.is_session_of(&rotated));
        assert!(!session.is_session_of(&AccessToken { uid: "other".into(), ..token() }));
        assert!(!token().is_session_of(&of));
        for origin in [SessionOrigin::Owner, member().as_origin().unwrap()] {
            assert!(!AccessToken { session: Some(origin), ..token() }.is_session_of(&of));
        }
    }

    #[test]
    fn session_belongs_to_one_credential_of_one_member() {
        let with = |credential: Option<u8>| Member {
            status: RecordedStatus { credential: credential.map(hash), ..member().status },
            ..member()
        };
        let of = with(Some(1));
        let origin = of.as_origin().unwrap();
        assert!(origin.is_member(&of));
        let elsewhere = Member { id: MemberId::new(of.id.role.clone(), "another").unwrap(), ..of.clone() };
        for other in [with(Some(2)), with(None), Member { uid: "m2".into(), ..of.clone() }, elsewhere] {
            assert!(!origin.is_member(&other));
        }
        assert!(!SessionOrigin::Owner.is_member(&of) && !token().as_origin().is_member(&of));
        assert_eq!(with(None).as_origin(), None);
    }

    #[test]
    fn kind_names_what_was_presented() {
        let of = |origin: SessionOrigin| AccessToken { session: Some(origin), ..token() };
        assert_eq!(token().session_kind(), None);
        assert_eq!(of(token().as_origin()).session_kind(), Some(SessionKind::AccessToken));
        let mut session = of(SessionOrigin::Owner);
        assert_eq!(session.session_kind(), Some(SessionKind::KubernetesToken));
        session.owner.subject =
            Some(Subject { issuer: "https://id".into(), subject: "s".into(), mapping: "m".into() });
        assert_eq!(session.session_kind(), Some(SessionKind::IdToken));
    }

    #[test]
    fn limits_on_tokens_do_not_touch_other_sessions() {
        let rules = token_rules();
        let session = AccessToken { session: Some(SessionOrigin::Owner), ..token() };
        let user = AccessToken {
            owner: crate::domain::access_token::Owner { username: "alice".into(), ..token().owner },
            ..session
        };
        let now = token().created_at;
        assert!(user.is_live(&rules, now), "although users may own no tokens");
        assert!(!user.is_live(&rules, user.expires_at));
        assert!(!AccessToken { ended: true, ..user.clone() }.is_live(&rules, now));
        assert!(!AccessToken { deleting: true, ..user }.is_live(&rules, now));
    }
}
