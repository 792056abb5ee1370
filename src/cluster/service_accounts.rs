//! The service accounts of members.

use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource as _;

use super::objects::Objects;
use super::{Cluster, Error, MEMBER_LABEL, MEMBER_UID_LABEL, gone};
use crate::crd::{self, Object};
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
    /// When it was made, by the API server's clock; `None` where that cannot be read.
    pub created_at: Option<DateTime<Utc>>,
    /// Whether it is being deleted: its tokens are dead, a finalizer may hold the object.
    pub deleting: bool,
}

impl Account {
    /// Whether it was made for this very member, not for another one of its name.
    pub fn belongs_to(&self, member: &Member) -> bool {
        member.owns(self.member_uid.as_deref())
    }
}

impl Cluster {
    fn accounts(&self, role: &RoleId) -> Objects<'_> {
        self.objects::<ServiceAccount>(Some(&role.namespace()))
    }

    /// The service account of a member's name, whosever it is.
    pub async fn account(&self, id: &MemberId) -> Result<Option<Account>, Error> {
        let accounts = self.accounts(&id.role).metadata();
        Ok(accounts.get("get_service_account", &id.to_string(), id.name()).await?.as_ref().map(read))
    }

    /// All service accounts of a role, `default` among them, which Kubernetes makes.
    pub async fn list_accounts(&self, role: &RoleId) -> Result<Vec<Account>, Error> {
        let accounts = self.accounts(role).metadata();
        accounts.list("list_service_accounts", role.as_str(), None, |account| read(&account)).await
    }

    /// Creates the member's service account.
    pub(crate) async fn create_account(&self, member: &Member) -> Result<(), Error> {
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
        accounts.create("create_service_account", &member.id.to_string(), &account).await.map(drop)
    }

    /// The UID of a service account in any namespace; `None` where there is none, or it is being deleted.
    pub(crate) async fn account_uid(&self, namespace: &str, name: &str) -> Result<Option<String>, Error> {
        let accounts = self.objects::<ServiceAccount>(Some(namespace)).metadata();
        let found = accounts.get("get_owner", &format!("{namespace}/{name}"), name).await?;
        Ok(found.filter(|account| !account.is_deleting()).and_then(|account| account.uid()))
    }

    /// Deletes exactly this service account; with it die all tokens of it.
    pub async fn delete_account(&self, role: &RoleId, account: &Account) -> Result<(), Error> {
        let (accounts, of) = (self.accounts(role), format!("{role}.{}", account.name));
        gone(accounts.delete("delete_service_account", &of, &account.name, &account.uid).await)
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
