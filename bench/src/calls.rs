//! What a bare client calls for each operation: the table of *What each operation costs* in docs/architecture.md and
//! of tests/it/api/calls.txt. Change them together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::cluster::{Cluster, GROUP, ROLES, TWIN_GROUP, TWIN_NAMESPACE};
use crate::http::Http;
use crate::operations::{Operation, Stock, Subject};

/// One call of the API server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    TokenReview,
    /// A SubjectAccessReview in one namespace.
    Review,
    /// A SubjectAccessReview in each role's namespace, all at once.
    ReviewRoles,
    GetMember,
    /// A page of 100.
    ListMembers,
    PostMember,
    PatchStatus,
    DeleteMember,
    PostAccount,
    DeleteAccount,
    PostSecret,
    TokenRequest,
}

use Call::*;

/// For each operation: the calls about the objects alone, and all that Daypass makes, with a Kubernetes token, for a
/// member without kubeconfigs.
const CALLS: [(Operation, &[Call], &[Call]); 4] = [
    (
        Operation::Create,
        &[PostMember, PostAccount, PatchStatus],
        &[TokenReview, Review, PostMember, PostAccount, PatchStatus],
    ),
    (Operation::Kubeconfig, &[PostSecret, TokenRequest], &[GetMember, PostSecret, TokenRequest, PatchStatus]),
    (Operation::List, &[ListMembers], &[TokenReview, ReviewRoles]),
    (
        Operation::Delete,
        &[DeleteMember, DeleteAccount],
        &[TokenReview, Review, GetMember, PatchStatus, DeleteMember, DeleteAccount],
    ),
];

/// What an expiry costs.
const EXPIRY: &[Call] = &[DeleteMember, DeleteAccount];

/// How long members and their tokens live.
const MEMBERSHIP: TimeDelta = TimeDelta::hours(1);
const TOKEN: TimeDelta = TimeDelta::seconds(3500);

/// As long as what Daypass writes, and over.
const CLAIMED_UNTIL: &str = "2026-01-01T00:00:00.000Z";

/// A client without Daypass that does the same, with Daypass's identity.
pub(crate) struct Bare {
    kubernetes: Http,
    owner_token: String,
    group: &'static str,
    namespace: String,
    /// All calls, or those about the objects alone.
    all: bool,
    made: Stock<Made>,
}

/// Names are numbers, each used once.
static NAMES: AtomicUsize = AtomicUsize::new(0);

/// A member that the bare client made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Made {
    pub(crate) name: String,
    uid: String,
    version: String,
    created: DateTime<Utc>,
    account_uid: String,
    /// The last Secret: its name and UID.
    secret: (String, String),
    /// The records of kubeconfigs in the status.
    records: Vec<Value>,
}

impl Bare {
    /// Works on the copy of the CRD, which Daypass leaves alone.
    pub(crate) fn new(cluster: &Cluster, all: bool) -> Result<Self> {
        Self::at(cluster, TWIN_GROUP, TWIN_NAMESPACE.to_owned(), all)
    }

    /// Makes Daypass's own members, in this role.
    pub(crate) fn in_role(cluster: &Cluster, role: &str) -> Result<Self> {
        Self::at(cluster, GROUP, format!("daypass-{role}"), true)
    }

    fn at(cluster: &Cluster, group: &'static str, namespace: String, all: bool) -> Result<Self> {
        let kubernetes = Http::kubernetes(&cluster.plane, &cluster.daypass_token)?;
        Ok(Self {
            kubernetes,
            owner_token: cluster.owner_token.clone(),
            group,
            namespace,
            all,
            made: Stock::default(),
        })
    }

    /// Creates a member.
    pub(crate) fn create(&self) -> Result<Made> {
        let mut made = named();
        self.perform(self.calls(Operation::Create), &mut made)?;
        Ok(made)
    }

    /// Creates a member with these texts and this many kubeconfigs, whose role can do what this hash says.
    pub(crate) fn create_heavy(&self, texts: [&str; 2], kubeconfigs: usize, role_hash: &str) -> Result<()> {
        let mut made = named();
        made.read(&self.kubernetes.call("POST", &self.members(), &self.member(&made.name, texts))?)?;
        self.one(PostAccount, &mut made)?;
        (0..kubeconfigs).try_for_each(|_| self.one(PostSecret, &mut made))?;
        self.patch_status(&mut made, role_hash)
    }

