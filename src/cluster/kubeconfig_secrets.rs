//! The Secrets behind kubeconfigs: each token is bound to one empty Secret, and deleting it revokes the kubeconfig.

use chrono::{DateTime, Utc};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use secrecy::SecretString;
use serde_json::json;

use super::objects::{Objects, decode};
use super::service_accounts::{owned_labels, owner_reference};
use super::{Cluster, Error, ErrorKind, MEMBER_LABEL, MEMBER_UID_LABEL, gone};
use crate::crd::Object;
use crate::domain::kubeconfig::slot_name;
use crate::domain::kubeconfig_secret::{KubeconfigSecret, SecretToken, placeholder};
use crate::domain::lifetime::rfc3339;
use crate::domain::member::Member;
use crate::domain::member_id::MemberId;
use crate::domain::role::RoleId;
use crate::domain::secret::SecretHash;

const JTI_LABEL: &str = "daypass.dev/jti";
const CREDENTIAL_LABEL: &str = "daypass.dev/credential";
const EXPIRES_ANNOTATION: &str = "daypass.dev/expires-at";
const FROM_ANNOTATION: &str = "daypass.dev/from";
/// Marks a Secret whose record is in the Member's status. Version 0.1.0 ignores it.
const RECORDED_ANNOTATION: &str = "daypass.dev/recorded-in";
const STATUS: &str = "status";

/// What a Secret records from its creation, before its token exists.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    /// The slot, which names the Secret.
    pub(crate) slot: u8,
    /// The kubeconfig's id, if it is known before its token.
    pub(crate) id: Option<&'a str>,
    /// The credential that the kubeconfig is issued for.
    pub(crate) credential: &'a SecretHash,
    /// The latest end that its token can have.
    pub(crate) latest_exp: DateTime<Utc>,
    /// The client address that it is issued to.
    pub(crate) from: Option<&'a str>,
}

