//! What a role can do, computed from the cluster's RBAC, never declared.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// One rule of a Role or ClusterRole, and where it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The namespace it holds in; `None` is all of them, and what is in none.
    pub namespace: Option<String>,
    /// Verbs; `*` is any.
    pub verbs: BTreeSet<String>,
    /// API groups; empty for rules on URLs.
    pub api_groups: BTreeSet<String>,
    /// Resources, with their subresource behind a slash.
    pub resources: BTreeSet<String>,
    /// The only objects it holds for; empty is all of them.
    pub resource_names: BTreeSet<String>,
    /// Paths that are no resources.
    pub urls: BTreeSet<String>,
}

/// A right by which a role's members could get out of the role, stay in it, or keep Daypass from ending them.
///
/// Some of these the walls refuse as well. They are named all the same: a role that nothing but a wall contains is
/// not contained by what it may do, and walls can be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Escape {
    /// May give a role rights that it does not have itself.
    Escalate,
    /// May bind a role that it does not have itself.
    Bind,
    /// May act as somebody else.
    Impersonate,
    /// May write roles or bindings, Daypass's own among them, or bind its rights to somebody who stays. A wall
    /// refuses it.
    Rbac,
    /// May change admission policies or webhooks, which are exempt from admission.
    AdmissionControl,
    /// May answer for the API server: by an API service, or a CustomResourceDefinition with a conversion webhook. A
    /// wall refuses both.
    ApiExtensions,
    /// May slow down or refuse others' requests, Daypass's among them (API Priority and Fairness). A wall refuses it.
    FlowControl,
    /// May write ConfigMaps in kube-system or kube-public, which say whom the cluster trusts and who is whom (such as
    /// `aws-auth`), or what replaces those. A wall refuses it.
    ClusterConfiguration,
    /// May come by credentials of its own: client certificates, or bootstrap tokens of nodes. A wall refuses it.
    Credentials,
    /// May reach into every pod of a node, past the API server's checks.
    NodesProxy,
    /// May come by tokens of service accounts, which outlive the member: makes them, reads them in Secrets, takes
    /// them out of a pod, or has a pod started that has one.
    ServiceAccountTokens,
    /// `*` holds all of these, now or with the next version of Kubernetes.
    Wildcard,
    /// May write, and the admission policies that keep writes from outliving the member are not there.
    NoWalls,
    /// The rights could not be read.
    Unknown,
}

impl fmt::Display for Escape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What the members of a role can do. What cannot be read or is not known counts as the worse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Only get, list and watch, and nothing that reads secrets or reaches into a process or another server.
    pub read_only: bool,
    /// Something the role may open (a watch, a log, a shell) that the API server does not cut when the member ends.
    pub streams_outlive_member: bool,
    /// Ways out; a role without any is contained.
    pub escapes: BTreeSet<Escape>,
}

impl Rights {
    /// Of rights that could not be read.
    pub fn unknown() -> Self {
        Self::of(&[], true).and_unknown()
    }

    /// These, and others that could not be read.
    #[must_use]
    pub fn and_unknown(mut self) -> Self {
        self.escapes.insert(Escape::Unknown);
        Self { read_only: false, streams_outlive_member: true, ..self }
    }

    /// Of these rules together, in a cluster with or without Daypass's admission policies.
    pub fn of(rules: &[Rule], walls: bool) -> Self {
        let read_only = rules.iter().all(is_read_only);
        let mut escapes: BTreeSet<Escape> = rules.iter().flat_map(escapes).collect();
        if !walls && !read_only {
            escapes.insert(Escape::NoWalls);
        }
        Self { read_only, streams_outlive_member: rules.iter().any(opens_streams), escapes }
    }
}

