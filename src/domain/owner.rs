//! Who owns access tokens, as Kubernetes knows them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::role::is_dns_label;

/// The most further attributes of an owner.
pub const MAX_EXTRA: usize = 16;
/// The most values of one.
pub const MAX_EXTRA_VALUES: usize = 64;
/// The longest value, in characters.
pub const MAX_EXTRA_VALUE: u32 = 512;

/// On whose rights a token acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The Kubernetes user name.
    pub username: String,
    /// A service account's UID: one that was deleted and made again is another.
    pub uid: Option<String>,
    /// The groups of a user that is no service account: Kubernetes cannot be asked for them.
    pub groups: Option<Groups>,
    /// What else Kubernetes said of it, as it was then: some authorizers let it do less for that. `None`
    /// where it was not kept.
    pub extra: Option<Extra>,
}

/// Further attributes of an identity (`extra` of a TokenReview), by their names.
pub type Extra = BTreeMap<String, Vec<String>>;

/// What Kubernetes says of a service account's credential and of the pod that holds it. It is not the access token's.
const OF_ONE_CREDENTIAL: [&str; 5] = [
    "authentication.kubernetes.io/credential-id",
    "authentication.kubernetes.io/pod-name",
    "authentication.kubernetes.io/pod-uid",
    "authentication.kubernetes.io/node-name",
    "authentication.kubernetes.io/node-uid",
];

/// The attributes that an access token keeps: all but those of the one credential, since any other may be what
/// narrows it (such as `scopes.authorization.openshift.io`).
pub fn lasting(extra: &Extra) -> Extra {
    extra
        .iter()
        .filter(|(name, _)| !OF_ONE_CREDENTIAL.contains(&name.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// Groups as they were once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// Their names.
    pub names: Vec<String>,
    /// When they were these.
    pub at: DateTime<Utc>,
}

impl Owner {
    /// Namespace and name, where the owner is a service account.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        service_account(&self.username)
    }
}

/// Namespace and name in a service account's user name, if they can be ones (RFC 1123 label and subdomain): they become parts of a path.
pub fn service_account(username: &str) -> Option<(&str, &str)> {
    let (namespace, name) = username.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (is_dns_label(namespace) && name.split('.').all(is_dns_label)).then_some((namespace, name))
}

/// Whether Kubernetes keeps this name of a user or a group to itself. A stored one is never believed: `system:masters` may do everything.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("system:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_is_kept_but_those_of_one_credential() {
        let extra =
            |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), vec!["x".to_owned()])).collect::<Extra>();
        let others = ["scopes.authorization.openshift.io", "authentication.kubernetes.io/other", "example.com/tenant"];
        assert_eq!(lasting(&extra(&[&others[..], &OF_ONE_CREDENTIAL].concat())), extra(&others));
    }

    #[test]
    fn service_accounts_are_told_by_their_names() {
        assert_eq!(service_account("system:serviceaccount:a:b"), Some(("a", "b")));
        assert_eq!(service_account("system:serviceaccount:a:b.c-d"), Some(("a", "b.c-d")));
        for name in [
            "alice",
            "system:serviceaccount:a",
            "system:serviceaccount::b",
            "system:serviceaccount:a:b:c",
            "a:b",
            "system:serviceaccount:a:../b",
            "system:serviceaccount:a/secrets:b",
            "system:serviceaccount:a:b?c",
            "system:serviceaccount:a:.b",
        ] {
            assert_eq!(service_account(name), None, "{name}");
        }
        assert!(is_reserved("system:masters") && !is_reserved("systems"));
    }
}
