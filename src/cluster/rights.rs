//! What a role can do, read from the cluster's RBAC.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role as RbacRole, RoleBinding, RoleRef, Subject,
};
use kube::Api;
use kube::api::{ListParams, PostParams};
use kube::core::ObjectMeta;

use super::{Cluster, Error, ErrorKind};
use crate::domain::rights::Rule;
use crate::domain::role::RoleId;

/// What Kubernetes labels the bindings with that it makes itself at every start.
const BOOTSTRAP_LABEL: &str = "kubernetes.io/bootstrapping";

/// What a role is granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// All rules that hold for its members.
    pub rules: Vec<Rule>,
    /// The namespaces its bindings reach; `None` is all of them.
    pub namespaces: Option<BTreeSet<String>>,
}

/// All of a cluster's RBAC, read at one time, or that of a set of manifests.
#[derive(Debug, Default)]
pub struct Rbac {
    /// ClusterRoleBindings.
    pub cluster_bindings: Vec<ClusterRoleBinding>,
    /// RoleBindings.
    pub bindings: Vec<RoleBinding>,
    /// ClusterRoles.
    pub cluster_roles: Vec<ClusterRole>,
    /// Roles.
    pub roles: Vec<RbacRole>,
}

impl Cluster {
    /// The cluster's RBAC.
    pub async fn rbac(&self) -> Result<Rbac, Error> {
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
        Ok(Rbac {
            cluster_bindings: cluster_bindings.items,
            bindings: bindings.items,
            cluster_roles: cluster_roles.items,
            roles: roles.items,
        })
    }

    /// Whether the admission policies stand around this role: they are asked, by a dry run of what they exist to refuse.
    pub async fn has_walls(&self, role: &RoleId) -> Result<bool, Error> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &role.namespace());
        let metadata = ObjectMeta { name: Some("walls-probe".to_owned()), ..ObjectMeta::default() };
        let stray = ServiceAccount { metadata, ..ServiceAccount::default() };
        let params = PostParams { dry_run: true, ..PostParams::default() };
        match self.call("probe_walls", role.as_str(), api.create(&params, &stray)).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind == ErrorKind::Forbidden && error.detail.contains("Daypass (policy ") => Ok(true),
            Err(error) => Err(error),
        }
    }
}

impl Rbac {
    /// What this role is granted.
    pub fn grants(&self, role: &RoleId) -> Grants {
        let own = format!("system:serviceaccounts:{}", role.namespace());
        let groups = [own.as_str(), "system:serviceaccounts", "system:authenticated"];
        let roles = Roles::of(self);
        let mut rules = Vec::new();
        let mut everywhere = false;
        let mut namespaces = BTreeSet::new();
        for binding in &self.cluster_bindings {
            if reaches(&binding.metadata, binding.subjects.as_ref(), &groups) {
                everywhere |= names(binding.subjects.as_ref(), &groups[..1]);
                rules.extend(roles.rules(&binding.role_ref, None));
            }
        }
        for binding in &self.bindings {
            if reaches(&binding.metadata, binding.subjects.as_ref(), &groups) {
                let namespace = binding.metadata.namespace.clone().unwrap_or_default();
                rules.extend(roles.rules(&binding.role_ref, Some(&namespace)));
                if names(binding.subjects.as_ref(), &groups[..1]) {
                    namespaces.insert(namespace);
                }
            }
        }
        Grants { rules, namespaces: (!everywhere).then_some(namespaces) }
    }
}

/// The rules of roles by namespace (empty for ClusterRoles) and name.
struct Roles<'a>(BTreeMap<(&'a str, &'a str), &'a [PolicyRule]>);

impl<'a> Roles<'a> {
    fn of(rbac: &'a Rbac) -> Self {
        let cluster_roles = rbac.cluster_roles.iter().map(|role| entry(&role.metadata, role.rules.as_ref()));
        let roles = rbac.roles.iter().map(|role| entry(&role.metadata, role.rules.as_ref()));
        Self(cluster_roles.chain(roles).collect())
    }

    /// The rules behind a binding; none where the role it names does not exist, which then grants nothing.
    fn rules(&self, role: &RoleRef, namespace: Option<&str>) -> Vec<Rule> {
        let home = if role.kind == "ClusterRole" { "" } else { namespace.unwrap_or_default() };
        let rules = self.0.get(&(home, role.name.as_str())).copied().unwrap_or_default();
        rules.iter().map(|rule| read(rule, namespace)).collect()
    }
}

fn entry<'a>(meta: &'a ObjectMeta, rules: Option<&'a Vec<PolicyRule>>) -> ((&'a str, &'a str), &'a [PolicyRule]) {
    let key = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    (key, rules.map(Vec::as_slice).unwrap_or_default())
}

fn read(rule: &PolicyRule, namespace: Option<&str>) -> Rule {
    let set = |items: Option<&Vec<String>>| items.into_iter().flatten().cloned().collect();
    Rule {
        namespace: namespace.map(str::to_owned),
        verbs: rule.verbs.iter().cloned().collect(),
        api_groups: set(rule.api_groups.as_ref()),
        resources: set(rule.resources.as_ref()),
        resource_names: set(rule.resource_names.as_ref()),
        urls: set(rule.non_resource_urls.as_ref()),
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
