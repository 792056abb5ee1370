//! Reads role namespaces.

use k8s_openapi::api::core::v1::Namespace;

use super::objects::Objects;
use super::{Cluster, Error};
use crate::crd::Object;
use crate::domain::role::{DESCRIPTION_ANNOTATION, NAME_ANNOTATION, NAMESPACE_PREFIX, ROLE_LABEL, Role, RoleId};
use crate::domain::text::escape_hidden;

/// All role namespaces, and the namespaces that only look like one.
#[derive(Debug, Default)]
pub struct RoleNamespaces {
    /// The roles, sorted by id.
    pub roles: Vec<Role>,
    /// Namespaces with only the name or only the label.
    pub ignored: Vec<String>,
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
        Ok(self.list_namespaces(Some(ROLE_LABEL)).await?.roles)
    }

    /// Lists all roles, and the namespaces that only look like one.
    pub async fn role_namespaces(&self) -> Result<RoleNamespaces, Error> {
        self.list_namespaces(None).await
    }

    async fn list_namespaces(&self, selector: Option<&str>) -> Result<RoleNamespaces, Error> {
        let mut namespaces = RoleNamespaces::default();
        for found in self.namespaces().list("list_namespaces", "-", selector, |found| role_or_name(&found)).await? {
            match found {
                Some(Ok(role)) => namespaces.roles.push(role),
                Some(Err(name)) => namespaces.ignored.push(name),
                None => {}
            }
        }
        namespaces.roles.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(namespaces)
    }
}

/// The role of a namespace, or the namespace's name if it only looks like a role's.
fn role_or_name(namespace: &Object) -> Option<Result<Role, String>> {
    let name = namespace.name();
    let looks = name.starts_with(NAMESPACE_PREFIX) || namespace.label(ROLE_LABEL).is_some();
    match read(namespace) {
        Some(role) => Some(Ok(role)),
        None => (looks && !namespace.is_deleting()).then_some(Err(name)),
    }
}

/// The role of a namespace. One that is being deleted is not a role any more: its members go with it.
fn read(namespace: &Object) -> Option<Role> {
    let id = RoleId::of_namespace(&namespace.name(), namespace.label(ROLE_LABEL).as_deref())?;
    (!namespace.is_deleting()).then(|| Role {
        name: escape_hidden(&namespace.annotation(NAME_ANNOTATION).unwrap_or_else(|| id.to_string())),
        description: escape_hidden(&namespace.annotation(DESCRIPTION_ANNOTATION).unwrap_or_default()),
        id,
    })
}
