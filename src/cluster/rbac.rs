//! What a role can do, read from the cluster's RBAC.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role as RbacRole, RoleBinding, RoleRef, Subject,
};
use kube::Resource;
use kube::core::ObjectMeta;
use serde::de::DeserializeOwned;

use super::objects::decode;
use super::{Cluster, Error};
use crate::domain::rights::Rule;
use crate::domain::role::RoleId;
use crate::domain::walls::OwnAccount;

/// What Kubernetes labels the bindings with that it makes itself at every start.
const BOOTSTRAP_LABEL: &str = "kubernetes.io/bootstrapping";

/// What a role is granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// All rules that hold for its members.
    pub rules: Vec<Rule>,
    /// The namespaces its bindings reach; `None` is all of them.
    pub namespaces: Option<BTreeSet<String>>,
    /// Whether a binding names a role whose rules are not told.
    pub unknown: bool,
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
    /// Whether there are more, as in the cluster that manifests are for.
    pub is_partial: bool,
}

impl Cluster {
    /// The cluster's RBAC.
    pub async fn rbac(&self) -> Result<Rbac, Error> {
        let (cluster_bindings, bindings, cluster_roles, roles) = tokio::try_join!(
            self.list_all("list_cluster_role_bindings"),
            self.list_all("list_role_bindings"),
            self.list_all("list_cluster_roles"),
            self.list_all("list_roles"),
        )?;
        Ok(Rbac { cluster_bindings, bindings, cluster_roles, roles, is_partial: false })
    }

    /// All objects of a type. One that cannot be read fails the whole: it may be the one that grants something.
    async fn list_all<K>(&self, call: &'static str) -> Result<Vec<K>, Error>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let found =
            self.objects::<K>(None).list(call, "-", None, |object| decode(call, &object.name(), &object)).await?;
        found.into_iter().collect()
    }
}

impl Rbac {
    /// Daypass's own account, by the chart's binding in this role's namespace.
    pub fn own_account(&self, role: &RoleId) -> Option<OwnAccount> {
        let namespace = role.namespace();
        let is_it = |meta: &ObjectMeta| {
            meta.name.as_deref() == Some("daypass") && meta.namespace.as_deref() == Some(namespace.as_str())
        };
        let binding = self.bindings.iter().find(|binding| is_it(&binding.metadata))?;
        let account = binding.subjects.iter().flatten().find(|subject| subject.kind == "ServiceAccount")?;
        Some(OwnAccount { namespace: account.namespace.clone()?, name: account.name.clone() })
    }

    /// What this role is granted.
    pub fn grants(&self, role: &RoleId) -> Grants {
        let own = format!("system:serviceaccounts:{}", role.namespace());
        let roles = Roles::of(self);
        let mut grants = Grants::default();
        let mut everywhere = false;
        let mut namespaces = BTreeSet::new();
        for binding in &self.cluster_bindings {
            if let Some(whose) = Whose::of(binding.subjects.as_ref(), &own) {
                everywhere |= whose == Whose::Roles;
                grants.add(roles.rules(&binding.role_ref, None), whose, &binding.metadata);
            }
        }
        for binding in &self.bindings {
            if let Some(whose) = Whose::of(binding.subjects.as_ref(), &own) {
                let namespace = binding.metadata.namespace.clone().unwrap_or_default();
                grants.add(roles.rules(&binding.role_ref, Some(&namespace)), whose, &binding.metadata);
                if whose == Whose::Roles {
                    namespaces.insert(namespace);
                }
            }
        }
        Grants { namespaces: (!everywhere).then_some(namespaces), unknown: grants.unknown && self.is_partial, ..grants }
    }
}

impl Grants {
    fn add(&mut self, rules: Option<Vec<Rule>>, whose: Whose, binding: &ObjectMeta) {
        self.unknown |= rules.is_none();
        // A binding of the role's own group is never one of Kubernetes', however it is labelled.
        let excepted = whose == Whose::Everyones && is_default(binding);
        self.rules.extend(rules.into_iter().flatten().filter(|rule| !(excepted && is_default_rule(rule))));
    }
}

