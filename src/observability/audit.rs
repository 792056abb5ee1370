//! The audit trail: one JSON line per event on standard output. `docs/audit.md` documents the schema.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::SecondsFormat;
use serde::Serialize;

pub use super::api_call::{ApiCall, Traffic};
use crate::clock::{Clock, Entropy};
use crate::domain::access_token::{AccessToken, Scope, Subject};
use crate::domain::lifetime::rfc3339;
use crate::domain::member::Member;
use crate::domain::session::{SessionKind, SessionOrigin};
use crate::domain::token::TokenClaims;

/// The version of the schema. Within a version, fields may be added but never removed or changed in meaning.
const API_VERSION: &str = "audit.daypass.dev/v1";

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "docs/audit.md describes each")]
pub enum Kind {
    MemberCreated,
    Extended,
    Shortened,
    CredentialIssued,
    KubeconfigIssued,
    KubeconfigRevoked,
    RoleWidened,
    GatewayTokenMinted,
    StreamOpened,
    StreamClosed,
    RequestForwarded,
    Expired,
    Revoked,
    TokenCreated,
    TokenRotated,
    TokenRenamed,
    TokenRevoked,
    TokenExpired,
    TokenReused,
    SessionCreated,
    SessionEnded,
    Denied,
    AuthFailed,
}

/// Who caused an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Actor {
    /// A caller of the REST API.
    Caller {
        /// Its Kubernetes user name.
        username: String,
        /// Who it is at its issuer, if it is a person with an ID token.
        #[serde(flatten)]
        subject: Option<Subject>,
    },
    /// The holder of an access token, or of a session.
    #[serde(rename_all = "camelCase")]
    AccessToken {
        /// The Kubernetes user name of its owner.
        username: String,
        /// The token's id.
        token_id: String,
        /// The caller that created it.
        created_by: String,
        /// Who its owner is at their issuer, if it is a person.
        #[serde(flatten)]
        subject: Option<Subject>,
    },
    /// A member, by its credential.
    Member {
        /// Its id.
        username: String,
    },
    /// Daypass itself, for example when a member expires.
    Daypass,
    /// Someone with access to the Kubernetes API. Its audit log says who.
    Kubernetes,
    /// Unknown.
    Anonymous,
}

/// Where an event came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's address.
    pub address: Option<String>,
    /// The request's id, as in `x-request-id`.
    pub request_id: Option<String>,
    /// Method and path of the request.
    pub request: Option<String>,
}

/// Who caused an event, from where, and with whose rights.
#[derive(Debug, Clone, Copy)]
pub struct Cause<'a> {
    /// Who caused it.
    pub actor: &'a Actor,
    /// The Kubernetes user with whose rights it was decided.
    pub owner: Option<&'a str>,
    /// Where it came from.
    pub origin: &'a Origin,
}

impl<'a> Cause<'a> {
    /// A cause inside Daypass or the cluster, with no request and no owner.
    pub fn internal(actor: &'a Actor) -> Self {
        const NOWHERE: &Origin = &Origin { address: None, request_id: None, request: None };
        Self { actor, owner: None, origin: NOWHERE }
    }

    /// An event with this cause.
    pub fn event(self, kind: Kind) -> Event<'a> {
        Event { owner: self.owner, ..Event::new(kind, self.actor.clone(), self.origin) }
    }
}

/// An event, without the fields that every event has.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    /// What happened.
    pub kind: Kind,
    /// Who caused it.
    pub actor: Actor,
    /// The Kubernetes user with whose rights it was decided: the caller, or the owner of the access token that it
    /// used.
    pub owner: Option<&'a str>,
    /// Where it came from.
    pub origin: &'a Origin,
    /// The member concerned.
    pub member: Option<&'a Member>,
    /// The requested role, if there is no member.
    pub role_id: Option<&'a str>,
    /// The access token, or session, concerned.
    pub token: Option<&'a AccessToken>,
    /// The id of the kubeconfig concerned.
    pub jti: Option<&'a str>,
    /// What was refused, or why: an error code, never free text.
    pub reason: Option<&'a str>,
    /// The token that the gateway has minted.
    pub minted: Option<&'a TokenClaims>,
    /// What was asked of the API server through the gateway.
    pub call: Option<&'a ApiCall>,
    /// How much has gone through the gateway.
    pub traffic: Option<Traffic>,
}

impl<'a> Event<'a> {
    /// An event without a member, role, token or kubeconfig.
    pub fn new(kind: Kind, actor: Actor, origin: &'a Origin) -> Self {
        Self {
            kind,
            actor,
            owner: None,
            origin,
            member: None,
            role_id: None,
            token: None,
            jti: None,
            reason: None,
            minted: None,
            call: None,
            traffic: None,
        }
    }

    /// Sets the member concerned.
    pub fn about_member(self, member: &'a Member) -> Self {
        Self { member: Some(member), ..self }
    }

