//! What kubectl does in a pod, with a kubelet whose containers only talk. `make test-node` has real ones.

use std::process::Command;

use serde_json::json;

use super::{REASON, installed};
use crate::gateway::{Gateways, Guest, Running};
use crate::support::{Role, eventually};

/// The kubelet; killed when dropped.
pub struct Kubelet {
    _process: Running,
    port: u16,
}

impl Kubelet {
    pub fn start(gateways: &Gateways) -> Self {
        let mut command = Command::new(installed("GO_CLIENT"));
        command.arg("kubelet");
        let process = Running::of(gateways.cluster, command);
        let port = eventually("the kubelet listens", || {
            process.output().strip_prefix("port ").and_then(|rest| rest.strip_suffix('\n')?.parse().ok())
        });
        Self { _process: process, port }
    }

    /// A pod in `default` on this kubelet's node.
    pub fn pod(&self, gateways: &Gateways, guest: &Guest) -> String {
        gateways.pod(guest, Some(self.port))
    }
}

/// A role whose members may read logs and ConfigMaps and run commands.
pub fn debugger(gateways: &Gateways) -> Role {
    gateways.cluster.role(json!([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"]},
    ]))
}

/// Opens something in a pod through both replicas and ends the member. Returns what each has printed.
#[track_caller]
fn cut_in_a_pod(args: &[&str], variable: (&str, &str)) -> Vec<String> {
    let gateways = Gateways::shared();
    let kubelet = Kubelet::start(gateways);
    let guest = gateways.member(&debugger(gateways));
    let pod = kubelet.pod(gateways, &guest);
    let args: Vec<&str> = args.iter().map(|arg| if *arg == "POD" { pod.as_str() } else { arg }).collect();
    let open = |kubeconfig| {
        let mut command = gateways.cluster.plane.kubectl();
        command.env("KUBECONFIG", kubeconfig).env(variable.0, variable.1).args(["-n", "default"]).args(&args);
        Running::of(gateways.cluster, command)
    };
    let mut opened = [open(&guest.file), open(&guest.elsewhere)];
    opened.iter().for_each(|running| running.wait_for("line 2\n"));
    assert!(opened.iter_mut().all(Running::is_running));
    guest.end(gateways);
    let ended = opened.map(|running| {
        let (status, output) = running.ended();
        assert!(status == 1 && output.contains(REASON), "{status}: {output}");
        output
    });
    ended.into()
}

/// kubectl speaks HTTP/2 if it may.
#[test]
#[ignore = "needs `make test-clients`"]
fn followed_log_says_why_it_ends() {
    for (variable, shown) in [(("DISABLE_HTTP2", "1"), "unexpected EOF"), (("UNUSED", ""), "stream error")] {
        for output in cut_in_a_pod(&["logs", "-f", "POD"], variable) {
            assert!(output.contains(shown), "{shown} in {output}");
        }
    }
}

#[test]
#[ignore = "needs `make test-clients`"]
fn command_says_why_it_ends() {
    for websocket in ["true", "false"] {
        cut_in_a_pod(&["exec", "POD", "--", "talk"], ("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websocket));
    }
}
