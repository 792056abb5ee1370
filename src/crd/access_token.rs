//! `AccessToken`: its schema, its CEL rules, and decoding into the domain.

use chrono::{DateTime, Utc};
use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::object::Object;
use super::schema::{Unreadable, date_schema, id_schema, immutable, text_schema};
use crate::domain::access_token::{
    self, Extra, Groups, IdForm, Owner, Scope, Subject, TokenId, is_reserved, owner_key,
};
use crate::domain::member_id::MemberId;
use crate::domain::secret::{SecretHash, SecretSubject as _};
use crate::domain::session::SessionOrigin;

/// A personal access token for Daypass's REST API, or a sign-in session. Written by Daypass alone.
#[derive(CustomResource, KubeSchema, Clone, Debug, Serialize, Deserialize)]
#[kube(
    group = "daypass.dev",
    version = "v1alpha1",
    kind = "AccessToken",
    plural = "accesstokens",
    shortname = "dpt",
    namespaced,
    status = "AccessTokenStatus",
    doc = "A personal access token for Daypass's REST API, or a sign-in session. Create it with that API or \
           `daypass token`; only Daypass writes this object.",
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner.username"),
    printcolumn(name = "Title", type_ = "string", json_path = ".spec.name", description = "The token's display name"),
    printcolumn(name = "Scopes", type_ = "string", json_path = ".spec.scopes"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expiresAt"),
    printcolumn(name = "Last used", type_ = "date", json_path = ".status.lastUsedAt",
        description = "To within ten minutes"),
    validation = Rule::new("self.spec.id.startsWith(self.metadata.name + '-')")
        .message("spec.id must begin with metadata.name"),
    validation = Rule::new(
        "size(self.spec.scopes) > 0 || (has(self.spec.session) && has(self.spec.session.member))"
    ).message("spec.scopes must not be empty, except in a member's session"),
    validation = Rule::new(
        "has(self.spec.session) == false || (has(self.spec.session.token) == has(self.spec.session.tokenUid) && \
         has(self.spec.session.member) == has(self.spec.session.memberUid) && \
         !(has(self.spec.session.token) && has(self.spec.session.member)) && has(self.spec.session.secret) == \
         (has(self.spec.session.token) || has(self.spec.session.member)))"
    ).message("spec.session must be of a token, of a member, or empty"),
    validation = immutable!("id"),
    validation = immutable!("owner"),
    validation = immutable!("createdBy"),
    validation = immutable!("scopes"),
    validation = immutable!("identity"),
    validation = immutable!("session"),
)]
#[serde(rename_all = "camelCase")]
pub struct AccessTokenSpec {
    /// The token's id in the REST API, part of its secret.
    #[schemars(schema_with = "token_id_schema")]
    pub id: String,
    /// Display name.
    #[schemars(schema_with = "text_schema::<255>")]
    pub name: String,
    /// The identity whose rights the token has.
    pub owner: OwnerSpec,
    /// The caller that created the token.
    #[schemars(schema_with = "text_schema::<1024>")]
    pub created_by: String,
    /// What the token may be used for. Empty in a member's session.
    #[schemars(schema_with = "scopes_schema")]
    pub scopes: Vec<String>,
    /// When the token ends, used or not.
    #[schemars(schema_with = "date_schema")]
    #[x_kube(validation = Rule::new("self.getFullYear() <= 2100").message("must be before the year 2101"))]
    pub expires_at: DateTime<Utc>,
    /// When the token got its present secret; absent if at creation. The operator's limit on its lifetime
    /// counts from then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_schema")]
    pub rotated_at: Option<DateTime<Utc>>,
    /// Hex SHA-256 of the secret.
    #[schemars(schema_with = "hash_schema")]
    pub token_hash: String,
    /// Hashes of earlier secrets, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "hashes_schema")]
    pub rotated_hashes: Vec<String>,
    /// Identifies the identity configuration (issuer and audience) that the token was created under.
    #[schemars(schema_with = "id_schema::<64>")]
    pub identity: String,
    /// For a session, what it was issued for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SessionSpec")]
    pub session: Option<SessionSpec>,
}

