//! `daypass roles lint`: its table, and its exit codes for a pipeline.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::policies::{ForeignPolicies, Writes};
use crate::support::{Cluster, eventually};

/// Runs it. Its exit code, output and errors.
fn lint(kubeconfig: Option<&Path>, args: &[&str], stdin: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daypass"));
    command.args(["roles", "lint"]).args(args).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    if let Some(file) = kubeconfig {
        command.env("KUBECONFIG", file);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may exit before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A role's line in the table.
#[track_caller]
fn line<'a>(table: &'a str, role: &str) -> Vec<&'a str> {
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find(|words| words.first() == Some(&role)).unwrap_or_else(|| panic!("{role} in {table}"))
}

/// The rendered chart with these additional values.
fn rendered(cluster: &Cluster, more: &Value) -> String {
    let mut values = cluster.values();
    values.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    cluster.chart.render(&cluster.plane, &values, &[]).unwrap()
}

#[test]
fn rendered_chart_passes_lint_until_a_role_escapes() {
    let (cluster, _) = Cluster::shared();
    let shipped = rendered(cluster, &json!({}));
    let (code, table, error) = lint(None, &["-"], &shipped);
    assert_eq!(code, 0, "{table}{error}");
    assert_eq!(line(&table, "projects-view"), ["projects-view", "yes", "yes", "yes"]);
    assert_eq!(line(&table, "pods-restart"), ["pods-restart", "no", "yes", "yes"]);

    let file = cluster.fresh_folder("lint").join("rendered.yaml");
    let wide = json!({"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]});
    std::fs::write(&file, rendered(cluster, &json!({"roles": {"wide": {"name": "Wide", "rules": [wide]}}}))).unwrap();
    let (code, table, error) = lint(None, &[file.to_str().unwrap()], "");
    assert_eq!(code, 1, "{table}{error}");
    assert_eq!(line(&table, "wide"), ["wide", "no", "yes", "no:", "NODES_PROXY"]);
    assert_eq!(line(&table, "pods-restart"), ["pods-restart", "no", "yes", "yes"]);

    let (code, table, _) = lint(None, &["-"], &rendered(cluster, &json!({"walls": {"enabled": false}})));
    assert_eq!(code, 1, "{table}");
    assert_eq!(line(&table, "pods-restart"), ["pods-restart", "no", "yes", "no:", "NO_WALLS"]);
    assert_eq!(line(&table, "nodes-view"), ["nodes-view", "yes", "yes", "yes"]);
}

/// The chart's output lacks the cluster's own ClusterRoles, so lint treats what they allow as uncontained.
#[test]
fn missing_manifests_count_as_the_worse_case() {
    let (cluster, _) = Cluster::shared();
    let bound = |cluster_role: &str| {
        rendered(cluster, &json!({"roles": {"ops": {"name": "Ops", "clusterRoles": [cluster_role]}}}))
    };
    let (code, table, error) = lint(None, &["-"], &bound("cluster-admin"));
    assert_eq!(code, 1, "{table}{error}");
    assert_eq!(line(&table, "ops"), ["ops", "no", "yes", "no:", "UNKNOWN"]);

    let aggregated = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: all}\n\
                      aggregationRule: {clusterRoleSelectors: [{matchLabels: {a: b}}]}\nrules: []\n";
    let (code, table, error) = lint(None, &["-"], &format!("{}\n---\n{aggregated}", bound("all")));
    assert_eq!(code, 1, "{table}{error}");
    assert_eq!(line(&table, "ops"), ["ops", "no", "yes", "no:", "UNKNOWN"]);
}

#[test]
fn unreadable_input_is_an_error() {
    for (args, stdin) in [
        (&["-"][..], ""),
        (&["-"], "kind: Namespace\nmetadata: {name: default}\n"),
        (&["-"], "kind: Namespace\n  metadata: [\n"),
        (&["-"], "kind: ClusterRole\nmetadata: {name: a}\nrules: 3\n"),
        (&["/nonexistent/rendered.yaml"], ""),
        (&[], ""),
        (&["--no-such-option"], ""),
    ] {
        let (code, table, error) = lint(None, args, stdin);
        assert_eq!((code, table.as_str()), (2, ""), "{args:?} {stdin}: {error}");
        assert!(!error.is_empty());
    }
}

#[test]
fn live_cluster_passes_lint_until_a_role_escapes() {
    let cluster = Cluster::exclusive();
    let kubeconfig = cluster.plane.kubeconfig();
    let (code, table, error) = lint(Some(&kubeconfig), &[], "");
    assert_eq!(code, 0, "{table}{error}");
    assert_eq!(line(&table, "pods-restart"), ["pods-restart", "no", "yes", "yes"]);
    // Daypass's own rights suffice.
    assert_eq!(lint(Some(&cluster.kubeconfig), &[], ""), (code, table, error));

    let role = cluster.role(json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]));
    let (code, table, error) = lint(Some(&kubeconfig), &[], "");
    assert_eq!(code, 1, "{table}{error}");
    assert_eq!(line(&table, &role.id)[1..4], ["no", "yes", "no:"]);
    cluster.kubectl(&["delete", "namespace", &role.namespace]);
}