/// The rules of roles by namespace (empty for ClusterRoles) and name.
struct Roles<'a>(BTreeMap<(&'a str, &'a str), &'a [PolicyRule]>);

impl<'a> Roles<'a> {
    fn of(rbac: &'a Rbac) -> Self {
        // A controller fills in the rules of an aggregated role: in manifests they are not told.
        let told = rbac.cluster_roles.iter().filter(|role| !rbac.is_partial || role.aggregation_rule.is_none());
        let cluster_roles = told.map(|role| entry(&role.metadata, role.rules.as_ref()));
        let roles = rbac.roles.iter().map(|role| entry(&role.metadata, role.rules.as_ref()));
        Self(cluster_roles.chain(roles).collect())
    }

    /// The rules behind a binding; `None` where the role it names is not there. In a cluster that grants nothing.
    fn rules(&self, role: &RoleRef, namespace: Option<&str>) -> Option<Vec<Rule>> {
        let home = if role.kind == "ClusterRole" { "" } else { namespace.unwrap_or_default() };
        let rules = self.0.get(&(home, role.name.as_str()))?;
        Some(rules.iter().map(|rule| read(rule, namespace)).collect())
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

/// Through which group a binding reaches a role's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The role's own.
    Roles,
    /// One that they share with others.
    Everyones,
}

impl Whose {
    fn of(subjects: Option<&Vec<Subject>>, own: &str) -> Option<Self> {
        let names = |group: &str| subjects.into_iter().flatten().any(|it| it.kind == "Group" && it.name == group);
        let everyones = names("system:serviceaccounts") || names("system:authenticated");
        if names(own) { Some(Self::Roles) } else { everyones.then_some(Self::Everyones) }
    }
}

fn is_default(binding: &ObjectMeta) -> bool {
    binding.labels.as_ref().and_then(|labels| labels.get(BOOTSTRAP_LABEL)).is_some_and(|value| value == "rbac-defaults")
}

/// Whether this is something that Kubernetes lets everyone do: ask about oneself, and read what describes the API. Since anyone's
/// binding can bear the label, and anything can be added to Kubernetes' own roles, nothing else is excepted.
fn is_default_rule(rule: &Rule) -> bool {
    let all = |set: &BTreeSet<String>, known: &[&str]| set.iter().all(|it| known.contains(&it.as_str()));
    if rule.resources.is_empty() {
        return all(&rule.verbs, &["get", "head"]);
    }
    all(&rule.verbs, &["create"])
        && all(&rule.api_groups, &["authentication.k8s.io", "authorization.k8s.io"])
        && all(&rule.resources, &["selfsubjectaccessreviews", "selfsubjectreviews", "selfsubjectrulesreviews"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_kubernetes_lets_everyone_do_is_a_default() {
        let rule = |group: &str, resource: &str, verb: &str, url: &str| {
            let set = |text: &str| (!text.is_empty()).then(|| vec![text.to_owned()]);
            let rule = PolicyRule {
                api_groups: set(group),
                resources: set(resource),
                verbs: vec![verb.to_owned()],
                non_resource_urls: set(url),
                ..PolicyRule::default()
            };
            read(&rule, None)
        };
        let (authorization, authentication) = ("authorization.k8s.io", "authentication.k8s.io");
        assert!(is_default_rule(&rule(authorization, "selfsubjectaccessreviews", "create", "")));
        assert!(is_default_rule(&rule(authentication, "selfsubjectreviews", "create", "")));
        assert!(is_default_rule(&rule("", "", "get", "/version")));
        for (group, resource, verb, url) in [
            (authorization, "subjectaccessreviews", "create", ""),
            (authentication, "users", "impersonate", ""),
            (authorization, "selfsubjectaccessreviews", "*", ""),
            ("*", "selfsubjectaccessreviews", "create", ""),
            ("", "pods", "get", ""),
            ("", "", "post", "/logs"),
        ] {
            assert!(!is_default_rule(&rule(group, resource, verb, url)), "{group} {resource} {verb} {url}");
        }
    }
}