/// Names a set of rules: equal for the same rules in any order.
pub fn fingerprint(rules: &[Rule]) -> String {
    let sorted: BTreeSet<&Rule> = rules.iter().collect();
    let digest = Sha256::digest(format!("{sorted:?}"));
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `new` holds something that `old` did not. A rule counts as held before only where one old rule covers it
/// whole.
pub fn is_wider(old: &[Rule], new: &[Rule]) -> bool {
    new.iter().any(|rule| !old.iter().any(|before| before.covers(rule)))
}

impl Rule {
    fn covers(&self, other: &Self) -> bool {
        let holds = |mine: &BTreeSet<String>, theirs: &BTreeSet<String>| mine.contains("*") || mine.is_superset(theirs);
        let named = self.resource_names.is_empty()
            || (!other.resource_names.is_empty() && self.resource_names.is_superset(&other.resource_names));
        (self.namespace.is_none() || self.namespace == other.namespace)
            && holds(&self.verbs, &other.verbs)
            && holds(&self.api_groups, &other.api_groups)
            && holds(&self.resources, &other.resources)
            && holds(&self.urls, &other.urls)
            && named
    }

    fn may(&self, verbs: &[&str]) -> bool {
        self.verbs.iter().any(|verb| verb == "*" || verbs.contains(&verb.as_str()))
    }

    fn reaches(&self, namespaces: &[&str]) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| namespaces.contains(&namespace))
    }

    fn is_on(&self, group: &str, resources: &[&str]) -> bool {
        let grouped = self.api_groups.iter().any(|it| it == "*" || it == group);
        let matches = |it: &String| {
            it == "*"
                || resources.is_empty()
                || resources.iter().any(|wanted| it == wanted || is_wildcard_of(it, wanted))
        };
        grouped && self.resources.iter().any(matches)
    }
}

/// `*/proxy` is every resource's subresource `proxy`, `nodes/*` every subresource of nodes.
fn is_wildcard_of(resource: &str, wanted: &str) -> bool {
    match (resource.split_once('/'), wanted.split_once('/')) {
        (Some((kind, sub)), Some((wanted_kind, wanted_sub))) => {
            (kind == "*" || kind == wanted_kind) && (sub == "*" || sub == wanted_sub)
        }
        _ => false,
    }
}

const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

fn escapes(rule: &Rule) -> Vec<Escape> {
    let rbac = "rbac.authorization.k8s.io";
    let writes = |group: &str, resources: &[&str]| rule.may(&WRITES) && rule.is_on(group, resources);
    let on_roles = rule.is_on(rbac, &["roles", "clusterroles"]);
    let identities = rule.is_on("", &["users", "groups", "serviceaccounts"])
        || rule.is_on("authentication.k8s.io", &["uids"])
        || rule.api_groups.contains("authentication.k8s.io");
    // With constrained impersonation (KEP-5284) there are verbs like `impersonate:user-info`.
    let impersonates = rule.verbs.iter().any(|verb| verb == "*" || verb.starts_with("impersonate"));
    let wildcard = |set: &BTreeSet<String>| set.iter().any(|it| it == "*" || it == "*/*");
    [
        (Escape::Escalate, rule.may(&["escalate"]) && on_roles),
        (Escape::Bind, rule.may(&["bind"]) && on_roles),
        (Escape::Impersonate, impersonates && identities),
        (Escape::Rbac, writes(rbac, &[])),
        (Escape::AdmissionControl, writes("admissionregistration.k8s.io", &[])),
        (
            Escape::ApiExtensions,
            writes("apiregistration.k8s.io", &[]) || writes("apiextensions.k8s.io", &["customresourcedefinitions"]),
        ),
        (Escape::FlowControl, writes("flowcontrol.apiserver.k8s.io", &[])),
        (
            Escape::ClusterConfiguration,
            rule.reaches(&["kube-system", "kube-public"]) && writes("", &["configmaps"])
                || writes("iamauthenticator.k8s.aws", &[]),
        ),
        (Escape::Credentials, reaches_credentials(rule)),
        (Escape::NodesProxy, rule.is_on("", &["nodes/proxy"])),
        (Escape::ServiceAccountTokens, reaches_tokens(rule)),
        (
            Escape::Wildcard,
            !rule.resources.is_empty()
                && (wildcard(&rule.verbs) || wildcard(&rule.resources) || wildcard(&rule.api_groups)),
        ),
    ]
    .into_iter()
    .filter_map(|(escape, holds)| holds.then_some(escape))
    .collect()
}

