//! What a role can do, computed from the cluster's RBAC. Roles do not declare it.

use std::collections::BTreeSet;

use super::escapes::escapes;

pub use super::escapes::Escape;
pub use super::rules::{Rule, is_wider};

/// What the members of a role can do. Anything unknown or unreadable counts as the worse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Only get, list and watch, without access to Secrets, processes or other servers.
    pub read_only: bool,
    /// The role may open streams (watches, logs, shells) that the API server does not cut when the member ends.
    pub streams_outlive_member: bool,
    /// The role may act through a stream: run commands in pods, attach to them, forward their ports, or reach a server
    /// by a proxy of the API server.
    pub executes: bool,
    /// Ways out of the role. A role without any is contained.
    pub escapes: BTreeSet<Escape>,
}

impl Rights {
    /// Rights that could not be read.
    pub fn unknown() -> Self {
        Self::of(&[], true).and_unknown()
    }

    /// Adds rights that could not be read.
    #[must_use]
    pub fn and_unknown(mut self) -> Self {
        self.escapes.insert(Escape::Unknown);
        Self { read_only: false, streams_outlive_member: true, executes: true, ..self }
    }

    /// The rights that these rules grant together, in a cluster with or without the walls.
    pub fn of(rules: &[Rule], walls: bool) -> Self {
        let read_only = rules.iter().all(is_read_only);
        let mut escapes: BTreeSet<Escape> = rules.iter().flat_map(escapes).collect();
        if !walls && !read_only {
            escapes.insert(Escape::NoWalls);
        }
        let streams_outlive_member = rules.iter().any(opens_streams);
        Self { read_only, streams_outlive_member, executes: rules.iter().any(executes), escapes }
    }
}

const STREAMING_SUBRESOURCES: [&str; 5] = ["log", "exec", "attach", "portforward", "proxy"];
const EXECUTING_SUBRESOURCES: [&str; 4] = ["exec", "attach", "portforward", "proxy"];

fn is_read_only(rule: &Rule) -> bool {
    rule.verbs.iter().all(|verb| matches!(verb.as_str(), "get" | "list" | "watch"))
        && rule.resources.iter().all(|resource| reads_nothing_sensitive(resource))
}

/// A `get` on a subresource can be an action: WebSocket clients open exec, attach and portforward with GET, and proxy
/// forwards a GET to another server. So this lists the subresources that only show; any other counts as an action.
fn reads_nothing_sensitive(resource: &str) -> bool {
    match resource.split_once('/') {
        None => !matches!(resource, "*" | "secrets"),
        Some((_, subresource)) => matches!(subresource, "status" | "scale" | "log" | "finalizers"),
    }
}

fn opens_streams(rule: &Rule) -> bool {
    let watches = rule.may(&["watch"]) && !rule.resources.is_empty();
    watches || connects(rule, &STREAMING_SUBRESOURCES)
}

fn executes(rule: &Rule) -> bool {
    connects(rule, &EXECUTING_SUBRESOURCES)
}

/// Whether a rule allows a request that becomes a stream of one of these subresources.
fn connects(rule: &Rule, subresources: &[&str]) -> bool {
    rule.may(&["get", "create"])
        && rule.resources.iter().any(|resource| {
            let subresource = resource.split_once('/').map_or("", |(_, subresource)| subresource);
            resource == "*" || subresource == "*" || subresources.contains(&subresource)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rules::rule;
    use proptest::prelude::*;

    fn rights(verbs: &[&str], resources: &[&str]) -> Rights {
        Rights::of(&[rule("", verbs, resources)], true)
    }

    #[test]
    fn get_list_and_watch_are_read_only_except_on_secrets_and_action_subresources() {
        assert!(rights(&["get", "list", "watch"], &["pods", "pods/log", "deployments/status"]).read_only);
        for (verbs, resources) in [
            (vec!["get"], vec!["secrets"]),
            (vec!["get"], vec!["*"]),
            (vec!["get"], vec!["*/*"]),
            (vec!["get"], vec!["pods/*"]),
            (vec!["get"], vec!["pods/exec"]),
            (vec!["get"], vec!["nodes/proxy"]),
            (vec!["create"], vec!["serviceaccounts/token"]),
            (vec!["*"], vec!["pods"]),
            (vec!["get", "delete"], vec!["pods"]),
            (vec!["impersonate"], vec!["users"]),
        ] {
            assert!(!rights(&verbs, &resources).read_only, "{verbs:?} {resources:?}");
        }
    }

    #[test]
    fn watches_logs_and_shells_are_streams() {
        assert!(!rights(&["get", "list"], &["pods", "pods/status"]).streams_outlive_member);
        assert!(!rights(&["delete", "create"], &["pods", "pods/eviction"]).streams_outlive_member);
        for (verbs, resources) in [
            (vec!["watch"], vec!["pods"]),
            (vec!["*"], vec!["pods"]),
            (vec!["get"], vec!["pods/log"]),
            (vec!["create"], vec!["pods/exec"]),
            (vec!["get"], vec!["*"]),
            (vec!["create"], vec!["services/proxy"]),
        ] {
            assert!(rights(&verbs, &resources).streams_outlive_member, "{verbs:?} {resources:?}");
        }
        assert!(!Rights::of(&[], true).streams_outlive_member);
    }

    #[test]
    fn shells_and_proxies_execute_but_watches_and_logs_do_not() {
        assert!(!rights(&["get", "list", "watch"], &["pods", "pods/log"]).executes);
        assert!(!rights(&["delete"], &["pods/exec"]).executes);
        for resource in ["pods/exec", "pods/attach", "pods/portforward", "services/proxy", "pods/*", "*"] {
            assert!(rights(&["get"], &[resource]).executes && rights(&["create"], &[resource]).executes, "{resource}");
        }
    }

    #[test]
    fn harmless_writes_are_contained_only_by_walls() {
        let contained = [
            rule("", &["get", "list", "watch"], &["pods", "nodes"]),
            rule("", &["create", "delete"], &["pods/eviction"]),
            Rule { namespace: Some("shop".into()), ..rule("", &["create", "update"], &["configmaps"]) },
            rule("", &["create", "delete"], &["namespaces", "services"]),
        ];
        assert_eq!(Rights::of(&contained, true).escapes, [].into());
        assert_eq!(Rights::of(&contained, false).escapes, [Escape::NoWalls].into());
        assert_eq!(Rights::of(&contained[..1], false).escapes, [].into(), "reads need no walls");
    }

    #[test]
    fn unreadable_rights_count_as_the_worst() {
        let unknown = Rights::unknown();
        assert_eq!(unknown.escapes, [Escape::Unknown].into());
        assert!(!unknown.read_only && unknown.streams_outlive_member && unknown.executes);
    }

    proptest! {
        #[test]
        fn more_rules_never_make_a_role_look_safer(split in 0usize..5, walls: bool) {
            let rules = [
                rule("", &["get"], &["pods"]),
                rule("", &["watch"], &["nodes"]),
                rule("", &["create"], &["pods"]),
                rule("", &["get"], &["secrets"]),
                rule("*", &["*"], &["*"]),
            ];
            let (fewer, all) = (Rights::of(&rules[..split], walls), Rights::of(&rules, walls));
            prop_assert!(fewer.escapes.is_subset(&all.escapes));
            prop_assert!(fewer.read_only || !all.read_only);
            prop_assert!(!fewer.streams_outlive_member || all.streams_outlive_member);
            prop_assert!(!fewer.executes || all.executes);
        }
    }
}
