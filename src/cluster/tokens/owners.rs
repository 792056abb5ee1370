//! The owners of tokens, as they are now.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::{AccessTokens, Error};
use crate::cluster::Identity;
use crate::domain::access_token::{Groups, Owner, is_reserved, service_account};
use crate::domain::member::check_text;
use crate::domain::role::NAMESPACE_PREFIX;

/// The longest name of a user or a group that the CRD takes, in characters.
const MAX_USERNAME: usize = 1024;
/// The most groups that it takes.
const MAX_GROUPS: usize = 1000;

impl AccessTokens {
    /// The identity of a token's owner; `None` where it is not there any more. SubjectAccessReview does not notice that a service account
    /// was deleted, or made anew by somebody else.
    pub async fn identity_of(&self, owner: &Owner) -> Result<Option<Identity>, Error> {
        if let Some((namespace, name)) = owner.service_account() {
            let uid = self.account_uid(namespace, name).await?;
            let is_same = uid.is_some() && uid == owner.uid;
            return Ok(is_same.then(|| Identity::of_account(namespace, name, owner.uid.clone())));
        }
        Ok(owner.groups.as_ref().map(|groups| Identity::of_user(&owner.username, &groups.names)))
    }

    /// The owner that an identity, which Kubernetes has just vouched for, makes. `None` where it can own no tokens.
    pub fn owner_of(&self, identity: &Identity) -> Option<Owner> {
        let username = identity.username.clone();
        if service_account(&username).is_some() {
            return identity.uid.clone().map(|uid| Owner { username, uid: Some(uid), groups: None });
        }
        let names = identity.groups.iter().filter(|name| !is_reserved(name)).cloned().collect();
        self.user(username, names)
    }

    /// The owner of this user name. `None` where there is none, or it can own no tokens. Of a user that is no service account no groups are
    /// known.
    pub async fn owner_named(&self, username: &str) -> Result<Option<Owner>, Error> {
        let username = username.to_owned();
        if let Some((namespace, name)) = service_account(&username) {
            let uid = self.account_uid(namespace, name).await?;
            return Ok(uid.map(|uid| Owner { username, uid: Some(uid), groups: None }));
        }
        Ok(self.user(username, Vec::new()))
    }

    fn user(&self, username: String, names: Vec<String>) -> Option<Owner> {
        let fits = |name: &String| !name.is_empty() && check_text(name, MAX_USERNAME).is_ok();
        let is_name = fits(&username) && !is_reserved(&username) && names.len() <= MAX_GROUPS && names.iter().all(fits);
        (is_name && self.rules.max_user_lifetime.is_some()).then(|| Owner {
            username,
            uid: None,
            groups: Some(Groups { names, at: self.cluster.clock.now() }),
        })
    }

    /// The UID of a service account that exists and is no member.
    async fn account_uid(&self, namespace: &str, name: &str) -> Result<Option<String>, Error> {
        if namespace.starts_with(NAMESPACE_PREFIX) {
            return Ok(None);
        }
        let accounts = self.cluster.objects::<ServiceAccount>(Some(namespace)).metadata();
        let found = accounts.get("get_owner", &format!("{namespace}/{name}"), name).await?;
        Ok(found.filter(|account| !account.is_deleting()).and_then(|account| account.uid()))
    }
}
