//! Calls on service accounts: read, list, create, delete.

use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource as _;

use super::objects::Objects;
use super::{Cluster, Error, MEMBER_LABEL, MEMBER_UID_LABEL, gone};
use crate::crd::{self, Object};
use crate::domain::member::Member;
use crate::domain::member_id::MemberId;
use crate::domain::role::RoleId;

/// A service account in a role namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The UID of its Member; `None` if Daypass did not create the account.
    pub member_uid: Option<String>,
    /// When it was created, by the API server's clock; `None` if that is unreadable.
    pub created_at: Option<DateTime<Utc>>,
    /// Whether it is being deleted. Its tokens stop working, but a finalizer may keep the object.
    pub deleting: bool,
}

impl Account {
    /// Whether it is this member's, not another one's of the same name.
    pub fn belongs_to(&self, member: &Member) -> bool {
        member.owns(self.member_uid.as_deref())
    }
}

impl Cluster {
    fn accounts(&self, role: &RoleId) -> Objects<'_> {
        self.objects::<ServiceAccount>(Some(&role.namespace()))
    }

    /// Reads the service account with a member's name. It may belong to another member: see [`Account::belongs_to`].
    pub async fn account(&self, id: &MemberId) -> Result<Option<Account>, Error> {
        let accounts = self.accounts(&id.role).metadata();
        Ok(accounts.get("get_service_account", &id.to_string(), id.name()).await?.as_ref().map(read))
    }

    /// Lists all service accounts of a role, page by page, including `default`, which Kubernetes creates. Returns
    /// what `keep` keeps of them.
    pub async fn list_accounts<T>(
        &self,
        role: &RoleId,
        mut keep: impl FnMut(Account) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let accounts = self.accounts(role).metadata();
        let kept = accounts.list("list_service_accounts", role.as_str(), None, |account| keep(read(&account)));
        Ok(kept.await?.into_iter().flatten().collect())
    }

    /// Creates the member's service account.
    pub(crate) async fn create_account(&self, member: &Member) -> Result<Account, Error> {
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
        let accounts = self.accounts(&member.id.role);
        let created = accounts.create("create_service_account", &member.id.to_string(), &account).await?;
        Ok(read(&created))
    }

    /// The UID of a service account in any namespace; `None` if it does not exist or is being deleted.
    pub(crate) async fn account_uid(&self, namespace: &str, name: &str) -> Result<Option<String>, Error> {
        let accounts = self.objects::<ServiceAccount>(Some(namespace)).metadata();
        let found = accounts.get("get_owner", &format!("{namespace}/{name}"), name).await?;
        Ok(found.filter(|account| !account.is_deleting()).and_then(|account| account.uid()))
    }

    /// Deletes exactly this service account. That ends all its tokens.
    pub async fn delete_account(&self, role: &RoleId, account: &Account) -> Result<(), Error> {
        gone(self.delete_account_uid(role, &account.name, &account.uid).await)
    }

    /// Deletes the service account with this name and UID.
    ///
    /// # Errors
    /// Not found if there is none of this name, a conflict if it has another UID.
    pub(crate) async fn delete_account_uid(&self, role: &RoleId, name: &str, uid: &str) -> Result<(), Error> {
        self.accounts(role).delete("delete_service_account", &format!("{role}.{name}"), name, uid).await
    }
}

fn read(account: &Object) -> Account {
    Account {
        name: account.name(),
        uid: account.uid().unwrap_or_default(),
        created_at: account.created_at(),
        member_uid: account.label(MEMBER_UID_LABEL),
        deleting: account.is_deleting(),
    }
}

/// The labels of a member's objects. They leave out the member's user name and description: someone who may list
/// service accounts is not necessarily allowed to list Members.
pub(super) fn owned_labels(member: &Member) -> std::collections::BTreeMap<String, String> {
    [(MEMBER_LABEL, member.id.name()), (MEMBER_UID_LABEL, &member.uid)]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
}

/// The owner of a member's objects. It lets Kubernetes' garbage collector delete them even without Daypass.
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
