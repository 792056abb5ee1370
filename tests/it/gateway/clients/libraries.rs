//! Watches of the Python and the JavaScript client: whatever ends a kubeconfig cuts them, on each replica, and they
//! say why.

use std::path::Path;
use std::process::Command;

use super::{file, installed};
use crate::gateway::causes::{CAUSES, Cause, DELETE};
use crate::gateway::{Gateways, Guest, Running};
use crate::support::eventually;

/// A script of a client that uses the ConfigMap that it names and watches.
fn script(gateways: &Gateways, command: &mut Command, kubeconfig: &Path, name: &str) -> Running {
    let mut started = Command::new(command.get_program());
    started.args(command.get_args());
    for (variable, value) in command.get_envs() {
        started.env(variable, value.unwrap_or_default());
    }
    started.arg(name).env("KUBECONFIG", kubeconfig);
    Running::of(gateways.cluster, started)
}

/// Runs a script through both replicas, and ends the kubeconfig while they watch.
#[track_caller]
fn works_and_is_cut_by(gateways: &Gateways, command: &mut Command, cause: Cause) {
    let guest: Guest = gateways.member(&gateways.role());
    let names = ["a", "b"].map(|replica| format!("cm-{}-{}-{replica}", guest.member.name(), cause.name));
    let mut scripts = [(&guest.file, &names[0]), (&guest.elsewhere, &names[1])]
        .map(|(kubeconfig, name)| script(gateways, command, kubeconfig, name));
    for script in &mut scripts {
        eventually("the script watches", || {
            (script.output().contains("seen kube-root-ca.crt") || !script.is_running()).then_some(())
        });
    }
    for script in &mut scripts {
        assert!(script.is_running(), "{}: {}", cause.name, script.output());
    }
    (cause.end)(gateways, &guest);
    for script in scripts {
        let (status, output) = script.ended();
        assert_eq!(status, 0, "{}: {output}", cause.name);
        let lines: Vec<&str> = output.lines().collect();
        assert!(lines[0].starts_with("pods ") && lines[1..3] == ["read 1", "listed"], "{output}");
        let says = |start: &str| lines.iter().any(|line| line.starts_with(start) && line.contains(cause.reason));
        assert!(says("cut 401 ") && says("refused 401 "), "{}: {output}", cause.name);
    }
    for name in names {
        assert!(gateways.cluster.object("default", "configmap", &name).is_none(), "it was deleted");
    }
}

#[track_caller]
fn works_and_is_cut(mut command: Command) {
    let gateways = Gateways::shared();
    assert_eq!(CAUSES[0].name, DELETE.name);
    for cause in CAUSES {
        works_and_is_cut_by(gateways, &mut command, cause);
    }
}

#[test]
#[ignore = "needs `make test-clients`"]
fn python_client_works_and_is_cut_by_each_cause() {
    let mut python = Command::new(installed("PYTHON_CLIENT"));
    python.arg(file("client.py"));
    works_and_is_cut(python);
}

#[test]
#[ignore = "needs `make test-clients`"]
fn javascript_client_works_and_is_cut_by_each_cause() {
    let mut node = Command::new("node");
    node.arg(file("client.mjs")).env("NODE_CLIENT", installed("NODE_CLIENT"));
    works_and_is_cut(node);
}