/// The API server names one of several policies that refuse the probe.
#[test]
fn foreign_policy_that_refuses_the_probe_is_no_fault() {
    let (cluster, _) = Cluster::shared();
    let accounts = Writes { operation: "CREATE", group: "", resource: "serviceaccounts" };
    let probe = || ("request.name == 'walls-probe'".to_owned(), None);
    let _policies = ForeignPolicies::admission(cluster, &[accounts], &[probe(), probe()]);
    for _ in 0..8 {
        let (_, table, error) = lint(Some(&cluster.plane.kubeconfig()), &[], "");
        assert!(table.contains("pods-restart") && !table.contains("not in force"), "{table}{error}");
    }
}

/// Lint checks every policy.
#[test]
fn missing_or_weakened_wall_is_named() {
    let cluster = Cluster::exclusive();
    let kubeconfig = cluster.plane.kubeconfig();
    let walls = cluster.chart.render(&cluster.plane, &cluster.values(), &["templates/walls.yaml"]).unwrap();
    let walls: Vec<Value> = serde_yaml::from_multiple(&walls).unwrap();
    let names: Vec<&str> =
        walls.iter().step_by(2).map(|policy| policy["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 12, "{names:?}");
    let (policy, binding) = ("validatingadmissionpolicy", "validatingadmissionpolicybinding");
    let restore = |name: &str| {
        let of_wall = walls.iter().filter(|object| object["metadata"]["name"] == name);
        for object in of_wall {
            let kind = object["kind"].as_str().unwrap().to_lowercase();
            cluster.kubectl(&["delete", &kind, name, "--ignore-not-found"]);
            // With helm's field manager, so that a later upgrade finds its own fields.
            let restored = cluster.try_apply(&["--server-side", "--field-manager=helm"], &object.to_string());
            assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        }
    };
    let find = |name: &str, fault: &str| {
        let (code, table, error) = lint(Some(&kubeconfig), &[], "");
        assert_eq!(code, 1, "{name}: {table}{error}");
        assert!(table.ends_with(&format!("The walls are not in force: {name}: {fault}\n")), "{name}: {table}");
        assert_eq!(line(&table, "pods-restart"), ["pods-restart", "no", "yes", "no:", "NO_WALLS"]);
        restore(name);
    };
    for name in &names {
        cluster.kubectl(&["delete", binding, name]);
        find(name, "the binding is missing");
    }
    cluster.kubectl(&["delete", policy, "daypass-namespaces"]);
    find("daypass-namespaces", "the policy is missing");
    for (name, kind, patch, fault) in [
        ("daypass-members", binding, json!({"spec": {"validationActions": ["Audit"]}}), "the binding differs"),
        (
            "daypass-role-pods",
            binding,
            json!({"spec": {"matchResources": {"namespaceSelector": {"matchLabels": {"no": "where"}}}}}),
            "the binding differs",
        ),
        ("daypass-role-tokens", policy, json!({"spec": {"failurePolicy": "Ignore"}}), "the policy differs"),
        (
            "daypass-accesstokens",
            policy,
            json!({"spec": {"matchConditions": [{"name": "never", "expression": "false"}]}}),
            "the policy differs",
        ),
        (
            "daypass-certificates",
            policy,
            json!({"spec": {"matchConstraints": {"namespaceSelector": {"matchLabels": {"no": "where"}}}}}),
            "the policy differs",
        ),
    ] {
        cluster.kubectl(&["patch", kind, name, "--type=merge", "-p", &patch.to_string()]);
        find(name, &format!("{fault} from the one that this version ships"));
    }
    eventually("all policies are in force again", || (lint(Some(&kubeconfig), &[], "").0 == 0).then_some(()));
}