    /// What an expiry calls.
    pub(crate) fn expire(&self, mut made: Made) -> Result<()> {
        self.perform(EXPIRY, &mut made)
    }

    /// Makes these calls, one after the other.
    fn perform(&self, calls: &[Call], made: &mut Made) -> Result<()> {
        calls.iter().try_for_each(|call| self.one(*call, made))
    }

    fn calls(&self, operation: Operation) -> &'static [Call] {
        let row = CALLS.iter().find(|(of, ..)| *of == operation);
        row.map_or(&[], |(_, objects, all)| if self.all { all } else { objects })
    }

    fn members(&self) -> String {
        format!("/apis/{}/v1alpha1/namespaces/{}/members", self.group, self.namespace)
    }

    fn core(&self, resource: &str) -> String {
        format!("/api/v1/namespaces/{}/{resource}", self.namespace)
    }

    fn one(&self, call: Call, made: &mut Made) -> Result<()> {
        let api = &self.kubernetes;
        let (member, account) =
            (format!("{}/{}", self.members(), made.name), self.core(&format!("serviceaccounts/{}", made.name)));
        match call {
            TokenReview => {
                let spec = json!({"token": self.owner_token, "audiences": ["daypass"]});
                let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
                let answer = api.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", &body)?;
                (answer["status"]["authenticated"] == true).then_some(()).context("the token is refused")
            }
            Review => self.review(ROLES[0]),
            ReviewRoles => thread::scope(|scope| {
                let all: Vec<_> = ROLES.iter().map(|role| scope.spawn(|| self.review(role))).collect();
                all.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a review panicked"))?)
            }),
            GetMember => made.read(&api.get(&member)?),
            ListMembers => api.get(&format!("{}?limit=100", self.members())).map(drop),
            PostMember => {
                let texts = ["Support team", "Case 4711, the nightly job fails"];
                made.read(&api.call("POST", &self.members(), &self.member(&made.name, texts))?)
            }
            PatchStatus => self.patch_status(made, &"0".repeat(64)),
            DeleteMember => api.delete(&member, &made.uid),
            PostAccount => {
                let body = json!({
                    "apiVersion": "v1", "kind": "ServiceAccount", "metadata": self.owned(&made.name, made),
                    "automountServiceAccountToken": false,
                });
                made.account_uid = uid(&api.call("POST", &self.core("serviceaccounts"), &body)?)?;
                Ok(())
            }
            DeleteAccount => api.delete(&account, &made.account_uid),
            PostSecret => self.post_secret(made),
            TokenRequest => {
                let (name, uid) = &made.secret;
                let bound = json!({"kind": "Secret", "apiVersion": "v1", "name": name, "uid": uid});
                let seconds = TOKEN.num_seconds();
                let spec = json!({"audiences": [], "expirationSeconds": seconds, "boundObjectRef": bound});
                let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
                api.call("POST", &format!("{account}/token"), &body).map(drop)
            }
        }
    }

    /// Asks whether the owner may create a member of this role.
    fn review(&self, role: &str) -> Result<()> {
        let attributes = json!({
            "group": GROUP, "resource": "members", "verb": "create", "namespace": format!("daypass-{role}"),
        });
        review(&self.kubernetes, "owner", &attributes)
    }

    fn member(&self, name: &str, [username, description]: [&str; 2]) -> Value {
        let claim = format!("{}/claimed-until", self.group);
        json!({
            "apiVersion": format!("{}/v1alpha1", self.group), "kind": "Member",
            "metadata": {"name": name, "annotations": {claim: CLAIMED_UNTIL}},
            "spec": {
                "duration": "1h", "username": username, "description": description,
                "createdBy": "system:serviceaccount:default:owner",
            },
        })
    }

    /// The Secret of a kubeconfig. Its record is in the next status.
    fn post_secret(&self, made: &mut Made) -> Result<()> {
        let slot = made.records.len();
        // Without a status, nothing tells which slots are free.
        let name = format!("{}.{}", made.name, if self.all { slot } else { number() });
        let credential = "0".repeat(16);
        let key = |key: &str| format!("{}/{key}", self.group);
        let mut metadata = self.owned(&name, made);
        metadata["labels"][key("credential")] = credential.clone().into();
        metadata["labels"][key("jti")] = format!("slot-{slot}").into();
        metadata["annotations"] = json!({
            key("expires-at"): time(made.created + TOKEN), key("recorded-in"): "status", key("from"): "127.0.0.1",
        });
        let body = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata});
        let uid = uid(&self.kubernetes.call("POST", &self.core("secrets"), &body)?)?;
        made.records.push(json!({
            "slot": slot, "id": uid, "mode": "direct", "secretUid": uid, "credential": credential,
            "from": "127.0.0.1", "issuedAt": time(made.created), "tokenExpiresAt": time(made.created + TOKEN),
        }));
        made.secret = (name, uid);
        Ok(())
    }

    /// A status as Daypass writes it, for exactly this version: of a member that has all that it needs.
    fn patch_status(&self, made: &mut Made, role_hash: &str) -> Result<()> {
        let condition = json!({
            "type": "Ready", "status": "True", "reason": "Provisioned", "message": "The service account exists",
            "lastTransitionTime": time(made.created),
        });
        let status = json!({
            "phase": "Active", "expiresAt": time(made.created + MEMBERSHIP), "observedGeneration": 1,
            "conditions": [condition], "credentialHash": "0".repeat(64), "roleHash": role_hash,
            "serviceAccountUid": made.account_uid, "kubeconfigs": made.records,
        });
        let patch = json!({"metadata": {"resourceVersion": made.version}, "status": status});
        made.read(&self.kubernetes.call("PATCH", &format!("{}/{}/status", self.members(), made.name), &patch)?)
    }

    /// The metadata of an object that the Member owns.
    fn owned(&self, name: &str, made: &Made) -> Value {
        let version = format!("{}/v1alpha1", self.group);
        let owner = json!({"apiVersion": version, "kind": "Member", "name": made.name, "uid": made.uid});
        let [member, member_uid] = ["member", "member-uid"].map(|key| format!("{}/{key}", self.group));
        json!({"name": name, "ownerReferences": [owner], "labels": {member: made.name, member_uid: made.uid}})
    }
}

