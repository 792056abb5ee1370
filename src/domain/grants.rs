//! What RBAC grants to a role: the rules of every binding that reaches its members.

use std::collections::BTreeSet;
use std::fmt;

use super::rights::Rights;
use super::role::{NAMESPACE_PREFIX, RoleId};
use super::rules::{Rule, fingerprint};

/// The prefix of the group of a namespace's service accounts.
const NAMESPACE_GROUP: &str = "system:serviceaccounts:";
/// The group of all authenticated users.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The groups that every member is in, and others too.
pub const SHARED_GROUPS: [&str; 2] = ["system:serviceaccounts", AUTHENTICATED];

/// The name of an RBAC object. A ClusterRole and a ClusterRoleBinding have no namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub struct RbacName {
    pub namespace: Option<String>,
    pub name: String,
}

impl fmt::Display for RbacName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A ClusterRoleBinding or RoleBinding of a group that members are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The namespace of a RoleBinding; `None` for a ClusterRoleBinding.
    pub namespace: Option<String>,
    /// Those of its groups for which [`reaches_members`] is true.
    pub groups: Vec<String>,
    /// The Role or ClusterRole that it grants; `None` if that is unreadable.
    pub role: Option<RbacName>,
    /// Whether it has the label of Kubernetes' default bindings.
    pub is_labelled_default: bool,
}

/// The rules of a Role or ClusterRole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rules {
    /// These, as for a ClusterRoleBinding.
    Known(Vec<Rule>),
    /// It does not exist. In a cluster, a binding to it grants nothing.
    Missing,
    /// It has not been read, or is unreadable.
    Unknown,
}

/// What RBAC grants to a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// All known rules that apply to its members.
    pub rules: Vec<Rule>,
    /// The namespaces of its RoleBindings; `None` if a ClusterRoleBinding makes the role cluster-wide.
    pub namespaces: Option<BTreeSet<String>>,
    /// Whether there may be more: a binding is unreadable, or it names a role with unknown rules.
    pub unknown: bool,
}

/// Whether a member of some role is in this group.
pub fn reaches_members(group: &str) -> bool {
    SHARED_GROUPS.contains(&group)
        || group.strip_prefix(NAMESPACE_GROUP).is_some_and(|namespace| namespace.starts_with(NAMESPACE_PREFIX))
}

impl Grants {
    /// Computes what these bindings grant to a role; `rules` looks up the role that a binding names.
    pub fn of<'a>(
        role: &RoleId,
        bindings: impl IntoIterator<Item = &'a Binding>,
        rules: impl Fn(&RbacName) -> &'a Rules,
    ) -> Self {
        let own_group = format!("{NAMESPACE_GROUP}{}", role.namespace());
        let (mut grants, mut namespaces, mut everywhere) = (Self::default(), BTreeSet::new(), false);
        for binding in bindings {
            let is_own = binding.groups.contains(&own_group);
            if !is_own && !SHARED_GROUPS.iter().any(|shared| binding.groups.iter().any(|group| group == shared)) {
                continue;
            }
            match &binding.namespace {
                None => everywhere |= is_own,
                Some(namespace) if is_own => drop(namespaces.insert(namespace.clone())),
                Some(_) => {}
            }
            match binding.role.as_ref().map_or(&Rules::Unknown, &rules) {
                // Never ignore a binding of the role's own group, even if it has the label: Kubernetes creates none.
                Rules::Known(rules) => grants.add(rules, binding, binding.is_labelled_default && !is_own),
                Rules::Missing => {}
                Rules::Unknown => grants.unknown = true,
            }
        }
        Self { namespaces: (!everywhere).then_some(namespaces), ..grants }
    }

    fn add(&mut self, rules: &[Rule], binding: &Binding, is_default: bool) {
        let rules = rules.iter().filter(|rule| !(is_default && is_default_rule(rule)));
        self.rules.extend(rules.map(|rule| Rule { namespace: binding.namespace.clone(), ..rule.clone() }));
    }

    /// The rights of its members, in a cluster with or without the walls.
    pub fn rights(&self, walls: bool) -> Rights {
        let known = Rights::of(&self.rules, walls);
        if self.unknown { known.and_unknown() } else { known }
    }

    /// The fingerprint of its rules; `None` if some may be unknown.
    pub fn fingerprint(&self) -> Option<String> {
        (!self.unknown).then(|| fingerprint(&self.rules))
    }
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
    use crate::domain::rules::rule;

    #[test]
    fn only_groups_of_members_reach_members() {
        for group in ["system:serviceaccounts", "system:authenticated", "system:serviceaccounts:daypass-view"] {
            assert!(reaches_members(group), "{group}");
        }
        for group in ["system:masters", "system:serviceaccounts:kube-system", "system:serviceaccounts:daypass", "x"] {
            assert!(!reaches_members(group), "{group}");
        }
    }

    #[test]
    fn only_what_kubernetes_grants_to_everyone_is_a_default_rule() {
        let url = |verb: &str, url: &str| Rule {
            verbs: [verb.to_owned()].into(),
            urls: [url.to_owned()].into(),
            ..Rule::default()
        };
        let (authorization, authentication) = ("authorization.k8s.io", "authentication.k8s.io");
        assert!(is_default_rule(&rule(authorization, &["create"], &["selfsubjectaccessreviews"])));
        assert!(is_default_rule(&rule(authentication, &["create"], &["selfsubjectreviews"])));
        assert!(is_default_rule(&url("get", "/version")));
        let certificates = "certificates.k8s.io";
        assert!(is_default_rule(&rule(certificates, &["watch"], &["clustertrustbundles"])));
        for (group, resource, verb) in [
            (authorization, "subjectaccessreviews", "create"),
            (authentication, "users", "impersonate"),
            (authorization, "selfsubjectaccessreviews", "*"),
            ("*", "selfsubjectaccessreviews", "create"),
            (certificates, "clustertrustbundles", "update"),
            (certificates, "clustertrustbundles", "*"),
            (certificates, "certificatesigningrequests", "get"),
            (authorization, "clustertrustbundles", "get"),
            ("", "pods", "get"),
        ] {
            assert!(!is_default_rule(&rule(group, &[verb], &[resource])), "{group} {resource} {verb}");
        }
        assert!(!is_default_rule(&url("post", "/logs")));
    }

    #[test]
    fn unreadable_binding_is_unknown_and_binding_to_a_missing_role_grants_nothing() {
        let role = RoleId::parse("view").unwrap();
        let bound = |role: Option<RbacName>| Binding {
            namespace: None,
            groups: vec!["system:authenticated".to_owned()],
            role,
            is_labelled_default: false,
        };
        let named = RbacName { namespace: None, name: "a".to_owned() };
        let grants = |role_ref: Option<RbacName>, rules: Rules| Grants::of(&role, [&bound(role_ref)], |_| &rules);
        assert!(grants(None, Rules::Missing).unknown);
        assert!(grants(Some(named.clone()), Rules::Unknown).unknown);
        assert_eq!(grants(Some(named.clone()), Rules::Unknown).fingerprint(), None);
        assert!(!grants(Some(named.clone()), Rules::Unknown).rights(true).read_only);
        assert!(!grants(Some(named), Rules::Missing).unknown);
    }
}
