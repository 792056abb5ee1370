//! The records of kubeconfigs in a Member's status: their schema, and tolerant decoding.

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::schema::{date_schema, id_schema};
use crate::domain::kubeconfig::{self, MAX_KUBECONFIGS, RecordedToken};
use crate::domain::secret::SecretHash;

/// A kubeconfig.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KubeconfigRecord {
    /// The number of its Secret.
    #[schemars(schema_with = "slot_schema")]
    slot: u8,
    /// Its id: of a direct one, the jti of its token.
    #[schemars(schema_with = "id_schema::<64>")]
    id: String,
    /// Direct: it points at the API server. Gateway: it points at Daypass.
    mode: Mode,
    /// Hex SHA-256 of the token of a gateway one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "hash_schema")]
    token_hash: Option<String>,
    /// UID of its Secret.
    #[schemars(schema_with = "id_schema::<64>")]
    secret_uid: String,
    /// The first 16 digits of the hash of the credential that it was issued for.
    #[schemars(schema_with = "id_schema::<64>")]
    credential: String,
    /// The client address that it was issued to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "id_schema::<64>")]
    from: Option<String>,
    /// When it was issued.
    #[schemars(schema_with = "date_schema")]
    issued_at: DateTime<Utc>,
    /// When it was last used, to about ten minutes. Daypass sees no use of a direct one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_schema")]
    last_used_at: Option<DateTime<Utc>>,
    /// When the token of a direct one expires (exp).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_schema")]
    token_expires_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Mode {
    Direct,
    Gateway,
}

impl From<&kubeconfig::KubeconfigRecord> for KubeconfigRecord {
    fn from(record: &kubeconfig::KubeconfigRecord) -> Self {
        let (mode, token_hash, token_expires_at) = match &record.token {
            RecordedToken::Direct { expires_at } => (Mode::Direct, None, Some(*expires_at)),
            RecordedToken::Gateway { hash } => (Mode::Gateway, Some(hash.as_hex().to_owned()), None),
        };
        Self {
            slot: record.slot,
            id: record.id.clone(),
            mode,
            token_hash,
            secret_uid: record.secret_uid.clone(),
            credential: record.credential.clone(),
            from: record.from.clone(),
            issued_at: record.issued_at,
            last_used_at: record.last_used_at,
            token_expires_at,
        }
    }
}

impl KubeconfigRecord {
    /// The token; `None` if what its mode needs is missing or malformed.
    fn token(&self) -> Option<RecordedToken> {
        Some(match self.mode {
            Mode::Direct => RecordedToken::Direct { expires_at: self.token_expires_at? },
            Mode::Gateway => RecordedToken::Gateway { hash: SecretHash::from_hex(self.token_hash.as_ref()?)? },
        })
    }
}

/// A list with one record for each slot.
pub(super) fn records_schema(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": MAX_KUBECONFIGS, "items": KubeconfigRecord::json_schema(generator),
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["slot"],
    })
}

fn slot_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 0, "maximum": MAX_KUBECONFIGS - 1 })
}

fn hash_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$" })
}

/// Decodes the records one by one. A malformed one counts as absent, which ends its kubeconfig and no other.
pub(super) fn read_records(list: &RawValue) -> Vec<kubeconfig::KubeconfigRecord> {
    let entries: Vec<&RawValue> = serde_json::from_str(list.get()).unwrap_or_default();
    let mut records: Vec<kubeconfig::KubeconfigRecord> = Vec::new();
    for entry in entries {
        let Ok(record) = serde_json::from_str::<KubeconfigRecord>(entry.get()) else { continue };
        let Some(token) = record.token() else { continue };
        let is_free = records.iter().all(|other| other.slot != record.slot);
        if record.slot < MAX_KUBECONFIGS && is_free {
            records.push(kubeconfig::KubeconfigRecord {
                slot: record.slot,
                id: record.id,
                secret_uid: record.secret_uid,
                credential: record.credential,
                from: record.from,
                issued_at: record.issued_at,
                last_used_at: record.last_used_at,
                token,
            });
        }
    }
    // The feed keeps them.
    records.shrink_to_fit();
    records
}
