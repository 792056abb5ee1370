//! Owners of access tokens: the Kubernetes identities whose rights the tokens have.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::member_id::MemberId;
use super::role::is_dns_label;

/// The most attributes (`extra`) of an owner.
pub const MAX_EXTRA: usize = 16;
/// The most values of one attribute.
pub const MAX_EXTRA_VALUES: usize = 64;
/// The longest value of an attribute, in characters.
pub const MAX_EXTRA_VALUE: u32 = 512;

/// The identity whose rights a token has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The Kubernetes user name.
    pub username: String,
    /// Its UID. A service account always has one: an account that is deleted and created again is another.
    pub uid: Option<String>,
    /// Who it is at its issuer, if it is a person who signs in with ID tokens.
    pub subject: Option<Subject>,
    /// A user's groups; `None` for a service account. Stored because Kubernetes has no API to look them up.
    pub groups: Option<Groups>,
    /// Its attributes when the token was created; `None` if none were stored. Some authorizers restrict an identity by
    /// them.
    pub extra: Option<Extra>,
}

/// Who a person is at the issuer of their ID tokens. A name may be given to somebody else one day; this never is
/// (OpenID Connect Core 1.0, section 5.7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// The issuer's URL (`iss`).
    pub issuer: String,
    /// The person (`sub`).
    pub subject: String,
    /// Identifies the settings by which Daypass maps the issuer's claims to names.
    #[serde(skip)]
    pub mapping: String,
}

/// Attributes of an identity (`extra` of a TokenReview), by name.
pub type Extra = BTreeMap<String, Vec<String>>;

/// The attribute with the id of a credential: `JTI=` and the token's `jti` (KEP-4193).
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Attributes that describe one credential of a service account, or the pod that holds it. They do not apply to an
/// access token of the account.
const OF_ONE_CREDENTIAL: [&str; 5] = [
    CREDENTIAL_ID,
    "authentication.kubernetes.io/pod-name",
    "authentication.kubernetes.io/pod-uid",
    "authentication.kubernetes.io/node-name",
    "authentication.kubernetes.io/node-uid",
];

/// The attributes to store with an access token: all except `OF_ONE_CREDENTIAL`, since any other may restrict the
/// identity, as `scopes.authorization.openshift.io` does.
pub fn lasting(extra: &Extra) -> Extra {
    extra
        .iter()
        .filter(|(name, _)| !OF_ONE_CREDENTIAL.contains(&name.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// The groups of a user at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// Their names.
    pub names: Vec<String>,
    /// When they were read.
    pub at: DateTime<Utc>,
}

impl Owner {
    /// The owner of a member's sessions: its service account, without what would identify it, since a member is no
    /// caller.
    pub fn of_member(id: &MemberId) -> Self {
        let username = format!("system:serviceaccount:{}:{}", id.role.namespace(), id.name());
        Self { username, uid: None, subject: None, groups: None, extra: None }
    }

    /// Namespace and name, if the owner is a service account.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        service_account(&self.username)
    }
}

/// Namespace and name from a service account's user name. Both must be valid (an RFC 1123 label and subdomain),
/// because they become part of a URL path.
pub fn service_account(username: &str) -> Option<(&str, &str)> {
    let (namespace, name) = username.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (is_dns_label(namespace) && name.split('.').all(is_dns_label)).then_some((namespace, name))
}

/// Whether Kubernetes reserves this user or group name. Daypass never trusts a stored one: `system:masters` has all
/// rights.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("system:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_one_credential_are_dropped() {
        let extra =
            |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), vec!["x".to_owned()])).collect::<Extra>();
        let others = ["scopes.authorization.openshift.io", "authentication.kubernetes.io/other", "example.com/tenant"];
        assert_eq!(lasting(&extra(&[&others[..], &OF_ONE_CREDENTIAL].concat())), extra(&others));
    }

    #[test]
    fn service_account_is_parsed_from_a_valid_user_name() {
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
    }

    #[test]
    fn system_names_are_reserved() {
        assert!(is_reserved("system:masters") && !is_reserved("systems"));
    }
}
