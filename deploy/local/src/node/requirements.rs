//! What a machine must have to run a node.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cgroups;

/// Where Debian and others put the CNI plugins.
const CNI_FOLDERS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// Programs, and the packages that Debian has them in.
const PROGRAMS: [(&str, &str); 10] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("conntrack", "conntrack"),
    ("buildah", "buildah"),
];

/// What this machine lacks to run a node, each as a sentence; empty where one can run.
pub fn missing() -> Vec<String> {
    if !cfg!(target_os = "linux") {
        return vec!["a node runs on Linux only".to_owned()];
    }
    let mut missing: Vec<String> = PROGRAMS
        .into_iter()
        .filter(|(program, _)| !is_there(program))
        .map(|(program, package)| format!("no {program} (Debian: apt-get install {package})"))
        .collect();
    if !cni_programs().join("ptp").is_file() {
        missing.push("no CNI plugins (Debian: apt-get install containernetworking-plugins)".to_owned());
    }
    let try_out = ["--net", "--mount", "--pid", "--fork", "--", "true"];
    if is_there("unshare") && !succeeds(Command::new("unshare").args(try_out)) {
        missing.push("no right to make namespaces: root is needed".to_owned());
    }
    if !cgroups::can_be_made() {
        missing.push("no right to make cgroups: root is needed, and /sys/fs/cgroup must not be read-only".to_owned());
    }
    if !std::fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("overlay")) {
        missing.push("no overlay file system in the kernel".to_owned());
    }
    if !Path::new("/dev/kmsg").exists() {
        missing.push("no /dev/kmsg, which kubelet reads".to_owned());
    }
    missing
}

/// The folder of the CNI plugins.
pub(super) fn cni_programs() -> PathBuf {
    let found = CNI_FOLDERS.into_iter().find(|folder| Path::new(folder).join("ptp").is_file());
    PathBuf::from(found.unwrap_or(CNI_FOLDERS[0]))
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
