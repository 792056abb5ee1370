//! Daypass's own service account, the owner of what Daypass makes in its own namespace: what the chart did not make, `helm uninstall`
//! does not delete, but it deletes the account, and then Kubernetes deletes what that owns.

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, UserInfo};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::Cluster;
use super::objects::decode;

impl Cluster {
    /// The service account that Daypass runs as, to own an object that is about to be *created* in Daypass's namespace. Every identity
    /// may ask who it is, so this takes no right. A later change of owners would take the right to delete the object
    /// where the admission plugin `OwnerReferencesPermissionEnforcement` is on, and Daypass has none.
    ///
    /// `None`, with a warning, where Daypass does not run as a service account of its own namespace, or cannot find out: then the object
    /// stays after an uninstall, which is no reason not to make it. Never remembered: an account that was made anew has another
    /// UID, and what names an owner that is not there is deleted at once.
    pub async fn own_account(&self) -> Option<OwnerReference> {
        const CALL: &str = "create_self_subject_review";
        let reviews = self.objects::<SelfSubjectReview>(None);
        let answer = reviews.create(CALL, "-", &SelfSubjectReview::default()).await;
        let answer = match answer.and_then(|answer| decode::<SelfSubjectReview>(CALL, "-", &answer)) {
            Ok(answer) => answer.status.and_then(|status| status.user_info),
            Err(error) => {
                tracing::warn!(%error, "Daypass's own account is unknown: what it makes in its namespace stays after an uninstall");
                return None;
            }
        };
        let user = answer.unwrap_or_default();
        let owner = owner(&self.namespace, &user);
        if owner.is_none() {
            tracing::warn!(
                username = user.username,
                namespace = self.namespace,
                "not run as a service account of its namespace: what Daypass makes there stays after an uninstall"
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
    fn only_a_service_account_of_the_namespace_itself_is_an_owner() {
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
