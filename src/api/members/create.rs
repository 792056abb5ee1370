//! `POST /members`.

use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::types::{Credentials, Hours, MemberView};
use crate::api::AppState;
use crate::api::authorization::Authorization;
use crate::api::body::Json;
use crate::api::fields::NO_STORE;
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::api::request_context::RequestContext;
use crate::authn::Caller;
use crate::clock::Entropy;
use crate::cluster::{Access, ErrorKind, Identity, Lookup, Resource, Verb};
use crate::crd::MemberSpec;
use crate::domain::hex::hex;
use crate::domain::lifetime::{not_after_of_new, rfc3339};
use crate::domain::member::{Credential, Member};
use crate::domain::member_id::{MemberId, encode};
use crate::domain::role::RoleId;
use crate::domain::text::escape_hidden;
use crate::membership::EndReason;

const NAME_LEN: usize = 8;
/// Long enough that no two of a caller's keys collide (100 bits).
const KEYED_NAME_LEN: usize = 20;
const MAX_KEY: usize = 255;

/// A member to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CreateMember {
    /// How long it lasts.
    #[schema(example = "1")]
    duration: Hours,
    /// The role.
    #[schema(example = "projects-view", max_length = 55)]
    role_id: String,
    /// What the membership is for. No invisible characters.
    #[serde(default, deserialize_with = "crate::api::fields::description")]
    #[schema(max_length = 1024, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    description: Option<String>,
    /// Who the membership is for. No invisible characters.
    #[serde(default, deserialize_with = "crate::api::fields::username")]
    #[schema(max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$", example = "Talend support team")]
    username: Option<String>,
}

/// A member that was just created.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedMember {
    #[expect(missing_docs, reason = "a description would stand beside the schema's reference")]
    #[serde(flatten)]
    pub member: MemberView,
    /// The credential, shown only here.
    pub credentials: Credentials,
}

/// Create a member
///
/// Only this answer shows the credential. With an `Idempotency-Key`, a repeated request creates nothing while the
/// member lives: it gets 409 and the `Location` of the member, or 422 if its body differs from the first one's.
#[utoipa::path(
    post,
    path = "/members",
    tag = "members",
    params((
        "Idempotency-Key" = Option<String>, Header,
        description = "Any text of 1 to 255 visible ASCII characters, unique to this creation.",
        min_length = 1, max_length = 255, pattern = "^[!-~]([ -~]*[!-~])?$", nullable = false
    )),
    request_body = CreateMember,
    responses((status = 201, description = "The member, with its credential", body = CreatedMember,
        headers(("Location" = String, description = "The member's URL"))),
        (status = 422, description = "The `Idempotency-Key` belongs to a request with another body",
            body = ProblemBody, content_type = "application/problem+json")),
    security(("kubernetesToken" = []), ("accessToken" = ["members:write"]), ("accessTokenBasic" = ["members:write"]))
)]
pub(super) async fn create_member(
    context: RequestContext,
    caller: Caller,
    headers: HeaderMap,
    Json(body): Json<CreateMember>,
) -> Result<Response, Problem> {
    let created = context.create_member(&caller, idempotency_key(&headers)?, body).await?;
    let location = [(LOCATION, created.url)];
    Ok((StatusCode::CREATED, [NO_STORE], location, axum::Json(created.body)).into_response())
}

/// A member that was just created, and its URL.
pub(crate) struct Created {
    pub(crate) body: CreatedMember,
    pub(crate) url: String,
}