/// Asks the API server whether a service account in `default` may do something; fails if it may not.
pub(crate) fn review(api: &Http, account: &str, attributes: &Value) -> Result<()> {
    let spec = json!({
        "user": format!("system:serviceaccount:default:{account}"),
        "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
        "resourceAttributes": attributes,
    });
    let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
    let answer = api.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", &body)?;
    (answer["status"]["allowed"] == true).then_some(()).context("the review denies it")
}

impl Made {
    fn read(&mut self, object: &Value) -> Result<()> {
        let metadata = &object["metadata"];
        self.uid = uid(object)?;
        self.version = metadata["resourceVersion"].as_str().context("no resourceVersion")?.to_owned();
        let created = metadata["creationTimestamp"].as_str().context("no creationTimestamp")?;
        self.created = DateTime::parse_from_rfc3339(created)?.to_utc();
        self.records = object["status"]["kubeconfigs"].as_array().cloned().unwrap_or_default();
        Ok(())
    }
}

fn named() -> Made {
    Made { name: format!("m{}", number()), ..Made::default() }
}

fn number() -> usize {
    NAMES.fetch_add(1, Ordering::Relaxed)
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn uid(object: &Value) -> Result<String> {
    Ok(object["metadata"]["uid"].as_str().context("no uid")?.to_owned())
}

impl Subject for Bare {
    fn name(&self) -> &'static str {
        if self.all { "bare client, the same calls" } else { "bare client, objects only" }
    }

    fn call(&self, operation: Operation) -> Result<()> {
        match operation {
            Operation::Create => self.create().map(|made| self.made.put(made)),
            Operation::Kubeconfig => self.perform(self.calls(operation), &mut self.made.lend()?),
            Operation::List => self.perform(self.calls(operation), &mut Made::default()),
            Operation::Delete => self.perform(self.calls(operation), &mut self.made.take()?),
        }
    }

    fn live(&self) -> usize {
        self.made.len()
    }
}
