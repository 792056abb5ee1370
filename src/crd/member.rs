//! `Member`: its schema, its CEL rules, and decoding into the domain.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::kubeconfig::{read_records, records_schema};
use super::object::Object;
use super::schema::{Unreadable, chrono_of, date, date_schema, id_schema, immutable, text_schema};
use crate::domain::lifetime::MembershipDuration;
use crate::domain::member::{self, Phase};
use crate::domain::member_id::MemberId;
use crate::domain::role::RoleId;
use crate::domain::secret::SecretHash;

/// Annotation that a REST request writes with its change. Until this time (RFC 3339) the request provisions and
/// reports the member itself, and the controller leaves that alone. It never delays an end.
pub const CLAIM_ANNOTATION: &str = "daypass.dev/claimed-until";
/// Annotation with the hash of the REST request that created a member with an `Idempotency-Key`.
pub const REQUEST_ANNOTATION: &str = "daypass.dev/request-hash";
/// The longest such hash, in bytes. A longer one is none of Daypass's.
const MAX_REQUEST_HASH: usize = 64;

/// A temporary member of this cluster with one role (its namespace) for at most 48 hours from creation.
#[derive(CustomResource, KubeSchema, Clone, Debug, Serialize, Deserialize)]
#[kube(
    group = "daypass.dev",
    version = "v1alpha1",
    kind = "Member",
    plural = "members",
    shortname = "dpm",
    namespaced,
    status = "MemberStatus",
    doc = "A temporary member of this cluster with one role (its namespace) for at most 48 hours from creation.",
    printcolumn(name = "Role", type_ = "string", json_path = ".metadata.namespace",
        description = "The role's namespace"),
    printcolumn(name = "Username", type_ = "string", json_path = ".spec.username"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt",
        description = "When the membership ends"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new(
        "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$') && self.metadata.name != 'default'"
    )
        .message("metadata.name must be 1 to 40 lower-case letters, digits and inner dashes, and not 'default'"),
    validation = immutable!("notAfter"),
    validation = immutable!("username"),
    validation = immutable!("description"),
    validation = immutable!("createdBy"),
)]
#[serde(rename_all = "camelCase")]
pub struct MemberSpec {
    /// How long the membership lasts, always measured from the creation of this object: hours, minutes and
    /// seconds, for example 4h or 1h30m; more than zero and at most 48h. Change it to extend or shorten the
    /// membership.
    #[schemars(schema_with = "duration_schema")]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s') && duration(self) <= duration('48h')")
        .message("must be more than zero and at most 48h"))]
    pub duration: MembershipDuration,
    /// The membership ends at this time even if the duration is longer. It keeps a restored or re-applied
    /// object from starting its time again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_schema")]
    #[x_kube(validation = Rule::new("self.getFullYear() <= 2100").message("must be before the year 2101"))]
    pub not_after: Option<String>,
    /// Display name of the person or team that the membership is for. No invisible characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text_schema::<255>")]
    pub username: Option<String>,
    /// Why the membership exists. No invisible characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text_schema::<1024>")]
    pub description: Option<String>,
    /// The caller that created the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text_schema::<1024>")]
    pub created_by: Option<String>,
}

/// Written by Daypass alone.
#[derive(Clone, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Hex SHA-256 of the member's credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub credential_hash: Option<String>,
    /// When the membership ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_schema")]
    pub expires_at: Option<DateTime<Utc>>,
    /// Active, or Terminating once the end is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub phase: Option<String>,
    /// Ready: the service account exists. RoleWidened: the role has gained rights since the membership was
    /// granted. ClockSkewed: the clocks of Daypass and the API server disagree by more than 5 s.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Fingerprint of the role's rights when the membership was granted or last checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "id_schema::<64>")]
    pub role_hash: Option<String>,
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,
    /// UID of the member's service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "id_schema::<64>")]
    pub service_account_uid: Option<String>,
    /// The first digits of the hash of the credential that was used last: a kubeconfig was downloaded or somebody
    /// signed in with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "id_schema::<64>")]
    pub used_credential: Option<String>,
    /// The kubeconfigs issued to the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "records_schema")]
    pub kubeconfigs: Option<Box<RawValue>>,
}

