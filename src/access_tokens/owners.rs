//! The owners of tokens, as they are now.

use super::AccessTokens;
use crate::cluster::{Error, Identity};
use crate::domain::access_token::{
    Extra, Groups, MAX_EXTRA, MAX_EXTRA_VALUE, MAX_EXTRA_VALUES, Owner, is_reserved, lasting, service_account,
};
use crate::domain::member::check_text;
use crate::domain::role::NAMESPACE_PREFIX;

/// The longest name of a user or a group that the CRD takes, in characters.
const MAX_KUBERNETES_USERNAME: usize = 1024;
/// The most groups that it takes.
const MAX_GROUPS: usize = 1000;

impl AccessTokens {
    /// The identity of a token's owner; `None` where it is not there any more. SubjectAccessReview does not notice that a service account
    /// was deleted, or made anew by somebody else.
    pub async fn identity_of(&self, owner: &Owner) -> Result<Option<Identity>, Error> {
        let extra = owner.extra.clone().unwrap_or_default();
        if let Some((namespace, name)) = owner.service_account() {
            let uid = self.account_uid(namespace, name).await?;
            let is_same = uid.is_some() && uid == owner.uid;
            let identity = || Identity { extra, ..Identity::of_account(namespace, name, owner.uid.clone()) };
            return Ok(is_same.then(identity));
        }
        let groups = owner.groups.as_ref();
        Ok(groups.map(|groups| Identity { extra, ..Identity::of_user(&owner.username, &groups.names) }))
    }

    /// The owner that an identity, which Kubernetes has just vouched for, makes. `None` where it can own no tokens.
    pub fn owner_of(&self, identity: &Identity) -> Option<Owner> {
        let (username, extra) = (identity.username.clone(), lasting(&identity.extra));
        // A part of it would be an identity that may do more.
        if !fits(&extra) {
            return None;
        }
        if service_account(&username).is_some() {
            let extra = Some(extra).filter(|extra| !extra.is_empty());
            return identity.uid.clone().map(|uid| Owner { username, uid: Some(uid), groups: None, extra });
        }
        let names = identity.groups.iter().filter(|name| !is_reserved(name)).cloned().collect();
        self.user(username, names, extra)
    }

    /// The owner of this user name. `None` where there is none, or it can own no tokens. Of a user that is no service account no groups are
    /// known.
    pub async fn owner_named(&self, username: &str) -> Result<Option<Owner>, Error> {
        let username = username.to_owned();
        if let Some((namespace, name)) = service_account(&username) {
            let uid = self.account_uid(namespace, name).await?;
            return Ok(uid.map(|uid| Owner { username, uid: Some(uid), groups: None, extra: None }));
        }
        Ok(self.user(username, Vec::new(), Extra::new()))
    }

    fn user(&self, username: String, names: Vec<String>, extra: Extra) -> Option<Owner> {
        let fits = |name: &String| !name.is_empty() && check_text(name, MAX_KUBERNETES_USERNAME).is_ok();
        let is_name = fits(&username) && !is_reserved(&username) && names.len() <= MAX_GROUPS && names.iter().all(fits);
        (is_name && self.rules.max_user_lifetime.is_some()).then(|| Owner {
            username,
            uid: None,
            groups: Some(Groups { names, at: self.clock.now() }),
            extra: Some(extra),
        })
    }

    /// The UID of a service account that exists and is no member.
    async fn account_uid(&self, namespace: &str, name: &str) -> Result<Option<String>, Error> {
        if namespace.starts_with(NAMESPACE_PREFIX) {
            return Ok(None);
        }
        self.cluster.account_uid(namespace, name).await
    }
}

/// Whether the CRD takes these attributes.
fn fits(extra: &Extra) -> bool {
    let is_short = |value: &String| check_text(value, MAX_EXTRA_VALUE as usize).is_ok();
    let is_taken = |(name, values): (&String, &Vec<String>)| {
        is_short(name) && values.len() <= MAX_EXTRA_VALUES && values.iter().all(is_short)
    };
    extra.len() <= MAX_EXTRA && extra.iter().all(is_taken)
}
