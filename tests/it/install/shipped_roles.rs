//! The shipped roles cannot read Daypass's logs (the audit trail) or its other objects.

use serde_json::{Value, json};

use crate::support::{Cluster, DAYPASS, eventually};

/// Ways to the output or the contents of Daypass's pods.
const TRAIL: [&str; 12] = [
    "get pods --subresource=log",
    "get pods --subresource=attach",
    "create pods --subresource=attach",
    "get pods --subresource=exec",
    "create pods --subresource=exec",
    "patch pods --subresource=ephemeralcontainers",
    "get pods --subresource=proxy",
    "get services --subresource=proxy",
    "create pods --subresource=portforward",
    "get secrets",
    "get accesstokens.daypass.dev",
    "list accesstokens.daypass.dev",
];

/// The same through nodes, or in every namespace.
const EVERYWHERE: [&str; 6] = [
    "get nodes --subresource=proxy",
    "create nodes --subresource=proxy",
    "get nodes --subresource=log",
    "get members.daypass.dev -A",
    "list members.daypass.dev -A",
    "get pods --subresource=log -A",
];

/// Attributes of a SubjectAccessReview, from arguments of `kubectl auth can-i`.
fn attributes(what: &str) -> Value {
    let words: Vec<&str> = what.split(' ').collect();
    let (resource, group) = words[1].split_once('.').unwrap_or((words[1], ""));
    let subresource = words.iter().find_map(|word| word.strip_prefix("--subresource=")).unwrap_or_default();
    let namespace = words.iter().position(|word| *word == "-n").map_or("", |at| words[at + 1]);
    json!({
        "verb": words[0], "resource": resource, "group": group, "subresource": subresource, "namespace": namespace,
    })
}

#[test]
fn no_shipped_role_reads_the_audit_trail() {
    let cluster = Cluster::exclusive();
    // As an operator enables it.
    let mut values = cluster.values();
    values["roles"] = json!({
        "logs-view": {"namespaces": ["default"]},
        "pods-debug": {"enabled": true, "namespaces": ["default"]},
    });
    let templates = ["templates/roles/namespaces.yaml", "templates/roles/bindings.yaml"];
    cluster.apply(&cluster.chart.render(&cluster.plane, &values, &templates).unwrap());
    cluster.wait_role("logs-view");
    cluster.wait_role("pods-debug");
    let may = |who: &str, what: &str| cluster.api.allows(who, &attributes(what));
    let member = |role: &str| format!("system:serviceaccount:daypass-{role}:m");
    eventually("the role's rights are in force", || {
        may(&member("logs-view"), "get pods --subresource=log -n default").then_some(())
    });
    // Checks that the questions are valid: the administrator is allowed everything.
    assert!(
        TRAIL.iter().all(|what| may("", &format!("{what} -n daypass"))) && EVERYWHERE.iter().all(|what| may("", what))
    );
    assert!(may(DAYPASS, "get accesstokens.daypass.dev -n daypass"));

    let shipped: Vec<String> = cluster
        .names("", "namespaces")
        .into_iter()
        .filter(|name| {
            cluster
                .object("daypass", "namespace", name)
                .is_some_and(|it| it["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm")
        })
        .collect();
    let shipped: Vec<&str> = shipped.iter().filter_map(|name| name.strip_prefix("daypass-")).collect();
    for role in ["logs-view", "nodes-view", "pods-debug", "pods-restart", "projects-view", "storage-view"] {
        assert!(shipped.contains(&role), "{shipped:?}");
        for what in TRAIL {
            assert!(!may(&member(role), &format!("{what} -n daypass")), "{role}: {what}");
        }
        for what in EVERYWHERE {
            assert!(!may(&member(role), what), "{role}: {what}");
        }
    }
    for role in ["logs-view", "pods-debug"] {
        for namespace in ["daypass", "daypass-nodes-view", "kube-system"] {
            assert!(!may(&member(role), &format!("get pods -n {namespace}")), "{role}: {namespace}");
        }
        cluster.kubectl(&["delete", "namespace", &format!("daypass-{role}")]);
        cluster.kubectl(&["delete", "rolebinding", &format!("daypass-role-{role}"), "-n", "default"]);
    }
}
