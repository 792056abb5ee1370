//! What a role can do, in JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::grants::Grants;
use crate::domain::rights::{Rights, Rule};
use crate::domain::role::Role;

/// A role, and what its members can do.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RoleSummary)]
pub(crate) struct RoleSummary {
    /// The id, for `roleId`.
    #[schema(example = "projects-view")]
    pub(crate) id: String,
    /// Display name.
    #[schema(example = "View All Projects")]
    pub(crate) name: String,
    /// What it is for.
    pub(crate) description: String,
    /// Whether it only allows get, list and watch, and no secrets. Computed from the cluster's RBAC; false if that
    /// cannot be read.
    pub(crate) read_only: bool,
    /// The namespaces that it covers; null for all.
    #[schema(required = true)]
    pub(crate) namespaces: Option<Vec<String>>,
    /// Its rules, as RBAC has them now; null if some cannot be read.
    #[schema(required = true)]
    pub(crate) rules: Option<Vec<RuleView>>,
}

/// A rule of a role: Kubernetes' PolicyRule, and where it applies.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RoleRule)]
pub(crate) struct RuleView {
    /// The namespaces in which it applies; null for all, and for objects without a namespace.
    #[schema(required = true)]
    pub(crate) namespaces: Option<Vec<String>>,
    /// Verbs; `*` is any.
    pub(crate) verbs: BTreeSet<String>,
    /// API groups; the empty one is Kubernetes' core.
    pub(crate) api_groups: BTreeSet<String>,
    /// Resources, or `resource/subresource`.
    pub(crate) resources: BTreeSet<String>,
    /// The names of the objects that it applies to; empty means all.
    pub(crate) resource_names: BTreeSet<String>,
    /// URLs that are no resources.
    #[serde(rename = "nonResourceURLs")]
    pub(crate) non_resource_urls: BTreeSet<String>,
}

impl RoleSummary {
    /// A role with what RBAC grants to it, `None` if that is unknown, and the rights that this makes.
    pub(super) fn new(role: Role, grants: Option<&Grants>, rights: &Rights) -> Self {
        let namespaces = grants.and_then(|grants| grants.namespaces.as_ref());
        Self {
            id: role.id.to_string(),
            name: role.name,
            description: role.description,
            read_only: rights.read_only,
            namespaces: namespaces.map(|names| names.iter().cloned().collect()),
            rules: grants.filter(|grants| !grants.unknown).map(|grants| RuleView::all(&grants.rules)),
        }
    }
}

impl RuleView {
    /// The rules, with those that differ in their namespace alone as one.
    fn all(rules: &[Rule]) -> Vec<Self> {
        let mut places: BTreeMap<Rule, BTreeSet<Option<String>>> = BTreeMap::new();
        for rule in rules {
            let anywhere = Rule { namespace: None, ..rule.clone() };
            places.entry(anywhere).or_default().insert(rule.namespace.clone());
        }
        places.into_iter().map(|(rule, places)| Self::new(rule, places)).collect()
    }

    fn new(rule: Rule, places: BTreeSet<Option<String>>) -> Self {
        Self {
            // One without a namespace covers the others.
            namespaces: places.into_iter().collect(),
            verbs: rule.verbs,
            api_groups: rule.api_groups,
            resources: rule.resources,
            resource_names: rule.resource_names,
            non_resource_urls: rule.urls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(namespace: Option<&str>, verb: &str) -> Rule {
        Rule {
            namespace: namespace.map(str::to_owned),
            verbs: [verb.to_owned()].into(),
            resources: ["pods".to_owned()].into(),
            ..Rule::default()
        }
    }

    #[test]
    fn rule_of_several_namespaces_is_one() {
        let rules = [rule(Some("b"), "get"), rule(Some("a"), "get"), rule(Some("a"), "list"), rule(Some("a"), "get")];
        let places = |rules: &[Rule]| RuleView::all(rules).into_iter().map(|rule| rule.namespaces).collect::<Vec<_>>();
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(places(&rules), [names(&["a", "b"]), names(&["a"])]);
        assert_eq!(places(&[rule(Some("b"), "get"), rule(None, "get")]), [None], "it applies in all of them");
        assert_eq!(places(&[]), []);
    }
}
