//! The owners of tokens: who can own one, and their current identity.

use super::AccessTokens;
use crate::cluster::{Error, Identity};
use crate::domain::access_token::{
    Extra, Groups, MAX_EXTRA, MAX_EXTRA_VALUE, MAX_EXTRA_VALUES, Owner, Subject, is_reserved, lasting, service_account,
};
use crate::domain::role::NAMESPACE_PREFIX;
use crate::domain::text::{check_text, is_bounded};

/// The longest user or group name that the CRD allows, in characters.
const MAX_KUBERNETES_USERNAME: usize = 1024;
/// The most groups that the CRD allows.
const MAX_GROUPS: usize = 1000;

impl AccessTokens {
    /// The current identity of a token's owner; `None` if its service account no longer exists or has been recreated:
    /// SubjectAccessReview does not check that. Always `Some` for a user, whose groups are those stored with the
    /// token.
    pub async fn identity_of(&self, owner: &Owner) -> Result<Option<Identity>, Error> {
        let extra = owner.extra.clone().unwrap_or_default();
        if let Some((namespace, name)) = owner.service_account() {
            let uid = self.account_uid(namespace, name).await?;
            let is_same = uid.is_some() && uid == owner.uid;
            let identity = || Identity { extra, ..Identity::of_account(namespace, name, owner.uid.clone()) };
            return Ok(is_same.then(identity));
        }
        let groups = owner.groups.as_ref();
        Ok(groups.map(|groups| Identity {
            uid: owner.uid.clone(),
            subject: owner.subject.clone(),
            extra,
            ..Identity::of_user(&owner.username, &groups.names)
        }))
    }

    /// The token owner for an identity that has just been authenticated; `None` if it cannot own tokens.
    pub fn owner_of(&self, identity: &Identity) -> Option<Owner> {
        let owner = self.session_owner_of(identity)?;
        // The tokens of a user outlast what gave it this UID, unless an issuer vouches for it.
        let uid = owner.uid.clone().filter(|_| owner.service_account().is_some() || owner.subject.is_some());
        self.may_own_tokens(&owner).then_some(Owner { uid, ..owner })
    }

    /// The owner of the sessions of an identity that has just been authenticated; `None` if it cannot have any.
    pub fn session_owner_of(&self, identity: &Identity) -> Option<Owner> {
        let (username, extra) = (identity.username.clone(), lasting(&identity.extra));
        // Never store only some of the attributes: an authorizer may restrict the identity because of any of them.
        if !fits(&extra) {
            return None;
        }
        if service_account(&username).is_some() {
            let extra = Some(extra).filter(|extra| !extra.is_empty());
            let uid = identity.uid.clone();
            return uid.map(|uid| Owner { username, uid: Some(uid), subject: None, groups: None, extra });
        }
        let names = identity.groups.iter().filter(|name| !is_reserved(name)).cloned().collect();
        let (uid, subject) = (identity.uid.clone(), identity.subject.clone());
        if uid.as_deref().is_some_and(|uid| !is_bounded(uid, MAX_KUBERNETES_USERNAME)) {
            return None;
        }
        self.user(username, names, extra).map(|owner| Owner { uid, subject, ..owner })
    }

    /// The token owner with this user name; `None` if its service account does not exist or it cannot own tokens. An
    /// owner that is not a service account gets no groups, since they are unknown. `subject` is for a person.
    pub async fn owner_named(&self, username: &str, subject: Option<Subject>) -> Result<Option<Owner>, Error> {
        let username = username.to_owned();
        if let Some((namespace, name)) = service_account(&username) {
            let uid = self.account_uid(namespace, name).await?;
            return Ok(uid.map(|uid| Owner { username, uid: Some(uid), subject: None, groups: None, extra: None }));
        }
        let user = self.user(username, Vec::new(), Extra::new()).filter(|owner| self.may_own_tokens(owner));
        Ok(user.map(|owner| Owner { subject, ..owner }))
    }

    fn may_own_tokens(&self, owner: &Owner) -> bool {
        owner.service_account().is_some() || self.rules.max_user_lifetime.is_some()
    }

    /// A user as the owner; `None` if a name is invalid or reserved.
    fn user(&self, username: String, names: Vec<String>, extra: Extra) -> Option<Owner> {
        let is_group = |name: &String| !name.is_empty() && is_bounded(name, MAX_KUBERNETES_USERNAME);
        let are_groups = names.len() <= MAX_GROUPS && names.iter().all(is_group);
        // Lists show the owner's name, so it must not look like another one.
        let is_name = !username.is_empty() && check_text(&username, MAX_KUBERNETES_USERNAME).is_ok();
        (are_groups && is_name && !is_reserved(&username)).then(|| Owner {
            username,
            uid: None,
            subject: None,
            groups: Some(Groups { names, at: self.clock.now() }),
            extra: Some(extra),
        })
    }

    /// The UID of a service account; `None` if it does not exist or is a member's, since members cannot own tokens.
    async fn account_uid(&self, namespace: &str, name: &str) -> Result<Option<String>, Error> {
        if namespace.starts_with(NAMESPACE_PREFIX) {
            return Ok(None);
        }
        self.cluster.account_uid(namespace, name).await
    }
}

/// Whether the attributes fit within the CRD's limits.
fn fits(extra: &Extra) -> bool {
    let is_short = |value: &String| is_bounded(value, MAX_EXTRA_VALUE as usize);
    let is_short_entry = |(name, values): (&String, &Vec<String>)| {
        is_short(name) && values.len() <= MAX_EXTRA_VALUES && values.iter().all(is_short)
    };
    extra.len() <= MAX_EXTRA && extra.iter().all(is_short_entry)
}
