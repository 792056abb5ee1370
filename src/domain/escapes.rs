//! Escapes: rights with which a role's members can get out of the role.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::rules::Rule;

/// A right with which a role's members could leave the role, outlast their membership, or keep Daypass from ending it.
///
/// The walls block some of these as well. They count anyway, because walls can be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Escape {
    /// May add rights to a role that its members lack.
    Escalate,
    /// May bind a role with rights that its members lack.
    Bind,
    /// May act as another identity.
    Impersonate,
    /// May write roles or bindings, including Daypass's own, or bind its rights to an identity that outlasts the
    /// member. A wall blocks this.
    Rbac,
    /// May change admission policies or webhooks, which no admission policy can protect.
    AdmissionControl,
    /// May answer in place of the API server, by an APIService or by a CustomResourceDefinition with a conversion
    /// webhook. A wall blocks both.
    ApiExtensions,
    /// May slow down or reject other clients' requests, including Daypass's, by API Priority and Fairness. A wall
    /// blocks this.
    FlowControl,
    /// May write ConfigMaps in kube-system or kube-public, or their replacements. They define whom the cluster trusts
    /// and map identities (`aws-auth`, for example). A wall blocks this.
    ClusterConfiguration,
    /// May obtain other credentials: client certificates, or bootstrap tokens for nodes. A wall blocks this.
    Credentials,
    /// May access every pod of a node, bypassing the API server's checks.
    NodesProxy,
    /// May obtain service account tokens, which outlive the member: by requesting one, or by reading one from a Secret
    /// or a pod, including a pod that it starts.
    ServiceAccountTokens,
    /// A `*`, which includes all of these now or in a later version of Kubernetes.
    Wildcard,
    /// May write, and the walls that keep its writes from outliving the member are missing.
    NoWalls,
    /// The rights could not be read.
    Unknown,
}

impl Escape {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Escalate,
        Self::Bind,
        Self::Impersonate,
        Self::Rbac,
        Self::AdmissionControl,
        Self::ApiExtensions,
        Self::FlowControl,
        Self::ClusterConfiguration,
        Self::Credentials,
        Self::NodesProxy,
        Self::ServiceAccountTokens,
        Self::Wildcard,
        Self::NoWalls,
        Self::Unknown,
    ];
}

/// The name in the API.
impl fmt::Display for Escape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

const WRITE_VERBS: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// The escapes that a rule opens by itself.
pub(super) fn escapes(rule: &Rule) -> Vec<Escape> {
    let rbac = "rbac.authorization.k8s.io";
    let writes = |group: &str, resources: &[&str]| rule.may(&WRITE_VERBS) && rule.is_on(group, resources);
    let on_roles = rule.is_on(rbac, &["roles", "clusterroles"]);
    let identities = rule.is_on("", &["users", "groups", "serviceaccounts"])
        || rule.is_on("authentication.k8s.io", &["uids"])
        || rule.api_groups.contains("authentication.k8s.io");
    // Constrained impersonation (KEP-5284) has verbs like `impersonate:user-info`.
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
    // A bootstrap token is a Secret in kube-system with a value that its creator chooses.
    let bootstraps =
        rule.may(&["create", "update", "patch"]) && rule.reaches(&["kube-system"]) && rule.is_on("", &["secrets"]);
    rule.may(&WRITE_VERBS) && rule.is_on(certificates, &[]) || signs || bootstraps
}

fn reaches_tokens(rule: &Rule) -> bool {
    let requests = rule.may(&["create"]) && rule.is_on("", &["serviceaccounts/token"]);
    // A dry run of `patch` or `deletecollection` returns the Secrets with their data.
    let reads = rule.may(&["get", "list", "watch", "patch", "deletecollection"]) && rule.is_on("", &["secrets"]);
    // A shell is opened with `create`, or with `get` by a WebSocket client.
    let enters = rule.may(&["create", "get"]) && rule.is_on("", &["pods/exec", "pods/attach"]);
    let changes = rule.may(&["update", "patch"]) && rule.is_on("", &["pods/ephemeralcontainers"]);
    let starts = rule.may(&["create", "update", "patch"])
        && (rule.is_on("", &["pods", "replicationcontrollers", "podtemplates"])
            // A StatefulSet creates pods from the revision that its status names, even if somebody recreated it.
            || rule.is_on("apps", &["deployments", "daemonsets", "statefulsets", "replicasets", "controllerrevisions"])
            || rule.is_on("batch", &["jobs", "cronjobs"]));
    requests || reads || enters || changes || starts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rules::rule;

    #[test]
    fn escape_is_found_in_every_form() {
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
            assert!(escapes(&rule).contains(&escape), "{escape:?} {rule:?}");
        }
    }

    #[test]
    fn full_wildcard_opens_every_escape_of_rules() {
        let escapes: BTreeSet<Escape> = escapes(&rule("*", &["*"], &["*"])).into_iter().collect();
        let of_roles = [Escape::NoWalls, Escape::Unknown];
        assert_eq!(escapes, Escape::ALL.into_iter().filter(|escape| !of_roles.contains(escape)).collect());
    }

    #[test]
    fn api_name_is_upper_snake_case() {
        let names = Escape::ALL.map(|escape| escape.to_string());
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        assert_eq!(names[10], "SERVICE_ACCOUNT_TOKENS");
    }
}