fn reaches_credentials(rule: &Rule) -> bool {
    let certificates = "certificates.k8s.io";
    let signs = rule.may(&["approve", "sign", "attest"]) && rule.is_on(certificates, &["signers"]);
    // A bootstrap token is a Secret in kube-system that its maker has chosen.
    let boots =
        rule.may(&["create", "update", "patch"]) && rule.reaches(&["kube-system"]) && rule.is_on("", &["secrets"]);
    rule.may(&WRITES) && rule.is_on(certificates, &[]) || signs || boots
}

fn reaches_tokens(rule: &Rule) -> bool {
    let makes = rule.may(&["create"]) && rule.is_on("", &["serviceaccounts/token"]);
    // A dry run of `patch` or `deletecollection` answers with what the Secrets hold.
    let reads = rule.may(&["get", "list", "watch", "patch", "deletecollection"]) && rule.is_on("", &["secrets"]);
    // A shell is opened by `create`, or by `get` from a WebSocket client.
    let enters = rule.may(&["create", "get"]) && rule.is_on("", &["pods/exec", "pods/attach"]);
    let changes = rule.may(&["update", "patch"]) && rule.is_on("", &["pods/ephemeralcontainers"]);
    let starts = rule.may(&["create", "update", "patch"])
        && (rule.is_on("", &["pods", "replicationcontrollers", "podtemplates"])
            // A StatefulSet makes pods of the revision that its status names, whoever has made that anew.
            || rule.is_on("apps", &["deployments", "daemonsets", "statefulsets", "replicasets", "controllerrevisions"])
            || rule.is_on("batch", &["jobs", "cronjobs"]));
    makes || reads || enters || changes || starts
}

const STREAMING_SUBRESOURCES: [&str; 5] = ["log", "exec", "attach", "portforward", "proxy"];

fn is_read_only(rule: &Rule) -> bool {
    rule.verbs.iter().all(|verb| matches!(verb.as_str(), "get" | "list" | "watch"))
        && rule.resources.iter().all(|resource| reads_nothing_sensitive(resource))
}

/// A `get` on a subresource can be an action: exec, attach and portforward are opened with GET by WebSocket clients,
/// and proxy forwards any GET to another server. Subresources that only show are named; any other counts as an
/// action.
fn reads_nothing_sensitive(resource: &str) -> bool {
    match resource.split_once('/') {
        None => !matches!(resource, "*" | "secrets"),
        Some((_, subresource)) => matches!(subresource, "status" | "scale" | "log" | "finalizers"),
    }
}

