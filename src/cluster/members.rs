//! Calls on Member objects: read, watch, create, patch, delete.

use chrono::{DateTime, SecondsFormat, Utc};
use futures::Stream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use kube::api::Preconditions;
use serde_json::{Value, json};

use super::objects::Objects;
use super::watch::{WatchCalls, WatchEvent};
use super::{Cluster, Error, ErrorKind, gone};
use crate::crd::{self, CLAIM_ANNOTATION, MemberSpec, Object, REQUEST_ANNOTATION, Unreadable, read_member};
use crate::domain::kubeconfig::KubeconfigRecord;
use crate::domain::lifetime::MembershipDuration;
use crate::domain::member::Member;
use crate::domain::member_id::MemberId;
use crate::domain::role::{NAMESPACE_PREFIX, RoleId};
use crate::domain::secret::SecretHash;

/// The Member that shows how fresh a watch is.
const HEARTBEAT: &str = "heartbeat";
const BEAT_ANNOTATION: &str = "daypass.dev/beat";

/// The result of reading a member by its id.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// A readable Member.
    Found(Box<Member>),
    /// An unreadable object. Treat it as ended.
    Unreadable(Unreadable),
    /// No such object.
    Missing,
}

/// A Member from a watch.
#[derive(Debug)]
pub struct WatchedMember {
    /// Its id, from its namespace's name alone: the namespace may lack the role's label.
    pub id: MemberId,
    /// The Member, or why it is unreadable.
    pub member: Result<Member, Unreadable>,
}

/// What the watch of all Members shows.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "almost all are members")]
pub enum Watched {
    /// A member's.
    Member(WatchedMember),
    /// The text of the heartbeat in Daypass's own namespace.
    Beat(String),
}

impl Watched {
    fn of(object: &Object, own_namespace: &str) -> Option<Self> {
        // Its name may begin like a role's.
        if object.namespace().as_deref() == Some(own_namespace) {
            return object.annotation(BEAT_ANNOTATION).filter(|_| object.name() == HEARTBEAT).map(Self::Beat);
        }
        WatchedMember::of(object).map(Self::Member)
    }
}

impl WatchedMember {
    /// `None` for an object outside role namespaces, or with a name that no member can have.
    fn of(object: &Object) -> Option<Self> {
        let role = RoleId::parse(object.namespace()?.strip_prefix(NAMESPACE_PREFIX)?)?;
        let id = MemberId::new(role, &object.name())?;
        Some(Self { member: read_member(&id.role, object), id })
    }
}

/// A change to a Member's status. A field that is `None` stays unchanged.
#[derive(Debug)]
pub struct StatusUpdate<'a> {
    /// The phase.
    pub phase: &'static str,
    /// The hash of a new credential.
    pub credential: Option<&'a SecretHash>,
    /// The fingerprint of what the role can do.
    pub role_hash: Option<&'a str>,
    /// The UID of the service account.
    pub account_uid: Option<&'a str>,
    /// All kubeconfigs. They replace the recorded ones.
    pub kubeconfigs: Option<Vec<KubeconfigRecord>>,
    /// All conditions. They replace the recorded ones.
    pub conditions: Vec<Condition>,
}