/// Without `format: duration`, which the API server parses with silent overflow.
fn duration_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 2, "maxLength": 20, "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?$",
    })
}

/// Decodes one object. Call it for each object of a list, so that a bad one does not hide the others.
///
/// # Errors
/// [`Unreadable`], with the fault of the object. Treat the member as ended.
pub fn read_member(role: &RoleId, object: &Object) -> Result<member::Member, Unreadable> {
    let spec: MemberSpec = object.part("spec")?;
    let status: Option<MemberStatus> = object.part("status")?;
    let not_after = spec.not_after.as_deref().map(DateTime::parse_from_rfc3339).transpose();
    Ok(member::Member {
        id: MemberId::new(role.clone(), &object.name()).ok_or(Unreadable::Id)?,
        uid: object.uid().ok_or(Unreadable::Field("metadata.uid"))?,
        resource_version: object.resource_version().ok_or(Unreadable::Field("metadata.resourceVersion"))?,
        generation: object.generation(),
        created_at: object.created_at().ok_or(Unreadable::Field("metadata.creationTimestamp"))?,
        deleting: object.is_deleting(),
        duration: spec.duration,
        not_after: not_after.map_err(|_| Unreadable::Field("spec.notAfter"))?.map(|date| date.to_utc()),
        username: spec.username,
        description: spec.description,
        created_by: spec.created_by,
        // The feed keeps it, and anybody may write the annotation.
        request_hash: object.annotation(REQUEST_ANNOTATION).filter(|hash| hash.len() <= MAX_REQUEST_HASH),
        claimed_until: object.annotation(CLAIM_ANNOTATION).and_then(|text| date(&text)),
        status: read_status(status.unwrap_or_default())?,
    })
}

