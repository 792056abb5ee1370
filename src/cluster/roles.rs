//! Role namespaces.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, ListParams};
use kube::core::ObjectMeta;
use kube::{Api, Resource as _};

use super::{Cluster, Error, optional};
use crate::crd::Metadata;
use crate::domain::role::{DESCRIPTION_ANNOTATION, NAME_ANNOTATION, NAMESPACE_PREFIX, ROLE_LABEL, Role, RoleId};

/// All role namespaces, and what looks like one.
#[derive(Debug, Default)]
pub struct RoleNamespaces {
    /// The roles, by id.
    pub roles: Vec<Role>,
    /// Namespaces with only the name or only the label.
    pub ignored: Vec<String>,
}

impl Cluster {
    fn namespaces(&self) -> Api<Metadata> {
        Api::all_with(self.client.clone(), &ApiResource::erase::<Namespace>(&()))
    }

    /// The role of this id, if there is one.
    pub async fn role(&self, id: &RoleId) -> Result<Option<Role>, Error> {
        let api = self.namespaces();
        let found = optional(self.call("get_namespace", id.as_str(), api.get(&id.namespace())).await)?;
        Ok(found.and_then(|namespace| read(namespace.meta())))
    }

    /// All roles.
    pub async fn roles(&self) -> Result<Vec<Role>, Error> {
        let params = ListParams::default().labels(ROLE_LABEL);
        Ok(self.list_namespaces(&params).await?.roles)
    }

    /// All roles, and the namespaces that only look like one.
    pub async fn role_namespaces(&self) -> Result<RoleNamespaces, Error> {
        self.list_namespaces(&ListParams::default()).await
    }

    async fn list_namespaces(&self, params: &ListParams) -> Result<RoleNamespaces, Error> {
        let api = self.namespaces();
        let found = self.call("list_namespaces", "-", api.list(params)).await?;
        let mut namespaces = RoleNamespaces::default();
        for namespace in found {
            let meta = namespace.0.metadata;
            let name = meta.name.clone().unwrap_or_default();
            let looks = name.starts_with(NAMESPACE_PREFIX) || label(&meta).is_some();
            match read(&meta) {
                Some(role) => namespaces.roles.push(role),
                None if looks && meta.deletion_timestamp.is_none() => namespaces.ignored.push(name),
                None => {}
            }
        }
        namespaces.roles.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(namespaces)
    }
}

fn label(meta: &ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get(ROLE_LABEL).map(String::as_str)
}

/// A namespace that is being deleted takes its members with it and is no role any more.
fn read(meta: &ObjectMeta) -> Option<Role> {
    let id = RoleId::of_namespace(meta.name.as_deref()?, label(meta))?;
    let text = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key)).cloned();
    meta.deletion_timestamp.is_none().then(|| Role {
        name: text(NAME_ANNOTATION).unwrap_or_else(|| id.to_string()),
        description: text(DESCRIPTION_ANNOTATION).unwrap_or_default(),
        id,
    })
}
