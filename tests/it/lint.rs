//! `daypass roles lint`: its table, and its exit codes for a pipeline.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Lab, eventually};

/// Its exit code, and what it printed and said.
fn lint(kubeconfig: Option<&Path>, args: &[&str], stdin: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daypass"));
    command.args(["roles", "lint"]).args(args).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    if let Some(file) = kubeconfig {
        command.env("KUBECONFIG", file);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may have ended without having read all of it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The line of a role.
#[track_caller]
fn line<'a>(table: &'a str, role: &str) -> Vec<&'a str> {
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find(|words| words.first() == Some(&role)).unwrap_or_else(|| panic!("{role} in {table}"))
}

/// The whole chart, rendered with these values besides.
fn rendered(lab: &Lab, more: &Value) -> String {
    let mut values = lab.values();
    values.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    lab.chart.render(&lab.plane, &values, &[]).unwrap()
}

#[test]
fn a_rendered_chart_passes_until_a_role_has_a_way_out() {
    let (lab, _) = Lab::shared();
    let shipped = rendered(lab, &json!({}));
    let (code, table, error) = lint(None, &["-"], &shipped);
    assert_eq!(code, 0, "{table}{error}");
    assert_eq!(line(&table, "projects-view"), ["projects-view", "yes", "yes", "yes"]);
    assert_eq!(line(&table, "pods-restart"), ["pods-restart", "no", "yes", "yes"]);

    let file = lab.fresh_folder("lint").join("rendered.yaml");
    let wide = json!({"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]});
    std::fs::write(&file, rendered(lab, &json!({"roles": {"wide": {"name": "Wide", "rules": [wide]}}}))).unwrap();
    let (code, table, error) = lint(None, &[file.to_str().unwrap()], "");
    assert_eq!(code, 1, "{table}{error}");
    assert_eq!(line(&table, "wide"), ["wide", "no", "yes", "no:", "NODES_PROXY"]);
    assert_eq!(line(&table, "pods-restart"), ["pods-restart", "no", "yes", "yes"]);

    let (code, table, _) = lint(None, &["-"], &rendered(lab, &json!({"walls": {"enabled": false}})));
    assert_eq!(code, 1, "{table}");
    assert_eq!(line(&table, "pods-restart"), ["pods-restart", "no", "yes", "no:", "NO_WALLS"]);
    assert_eq!(line(&table, "nodes-view"), ["nodes-view", "yes", "yes", "yes"]);
}

/// A cluster's own ClusterRoles are not in a chart's output: what they allow is not known, and so not contained.
#[test]
fn what_manifests_do_not_tell_counts_as_the_worse() {
    let (lab, _) = Lab::shared();
    let bound =
        |cluster_role: &str| rendered(lab, &json!({"roles": {"ops": {"name": "Ops", "clusterRoles": [cluster_role]}}}));
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
fn what_cannot_be_looked_at_is_an_error_and_no_clean_answer() {
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
fn a_live_cluster_passes_until_a_role_has_a_way_out() {
    let lab = Lab::alone();
    let kubeconfig = lab.plane.kubeconfig();
    let (code, table, error) = lint(Some(&kubeconfig), &[], "");
    assert_eq!(code, 0, "{table}{error}");
    assert_eq!(line(&table, "pods-restart"), ["pods-restart", "no", "yes", "yes"]);
    // Daypass's own rights are enough.
    assert_eq!(lint(Some(&lab.kubeconfig), &[], ""), (code, table, error));

    let role = lab.role(json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]));
    let (code, table, error) = lint(Some(&kubeconfig), &[], "");
    assert_eq!(code, 1, "{table}{error}");
    assert_eq!(line(&table, &role.id)[1..4], ["no", "yes", "no:"]);
    lab.kubectl(&["delete", "namespace", &role.namespace]);
}

/// Every one is looked at, not only whether there are some.
#[test]
fn a_wall_that_is_gone_or_weakened_is_named() {
    let lab = Lab::alone();
    let kubeconfig = lab.plane.kubeconfig();
    let walls = lab.chart.render(&lab.plane, &lab.values(), &["templates/walls.yaml"]).unwrap();
    let walls: Vec<Value> = serde_yaml::from_multiple(&walls).unwrap();
    let names: Vec<&str> = walls.iter().step_by(2).map(|policy| policy["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 12, "{names:?}");
    let (policy, binding) = ("validatingadmissionpolicy", "validatingadmissionpolicybinding");
    let restore = |name: &str| {
        let of_wall = walls.iter().filter(|object| object["metadata"]["name"] == name);
        for object in of_wall {
            let kind = object["kind"].as_str().unwrap().to_lowercase();
            lab.kubectl(&["delete", &kind, name, "--ignore-not-found"]);
            // As helm writes it, so that a later upgrade finds its own.
            let restored = lab.try_apply(&["--server-side", "--field-manager=helm"], &object.to_string());
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
        lab.kubectl(&["delete", binding, name]);
        find(name, "the binding is missing");
    }
    lab.kubectl(&["delete", policy, "daypass-namespaces"]);
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
        lab.kubectl(&["patch", kind, name, "--type=merge", "-p", &patch.to_string()]);
        find(name, &format!("{fault} from the one that this version ships"));
    }
    eventually("all are in force again", || (lint(Some(&kubeconfig), &[], "").0 == 0).then_some(()));
}
