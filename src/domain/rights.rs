//! What a role can do, computed from the cluster's RBAC, never declared.

/// One rule of a Role or ClusterRole, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Verbs; `*` is any.
    pub verbs: Vec<String>,
    /// API groups; empty for rules on URLs.
    pub api_groups: Vec<String>,
    /// Resources, with their subresource behind a slash.
    pub resources: Vec<String>,
}

/// What the members of a role can do. What cannot be read or is not known counts as the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Only get, list and watch, and nothing that reads secrets or reaches into a process or another server.
    pub read_only: bool,
    /// Something the role may open (a watch, a log, a shell) that the API server does not cut when the member ends.
    pub streams_outlive_member: bool,
}

impl Rights {
    /// Of rights that could not be read.
    pub const UNKNOWN: Self = Self { read_only: false, streams_outlive_member: true };

    /// Of these rules together.
    pub fn of(rules: &[Rule]) -> Self {
        Self { read_only: rules.iter().all(is_read_only), streams_outlive_member: rules.iter().any(opens_streams) }
    }
}

const STREAMING_SUBRESOURCES: [&str; 5] = ["log", "exec", "attach", "portforward", "proxy"];

fn is_read_only(rule: &Rule) -> bool {
    rule.verbs.iter().all(|verb| matches!(verb.as_str(), "get" | "list" | "watch"))
        && rule.resources.iter().all(|resource| reads_nothing_sensitive(resource))
}

/// A `get` on a subresource can be an action: exec, attach and portforward are opened with GET by WebSocket clients, and
/// proxy forwards any GET to another server. Subresources that only show are named; any other counts as an action.
fn reads_nothing_sensitive(resource: &str) -> bool {
    match resource.split_once('/') {
        None => !matches!(resource, "*" | "secrets"),
        Some((_, subresource)) => matches!(subresource, "status" | "scale" | "log" | "finalizers"),
    }
}

fn opens_streams(rule: &Rule) -> bool {
    let has = |verb: &str| rule.verbs.iter().any(|v| v == verb || v == "*");
    let watches = has("watch") && !rule.resources.is_empty();
    let opens = (has("get") || has("create"))
        && rule.resources.iter().any(|resource| {
            let subresource = resource.split_once('/').map_or("", |(_, subresource)| subresource);
            resource == "*" || subresource == "*" || STREAMING_SUBRESOURCES.contains(&subresource)
        });
    watches || opens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(verbs: &[&str], resources: &[&str]) -> Rights {
        let strings = |items: &[&str]| items.iter().map(ToString::to_string).collect();
        Rights::of(&[Rule { verbs: strings(verbs), api_groups: vec![String::new()], resources: strings(resources) }])
    }

    #[test]
    fn read_only_is_get_list_watch_without_secrets_and_side_doors() {
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
    fn watches_logs_and_shells_outlive_a_member() {
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
        assert_eq!(Rights::of(&[]), Rights { read_only: true, streams_outlive_member: false });
    }
}
