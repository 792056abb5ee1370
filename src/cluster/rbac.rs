//! Computes what a role can do from the cluster's RBAC objects.

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

/// The label of the default bindings that the API server creates at every start.
const BOOTSTRAP_LABEL: &str = "kubernetes.io/bootstrapping";

/// What RBAC grants to a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// All rules that apply to its members.
    pub rules: Vec<Rule>,
    /// The namespaces of its RoleBindings; `None` if a ClusterRoleBinding makes the role cluster-wide.
    pub namespaces: Option<BTreeSet<String>>,
    /// Whether a binding names a role with unknown rules. Only possible with partial RBAC.
    pub unknown: bool,
}

/// All RBAC objects of a cluster, or of a set of manifests.
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
    /// Whether more may exist, as when manifests are read without the cluster that they are for.
    pub is_partial: bool,
}

impl Cluster {
    /// Lists all RBAC objects of the cluster.
    pub async fn rbac(&self) -> Result<Rbac, Error> {
        let (cluster_bindings, bindings, cluster_roles, roles) = tokio::try_join!(
            self.list_all("list_cluster_role_bindings"),
            self.list_all("list_role_bindings"),
            self.list_all("list_cluster_roles"),
            self.list_all("list_roles"),
        )?;
        Ok(Rbac { cluster_bindings, bindings, cluster_roles, roles, is_partial: false })
    }

    /// Lists all objects of a type. Fails if one is unreadable, since it may grant something.
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
    /// Daypass's own account: the subject of the chart's `daypass` RoleBinding in this role's namespace.
    pub fn own_account(&self, role: &RoleId) -> Option<OwnAccount> {
        let namespace = role.namespace();
        let is_it = |meta: &ObjectMeta| {
            meta.name.as_deref() == Some("daypass") && meta.namespace.as_deref() == Some(namespace.as_str())
        };
        let binding = self.bindings.iter().find(|binding| is_it(&binding.metadata))?;
        let account = binding.subjects.iter().flatten().find(|subject| subject.kind == "ServiceAccount")?;
        Some(OwnAccount { namespace: account.namespace.clone()?, name: account.name.clone() })
    }

    /// Computes what this role is granted.
    pub fn grants(&self, role: &RoleId) -> Grants {
        let own = format!("system:serviceaccounts:{}", role.namespace());
        let roles = RulesByRole::of(self);
        let mut grants = Grants::default();
        let mut everywhere = false;
        let mut namespaces = BTreeSet::new();
        for binding in &self.cluster_bindings {
            if let Some(group) = Via::of(binding.subjects.as_ref(), &own) {
                everywhere |= group == Via::RoleGroup;
                grants.add(roles.rules(&binding.role_ref, None), group, &binding.metadata);
            }
        }
        for binding in &self.bindings {
            if let Some(group) = Via::of(binding.subjects.as_ref(), &own) {
                let namespace = binding.metadata.namespace.clone().unwrap_or_default();
                grants.add(roles.rules(&binding.role_ref, Some(&namespace)), group, &binding.metadata);
                if group == Via::RoleGroup {
                    namespaces.insert(namespace);
                }
            }
        }
        let unknown = grants.unknown && self.is_partial;
        Grants { namespaces: (!everywhere).then_some(namespaces), unknown, ..grants }
    }
}

impl Grants {
    fn add(&mut self, rules: Option<Vec<Rule>>, group: Via, binding: &ObjectMeta) {
        self.unknown |= rules.is_none();
        // Never ignore a binding of the role's own group, even if it has the label: Kubernetes creates none.
        let is_default = group == Via::SharedGroup && is_default_binding(binding);
        self.rules.extend(rules.into_iter().flatten().filter(|rule| !(is_default && is_default_rule(rule))));
    }
}

/// The rules of Roles and ClusterRoles, by namespace (empty for ClusterRoles) and name.
struct RulesByRole<'a>(BTreeMap<(&'a str, &'a str), &'a [PolicyRule]>);