impl RequestContext {
    /// Creates a member. `key` is the `Idempotency-Key`.
    ///
    /// # Errors
    /// 409 with the member's URL, if the key has created it before.
    pub(crate) async fn create_member(
        &self,
        caller: &Caller,
        key: Option<String>,
        body: CreateMember,
    ) -> Result<Created, Problem> {
        let access = Access { verb: Verb::Create, resource: Resource::Members };
        let asked = RoleId::parse(&body.role_id);
        let Authorization::Granted(role) = self.authorize_in_role(caller, access, asked.as_ref()).await? else {
            return Err(Problem::field("roleId", "is not the id of a role that you may give"));
        };

        let AppState { feed, membership, settings, clock, entropy, .. } = &*self.state;
        role.admits(body.duration.0, None).map_err(|refused| Problem::field("duration", refused.to_string()))?;
        let id = match &key {
            Some(key) => keyed_id(role.id, &caller.identity, key)?,
            None => random_id(entropy, role.id)?,
        };
        let spec = MemberSpec {
            duration: body.duration.0,
            not_after: Some(rfc3339(not_after_of_new(clock.now()))),
            username: body.username,
            description: body.description,
            created_by: Some(escape_hidden(&caller.identity.username)),
        };
        let request = key.map(|_| request_hash(&spec));
        if let Some(request) = &request {
            if feed.members.has_namesake(&id, clock.now()) {
                return Err(Problem::new(Code::IdempotencyKeyMismatch));
            }
            // A creation that fails still counts against the role's quota for a while, so a repeat does not try.
            if feed.members.get(&id).is_some() {
                remove_ended(self, caller, &id, request).await?;
            }
        }
        let credential = Credential::new(id.clone(), &entropy.bytes()?);
        let location = settings.member_url(&id);
        let cause = caller.cause(&self.origin);
        let create = || membership.create(&id, &spec, &credential, request.as_deref(), cause);
        let mut created = create().await;
        if let (Err(error), Some(request)) = (&created, &request)
            && error.kind == ErrorKind::AlreadyExists
        {
            // Another request with this key was faster, or this replica has not seen it yet.
            remove_ended(self, caller, &id, request).await?;
            created = create().await;
        }
        let member = match created {
            Err(error) if error.kind == ErrorKind::AlreadyExists => return Err(Problem::done_before(&location)),
            result => result?,
        };
        let body = CreatedMember {
            member: MemberView::new(&member, clock.now()),
            credentials: Credentials::new(&member, &credential, settings),
        };
        Ok(Created { body, url: location })
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let is_visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    let valid = (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(is_visible);
    if !valid || values.next().is_some() {
        return Err(Problem::field("Idempotency-Key", "must be given once, with 1 to 255 visible ASCII characters"));
    }
    Ok(Some(text.to_owned()))
}

/// The id for a caller's key. The same key gives the same name, and the API server creates a name only once: that is
/// the lock.
fn keyed_id(role: RoleId, caller: &Identity, key: &str) -> Result<MemberId, Problem> {
    let mut hash = Sha256::new();
    // A person is the same one under any name, and a name may be given to somebody else.
    let caller = match &caller.subject {
        Some(person) => format!("oidc\0{}\0{}", person.issuer, person.subject),
        None => caller.username.clone(),
    };
    for part in [&caller, "\0", key] {
        hash.update(part.as_bytes());
    }
    named(role, &hash.finalize()[..KEYED_NAME_LEN])
}

fn random_id(entropy: &Entropy, role: RoleId) -> Result<MemberId, Problem> {
    named(role, &entropy.bytes::<NAME_LEN>()?)
}

fn named(role: RoleId, bytes: &[u8]) -> Result<MemberId, Problem> {
    MemberId::new(role, &encode(bytes)).ok_or_else(|| Problem::new(Code::Internal))
}

/// Identifies what a request asks for, so that a repeated one can be told from another one with the same key. The role
/// and the caller are part of the member's id.
fn request_hash(spec: &MemberSpec) -> String {
    let asked = json!([spec.duration, spec.username, spec.description]).to_string();
    hex(&Sha256::digest(asked)[..16])
}

/// The error for a key with which this live member was created. A member of an earlier version has no hash.
fn done_before(context: &RequestContext, member: &Member, request: &str) -> Problem {
    match &member.request_hash {
        Some(first) if first != request => Problem::new(Code::IdempotencyKeyMismatch),
        _ => Problem::done_before(&context.state.settings.member_url(&member.id)),
    }
}

/// Removes a member that has ended but still holds the name of this key.
///
/// # Errors
/// 409 or 422 if the member lives.
async fn remove_ended(context: &RequestContext, caller: &Caller, id: &MemberId, request: &str) -> Result<(), Problem> {
    let AppState { cluster, membership, clock, .. } = &*context.state;
    let Lookup::Found(member) = cluster.member(id).await? else { return Ok(()) };
    let now = clock.now();
    if member.is_live(now) {
        return Err(done_before(context, &member, request));
    }
    if member.deleting {
        return Err(Problem::detailed(
            Code::Conflict,
            "the member created with this Idempotency-Key is being removed; try again",
        ));
    }
    Ok(membership.end(&member, EndReason::of(&member, now), caller.cause(&context.origin)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_gives_one_id_per_caller() {
        let role = || RoleId::parse("view").unwrap();
        let keyed_id = |role, caller, key| keyed_id(role, &Identity::of_user(caller, &[]), key).unwrap();
        let id = keyed_id(role(), "alice", "k");
        assert_eq!(MemberId::parse(&id.to_string()), Some(id.clone()), "the CRD admits the name");
        assert_eq!(id, keyed_id(role(), "alice", "k"));
        assert_ne!(id, keyed_id(role(), "bob", "k"));
        assert_ne!(keyed_id(role(), "a", "bk"), keyed_id(role(), "ab", "k"));
    }
}
