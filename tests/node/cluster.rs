//! What the test checks in the cluster beside the operator's commands.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use daypass_local::{Chart, ControlPlane, Node, Options, Tools, fresh_state_dir};
use serde_json::Value;

use crate::session::Session;

/// What Kubernetes creates and removes all the time.
const BUSY: [&str; 4] = [
    "events ",
    "events.events.k8s.io ",
    "leases.coordination.k8s.io kube-system/",
    "leases.coordination.k8s.io kube-node-lease/",
];

/// A control plane for one node.
pub fn control_plane() -> ControlPlane {
    let state = fresh_state_dir(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let options = Options { sandbox: true, ..Options::default() };
    ControlPlane::start(&Tools::find_or_build().unwrap(), &state, options).unwrap()
}

/// A terminal beside the control plane, in a folder with the chart and `values.yaml`.
pub fn terminal(plane: &ControlPlane) -> Session {
    let folder = plane.state_dir().join("terminal");
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(top.join("deploy"), folder.join("deploy")).unwrap();
    fs::copy(top.join("tests/node/values.yaml"), folder.join("values.yaml")).unwrap();
    let helm = Tools::helm().unwrap();
    let path = [plane.tools().dir(), helm.parent().unwrap()].map(|dir| dir.display().to_string()).join(":");
    let mut bash = plane.command(Path::new("bash"));
    bash.env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap()));
    bash.env("KUBECONFIG", plane.kubeconfig()).env("KUBECACHEDIR", folder.join("kubectl-cache"));
    for kind in ["CACHE", "CONFIG", "DATA"] {
        bash.env(format!("HELM_{kind}_HOME"), plane.state_dir().join("helm"));
    }
    Session::start(bash, &folder)
}

/// Everything in the cluster, as `resource namespace/name`.
pub fn everything(terminal: &mut Session) -> BTreeSet<String> {
    let kinds = terminal.quiet("kubectl api-resources --verbs=list -o name");
    let mut all = BTreeSet::new();
    for kind in kinds.lines() {
        let columns = "custom-columns=N:.metadata.namespace,M:.metadata.name";
        let listed = terminal.quiet(&format!("kubectl get {kind} -A --no-headers --ignore-not-found -o {columns}"));
        all.extend(listed.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            format!("{kind} {}", words.join("/"))
        }));
    }
    all.retain(|object| !BUSY.iter().any(|busy| object.starts_with(busy)));
    all
}

/// Daypass's ready pods: name, UID and number of restarts.
pub fn ready_pods(terminal: &mut Session) -> Vec<(String, String, u64)> {
    let pods: Value =
        serde_json::from_str(&terminal.quiet("kubectl get pods -n daypass -l app.kubernetes.io/name=daypass -o json"))
            .unwrap();
    let ready = |pod: &&Value| {
        pod["status"]["containerStatuses"][0]["ready"] == true && pod["metadata"]["deletionTimestamp"].is_null()
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pods = pods["items"].as_array().unwrap().iter().filter(ready);
    pods.map(|pod| {
        let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap();
        (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]), restarts)
    })
    .collect()
}

/// The current use of Daypass's containers, from their cgroups.
#[derive(Debug, Default, Clone, Copy)]
pub struct Usage {
    /// The largest working set of a container (memory without reclaimable cache), in bytes.
    pub memory: u64,
    /// The processor time of all of them since their start, in seconds.
    pub cpu: f64,
}

pub fn usage(terminal: &mut Session) -> Usage {
    let ids = "jsonpath={range .items[*]}{.status.containerStatuses[0].containerID}{\"\\n\"}{end}";
    let ids = terminal.quiet(&format!("kubectl get pods -n daypass -l app.kubernetes.io/name=daypass -o '{ids}'"));
    let mut usage = Usage::default();
    for id in ids.lines().filter_map(|line| line.strip_prefix("containerd://")) {
        let found = terminal.quiet(&format!("find /sys/fs/cgroup -type d -name {id}"));
        let folders: Vec<&Path> = found.lines().map(Path::new).collect();
        let file = |name: &str| folders.iter().find_map(|folder| fs::read_to_string(folder.join(name)).ok());
        let number = |text: String| text.trim().parse::<u64>().unwrap();
        let entry = |text: &str, key: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
        };
        // cgroups version 1, else version 2.
        let stat = file("memory.stat").unwrap();
        let cached = entry(&stat, "total_inactive_file").or_else(|| entry(&stat, "inactive_file")).unwrap();
        let held = file("memory.usage_in_bytes").or_else(|| file("memory.current")).map(number).unwrap();
        usage.memory = usage.memory.max(held - cached);
        usage.cpu += match file("cpuacct.usage") {
            Some(nanoseconds) => number(nanoseconds) as f64 / 1e9,
            None => entry(&file("cpu.stat").unwrap(), "usage_usec").unwrap() as f64 / 1e6,
        };
    }
    usage
}

/// The archive of the image, which `make image` wrote.
pub fn image() -> PathBuf {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/image/daypass.tar");
    assert!(archive.is_file(), "no image at {}; `make test-node` builds it first", archive.display());
    archive
}

/// A node beside `plane`, with the image on it.
pub fn node(plane: &ControlPlane) -> Node<'_> {
    let node = Node::start(plane).unwrap();
    node.load_image(&image()).unwrap();
    node
}

/// Fail at once if the chart is missing.
pub fn check_chart() {
    Chart::new(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/charts/daypass"))).unwrap();
}