impl<'a> RulesByRole<'a> {
    fn of(rbac: &'a Rbac) -> Self {
        // A controller fills in the rules of an aggregated ClusterRole, so manifests do not contain them.
        let known = rbac.cluster_roles.iter().filter(|role| !rbac.is_partial || role.aggregation_rule.is_none());
        let cluster_roles = known.map(|role| entry(&role.metadata, role.rules.as_ref()));
        let roles = rbac.roles.iter().map(|role| entry(&role.metadata, role.rules.as_ref()));
        Self(cluster_roles.chain(roles).collect())
    }

    /// The rules of the role that a binding names; `None` if it does not exist. In a cluster, such a binding grants
    /// nothing.
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

/// The group through which a binding reaches a role's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Via {
    /// The role's own group, `system:serviceaccounts:<namespace>`.
    RoleGroup,
    /// `system:serviceaccounts` or `system:authenticated`.
    SharedGroup,
}

impl Via {
    fn of(subjects: Option<&Vec<Subject>>, own: &str) -> Option<Self> {
        let names = |group: &str| subjects.into_iter().flatten().any(|it| it.kind == "Group" && it.name == group);
        let is_shared = names("system:serviceaccounts") || names("system:authenticated");
        if names(own) { Some(Self::RoleGroup) } else { is_shared.then_some(Self::SharedGroup) }
    }
}

fn is_default_binding(binding: &ObjectMeta) -> bool {
    let label = binding.labels.as_ref().and_then(|labels| labels.get(BOOTSTRAP_LABEL));
    label.is_some_and(|value| value == "rbac-defaults")
}

/// What Kubernetes 1.30 to 1.37 grant to everyone besides non-resource URLs: groups, resources and verbs
/// (plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go). A later version may add some; unknown ones are grants.
const DEFAULT_RULES: [(&[&str], &[&str], &[&str]); 2] = [
    // `system:basic-user`: reviews of oneself.
    (
        &["authentication.k8s.io", "authorization.k8s.io"],
        &["selfsubjectaccessreviews", "selfsubjectreviews", "selfsubjectrulesreviews"],
        &["create"],
    ),
    // `system:cluster-trust-bundle-discovery`: public certificates, for all service accounts. On by default since
    // 1.37, with the feature gate ClusterTrustBundle before.
    (&["certificates.k8s.io"], &["clustertrustbundles"], &["get", "list", "watch"]),
];

/// Whether this rule is one that Kubernetes grants to everyone: [`DEFAULT_RULES`], and reading non-resource URLs
/// (discovery, version, health). Ignore no other rule: any binding can carry the label, and an administrator can add
/// rules to Kubernetes' own roles.
fn is_default_rule(rule: &Rule) -> bool {
    let all = |set: &BTreeSet<String>, known: &[&str]| set.iter().all(|it| known.contains(&it.as_str()));
    if rule.resources.is_empty() {
        return all(&rule.verbs, &["get", "head"]);
    }
    DEFAULT_RULES.iter().any(|(groups, resources, verbs)| {
        all(&rule.api_groups, groups) && all(&rule.resources, resources) && all(&rule.verbs, verbs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_kubernetes_grants_to_everyone_is_a_default_rule() {
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
        let certificates = "certificates.k8s.io";
        assert!(is_default_rule(&rule(certificates, "clustertrustbundles", "watch", "")));
        for (group, resource, verb, url) in [
            (authorization, "subjectaccessreviews", "create", ""),
            (authentication, "users", "impersonate", ""),
            (authorization, "selfsubjectaccessreviews", "*", ""),
            ("*", "selfsubjectaccessreviews", "create", ""),
            (certificates, "clustertrustbundles", "update", ""),
            (certificates, "clustertrustbundles", "*", ""),
            (certificates, "certificatesigningrequests", "get", ""),
            (authorization, "clustertrustbundles", "get", ""),
            ("", "pods", "get", ""),
            ("", "", "post", "/logs"),
        ] {
            assert!(!is_default_rule(&rule(group, resource, verb, url)), "{group} {resource} {verb} {url}");
        }
    }
}
