//! The Secrets behind kubeconfigs: each token is bound to one empty Secret, and deleting it revokes the kubeconfig.

use chrono::DateTime;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use secrecy::SecretString;
use serde_json::json;

use super::objects::{Objects, decode};
use super::service_accounts::{owned_labels, owner_reference};
use super::{Cluster, Error, ErrorKind, MEMBER_LABEL, MEMBER_UID_LABEL, gone};
use crate::crd::Object;
use crate::domain::kubeconfig::{KubeconfigRecord, RecordedToken};
use crate::domain::member::Member;
use crate::domain::member_id::MemberId;
use crate::domain::role::RoleId;
use crate::domain::secret::SecretHash;
use crate::domain::token::TokenClaims;

const JTI_LABEL: &str = "daypass.dev/jti";
const CREDENTIAL_LABEL: &str = "daypass.dev/credential";
const EXPIRES_ANNOTATION: &str = "daypass.dev/expires-at";
const FROM_ANNOTATION: &str = "daypass.dev/from";

impl Cluster {
    /// A role's Secrets, metadata only: Daypass has no need for a Secret's data.
    fn secrets(&self, role: &RoleId) -> Objects<'_> {
        self.objects::<Secret>(Some(&role.namespace())).metadata()
    }

    /// Lists the Secrets of all members of this name, past ones included.
    pub async fn list_kubeconfigs(&self, id: &MemberId) -> Result<Vec<KubeconfigRecord>, Error> {
        self.list_secrets(&id.role, Some(&format!("{MEMBER_LABEL}={}", id.name()))).await
    }

    /// Lists all Secrets of a role.
    pub async fn list_role_secrets(&self, role: &RoleId) -> Result<Vec<KubeconfigRecord>, Error> {
        self.list_secrets(role, None).await
    }

    async fn list_secrets(&self, role: &RoleId, selector: Option<&str>) -> Result<Vec<KubeconfigRecord>, Error> {
        self.secrets(role).list("list_secrets", role.as_str(), selector, |secret| read(&secret)).await
    }

    /// Claims the slot of this name for a kubeconfig. Creating a taken name fails, and that enforces the limit.
    pub(crate) async fn create_kubeconfig_secret(
        &self,
        member: &Member,
        name: &str,
        credential: &SecretHash,
    ) -> Result<KubeconfigRecord, Error> {
        let mut labels = owned_labels(member);
        labels.insert(CREDENTIAL_LABEL.to_owned(), credential.fingerprint().to_owned());
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(labels),
                owner_references: Some(vec![owner_reference(member)]),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let created = self.secrets(&member.id.role).create("create_secret", &member.id.to_string(), &secret).await?;
        Ok(read(&created))
    }

    /// Records the token's `jti`, expiry and client address on its Secret.
    pub(crate) async fn record_issued(
        &self,
        role: &RoleId,
        secret: &KubeconfigRecord,
        claims: &TokenClaims,
        from: Option<&str>,
    ) -> Result<(), Error> {
        let patch = json!({ "metadata": {
            // If the Secret has been replaced meanwhile, its UID differs and the patch conflicts.
            "uid": secret.uid,
            "labels": { JTI_LABEL: claims.jti },
            "annotations": { EXPIRES_ANNOTATION: claims.exp, FROM_ANNOTATION: from },
        }});
        let of = format!("{role}.{}", secret.name);
        self.secrets(role).patch("patch_secret", &of, &secret.name, &patch).await.map(drop)
    }

    /// Deletes exactly this Secret. That ends the token bound to it.
    pub async fn delete_secret(&self, role: &RoleId, secret: &KubeconfigRecord) -> Result<(), Error> {
        let of = format!("{role}.{}", secret.name);
        gone(self.secrets(role).delete("delete_secret", &of, &secret.name, &secret.uid).await)
    }

    /// Deletes all Secrets of a member in one call; with `keep`, all but those of that credential. The API server
    /// stops at the first Secret that it cannot delete.
    pub(crate) async fn delete_secrets(&self, member: &Member, keep: Option<&SecretHash>) -> Result<(), Error> {
        let mut selector = format!("{MEMBER_UID_LABEL}={}", member.uid);
        if let Some(hash) = keep {
            selector.push_str(&format!(",{CREDENTIAL_LABEL}!={}", hash.fingerprint()));
        }
        self.secrets(&member.id.role).delete_all("delete_secrets", &member.id.to_string(), &selector).await
    }

    /// Makes Kubernetes recount the role's quota: it does so when an object in the namespace is deleted, so this
    /// creates and deletes an empty Secret.
    pub async fn nudge_quota(&self, role: &RoleId) -> Result<(), Error> {
        let name = format!("quota-{}", u64::from_be_bytes(self.entropy.bytes().unwrap_or_default()));
        let metadata = ObjectMeta { name: Some(name), ..ObjectMeta::default() };
        let secret = Secret { metadata, type_: Some("Opaque".to_owned()), ..Secret::default() };
        let created = self.secrets(role).create("create_secret", role.as_str(), &secret).await?;
        self.delete_secret(role, &read(&created)).await
    }

    /// Requests a token of the member's service account, for the API server's own audience and bound to the Secret.
    /// The API server may return one that lives longer than `lifetime`.
    pub(crate) async fn request_token(
        &self,
        id: &MemberId,
        secret: &KubeconfigRecord,
        lifetime: chrono::TimeDelta,
    ) -> Result<SecretString, Error> {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                // Empty: the API server's own audience.
                audiences: Vec::new(),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Secret".to_owned()),
                    name: Some(secret.name.clone()),
                    uid: Some(secret.uid.clone()),
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

fn read(secret: &Object) -> KubeconfigRecord {
    let exp = secret.annotation(EXPIRES_ANNOTATION).and_then(|text| DateTime::parse_from_rfc3339(&text).ok());
    KubeconfigRecord {
        name: secret.name(),
        uid: secret.uid().unwrap_or_default(),
        member: secret.label(MEMBER_LABEL),
        member_uid: secret.label(MEMBER_UID_LABEL),
        credential: secret.label(CREDENTIAL_LABEL),
        // Treat a Secret without a date as old.
        created_at: secret.created_at().unwrap_or_default(),
        deleting: secret.is_deleting(),
        issued: secret.label(JTI_LABEL).zip(exp).map(|(jti, exp)| RecordedToken {
            jti,
            expires_at: exp.to_utc(),
            from: secret.annotation(FROM_ANNOTATION),
        }),
    }
}
