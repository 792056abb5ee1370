//! RBAC rules: what one grants, what covers it, and a fingerprint of many.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use super::hex::hex;

/// A rule of a Role or ClusterRole, and the namespace it applies to.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The namespace it applies to; `None` means all namespaces and cluster-scoped objects.
    pub namespace: Option<String>,
    /// Verbs; `*` is any.
    pub verbs: BTreeSet<String>,
    /// API groups; empty for rules on URLs.
    pub api_groups: BTreeSet<String>,
    /// Resources, or `resource/subresource`.
    pub resources: BTreeSet<String>,
    /// The names of the objects it applies to; empty means all.
    pub resource_names: BTreeSet<String>,
    /// Non-resource URLs.
    pub urls: BTreeSet<String>,
}

/// Identifies a set of rules: equal for the same rules in any order.
pub fn fingerprint(rules: &[Rule]) -> String {
    let sorted: BTreeSet<&Rule> = rules.iter().collect();
    let digest = Sha256::digest(format!("{sorted:?}"));
    hex(&digest[..16])
}

/// Whether `new` grants anything that `old` did not. A new rule counts as old only if a single old rule covers all of
/// it, so this may report a rule that several old ones cover together.
pub fn is_wider(old: &[Rule], new: &[Rule]) -> bool {
    new.iter().any(|rule| !old.iter().any(|before| before.covers(rule)))
}

impl Rule {
    fn covers(&self, other: &Self) -> bool {
        let holds =
            |mine: &BTreeSet<String>, theirs: &BTreeSet<String>| mine.contains("*") || mine.is_superset(theirs);
        let named = self.resource_names.is_empty()
            || (!other.resource_names.is_empty() && self.resource_names.is_superset(&other.resource_names));
        (self.namespace.is_none() || self.namespace == other.namespace)
            && holds(&self.verbs, &other.verbs)
            && holds(&self.api_groups, &other.api_groups)
            && holds(&self.resources, &other.resources)
            && holds(&self.urls, &other.urls)
            && named
    }

    /// Whether it grants one of these verbs.
    pub(super) fn may(&self, verbs: &[&str]) -> bool {
        self.verbs.iter().any(|verb| verb == "*" || verbs.contains(&verb.as_str()))
    }

    /// Whether it applies in one of these namespaces.
    pub(super) fn reaches(&self, namespaces: &[&str]) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| namespaces.contains(&namespace))
    }

    /// Whether it applies to one of these resources of an API group; an empty list means any resource.
    pub(super) fn is_on(&self, group: &str, resources: &[&str]) -> bool {
        let grouped = self.api_groups.iter().any(|it| it == "*" || it == group);
        let matches = |it: &String| {
            it == "*"
                || resources.is_empty()
                || resources.iter().any(|wanted| it == wanted || is_wildcard_of(it, wanted))
        };
        grouped && self.resources.iter().any(matches)
    }
}

/// `*/proxy` is the subresource `proxy` of every resource, `nodes/*` every subresource of nodes.
fn is_wildcard_of(resource: &str, wanted: &str) -> bool {
    match (resource.split_once('/'), wanted.split_once('/')) {
        (Some((kind, sub)), Some((wanted_kind, wanted_sub))) => {
            (kind == "*" || kind == wanted_kind) && (sub == "*" || sub == wanted_sub)
        }
        _ => false,
    }
}

/// A rule for tests.
#[cfg(test)]
pub(super) fn rule(group: &str, verbs: &[&str], resources: &[&str]) -> Rule {
    let strings = |items: &[&str]| items.iter().map(ToString::to_string).collect();
    Rule {
        verbs: strings(verbs),
        api_groups: [group.to_owned()].into(),
        resources: strings(resources),
        ..Rule::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rule_that_no_old_rule_covers_is_wider() {
        let old = [rule("", &["get", "list"], &["pods", "nodes"])];
        assert!(!is_wider(&old, &old));
        assert!(!is_wider(&old, &[rule("", &["get"], &["pods"])]));
        assert!(!is_wider(&old, &[Rule { namespace: Some("a".into()), ..rule("", &["get"], &["pods"]) }]));
        assert!(!is_wider(&old, &[Rule { resource_names: ["x".to_owned()].into(), ..rule("", &["get"], &["pods"]) }]));
        for wider in [
            rule("", &["watch"], &["pods"]),
            rule("apps", &["get"], &["pods"]),
            rule("", &["get"], &["pods", "secrets"]),
            rule("", &["*"], &["pods"]),
        ] {
            assert!(is_wider(&old, &[wider]));
        }
        let narrow = [Rule { namespace: Some("a".into()), ..old[0].clone() }];
        assert!(is_wider(&narrow, &old));
        let named = [Rule { resource_names: ["x".to_owned()].into(), ..old[0].clone() }];
        assert!(is_wider(&named, &old));
    }

    #[test]
    fn fingerprint_ignores_order_and_repetition() {
        let (a, b) = (rule("", &["get"], &["pods"]), rule("apps", &["list"], &["deployments"]));
        assert_eq!(fingerprint(&[a.clone(), b.clone()]), fingerprint(&[b.clone(), a.clone(), a.clone()]));
        assert_ne!(fingerprint(std::slice::from_ref(&a)), fingerprint(&[a.clone(), b]));
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let set = |items: &'static [&'static str]| {
            proptest::sample::subsequence(items, 0..=items.len())
                .prop_map(|items| items.into_iter().map(str::to_owned).collect::<BTreeSet<_>>())
        };
        let namespace = proptest::option::of(proptest::sample::select(vec!["a".to_owned(), "b".to_owned()]));
        (namespace, set(&["get", "watch", "*"]), set(&["", "apps"]), set(&["pods", "*"]), set(&["x", "y"])).prop_map(
            |(namespace, verbs, api_groups, resources, resource_names)| Rule {
                namespace,
                verbs,
                api_groups,
                resources,
                resource_names,
                ..Rule::default()
            },
        )
    }

    proptest! {
        #[test]
        fn subset_of_rules_is_never_wider(rules in proptest::collection::vec(any_rule(), 0..5), kept in 0usize..5) {
            prop_assert!(!is_wider(&rules, &rules[..kept.min(rules.len())]));
        }

        #[test]
        fn covering_is_transitive(a in any_rule(), b in any_rule(), c in any_rule()) {
            prop_assert!(!(a.covers(&b) && b.covers(&c)) || a.covers(&c));
        }

        #[test]
        fn equal_fingerprints_mean_equal_rules(
            a in proptest::collection::vec(any_rule(), 0..4), b in proptest::collection::vec(any_rule(), 0..4),
        ) {
            let equal = a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>();
            prop_assert_eq!(fingerprint(&a) == fingerprint(&b), equal);
        }
    }
}