fn read_status(status: MemberStatus) -> Result<member::RecordedStatus, Unreadable> {
    let is_true = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind && c.status == "True");
    let credential = status.credential_hash.as_ref().map(|hex| SecretHash::from_hex(hex));
    Ok(member::RecordedStatus {
        // An invalid hash must not count as "no credential issued yet".
        credential: credential.map(|hash| hash.ok_or(Unreadable::Field("status.credentialHash"))).transpose()?,
        expires_at: status.expires_at,
        phase: match status.phase.as_deref() {
            None | Some("") => None,
            Some("Active") => Some(Phase::Active),
            Some("Terminating") => Some(Phase::Terminating),
            Some(_) => return Err(Unreadable::Field("status.phase")),
        },
        observed_generation: status.observed_generation,
        ready_since: is_true("Ready").and_then(|condition| chrono_of(&condition.last_transition_time)),
        clock_skewed: is_true("ClockSkewed").is_some(),
        role_widened: is_true("RoleWidened").and_then(|condition| chrono_of(&condition.last_transition_time)),
        role_hash: status.role_hash,
        account_uid: status.service_account_uid,
        used_credential: status.used_credential,
        kubeconfigs: status.kubeconfigs.map(|records| read_records(&records)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::examples::{at, gateway_kubeconfig, kubeconfig};
    use crate::domain::kubeconfig::KubeconfigRecord;
    use serde_json::json;

    fn object(spec: serde_json::Value, status: serde_json::Value) -> Object {
        let object = json!({
            "apiVersion": "daypass.dev/v1alpha1", "kind": "Member",
            "metadata": {"name": "a", "namespace": "daypass-view", "uid": "u", "resourceVersion": "7",
                         "creationTimestamp": "2026-11-23T00:00:00Z"},
            "spec": spec, "status": status,
        });
        Object::parse(&object.to_string()).unwrap()
    }

    fn read(spec: serde_json::Value, status: serde_json::Value) -> Result<member::Member, Unreadable> {
        read_member(&RoleId::parse("view").unwrap(), &object(spec, status))
    }

    #[test]
    fn hard_end_limits_a_longer_duration() {
        let member = read(json!({"duration": "4h", "notAfter": "2026-11-23T02:00:00+01:00"}), json!(null)).unwrap();
        assert_eq!(member.expires_at().to_rfc3339(), "2026-11-23T01:00:00+00:00");
    }

    #[test]
    fn malformed_record_hides_neither_the_member_nor_other_records() {
        let record = |slot: i64| {
            json!({"slot": slot, "id": "j", "mode": "direct", "secretUid": "k", "credential": "c",
                   "issuedAt": "2026-11-23T00:00:00Z", "tokenExpiresAt": "2026-11-23T01:00:00Z"})
        };
        let with = |slot: i64, mode: &str, hash: serde_json::Value| {
            let mut record = record(slot);
            record.as_object_mut().unwrap().remove("tokenExpiresAt");
            (record["mode"], record["tokenHash"]) = (mode.into(), hash);
            record
        };
        let (good, short) = (json!("a".repeat(64)), json!("a".repeat(63)));
        let (gateway, endless) = (with(8, "gateway", good.clone()), with(7, "direct", good.clone()));
        let [bad, none] = [with(4, "gateway", short), with(5, "gateway", json!(null))];
        let other = with(6, "other", good);
        let hostile = json!([
            record(3),
            7,
            {},
            record(10),
            record(-1),
            bad,
            none,
            other,
            endless,
            null,
            record(3),
            gateway,
            record(9)
        ]);
        let slots = |records: serde_json::Value| {
            let member = read(json!({"duration": "1h"}), json!({"kubeconfigs": records})).unwrap();
            member.status.kubeconfigs.map(|records| records.iter().map(|record| record.slot).collect::<Vec<_>>())
        };
        assert_eq!(slots(hostile), Some(vec![3, 8, 9]));
        for invalid in [json!({}), json!("x"), json!(7)] {
            assert_eq!(slots(invalid), Some(vec![]), "nothing is issued");
        }
        assert_eq!(slots(json!(null)), None);
        let nested = format!("[{}0{}]", r#"{"a":"#.repeat(500), "}".repeat(500));
        assert_eq!(read_records(&RawValue::from_string(nested).unwrap()), []);
    }

    #[test]
    fn written_records_read_the_same() {
        let used = KubeconfigRecord { last_used_at: Some(at(60)), ..gateway_kubeconfig(1) };
        let records = [kubeconfig(0, 100), used, gateway_kubeconfig(2)];
        let written = json!(records.iter().map(crate::crd::KubeconfigRecord::from).collect::<Vec<_>>());
        assert!(written[0].get("tokenHash").is_none() && written[1].get("tokenExpiresAt").is_none(), "{written}");
        let member = read(json!({"duration": "1h"}), json!({"kubeconfigs": written})).unwrap();
        assert_eq!(member.status.kubeconfigs.as_deref(), Some(&records[..]));
    }

    #[test]
    fn annotation_too_long_for_a_request_hash_is_not_kept() {
        let hash = |length: usize| {
            let object = json!({
                "metadata": {"name": "a", "uid": "u", "resourceVersion": "7",
                             "creationTimestamp": "2026-11-23T00:00:00Z",
                             "annotations": {REQUEST_ANNOTATION: "a".repeat(length)}},
                "spec": {"duration": "1h"},
            });
            let object = Object::parse(&object.to_string()).unwrap();
            read_member(&RoleId::parse("view").unwrap(), &object).unwrap().request_hash.map(|hash| hash.len())
        };
        assert_eq!((hash(32), hash(64), hash(65), hash(250_000)), (Some(32), Some(64), None, None));
    }

    #[test]
    fn invalid_field_is_an_error() {
        for spec in [
            json!(null),
            json!({}),
            json!({"duration": 3}),
            json!({"duration": "30000 weeks"}),
            json!({"duration": "49h"}),
            json!({"duration": "1h", "notAfter": "never"}),
            json!({"duration": "1h", "notAfter": "+10000-01-01T00:00:00Z"}),
        ] {
            assert!(read(spec.clone(), json!({})).is_err(), "{spec}");
        }
        for status in [json!({"credentialHash": "x"}), json!({"phase": "Forever"}), json!({"expiresAt": "soon"})] {
            assert!(read(json!({"duration": "1h"}), status.clone()).is_err(), "{status}");
        }
    }
}
