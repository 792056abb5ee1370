//! Finds Daypass's own service account, which owns the objects that Daypass creates in its own namespace.
//!
//! `helm uninstall` deletes only what the chart created. That includes the service account, and Kubernetes then
//! deletes what the account owns.

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, UserInfo};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::Cluster;
use super::objects::decode;

impl Cluster {
    /// An owner reference to the service account that Daypass runs as. Set it when you *create* an object in Daypass's
    /// namespace: where the admission plugin `OwnerReferencesPermissionEnforcement` is on, adding an owner later takes
    /// the right to delete the object, which Daypass lacks. The call needs no right, since every identity may ask who
    /// it is (SelfSubjectReview).
    ///
    /// `None`, with a warning, if Daypass does not run as a service account of its own namespace, or cannot find out.
    /// Create the object anyway; it stays after an uninstall. Do not cache the reference: a recreated account has
    /// another UID, and Kubernetes deletes an object at once if its owner does not exist.
    pub async fn own_account(&self) -> Option<OwnerReference> {
        const CALL: &str = "create_self_subject_review";
        let reviews = self.objects::<SelfSubjectReview>(None);
        let answer = reviews.create(CALL, "-", &SelfSubjectReview::default()).await;
        let answer = match answer.and_then(|answer| decode::<SelfSubjectReview>(CALL, "-", &answer)) {
            Ok(answer) => answer.status.and_then(|status| status.user_info),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "cannot determine own account; what Daypass creates in its namespace stays after an uninstall"
                );
                return None;
            }
        };
        let user = answer.unwrap_or_default();
        let owner = owner(&self.namespace, &user);
        if owner.is_none() {
            tracing::warn!(
                username = user.username,
                namespace = self.namespace,
                "Daypass is not a service account of its namespace; what it creates there stays after an uninstall"
            );
        }
        owner
    }
}

fn owner(namespace: &str, user: &UserInfo) -> Option<OwnerReference> {
    let name = user.username.as_deref()?.strip_prefix("system:serviceaccount:")?.strip_prefix(namespace)?;
    Some(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ServiceAccount".to_owned(),
        name: name.strip_prefix(':')?.to_owned(),
        uid: user.uid.clone().filter(|uid| !uid.is_empty())?,
        controller: None,
        block_owner_deletion: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_service_account_of_own_namespace_is_an_owner() {
        let of = |username: &str, uid: &str| {
            let user =
                UserInfo { username: Some(username.to_owned()), uid: Some(uid.to_owned()), ..UserInfo::default() };
            owner("daypass", &user).map(|owner| format!("{} {}", owner.name, owner.uid))
        };
        assert_eq!(of("system:serviceaccount:daypass:dp", "u"), Some("dp u".to_owned()));
        assert_eq!(of("system:serviceaccount:daypass:dp", ""), None);
        assert_eq!(of("system:serviceaccount:daypass-projects-view:dp", "u"), None);
        assert_eq!(of("system:serviceaccount:other:dp", "u"), None);
        assert_eq!(of("kubernetes-admin", "u"), None);
        assert_eq!(owner("daypass", &UserInfo::default()), None);
    }
}
