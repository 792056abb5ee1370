//! Calls on AccessToken objects: read, watch, create, patch, delete.

use chrono::{DateTime, Utc};
use futures::Stream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;
use serde_json::{Value, json};

use super::objects::Objects;
use super::watch::{WatchCalls, WatchEvent};
use super::{Cluster, Error, ErrorKind};
use crate::crd::access_token::AccessTokenSpec;
use crate::crd::{self, Object, read_access_token};
use crate::domain::access_token::{AccessToken, TokenId};
use crate::domain::lifetime::rfc3339;
use crate::domain::secret::SecretHash;

impl Cluster {
    fn access_tokens(&self) -> Objects<'_> {
        self.objects::<crd::AccessToken>(Some(&self.namespace))
    }

    /// Lists all tokens and sessions, then streams each change, without old hashes. Skips unreadable ones.
    pub(crate) fn watch_access_tokens(&self) -> impl Stream<Item = WatchEvent<AccessToken>> + use<> {
        let calls = WatchCalls { list: "list_access_tokens", watch: "watch_access_tokens" };
        self.access_tokens().watch(calls, listed)
    }

    /// Reads the token or session with this object name from the API server. Treats an unreadable one as missing.
    pub(crate) async fn access_token(&self, name: &str) -> Result<Option<AccessToken>, Error> {
        let object = self.access_tokens().get("get_access_token", name, name).await?;
        Ok(object.as_ref().and_then(readable))
    }

    /// Lists all tokens and sessions, or those with this label, without old hashes. Skips unreadable ones.
    pub(crate) async fn list_access_tokens(&self, label: Option<(&str, &str)>) -> Result<Vec<AccessToken>, Error> {
        let selector = label.map(|(key, value)| format!("{key}={value}"));
        let read = |object: Object| listed(&object);
        let found = self.access_tokens().list("list_access_tokens", "-", selector.as_deref(), read).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Creates a token or a session.
    pub(crate) async fn create_access_token(
        &self,
        id: &TokenId,
        label: (&str, &str),
        owner: Option<&OwnerReference>,
        spec: &AccessTokenSpec,
    ) -> Result<AccessToken, Error> {
        let owners: Vec<_> = owner.into_iter().collect();
        let object = json!({
            "apiVersion": crd::AccessToken::api_version(&()), "kind": crd::AccessToken::kind(&()),
            "metadata": { "name": id.object_name(), "labels": { label.0: label.1 }, "ownerReferences": owners },
            "spec": spec,
        });
        let created = self.access_tokens().create("create_access_token", &id.to_string(), &object).await?;
        read("create_access_token", id, &created)
    }

    /// Renames exactly this token, even if other fields have changed.
    pub(crate) async fn set_token_name(&self, token: &AccessToken, name: &str) -> Result<AccessToken, Error> {
        self.patch_token(token, json!({ "metadata": { "uid": token.uid }, "spec": { "name": name } })).await
    }

    /// Replaces the secret, the hashes of earlier ones and the expiry of exactly this version of a token.
    pub(crate) async fn set_token_secret(
        &self,
        token: &AccessToken,
        hash: &SecretHash,
        rotated: &[SecretHash],
        expires_at: DateTime<Utc>,
        rotated_at: DateTime<Utc>,
    ) -> Result<AccessToken, Error> {
        let spec = json!({
            "tokenHash": hash.as_hex(),
            "rotatedHashes": rotated.iter().map(SecretHash::as_hex).collect::<Vec<_>>(),
            "expiresAt": rfc3339(expires_at),
            "rotatedAt": rfc3339(rotated_at),
        });
        self.patch_token(token, json!({ "metadata": { "resourceVersion": token.resource_version }, "spec": spec }))
            .await
    }

    /// Records the last use of exactly this version of a token.
    pub(crate) async fn set_token_last_used(
        &self,
        token: &AccessToken,
        at: DateTime<Utc>,
    ) -> Result<AccessToken, Error> {
        self.patch_token_status(token, json!({ "lastUsedAt": rfc3339(at) })).await
    }

    /// Records since when Daypass refuses a token because of its identity configuration; `None`: it accepts it again.
    pub(crate) async fn set_token_stale(
        &self,
        token: &AccessToken,
        since: Option<DateTime<Utc>>,
    ) -> Result<AccessToken, Error> {
        self.patch_token_status(token, json!({ "staleSince": since.map(rfc3339) })).await
    }

    /// Marks exactly this version of a token as ended. Of several concurrent calls, only one succeeds.
    pub(crate) async fn set_token_ended(&self, token: &AccessToken, at: DateTime<Utc>) -> Result<AccessToken, Error> {
        self.patch_token_status(token, json!({ "endedAt": rfc3339(at) })).await
    }

    /// Deletes exactly this token; `true` if this call deleted it.
    pub(crate) async fn delete_access_token(&self, token: &AccessToken) -> Result<bool, Error> {
        let (name, of) = (token.id.object_name(), token.id.to_string());
        match self.access_tokens().delete("delete_access_token", &of, name, &token.uid).await {
            Ok(_) => Ok(!token.deleting),
            Err(error) if error.is_gone() || error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn patch_token(&self, token: &AccessToken, patch: Value) -> Result<AccessToken, Error> {
        let (name, of) = (token.id.object_name(), token.id.to_string());
        let patched = self.access_tokens().patch("patch_access_token", &of, name, &patch).await?;
        read("patch_access_token", &token.id, &patched)
    }

    async fn patch_token_status(&self, token: &AccessToken, status: Value) -> Result<AccessToken, Error> {
        let patch = json!({ "metadata": { "resourceVersion": token.resource_version }, "status": status });
        let (name, of) = (token.id.object_name(), token.id.to_string());
        let patched = self.access_tokens().patch_status("patch_access_token_status", &of, name, &patch).await?;
        read("patch_access_token_status", &token.id, &patched)
    }
}

fn readable(object: &Object) -> Option<AccessToken> {
    read_access_token(object)
        .inspect_err(|why| {
            tracing::warn!(object = object.name(), %why, "an AccessToken cannot be read; refusing it");
        })
        .ok()
}

/// A token as lists hold it. With the old hashes, a few owners who rotate a lot could fill the memory of a replica.
fn listed(object: &Object) -> Option<AccessToken> {
    readable(object).map(AccessToken::without_rotated)
}

fn read(call: &'static str, id: &TokenId, object: &Object) -> Result<AccessToken, Error> {
    read_access_token(object)
        .map_err(|why| Error::new(call, &id.to_string(), ErrorKind::UnreadableAnswer, &why.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::access_token::{MAX_ROTATED, owner_key};

    #[test]
    fn list_keeps_no_old_hashes() {
        let name = format!("{}-3", owner_key("system:serviceaccount:a:b"));
        let object = json!({
            "metadata": {"name": name, "uid": "u", "resourceVersion": "7",
                         "creationTimestamp": "2026-11-23T00:00:00Z"},
            "spec": {
                "id": format!("{name}-abcdef"), "name": "ci", "createdBy": "alice", "scopes": ["members:read"],
                "owner": {"username": "system:serviceaccount:a:b", "uid": "v"}, "identity": "i",
                "expiresAt": "2026-12-23T00:00:00Z", "tokenHash": "a".repeat(64),
                "rotatedHashes": vec!["b".repeat(64); MAX_ROTATED],
            },
        });
        let object = Object::parse(&object.to_string()).unwrap();
        let kept = |token: Option<AccessToken>| token.unwrap().rotated.map(|hashes| hashes.len());
        assert_eq!((kept(readable(&object)), kept(listed(&object))), (Some(MAX_ROTATED), None));
    }
}