    /// Sets the access token, or session, concerned.
    pub fn about_token(self, token: &'a AccessToken) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Sets the token that the gateway has minted.
    pub fn with_minted(self, claims: &'a TokenClaims) -> Self {
        Self { minted: Some(claims), ..self }
    }

    /// Sets what was asked of the API server through the gateway, and how much has gone through.
    pub fn with_call(self, call: &'a ApiCall, traffic: Option<Traffic>) -> Self {
        Self { call: Some(call), traffic, ..self }
    }

    /// Sets the reason.
    pub fn with_reason(self, reason: Option<&'a str>) -> Self {
        Self { reason, ..self }
    }

    /// Sets the kubeconfig concerned, by its `jti`.
    pub fn with_jti(self, jti: Option<&'a str>) -> Self {
        Self { jti, ..self }
    }
}

/// A token of a member's service account.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Minted<'a> {
    jti: &'a str,
    expires_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    api_version: &'static str,
    id: String,
    time: String,
    event: Kind,
    data_plane_id: &'a str,
    actor: &'a Actor,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minted: Option<Minted<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<&'a ApiCall>,
    #[serde(flatten)]
    traffic: Option<Traffic>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<Grant<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenGrant<'a>>,
}

/// The whole grant, in every event about a member, so that its last event alone answers who, why, and from when to
/// when.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Grant<'a> {
    id: String,
    uid: &'a str,
    role_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<&'a str>,
    created_at: String,
    expires_at: String,
}

/// An access token's owner, creator and scopes. Never its hash, which identifies the secret.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenGrant<'a> {
    id: String,
    uid: &'a str,
    name: &'a str,
    owner: &'a str,
    #[serde(flatten)]
    subject: Option<&'a Subject>,
    created_by: &'a str,
    scopes: Vec<&'static str>,
    created_at: String,
    expires_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_of: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_for: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<String>,
}

/// Writes events to the audit trail.
#[derive(Clone)]
pub struct Audit {
    data_plane_id: Arc<str>,
    clock: Clock,
    entropy: Entropy,
    sink: Arc<Mutex<dyn std::io::Write + Send>>,
}

impl Audit {
    /// An audit trail for this data plane that writes to `sink`.
    pub fn new(data_plane_id: &str, clock: Clock, sink: impl std::io::Write + Send + 'static) -> Self {
        Self {
            data_plane_id: data_plane_id.into(),
            clock,
            entropy: Entropy::default(),
            sink: Arc::new(Mutex::new(sink)),
        }
    }

    /// Writes an event. Only logs a failure, since the recorded action has already happened.
    pub fn record(&self, event: &Event<'_>) {
        if let Err(error) = self.write(event) {
            tracing::error!(%error, event = ?event.kind, "could not write an audit event");
        }
    }

    fn write(&self, event: &Event<'_>) -> anyhow::Result<()> {
        let line = Line {
            api_version: API_VERSION,
            id: self.entropy.uuid()?.to_string(),
            time: self.clock.now().to_rfc3339_opts(SecondsFormat::Millis, true),
            event: event.kind,
            data_plane_id: &self.data_plane_id,
            actor: &event.actor,
            owner: event.owner,
            source_address: event.origin.address.as_deref(),
            request_id: event.origin.request_id.as_deref(),
            request: event.origin.request.as_deref(),
            role_id: event.role_id,
            jti: event.jti,
            reason: event.reason,
            minted: event.minted.map(|it| Minted { jti: &it.jti, expires_at: rfc3339(it.exp) }),
            call: event.call,
            traffic: event.traffic,
            member: event.member.map(Grant::of),
            token: event.token.map(TokenGrant::of),
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        // Write each line at once, so that lines never mix.
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        sink.write_all(&text)?;
        Ok(sink.flush()?)
    }
}

impl<'a> Grant<'a> {
    fn of(member: &'a Member) -> Self {
        Self {
            id: member.id.to_string(),
            uid: &member.uid,
            role_id: member.id.role.as_str(),
            username: member.username.as_deref(),
            description: member.description.as_deref(),
            created_by: member.created_by.as_deref(),
            created_at: rfc3339(member.created_at),
            expires_at: rfc3339(member.expires_at()),
        }
    }
}

impl<'a> TokenGrant<'a> {
    fn of(token: &'a AccessToken) -> Self {
        Self {
            id: token.id.to_string(),
            uid: &token.uid,
            name: &token.name,
            owner: &token.owner.username,
            subject: token.owner.subject.as_ref(),
            created_by: &token.created_by,
            scopes: token.scopes.iter().copied().map(Scope::as_str).collect(),
            created_at: rfc3339(token.created_at),
            expires_at: rfc3339(token.expires_at),
            session_of: match &token.session {
                Some(SessionOrigin::Token { token, .. }) => Some(token),
                Some(SessionOrigin::Owner | SessionOrigin::Member { .. }) | None => None,
            },
            issued_for: token.session_kind().map(SessionKind::as_str),
            member: match &token.session {
                Some(SessionOrigin::Member { id, .. }) => Some(id.to_string()),
                Some(SessionOrigin::Token { .. } | SessionOrigin::Owner) | None => None,
            },
        }
    }
}
