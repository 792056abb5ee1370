//! Reading and writing Members.

use chrono::{SecondsFormat, TimeDelta};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::DynamicObject;
use serde_json::json;

use super::{Cluster, Error, ErrorKind, optional};
use crate::crd::{self, CLAIM_ANNOTATION, MemberSpec, Object, Tolerant, Unreadable, read_member};
use crate::domain::id::MemberId;
use crate::domain::lifetime::format_duration;
use crate::domain::member::Member;
use crate::domain::role::RoleId;
use crate::domain::secret::SecretHash;

/// How long a request claims the member that it changes.
const CLAIM: TimeDelta = TimeDelta::seconds(10);

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

/// What is written into a status; what is `None` stays as it is.
#[derive(Debug)]
pub(super) struct StatusUpdate<'a> {
    pub(super) phase: &'static str,
    pub(super) credential: Option<&'a SecretHash>,
    pub(super) role_hash: Option<&'a str>,
    pub(super) conditions: Vec<Condition>,
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
    fn members(&self, role: &RoleId) -> Api<Object> {
        Api::namespaced_with(self.client.clone(), &role.namespace(), &ApiResource::erase::<crd::Member>(&()))
    }

    /// The Member of this id, live from the API server.
    pub async fn member(&self, id: &MemberId) -> Result<Lookup, Error> {
        let api = self.members(&id.role);
        let object = optional(self.call("get_member", &id.to_string(), api.get(id.name())).await)?;
        Ok(object.map_or(Lookup::Missing, |object| match read_member(&id.role, &object) {
            Ok(member) => Lookup::Found(Box::new(member)),
            Err(why) => Lookup::Unreadable(why),
        }))
    }

    /// All Members of a role, live from the API server, each read by itself.
    pub async fn list_members(&self, role: &RoleId) -> Result<Listed, Error> {
        let api = self.members(role);
        let objects = self.call("list_members", role.as_str(), api.list(&ListParams::default())).await?;
        let mut listed = Listed::default();
        for object in objects {
            match read_member(role, &object) {
                Ok(member) => listed.members.push(member),
                Err(why) => listed.unreadable.push((object.0.metadata.name.unwrap_or_default(), why)),
            }
        }
        Ok(listed)
    }

    /// Creates a Member, claimed for the request that finishes it.
    pub(super) async fn create_member(&self, id: &MemberId, spec: &MemberSpec) -> Result<Member, Error> {
        let api = self.members(&id.role);
        let resource = ApiResource::erase::<crd::Member>(&());
        let mut object = DynamicObject::new(id.name(), &resource).data(json!({ "spec": spec }));
        object.metadata.annotations = Some([(CLAIM_ANNOTATION.to_owned(), self.claim())].into());
        let created =
            self.call("create_member", &id.to_string(), api.create(&PostParams::default(), &Tolerant(object))).await?;
        readable("create_member", &id.role, &created)
    }

    /// Whether a Member could be created as far as the quota is concerned, even if only to be refused by it.
    pub async fn is_quota_counted(&self, role: &RoleId) -> Result<bool, Error> {
        let resource = ApiResource::erase::<crd::Member>(&());
        let probe = DynamicObject::new("quota-probe", &resource).data(json!({ "spec": { "duration": "1s" } }));
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let api = self.members(role);
        match self.call("probe_quota", role.as_str(), api.create(&params, &Tolerant(probe))).await {
            Err(error) if error.kind == ErrorKind::QuotaUnknown => Ok(false),
            Err(error) if !matches!(error.kind, ErrorKind::QuotaExceeded | ErrorKind::AlreadyExists) => Err(error),
            _ => Ok(true),
        }
    }

    /// Sets the duration of exactly this version of a Member; a conflict when it has changed since.
    pub(super) async fn set_duration(&self, member: &Member, duration: TimeDelta) -> Result<Member, Error> {
        let patch = json!({
            "metadata": {
                "resourceVersion": member.resource_version,
                "annotations": { CLAIM_ANNOTATION: self.claim() },
            },
            "spec": { "duration": format_duration(duration) },
        });
        let api = self.members(&member.id.role);
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        let call = api.patch(member.id.name(), &params, &patch);
        let patched = self.call("patch_member", &member.id.to_string(), call).await?;
        readable("patch_member", &member.id.role, &patched)
    }

    fn claim(&self) -> String {
        (self.clock.now() + CLAIM).to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    /// Writes the status of exactly this version of a Member; a conflict when it has changed since. Whoever succeeds in
    /// recording a change is the one who reports it, so that each is in the audit trail once.
    pub(super) async fn write_status(&self, member: &Member, update: &StatusUpdate<'_>) -> Result<Member, Error> {
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
        let api = self.members(&member.id.role);
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        let call = api.patch_status(member.id.name(), &params, &patch);
        let patched = self.call("patch_member_status", &member.id.to_string(), call).await?;
        readable("patch_member_status", &member.id.role, &patched)
    }

    /// Deletes exactly this Member, not a later one of its name.
    pub(super) async fn delete_member(&self, member: &Member) -> Result<(), Error> {
        let api = self.members(&member.id.role);
        let params = uid_precondition(&member.uid);
        let call = api.delete(member.id.name(), &params);
        super::gone(self.call("delete_member", &member.id.to_string(), call).await)
    }
}

/// Deletes only the object of this UID; Kubernetes' garbage collector takes its dependents in the background.
pub(super) fn uid_precondition(uid: &str) -> DeleteParams {
    DeleteParams::background().preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None })
}

fn readable(call: &'static str, role: &RoleId, object: &Object) -> Result<Member, Error> {
    read_member(role, object)
        .map_err(|why| Error::new(call, role.as_str(), ErrorKind::UnreadableAnswer, &why.to_string()))
}
