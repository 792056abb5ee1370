//! What the shipped roles do not read: Daypass's own logs, which are the audit trail, and what else is Daypass's.

use serde_json::json;

use crate::support::{DAYPASS, Lab, Stage, eventually};

/// Ways to what a pod of Daypass prints, or to what is in it.
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

/// The same of the nodes, and of every namespace.
const EVERYWHERE: [&str; 6] = [
    "get nodes --subresource=proxy",
    "create nodes --subresource=proxy",
    "get nodes --subresource=log",
    "get members.daypass.dev -A",
    "list members.daypass.dev -A",
    "get pods --subresource=log -A",
];

#[test]
fn no_shipped_role_reads_the_audit_trail() {
    let lab = Lab::alone();
    let stage = Stage::new(&lab);
    // As an operator turns it on.
    let mut values = lab.values();
    values["roles"] = json!({"logs-view": {"namespaces": ["default"]}});
    let templates = ["templates/roles/namespaces.yaml", "templates/roles/bindings.yaml"];
    lab.apply(&lab.chart.render(&lab.plane, &values, &templates).unwrap());
    lab.wait_role("logs-view");
    let may = |who: &str, what: &str| stage.run(who, &format!("auth can-i {what}"), "").status.success();
    let member = |role: &str| format!("system:serviceaccount:daypass-{role}:m");
    eventually("the role holds", || may(&member("logs-view"), "get pods --subresource=log -n default").then_some(()));
    // The questions are understood.
    assert!(
        TRAIL.iter().all(|what| may("", &format!("{what} -n daypass"))) && EVERYWHERE.iter().all(|what| may("", what))
    );
    assert!(may(DAYPASS, "get accesstokens.daypass.dev -n daypass"));

    let shipped: Vec<String> = lab
        .names("", "namespaces")
        .into_iter()
        .filter(|name| {
            lab.object("daypass", "namespace", name)
                .is_some_and(|it| it["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm")
        })
        .collect();
    let shipped: Vec<&str> = shipped.iter().filter_map(|name| name.strip_prefix("daypass-")).collect();
    for role in ["logs-view", "nodes-view", "pods-restart", "projects-view", "storage-view"] {
        assert!(shipped.contains(&role), "{shipped:?}");
        for what in TRAIL {
            assert!(!may(&member(role), &format!("{what} -n daypass")), "{role}: {what}");
        }
        for what in EVERYWHERE {
            assert!(!may(&member(role), what), "{role}: {what}");
        }
    }
    for namespace in ["daypass", "daypass-nodes-view", "kube-system"] {
        assert!(!may(&member("logs-view"), &format!("get pods -n {namespace}")), "{namespace}");
    }
    lab.kubectl(&["delete", "namespace", "daypass-logs-view"]);
    lab.kubectl(&["delete", "rolebinding", "daypass-role-logs-view", "-n", "default"]);
}
