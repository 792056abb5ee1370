//! What a role can do, read from the cluster's RBAC.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role as RbacRole, RoleBinding, RoleRef, Subject,
};
use kube::Api;
use kube::api::ListParams;
use kube::core::ObjectMeta;

use super::{Cluster, Error};
use crate::domain::rights::{Rights, Rule};
use crate::domain::role::RoleId;

/// What Kubernetes labels the bindings with that it makes itself at every start.
const BOOTSTRAP_LABEL: &str = "kubernetes.io/bootstrapping";

/// The rights of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRights {
    /// What its members can do.
    pub rights: Rights,
    /// The namespaces its bindings reach; `None` is all of them.
    pub namespaces: Option<BTreeSet<String>>,
}

/// All of the cluster's RBAC, read at one time.
struct Rbac {
    cluster_bindings: Vec<ClusterRoleBinding>,
    bindings: Vec<RoleBinding>,
    cluster_roles: BTreeMap<String, Vec<PolicyRule>>,
    roles: BTreeMap<(String, String), Vec<PolicyRule>>,
}

impl Cluster {
    /// The rights of each of these roles. What cannot be read counts as the worse.
    pub async fn role_rights(&self, roles: &[RoleId]) -> Vec<RoleRights> {
        match self.rbac().await {
            Ok(rbac) => roles.iter().map(|role| rbac.rights(role)).collect(),
            Err(error) => {
                tracing::warn!(%error, "the rights of roles cannot be read");
                let unknown = RoleRights { rights: Rights::UNKNOWN, namespaces: None };
                vec![unknown; roles.len()]
            }
        }
    }

    async fn rbac(&self) -> Result<Rbac, Error> {
        let all = ListParams::default();
        let (cluster_bindings, bindings): (Api<ClusterRoleBinding>, Api<RoleBinding>) =
            (Api::all(self.client.clone()), Api::all(self.client.clone()));
        let (cluster_roles, roles): (Api<ClusterRole>, Api<RbacRole>) =
            (Api::all(self.client.clone()), Api::all(self.client.clone()));
        let (cluster_bindings, bindings, cluster_roles, roles) = tokio::try_join!(
            self.call("list_cluster_role_bindings", "-", cluster_bindings.list(&all)),
            self.call("list_role_bindings", "-", bindings.list(&all)),
            self.call("list_cluster_roles", "-", cluster_roles.list(&all)),
            self.call("list_roles", "-", roles.list(&all)),
        )?;
        let name = |meta: ObjectMeta| meta.name.unwrap_or_default();
        Ok(Rbac {
            cluster_bindings: cluster_bindings.items,
            bindings: bindings.items,
            cluster_roles: cluster_roles
                .into_iter()
                .map(|role| (name(role.metadata), role.rules.unwrap_or_default()))
                .collect(),
            roles: roles
                .into_iter()
                .map(|role| {
                    let namespace = role.metadata.namespace.clone().unwrap_or_default();
                    ((namespace, name(role.metadata)), role.rules.unwrap_or_default())
                })
                .collect(),
        })
    }
}

impl Rbac {
    fn rights(&self, role: &RoleId) -> RoleRights {
        let own = format!("system:serviceaccounts:{}", role.namespace());
        let groups = [own.as_str(), "system:serviceaccounts", "system:authenticated"];
        let mut rules = Vec::new();
        let mut everywhere = false;
        let mut namespaces = BTreeSet::new();
        for binding in &self.cluster_bindings {
            if !reaches(&binding.metadata, binding.subjects.as_ref(), &groups) {
                continue;
            }
            everywhere |= names(binding.subjects.as_ref(), &[&own]);
            rules.extend(self.rules(&binding.role_ref, ""));
        }
        for binding in &self.bindings {
            if !reaches(&binding.metadata, binding.subjects.as_ref(), &groups) {
                continue;
            }
            let namespace = binding.metadata.namespace.clone().unwrap_or_default();
            rules.extend(self.rules(&binding.role_ref, &namespace));
            if names(binding.subjects.as_ref(), &[&own]) {
                namespaces.insert(namespace);
            }
        }
        RoleRights { rights: Rights::of(&rules), namespaces: (!everywhere).then_some(namespaces) }
    }

    /// The rules behind a binding; none where the role it names does not exist, which then grants nothing.
    fn rules(&self, role: &RoleRef, namespace: &str) -> Vec<Rule> {
        let rules = match role.kind.as_str() {
            "ClusterRole" => self.cluster_roles.get(&role.name),
            _ => self.roles.get(&(namespace.to_owned(), role.name.clone())),
        };
        rules.into_iter().flatten().map(rule).collect()
    }
}

fn rule(rule: &PolicyRule) -> Rule {
    Rule {
        verbs: rule.verbs.clone(),
        api_groups: rule.api_groups.clone().unwrap_or_default(),
        resources: rule.resources.clone().unwrap_or_default(),
    }
}

/// Whether a binding grants something to the role; `groups` begins with the role's own. Kubernetes' own grants to everyone are
/// excepted, but a binding of the role's own group is never one of those, however it is labelled.
fn reaches(meta: &ObjectMeta, subjects: Option<&Vec<Subject>>, groups: &[&str]) -> bool {
    names(subjects, &groups[..1]) || (names(subjects, groups) && !is_default(meta))
}

fn is_default(meta: &ObjectMeta) -> bool {
    meta.labels.as_ref().and_then(|labels| labels.get(BOOTSTRAP_LABEL)).is_some_and(|value| value == "rbac-defaults")
}

fn names(subjects: Option<&Vec<Subject>>, groups: &[&str]) -> bool {
    subjects.into_iter().flatten().any(|subject| subject.kind == "Group" && groups.contains(&subject.name.as_str()))
}