/// The identity whose rights a token has.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnerSpec {
    /// The Kubernetes user name.
    #[schemars(schema_with = "id_schema::<1024>")]
    pub username: String,
    /// The UID; a service account always has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "id_schema::<1024>")]
    pub uid: Option<String>,
    /// Who a person is at the issuer of their ID tokens; absent for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SubjectSpec")]
    pub oidc: Option<SubjectSpec>,
    /// A user's groups when the token was created; absent for a service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "GroupsSpec")]
    pub groups: Option<GroupsSpec>,
    /// The owner's attributes (`extra`) when the token was created, except those of a single credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "extra_schema")]
    pub extra: Option<Extra>,
}

/// Who a person is at the issuer of their ID tokens.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SubjectSpec {
    /// The issuer's URL (`iss`).
    #[schemars(schema_with = "id_schema::<1024>")]
    pub issuer: String,
    /// The person (`sub`).
    #[schemars(schema_with = "id_schema::<1024>")]
    pub subject: String,
    /// Identifies the settings that mapped the issuer's claims to names.
    #[schemars(schema_with = "id_schema::<64>")]
    pub mapping: String,
}

/// The groups of a user at some time.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct GroupsSpec {
    /// Their names.
    #[schemars(schema_with = "group_names_schema")]
    pub names: Vec<String>,
    /// When they were read.
    #[schemars(schema_with = "date_schema")]
    pub at: DateTime<Utc>,
}

/// What a session was issued for: an access token, a member's credential, or, if it is empty, another token of the
/// owner.
#[derive(Clone, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionSpec {
    /// The name of the access token's object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "id_schema::<64>")]
    pub token: Option<String>,
    /// Its UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "id_schema::<64>")]
    pub token_uid: Option<String>,
    /// The member's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "id_schema::<128>")]
    pub member: Option<String>,
    /// The UID of its object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "id_schema::<64>")]
    pub member_uid: Option<String>,
    /// The first digits of the hash of the token's secret, or of the member's credential, at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "id_schema::<64>")]
    pub secret: Option<String>,
}

impl From<SessionOrigin> for SessionSpec {
    fn from(origin: SessionOrigin) -> Self {
        match origin {
            SessionOrigin::Token { token, token_uid, secret } => {
                Self { token: Some(token), token_uid: Some(token_uid), secret: Some(secret), ..Self::default() }
            }
            SessionOrigin::Owner => Self::default(),
            SessionOrigin::Member { id, uid, credential } => Self {
                member: Some(id.to_string()),
                member_uid: Some(uid),
                secret: Some(credential),
                ..Self::default()
            },
        }
    }
}

/// Last use and end of the token.
#[derive(Clone, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessTokenStatus {
    /// When the token was last used, to within ten minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_schema")]
    pub last_used_at: Option<DateTime<Utc>>,
    /// When Daypass ended the token. Daypass sets this before it deletes the object, to tell its own
    /// deletions from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_schema")]
    pub ended_at: Option<DateTime<Utc>>,
    /// Since when the token has been refused because its identity configuration is no longer in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_schema")]
    pub stale_since: Option<DateTime<Utc>>,
}

fn token_id_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 64, "pattern": "^[a-z0-9]+(-[a-z0-9]+)+$" })
}

fn hash_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$", "maxLength": 64 })
}

fn hashes_schema(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": access_token::MAX_ROTATED, "items": hash_schema(generator) })
}

fn scopes_schema(_: &mut SchemaGenerator) -> Schema {
    let names = Scope::ALL.map(Scope::as_str);
    json_schema!({
        "type": "array", "maxItems": names.len(), "x-kubernetes-list-type": "set",
        "items": { "type": "string", "enum": names },
    })
}

fn extra_schema(generator: &mut SchemaGenerator) -> Schema {
    let values = json_schema!({
        "type": "array", "maxItems": access_token::MAX_EXTRA_VALUES,
        "items": id_schema::<{ access_token::MAX_EXTRA_VALUE }>(generator),
    });
    json_schema!({ "type": "object", "maxProperties": access_token::MAX_EXTRA, "additionalProperties": values })
}

fn group_names_schema(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 1000, "items": id_schema::<1024>(generator) })
}

