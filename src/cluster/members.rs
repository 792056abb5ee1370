//! Reading and writing Members.

use chrono::{DateTime, SecondsFormat, Utc};
use futures::Stream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use serde_json::{Value, json};

use super::objects::Objects;
use super::watch::{WatchCalls, WatchEvent};
use super::{Cluster, Error, ErrorKind, gone};
use crate::crd::{self, CLAIM_ANNOTATION, MemberSpec, Object, Unreadable, read_member};
use crate::domain::id::MemberId;
use crate::domain::lifetime::MembershipDuration;
use crate::domain::member::Member;
use crate::domain::role::{NAMESPACE_PREFIX, RoleId};
use crate::domain::secret::SecretHash;

/// What is found under a member's id.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// A Member.
    Found(Box<Member>),
    /// An object that cannot be read; treated as ended.
    Unreadable(Unreadable),
    /// Nothing.
    Missing,
}

/// A Member as a watch tells it.
#[derive(Debug)]
pub struct WatchedMember {
    /// Its id. Whether its namespace is a role is another question.
    pub id: MemberId,
    /// The Member, or why it cannot be read.
    pub member: Result<Member, Unreadable>,
}

impl WatchedMember {
    /// `None` for an object outside role namespaces, and for one whose name no member can have.
    fn of(object: &Object) -> Option<Self> {
        let role = RoleId::parse(object.namespace()?.strip_prefix(NAMESPACE_PREFIX)?)?;
        let id = MemberId::new(role, &object.name())?;
        Some(Self { member: read_member(&id.role, object), id })
    }
}

/// A change of a Member's status. A field that is `None` stays as it is.
#[derive(Debug)]
pub struct StatusUpdate<'a> {
    /// The phase.
    pub phase: &'static str,
    /// The hash of a new credential.
    pub credential: Option<&'a SecretHash>,
    /// The fingerprint of what the role can do.
    pub role_hash: Option<&'a str>,
    /// All conditions; they replace those that were recorded.
    pub conditions: Vec<Condition>,
}

/// The Members of a role.
#[derive(Debug, Default)]
pub struct Listed {
    /// Those that can be read.
    pub members: Vec<Member>,
    /// The names of those that cannot, and why.
    pub unreadable: Vec<(String, Unreadable)>,
}

impl Cluster {
    fn members(&self, role: &RoleId) -> Objects<'_> {
        self.objects::<crd::Member>(Some(&role.namespace()))
    }

    /// The Member of this id, live from the API server.
    pub async fn member(&self, id: &MemberId) -> Result<Lookup, Error> {
        let object = self.members(&id.role).get("get_member", &id.to_string(), id.name()).await?;
        Ok(object.map_or(Lookup::Missing, |object| match read_member(&id.role, &object) {
            Ok(member) => Lookup::Found(Box::new(member)),
            Err(why) => Lookup::Unreadable(why),
        }))
    }

    /// All Members of a role, live from the API server, each read by itself.
    pub async fn list_members(&self, role: &RoleId) -> Result<Listed, Error> {
        let read = |object: Object| read_member(role, &object).map_err(|why| (object.name(), why));
        let mut listed = Listed::default();
        for member in self.members(role).list("list_members", role.as_str(), None, read).await? {
            match member {
                Ok(member) => listed.members.push(member),
                Err(unreadable) => listed.unreadable.push(unreadable),
            }
        }
        Ok(listed)
    }

    /// All Members as they are, then each change.
    pub fn watch_members(&self) -> impl Stream<Item = WatchEvent<WatchedMember>> + use<> {
        let calls = WatchCalls { list: "list_members", watch: "watch_members" };
        self.objects::<crd::Member>(None).watch(calls, WatchedMember::of)
    }

    /// Creates a Member, claimed until then by the request that provisions it.
    pub(crate) async fn create_member(
        &self,
        id: &MemberId,
        spec: &MemberSpec,
        claimed_until: DateTime<Utc>,
    ) -> Result<Member, Error> {
        let metadata = json!({ "name": id.name(), "annotations": { CLAIM_ANNOTATION: claim(claimed_until) } });
        let object = member_object(&metadata, &json!(spec));
        let created = self.members(&id.role).create("create_member", &id.to_string(), &object).await?;
        readable("create_member", &id.role, &created)
    }

    /// Whether a Member could be created as far as the quota is concerned, even if only to be refused by it.
    pub async fn is_quota_counted(&self, role: &RoleId) -> Result<bool, Error> {
        let probe = member_object(&json!({ "name": "quota-probe" }), &json!({ "duration": "1s" }));
        match self.members(role).dry_run("probe_quota", role.as_str(), &probe).await {
            Err(error) if error.kind == ErrorKind::QuotaUnknown => Ok(false),
            Err(error) if !matches!(error.kind, ErrorKind::QuotaExceeded | ErrorKind::AlreadyExists) => Err(error),
            _ => Ok(true),
        }
    }

    /// Sets the duration of exactly this version of a Member; a conflict when it has changed since.
    pub(crate) async fn set_duration(
        &self,
        member: &Member,
        duration: MembershipDuration,
        claimed_until: DateTime<Utc>,
    ) -> Result<Member, Error> {
        let patch = json!({
            "metadata": {
                "resourceVersion": member.resource_version,
                "annotations": { CLAIM_ANNOTATION: claim(claimed_until) },
            },
            "spec": { "duration": duration },
        });
        let (members, id) = (self.members(&member.id.role), &member.id);
        let patched = members.patch("patch_member", &id.to_string(), id.name(), &patch).await?;
        readable("patch_member", &member.id.role, &patched)
    }

    /// Writes the status of exactly this version of a Member; a conflict when it has changed since. Whoever succeeds in
    /// recording a change is the one who reports it, so that each is in the audit trail once.
    pub(crate) async fn write_status(&self, member: &Member, update: &StatusUpdate<'_>) -> Result<Member, Error> {
        let mut status = json!({
            "phase": update.phase,
            "expiresAt": member.expires_at(),
            "observedGeneration": member.generation,
            "conditions": update.conditions,
        });
        if let Some(hash) = update.credential {
            status["credentialHash"] = hash.as_hex().into();
        }
        if let Some(hash) = update.role_hash {
            status["roleHash"] = hash.into();
        }
        let patch = json!({ "metadata": { "resourceVersion": member.resource_version }, "status": status });
        let (members, id) = (self.members(&member.id.role), &member.id);
        let patched = members.patch_status("patch_member_status", &id.to_string(), id.name(), &patch).await?;
        readable("patch_member_status", &member.id.role, &patched)
    }

    /// Deletes exactly this Member, not a later one of its name.
    pub(crate) async fn delete_member(&self, member: &Member) -> Result<(), Error> {
        let (members, id) = (self.members(&member.id.role), &member.id);
        gone(members.delete("delete_member", &id.to_string(), id.name(), &member.uid).await)
    }
}

fn claim(until: DateTime<Utc>) -> String {
    until.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn member_object(metadata: &Value, spec: &Value) -> Value {
    json!({
        "apiVersion": crd::Member::api_version(&()), "kind": crd::Member::kind(&()),
        "metadata": metadata, "spec": spec,
    })
}

fn readable(call: &'static str, role: &RoleId, object: &Object) -> Result<Member, Error> {
    read_member(role, object)
        .map_err(|why| Error::new(call, role.as_str(), ErrorKind::UnreadableAnswer, &why.to_string()))
}
