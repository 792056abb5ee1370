//! Reads role namespaces.

use futures::Stream;
use k8s_openapi::api::core::v1::Namespace;

use super::objects::Objects;
use super::watch::{WatchCalls, WatchEvent};
use super::{Cluster, Error};
use crate::crd::Object;
use crate::domain::role::{
    DESCRIPTION_ANNOTATION, KUBECONFIG_MODE_ANNOTATION, MAX_DURATION_ANNOTATION, NAME_ANNOTATION, NAMESPACE_PREFIX,
    ROLE_LABEL, Role, RoleId, kubeconfig_mode,
};
use crate::domain::text::escape_hidden;

/// A namespace as a watch sees it.
#[derive(Debug)]
pub struct SeenNamespace {
    /// Its name.
    pub name: String,
    /// Whether it is a role.
    pub kind: RoleNamespace,
}

/// Whether a namespace is a role.
#[derive(Debug)]
pub enum RoleNamespace {
    /// It is.
    Role(Role),
    /// It has only the name or only the label of a role.
    Ignored,
    /// It is none, or is being deleted.
    Other,
}

impl Cluster {
    fn namespaces(&self) -> Objects<'_> {
        self.objects::<Namespace>(None).metadata()
    }

    /// Reads the role with this id; `None` if it does not exist or is being deleted.
    pub async fn role(&self, id: &RoleId) -> Result<Option<Role>, Error> {
        let found = self.namespaces().get("get_namespace", id.as_str(), &id.namespace()).await?;
        Ok(found.as_ref().and_then(read))
    }

    /// Lists all roles, sorted by id.
    pub async fn roles(&self) -> Result<Vec<Role>, Error> {
        let read = |namespace: Object| read(&namespace);
        let found = self.namespaces().list("list_namespaces", "-", Some(ROLE_LABEL), read).await?;
        let mut roles: Vec<Role> = found.into_iter().flatten().collect();
        roles.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(roles)
    }

    /// Lists all namespaces, then streams each change.
    pub fn watch_namespaces(&self) -> impl Stream<Item = WatchEvent<SeenNamespace>> + use<> {
        let calls = WatchCalls { list: "list_namespaces", watch: "watch_namespaces" };
        let see = |namespace: &Object| Some(SeenNamespace { name: namespace.name(), kind: kind(namespace) });
        self.namespaces().watch(calls, see)
    }
}

fn kind(namespace: &Object) -> RoleNamespace {
    let looks = namespace.name().starts_with(NAMESPACE_PREFIX) || namespace.label(ROLE_LABEL).is_some();
    match read(namespace) {
        Some(role) => RoleNamespace::Role(role),
        None if looks && !namespace.is_deleting() => RoleNamespace::Ignored,
        None => RoleNamespace::Other,
    }
}

/// The role of a namespace. One that is being deleted is not a role any more: its members go with it.
fn read(namespace: &Object) -> Option<Role> {
    let id = RoleId::of_namespace(&namespace.name(), namespace.label(ROLE_LABEL).as_deref())?;
    (!namespace.is_deleting()).then(|| Role {
        name: escape_hidden(&namespace.annotation(NAME_ANNOTATION).unwrap_or_else(|| id.to_string())),
        description: escape_hidden(&namespace.annotation(DESCRIPTION_ANNOTATION).unwrap_or_default()),
        kubeconfig_mode: kubeconfig_mode(namespace.annotation(KUBECONFIG_MODE_ANNOTATION).as_deref()),
        max_duration: namespace.annotation(MAX_DURATION_ANNOTATION).map(|limit| limit.parse()),
        id,
    })
}