/// Decodes one object. Call it for each object of a list, so that a bad one does not hide the others.
///
/// # Errors
/// [`Unreadable`], with the fault of the object. Refuse every secret presented for it.
pub fn read_access_token(object: &Object) -> Result<access_token::AccessToken, Unreadable> {
    let spec: AccessTokenSpec = object.part("spec")?;
    let status: Option<AccessTokenStatus> = object.part("status")?;
    let status = status.unwrap_or_default();
    let id = TokenId::parse(&spec.id).filter(|id| object.name() == id.object_name());
    let id = id.filter(|id| id.is_of(&owner_key(&spec.owner.username))).ok_or(Unreadable::Field("spec.id"))?;
    let session = spec.session.map(read_session).transpose()?;
    if session.as_ref().map_or(IdForm::Token, SessionOrigin::form) != id.form() {
        return Err(Unreadable::Field("spec.session"));
    }
    let scopes: Option<Vec<Scope>> = spec.scopes.iter().map(|scope| Scope::parse(scope)).collect();
    let hash = |hex: &String| SecretHash::from_hex(hex).ok_or(Unreadable::Field("spec.tokenHash"));
    Ok(access_token::AccessToken {
        id,
        uid: object.uid().ok_or(Unreadable::Field("metadata.uid"))?,
        resource_version: object.resource_version().ok_or(Unreadable::Field("metadata.resourceVersion"))?,
        created_at: object.created_at().ok_or(Unreadable::Field("metadata.creationTimestamp"))?,
        deleting: object.is_deleting(),
        ended: status.ended_at.is_some(),
        name: spec.name,
        owner: read_owner(spec.owner, session.as_ref())?,
        created_by: spec.created_by,
        scopes: scopes.ok_or(Unreadable::Field("spec.scopes"))?,
        expires_at: spec.expires_at,
        rotated_at: spec.rotated_at,
        hash: hash(&spec.token_hash)?,
        rotated: Some(spec.rotated_hashes.iter().map(hash).collect::<Result<_, _>>()?),
        identity: spec.identity,
        session,
        last_used_at: status.last_used_at,
        stale_since: status.stale_since,
    })
}

/// Exactly one form: what a later version adds must not look like one of these.
fn read_session(of: SessionSpec) -> Result<SessionOrigin, Unreadable> {
    match of {
        SessionSpec { token: Some(token), token_uid: Some(token_uid), member: None, member_uid: None, secret } => {
            secret.map(|secret| SessionOrigin::Token { token, token_uid, secret })
        }
        SessionSpec { token: None, token_uid: None, member: None, member_uid: None, secret: None } => {
            Some(SessionOrigin::Owner)
        }
        SessionSpec { token: None, token_uid: None, member: Some(id), member_uid: Some(uid), secret } => {
            let id = MemberId::parse(&id);
            id.zip(secret).map(|(id, credential)| SessionOrigin::Member { id, uid, credential })
        }
        _ => None,
    }
    .ok_or(Unreadable::Field("spec.session"))
}

/// Refuses an owner that Daypass would not have written: a service account without UID, or a reserved name of a user
/// or group. Somebody else wrote it. The owner of a member's session is the member's service account, without a UID:
/// nothing can act as it.
fn read_owner(owner: OwnerSpec, session: Option<&SessionOrigin>) -> Result<Owner, Unreadable> {
    let owner = Owner {
        username: owner.username,
        uid: owner.uid,
        subject: owner.oidc.map(|it| Subject { issuer: it.issuer, subject: it.subject, mapping: it.mapping }),
        groups: owner.groups.map(|groups| Groups { names: groups.names, at: groups.at }),
        extra: owner.extra,
    };
    if let Some(SessionOrigin::Member { id, .. }) = session {
        return if owner == Owner::of_member(id) { Ok(owner) } else { Err(Unreadable::Field("spec.owner")) };
    }
    let trusted = match (owner.service_account(), &owner.groups) {
        (Some(_), groups) => owner.uid.is_some() && groups.is_none() && owner.subject.is_none(),
        (None, Some(groups)) => !is_reserved(&owner.username) && !groups.names.iter().any(|name| is_reserved(name)),
        (None, None) => false,
    };
    if trusted { Ok(owner) } else { Err(Unreadable::Field("spec.owner")) }
}

#[cfg(test)]
mod tests;