fn opens_streams(rule: &Rule) -> bool {
    let watches = rule.may(&["watch"]) && !rule.resources.is_empty();
    let opens = rule.may(&["get", "create"])
        && rule.resources.iter().any(|resource| {
            let subresource = resource.split_once('/').map_or("", |(_, subresource)| subresource);
            resource == "*" || subresource == "*" || STREAMING_SUBRESOURCES.contains(&subresource)
        });
    watches || opens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(group: &str, verbs: &[&str], resources: &[&str]) -> Rule {
        let strings = |items: &[&str]| items.iter().map(ToString::to_string).collect();
        Rule {
            verbs: strings(verbs),
            api_groups: [group.to_owned()].into(),
            resources: strings(resources),
            ..Rule::default()
        }
    }

    fn rights(verbs: &[&str], resources: &[&str]) -> Rights {
        Rights::of(&[rule("", verbs, resources)], true)
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
        assert!(!Rights::of(&[], true).streams_outlive_member);
    }

    #[test]
    fn a_way_out_is_found_under_any_spelling() {
        let rbac = "rbac.authorization.k8s.io";
        for (escape, rule) in [
            (Escape::Escalate, rule(rbac, &["escalate"], &["clusterroles"])),
            (Escape::Bind, rule(rbac, &["bind"], &["roles"])),
            (Escape::Impersonate, rule("", &["impersonate"], &["serviceaccounts"])),
            (Escape::Impersonate, rule("authentication.k8s.io", &["impersonate"], &["userextras/scopes"])),
            (Escape::Impersonate, rule("authentication.k8s.io", &["impersonate:user-info"], &["users"])),
            (
                Escape::AdmissionControl,
                rule("admissionregistration.k8s.io", &["delete"], &["validatingadmissionpolicybindings"]),
            ),
            (Escape::Rbac, rule(rbac, &["delete"], &["clusterrolebindings"])),
            (Escape::Rbac, rule(rbac, &["deletecollection"], &["clusterroles"])),
            (Escape::Rbac, rule("*", &["patch"], &["rolebindings"])),
            (Escape::ApiExtensions, rule("apiregistration.k8s.io", &["create"], &["apiservices"])),
            (Escape::ApiExtensions, rule("apiextensions.k8s.io", &["update"], &["customresourcedefinitions"])),
            (Escape::FlowControl, rule("flowcontrol.apiserver.k8s.io", &["patch"], &["prioritylevelconfigurations"])),
            (Escape::FlowControl, rule("flowcontrol.apiserver.k8s.io", &["delete"], &["flowschemas"])),
            (Escape::ClusterConfiguration, rule("", &["update"], &["configmaps"])),
            (
                Escape::ClusterConfiguration,
                Rule { namespace: Some("kube-public".into()), ..rule("", &["delete"], &["configmaps"]) },
            ),
            (Escape::ClusterConfiguration, rule("iamauthenticator.k8s.aws", &["create"], &["iamidentitymappings"])),
            (Escape::Credentials, rule("certificates.k8s.io", &["create"], &["certificatesigningrequests"])),
            (Escape::Credentials, rule("certificates.k8s.io", &["update"], &["certificatesigningrequests/approval"])),
            (Escape::Credentials, rule("certificates.k8s.io", &["approve"], &["signers"])),
            (Escape::Credentials, rule("certificates.k8s.io", &["patch"], &["clustertrustbundles"])),
            (Escape::Credentials, rule("", &["create"], &["secrets"])),
            (Escape::ServiceAccountTokens, rule("apps", &["create"], &["controllerrevisions"])),
            (Escape::NodesProxy, rule("", &["get"], &["nodes/proxy"])),
            (Escape::NodesProxy, rule("", &["get"], &["*/proxy"])),
            (Escape::NodesProxy, rule("", &["get"], &["nodes/*"])),
            (Escape::ServiceAccountTokens, rule("", &["create"], &["serviceaccounts/token"])),
            (Escape::ServiceAccountTokens, rule("*", &["create"], &["serviceaccounts/*"])),
            (Escape::ServiceAccountTokens, rule("", &["get"], &["secrets"])),
            (Escape::ServiceAccountTokens, rule("", &["deletecollection"], &["secrets"])),
            (Escape::ServiceAccountTokens, rule("", &["get"], &["pods/exec"])),
            (Escape::ServiceAccountTokens, rule("", &["create"], &["pods"])),
            (Escape::ServiceAccountTokens, rule("apps", &["patch"], &["deployments"])),
            (Escape::Wildcard, rule("", &["*"], &["pods"])),
            (Escape::Wildcard, rule("apps", &["get"], &["*"])),
        ] {
            assert!(Rights::of(std::slice::from_ref(&rule), true).escapes.contains(&escape), "{escape:?} {rule:?}");
        }
        let everything = Rights::of(&[rule("*", &["*"], &["*"])], true).escapes;
        assert_eq!(everything.len(), 12, "{everything:?}");
        let contained = [
            rule("", &["get", "list", "watch"], &["pods", "nodes"]),
            rule("", &["create", "delete"], &["pods/eviction"]),
            Rule { namespace: Some("shop".into()), ..rule("", &["create", "update"], &["configmaps"]) },
            rule("", &["create", "delete"], &["namespaces", "services"]),
        ];
        assert_eq!(Rights::of(&contained, true).escapes, [].into());
        assert_eq!(Rights::of(&contained, false).escapes, [Escape::NoWalls].into());
        assert_eq!(Rights::of(&contained[..1], false).escapes, [].into(), "what only reads needs no walls");
    }

    #[test]
    fn wider_is_whatever_no_earlier_rule_covers() {
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
    fn a_fingerprint_knows_no_order() {
        let (a, b) = (rule("", &["get"], &["pods"]), rule("apps", &["list"], &["deployments"]));
        assert_eq!(fingerprint(&[a.clone(), b.clone()]), fingerprint(&[b.clone(), a.clone(), a.clone()]));
        assert_ne!(fingerprint(std::slice::from_ref(&a)), fingerprint(&[a.clone(), b]));
    }
}