impl Cluster {
    /// A role's Secrets, metadata only: Daypass has no need for a Secret's data.
    fn secrets(&self, role: &RoleId) -> Objects<'_> {
        self.objects::<Secret>(Some(&role.namespace())).metadata()
    }

    /// Lists the Secrets of all members of this name, past ones included.
    pub async fn list_kubeconfigs(&self, id: &MemberId) -> Result<Vec<KubeconfigSecret>, Error> {
        let (of_member, role) = (format!("{MEMBER_LABEL}={}", id.name()), id.role.as_str());
        self.secrets(&id.role).list("list_secrets", role, Some(&of_member), |secret| read(&secret)).await
    }

    /// Lists all Secrets of a role, page by page. Returns what `keep` keeps of them.
    pub async fn list_role_secrets<T>(
        &self,
        role: &RoleId,
        mut keep: impl FnMut(KubeconfigSecret) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let secrets = self.secrets(role);
        let kept = secrets.list("list_secrets", role.as_str(), None, |secret| keep(read(&secret)));
        Ok(kept.await?.into_iter().flatten().collect())
    }

    /// Claims a slot for a kubeconfig. Creating a taken name fails.
    ///
    /// The labels and annotations keep a controller of version 0.1.0 from deleting the Secret during an upgrade: it
    /// expects the token's `jti` and end there, and those of a direct kubeconfig are not known yet.
    pub(crate) async fn create_kubeconfig_secret(
        &self,
        member: &Member,
        slot: &Slot<'_>,
    ) -> Result<KubeconfigSecret, Error> {
        let mut labels = owned_labels(member);
        labels.insert(CREDENTIAL_LABEL.to_owned(), slot.credential.fingerprint().to_owned());
        let id = slot.id.map_or_else(|| placeholder(slot.slot), str::to_owned);
        labels.insert(JTI_LABEL.to_owned(), id);
        let from = slot.from.map(|from| (FROM_ANNOTATION, from.to_owned()));
        let annotations = [(EXPIRES_ANNOTATION, rfc3339(slot.latest_exp)), (RECORDED_ANNOTATION, STATUS.to_owned())];
        let annotations = annotations.into_iter().chain(from).map(|(key, value)| (key.to_owned(), value));
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(slot_name(&member.id, slot.slot)),
                labels: Some(labels),
                annotations: Some(annotations.collect()),
                owner_references: Some(vec![owner_reference(member)]),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let created = self.secrets(&member.id.role).create("create_secret", &member.id.to_string(), &secret).await?;
        Ok(read(&created))
    }

    /// Marks a Secret of version 0.1.0, whose record is now in the Member's status.
    pub async fn mark_secret(&self, role: &RoleId, secret: &KubeconfigSecret) -> Result<(), Error> {
        // If the Secret has been replaced meanwhile, its UID differs and the patch conflicts.
        let patch = json!({ "metadata": { "uid": secret.uid, "annotations": { RECORDED_ANNOTATION: STATUS } } });
        let of = format!("{role}.{}", secret.name);
        gone(self.secrets(role).patch("patch_secret", &of, &secret.name, &patch).await)
    }

    /// Deletes exactly this Secret. That ends the token bound to it.
    pub async fn delete_secret(&self, role: &RoleId, name: &str, uid: &str) -> Result<(), Error> {
        let of = format!("{role}.{name}");
        gone(self.secrets(role).delete("delete_secret", &of, name, uid).await)
    }

    /// Makes Kubernetes recount the role's quota: it does so when an object in the namespace is deleted, so this
    /// creates and deletes an empty Secret.
    pub async fn nudge_quota(&self, role: &RoleId) -> Result<(), Error> {
        let name = format!("quota-{}", u64::from_be_bytes(self.entropy.bytes().unwrap_or_default()));
        let metadata = ObjectMeta { name: Some(name), ..ObjectMeta::default() };
        let secret = Secret { metadata, type_: Some("Opaque".to_owned()), ..Secret::default() };
        let created = self.secrets(role).create("create_secret", role.as_str(), &secret).await?;
        let secret = read(&created);
        self.delete_secret(role, &secret.name, &secret.uid).await
    }

    /// Requests a token of the member's service account, for the API server's own audience and bound to the Secret
    /// of this name and UID.
    /// The API server may return one that lives longer than `lifetime`.
    pub(crate) async fn request_token(
        &self,
        id: &MemberId,
        (name, uid): (&str, &str),
        lifetime: chrono::TimeDelta,
    ) -> Result<SecretString, Error> {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                // Empty: the API server's own audience.
                audiences: Vec::new(),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Secret".to_owned()),
                    name: Some(name.to_owned()),
                    uid: Some(uid.to_owned()),
                }),
                expiration_seconds: Some(lifetime.num_seconds()),
            },
            ..TokenRequest::default()
        };
        let (accounts, of) = (self.objects::<ServiceAccount>(Some(&id.role.namespace())), id.to_string());
        let answer = accounts.create_token("create_token", &of, id.name(), &request).await?;
        let answer: TokenRequest = decode("create_token", &of, &answer)?;
        let missing =
            || Error::new("create_token", &id.to_string(), ErrorKind::UnreadableAnswer, "no token in the response");
        answer.status.map(|status| status.token.into()).ok_or_else(missing)
    }
}

fn read(secret: &Object) -> KubeconfigSecret {
    let exp = secret.annotation(EXPIRES_ANNOTATION).and_then(|text| DateTime::parse_from_rfc3339(&text).ok());
    KubeconfigSecret {
        name: secret.name(),
        uid: secret.uid().unwrap_or_default(),
        member: secret.label(MEMBER_LABEL),
        member_uid: secret.label(MEMBER_UID_LABEL),
        credential: secret.label(CREDENTIAL_LABEL),
        // Treat a Secret without a date as old.
        created_at: secret.created_at().unwrap_or_default(),
        deleting: secret.is_deleting(),
        in_status: secret.annotation(RECORDED_ANNOTATION).as_deref() == Some(STATUS),
        token: secret.label(JTI_LABEL).zip(exp).map(|(jti, exp)| SecretToken {
            jti,
            expires_at: exp.to_utc(),
            from: secret.annotation(FROM_ANNOTATION),
        }),
    }
}
