//! The service accounts of members.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{ApiResource, ListParams, PostParams};
use kube::{Api, Resource as _};

use super::members::uid_precondition;
use super::{Cluster, Error, ErrorKind, MEMBER_LABEL, MEMBER_UID_LABEL, gone, optional};
use crate::crd::{self, Metadata};
use crate::domain::id::MemberId;
use crate::domain::member::Member;
use crate::domain::role::RoleId;

/// A service account in a role namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The UID of the Member it was made for; `None` for one that Daypass did not make.
    pub member_uid: Option<String>,
    /// Whether it is being deleted: its tokens are dead, a finalizer may hold the object.
    pub deleting: bool,
}

impl Cluster {
    fn accounts(&self, role: &RoleId) -> Api<ServiceAccount> {
        Api::namespaced(self.client.clone(), &role.namespace())
    }

    fn account_metadata(&self, role: &RoleId) -> Api<Metadata> {
        let resource = ApiResource::erase::<ServiceAccount>(&());
        Api::namespaced_with(self.client.clone(), &role.namespace(), &resource)
    }

    /// The service account of a member's name, whosever it is.
    pub async fn account(&self, id: &MemberId) -> Result<Option<Account>, Error> {
        let api = self.account_metadata(&id.role);
        let found = optional(self.call("get_service_account", &id.to_string(), api.get(id.name())).await)?;
        Ok(found.map(read))
    }

    /// All service accounts of a role but `default`, which Kubernetes makes and whose token nobody can get.
    pub async fn list_accounts(&self, role: &RoleId) -> Result<Vec<Account>, Error> {
        let api = self.account_metadata(role);
        let found = self.call("list_service_accounts", role.as_str(), api.list(&ListParams::default())).await?;
        Ok(found.into_iter().map(read).filter(|account| account.name != "default").collect())
    }

    /// Makes sure that the member's service account is there and the member's own.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when an account of that name belongs to another Member: it is never adopted; the
    /// controller removes it first.
    pub(super) async fn ensure_account(&self, member: &Member) -> Result<(), Error> {
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(member.id.name().to_owned()),
                labels: Some(owned_labels(member)),
                owner_references: Some(vec![owner_reference(member)]),
                ..ObjectMeta::default()
            },
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        };
        let (api, id) = (self.accounts(&member.id.role), member.id.to_string());
        // Looked for first: to the namespace's quota, a try to make one that is there is one more, until Kubernetes counts again.
        let mut found = self.account(&member.id).await?;
        if found.is_none() {
            match self.call("create_service_account", &id, api.create(&PostParams::default(), &account)).await {
                Err(error) if error.kind == ErrorKind::AlreadyExists => found = self.account(&member.id).await?,
                result => return result.map(drop),
            }
        }
        if found.is_some_and(|account| account.member_uid.as_ref() == Some(&member.uid) && !account.deleting) {
            return Ok(());
        }
        Err(Error::new("create_service_account", &id, ErrorKind::Conflict, "the name is taken by another's"))
    }

    /// Deletes exactly this service account; with it die all tokens of it.
    pub async fn delete_account(&self, role: &RoleId, account: &Account) -> Result<(), Error> {
        let api = self.accounts(role);
        let params = uid_precondition(&account.uid);
        let call = api.delete(&account.name, &params);
        gone(self.call("delete_service_account", &format!("{role}.{}", account.name), call).await)
    }
}

fn read(account: Metadata) -> Account {
    let meta = account.0.metadata;
    Account {
        name: meta.name.unwrap_or_default(),
        uid: meta.uid.unwrap_or_default(),
        member_uid: meta.labels.and_then(|mut labels| labels.remove(MEMBER_UID_LABEL)),
        deleting: meta.deletion_timestamp.is_some(),
    }
}

/// What marks an object as the member's. No user name or description: whoever lists service accounts may not list Members.
pub(super) fn owned_labels(member: &Member) -> std::collections::BTreeMap<String, String> {
    [(MEMBER_LABEL, member.id.name()), (MEMBER_UID_LABEL, &member.uid)]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
}

/// Lets Kubernetes' garbage collector finish the job when Daypass is gone.
pub(super) fn owner_reference(member: &Member) -> OwnerReference {
    OwnerReference {
        api_version: crd::Member::api_version(&()).into_owned(),
        kind: crd::Member::kind(&()).into_owned(),
        name: member.id.name().to_owned(),
        uid: member.uid.clone(),
        controller: None,
        block_owner_deletion: None,
    }
}
