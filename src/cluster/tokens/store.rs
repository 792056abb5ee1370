//! Reading and writing AccessTokens.

use chrono::{DateTime, Utc};
use futures::Stream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;
use serde_json::{Value, json};

use super::{AccessTokens, Error, NewToken};
use crate::cluster::ErrorKind;
use crate::cluster::objects::Objects;
use crate::cluster::watch::{WatchCalls, WatchEvent};
use crate::crd::access_token::{AccessTokenSpec, GroupsSpec, OwnerSpec, SessionSpec};
use crate::crd::{self, Object, read_access_token};
use crate::domain::access_token::{AccessToken, SignIn, TokenId, TokenSecret};
use crate::domain::lifetime::seconds;
use crate::domain::secret::SecretHash;

impl AccessTokens {
    fn objects(&self) -> Objects<'_> {
        self.cluster.objects::<crd::AccessToken>(Some(&self.cluster.namespace))
    }

    /// All tokens and sessions as they are, then each change.
    pub fn watch(&self) -> impl Stream<Item = WatchEvent<AccessToken>> + use<> {
        let calls = WatchCalls { list: "list_access_tokens", watch: "watch_access_tokens" };
        let tokens = self.clone();
        self.objects().watch(calls, move |object| tokens.readable(object))
    }

    /// The token, or session, of this id, live from the API server, dead or alive.
    pub async fn find(&self, id: &TokenId) -> Result<Option<AccessToken>, Error> {
        Ok(self.read(id.object_name()).await?.filter(|token| token.id == *id))
    }

    /// What is in the object of this name. One that cannot be read is none.
    pub(super) async fn read(&self, name: &str) -> Result<Option<AccessToken>, Error> {
        let object = self.objects().get("get_access_token", name, name).await?;
        Ok(object.as_ref().and_then(|object| self.readable(object)))
    }

    /// All tokens and sessions, or those with a label, each read by itself.
    pub(super) async fn list(&self, label: Option<(&str, &str)>) -> Result<Vec<AccessToken>, Error> {
        let selector = label.map(|(key, value)| format!("{key}={value}"));
        let read = |object: Object| self.readable(&object);
        let found = self.objects().list("list_access_tokens", "-", selector.as_deref(), read).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// All tokens and sessions, dead ones among them.
    pub async fn all(&self) -> Result<Vec<AccessToken>, Error> {
        self.list(None).await
    }

    /// Creates the object of a token.
    pub(super) async fn insert(
        &self,
        secret: &TokenSecret,
        new: &NewToken,
        identity: &str,
        session: Option<&SignIn>,
        label: (&str, &str),
        owner: Option<OwnerReference>,
    ) -> Result<AccessToken, Error> {
        let id = secret.subject();
        let owners: Vec<_> = owner.into_iter().collect();
        let object = json!({
            "apiVersion": crd::AccessToken::api_version(&()), "kind": crd::AccessToken::kind(&()),
            "metadata": { "name": id.object_name(), "labels": { label.0: label.1 }, "ownerReferences": owners },
            "spec": spec(secret, new, identity, session),
        });
        let created = self.objects().create("create_access_token", &id.to_string(), &object).await?;
        self.found("create_access_token", id, &created)
    }

    /// Another name, for exactly this token.
    pub(super) async fn write_name(&self, token: &AccessToken, name: &str) -> Result<AccessToken, Error> {
        self.patch(token, json!({ "metadata": { "uid": token.uid }, "spec": { "name": name } })).await
    }

    /// Another secret and end, for exactly this version of a token.
    pub(super) async fn write_secret(
        &self,
        token: &AccessToken,
        hash: &SecretHash,
        expires_at: DateTime<Utc>,
    ) -> Result<AccessToken, Error> {
        let rotated = token.rotated_with_current();
        let spec = json!({
            "tokenHash": hash.as_hex(),
            "rotatedHashes": rotated.iter().map(SecretHash::as_hex).collect::<Vec<_>>(),
            "expiresAt": seconds(expires_at),
            "rotatedAt": seconds(self.cluster.clock.now()),
        });
        self.patch(token, json!({ "metadata": { "resourceVersion": token.resource_version }, "spec": spec })).await
    }

    async fn patch(&self, token: &AccessToken, patch: Value) -> Result<AccessToken, Error> {
        let (name, of) = (token.id.object_name(), token.id.to_string());
        let patched = self.objects().patch("patch_access_token", &of, name, &patch).await?;
        self.found("patch_access_token", &token.id, &patched)
    }

    /// That it was used now, for exactly this version of a token.
    pub(super) async fn write_last_use(&self, token: &AccessToken) -> Result<AccessToken, Error> {
        self.patch_status(token, json!({ "lastUsedAt": seconds(self.cluster.clock.now()) })).await
    }

    /// That it is refused for its identity configuration from now on, or not any more.
    pub async fn write_stale(&self, token: &AccessToken, stale: bool) -> Result<AccessToken, Error> {
        let since = stale.then(|| seconds(self.cluster.clock.now()));
        self.patch_status(token, json!({ "staleSince": since })).await
    }

    /// That it has ended, for exactly this version of a token: of all that end it at the same time, one writes this.
    pub(super) async fn write_ended(&self, token: &AccessToken) -> Result<AccessToken, Error> {
        self.patch_status(token, json!({ "endedAt": seconds(self.cluster.clock.now()) })).await
    }

    async fn patch_status(&self, token: &AccessToken, status: Value) -> Result<AccessToken, Error> {
        let patch = json!({ "metadata": { "resourceVersion": token.resource_version }, "status": status });
        let (name, of) = (token.id.object_name(), token.id.to_string());
        let patched = self.objects().patch_status("patch_access_token_status", &of, name, &patch).await?;
        self.found("patch_access_token_status", &token.id, &patched)
    }

    /// Deletes exactly this token; whether it was this call that did.
    pub(super) async fn delete(&self, token: &AccessToken) -> Result<bool, Error> {
        let (name, of) = (token.id.object_name(), token.id.to_string());
        match self.objects().delete("delete_access_token", &of, name, &token.uid).await {
            Ok(_) => Ok(!token.deleting),
            Err(error) if error.is_gone() || error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What is in an object, by the rules in force. One that cannot be read is none.
    fn readable(&self, object: &Object) -> Option<AccessToken> {
        match read_access_token(object) {
            Ok(token) => Some(token.bounded(&self.rules)),
            Err(why) => {
                tracing::warn!(object = object.name(), %why, "an AccessToken cannot be read; it is refused");
                None
            }
        }
    }

    fn found(&self, call: &'static str, id: &TokenId, object: &Object) -> Result<AccessToken, Error> {
        read_access_token(object)
            .map(|token| token.bounded(&self.rules))
            .map_err(|why| Error::new(call, &id.to_string(), ErrorKind::UnreadableAnswer, &why.to_string()))
    }
}

fn spec(secret: &TokenSecret, new: &NewToken, identity: &str, session: Option<&SignIn>) -> AccessTokenSpec {
    let owner = &new.owner;
    AccessTokenSpec {
        id: secret.subject().to_string(),
        name: new.name.clone(),
        owner: OwnerSpec {
            username: owner.username.clone(),
            uid: owner.uid.clone(),
            groups: owner.groups.clone().map(|groups| GroupsSpec { names: groups.names, at: groups.at }),
            extra: owner.extra.clone(),
        },
        created_by: new.created_by.clone(),
        scopes: new.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        expires_at: new.expires_at,
        rotated_at: None,
        token_hash: secret.hash().as_hex().to_owned(),
        rotated_hashes: Vec::new(),
        identity: identity.to_owned(),
        session: session.cloned().map(|of| SessionSpec { token: of.token, token_uid: of.token_uid, secret: of.secret }),
    }
}