impl Cluster {
    fn members(&self, role: &RoleId) -> Objects<'_> {
        self.objects::<crd::Member>(Some(&role.namespace()))
    }

    /// Reads the Member with this id from the API server.
    pub async fn member(&self, id: &MemberId) -> Result<Lookup, Error> {
        let object = self.members(&id.role).get("get_member", &id.to_string(), id.name()).await?;
        Ok(object.map_or(Lookup::Missing, |object| match read_member(&id.role, &object) {
            Ok(member) => Lookup::Found(Box::new(member)),
            Err(why) => Lookup::Unreadable(why),
        }))
    }

    /// Lists all Members from the API server, page by page, and shows each to `see`. An unreadable one does not hide
    /// the others.
    pub async fn list_members(&self, mut see: impl FnMut(WatchedMember)) -> Result<(), Error> {
        let members = self.objects::<crd::Member>(None);
        let see = |object: Object| match Watched::of(&object, &self.namespace) {
            Some(Watched::Member(member)) => see(member),
            Some(Watched::Beat(_)) | None => {}
        };
        members.list("list_members", "-", None, see).await.map(drop)
    }

    /// Lists all Members, then streams each change.
    pub fn watch_members(&self) -> impl Stream<Item = WatchEvent<Watched>> + use<> {
        let calls = WatchCalls { list: "list_members", watch: "watch_members" };
        let own = self.namespace.clone();
        self.objects::<crd::Member>(None).watch(calls, move |object| Watched::of(object, &own))
    }

    /// Writes a text into the Member `heartbeat` of Daypass's own namespace, which is nobody's. Creates it if there is
    /// none.
    pub(crate) async fn write_heartbeat(&self, text: &str) -> Result<(), Error> {
        let members = self.objects::<crd::Member>(Some(&self.namespace));
        let annotations = json!({ BEAT_ANNOTATION: text });
        let patch = json!({ "metadata": { "annotations": annotations } });
        match members.patch("patch_heartbeat", HEARTBEAT, HEARTBEAT, &patch).await {
            Err(error) if error.is_gone() => {}
            patched => return patched.map(drop),
        }
        let members = self.objects::<crd::Member>(Some(&self.namespace));
        let owners: Vec<_> = self.own_account().await.into_iter().collect();
        let metadata = json!({ "name": HEARTBEAT, "annotations": annotations, "ownerReferences": owners });
        let heartbeat = member_object(&metadata, &json!({ "duration": "1s" }));
        match members.create("create_heartbeat", HEARTBEAT, &heartbeat).await {
            // Another replica was faster. The next number comes in a second.
            Err(error) if error.kind == ErrorKind::AlreadyExists => Ok(()),
            created => created.map(drop),
        }
    }

    /// Creates a Member. The controller leaves it to the request that provisions it until `claimed_until`.
    pub(crate) async fn create_member(
        &self,
        id: &MemberId,
        spec: &MemberSpec,
        request_hash: Option<&str>,
        claimed_until: DateTime<Utc>,
    ) -> Result<Member, Error> {
        let mut annotations = json!({ CLAIM_ANNOTATION: claim(claimed_until) });
        if let Some(hash) = request_hash {
            annotations[REQUEST_ANNOTATION] = hash.into();
        }
        let metadata = json!({ "name": id.name(), "annotations": annotations });
        let object = member_object(&metadata, &json!(spec));
        let created = self.members(&id.role).create("create_member", &id.to_string(), &object).await?;
        readable("create_member", &id.role, &created)
    }

    /// Whether the role's quota counts Members yet; until it does, it refuses every creation. `true` also if the quota
    /// is exhausted.
    pub async fn is_quota_counted(&self, role: &RoleId) -> Result<bool, Error> {
        let probe = member_object(&json!({ "name": "quota-probe" }), &json!({ "duration": "1s" }));
        match self.members(role).dry_run("probe_quota", role.as_str(), &probe).await {
            Err(error) if error.kind == ErrorKind::QuotaUnknown => Ok(false),
            Err(error) if !matches!(error.kind, ErrorKind::QuotaExceeded | ErrorKind::AlreadyExists) => Err(error),
            _ => Ok(true),
        }
    }

    /// Sets the duration of exactly this version of a Member.
    ///
    /// # Errors
    /// A conflict if it has changed since.
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

    /// Writes the status of exactly this version of a Member. Whoever records a change also reports it, so that the
    /// audit trail has it once.
    ///
    /// # Errors
    /// A conflict if the Member has changed since.
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
        if let Some(uid) = update.account_uid {
            status["serviceAccountUid"] = uid.into();
        }
        if let Some(records) = &update.kubeconfigs {
            status["kubeconfigs"] = kubeconfigs(records);
        }
        self.patch_member_status(member, &status).await
    }

    /// Writes the records of kubeconfigs in exactly this version of a Member, and nothing else but which credential
    /// was `used` for it.
    ///
    /// # Errors
    /// A conflict if the Member has changed since.
    pub(crate) async fn write_kubeconfigs(
        &self,
        member: &Member,
        records: &[KubeconfigRecord],
        used: Option<&SecretHash>,
    ) -> Result<Member, Error> {
        let mut status = json!({ "kubeconfigs": kubeconfigs(records) });
        if let Some(credential) = used {
            status["usedCredential"] = credential.fingerprint().into();
        }
        self.patch_member_status(member, &status).await
    }

    /// Writes in exactly this version of a Member that this credential was used.
    ///
    /// # Errors
    /// A conflict if the Member has changed since.
    pub(crate) async fn write_used_credential(&self, member: &Member, used: &SecretHash) -> Result<Member, Error> {
        self.patch_member_status(member, &json!({ "usedCredential": used.fingerprint() })).await
    }

    async fn patch_member_status(&self, member: &Member, status: &Value) -> Result<Member, Error> {
        let patch = json!({ "metadata": { "resourceVersion": member.resource_version }, "status": status });
        let (members, id) = (self.members(&member.id.role), &member.id);
        let patched = members.patch_status("patch_member_status", &id.to_string(), id.name(), &patch).await?;
        readable("patch_member_status", &member.id.role, &patched)
    }

    /// Deletes exactly this Member, not a later one of the same name.
    pub(crate) async fn delete_member(&self, member: &Member) -> Result<(), Error> {
        let (members, id) = (self.members(&member.id.role), &member.id);
        gone(members.delete("delete_member", &id.to_string(), id.name(), &member.uid).await)
    }

    /// Deletes exactly this version of a Member. Returns whether somebody's finalizer holds the object.
    ///
    /// # Errors
    /// A conflict if the Member has changed or was replaced since.
    pub(crate) async fn delete_member_version(&self, member: &Member) -> Result<bool, Error> {
        let (members, id) = (self.members(&member.id.role), &member.id);
        let (uid, version) = (member.uid.clone(), member.resource_version.clone());
        let version = Preconditions { uid: Some(uid), resource_version: Some(version) };
        members.delete_version("delete_member", &id.to_string(), id.name(), version).await
    }
}

fn kubeconfigs(records: &[KubeconfigRecord]) -> Value {
    json!(records.iter().map(crd::KubeconfigRecord::from).collect::<Vec<_>>())
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
