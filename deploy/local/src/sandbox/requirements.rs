//! Checks whether this machine can run a node.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cgroups;

/// The folders that distributions install the CNI plugins to.
const CNI_FOLDERS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// The programs that a node needs, and their Debian packages.
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

/// Lists what this machine lacks to run a node, as text for people. Empty if it can run one.
pub fn missing() -> Vec<String> {
    if !cfg!(target_os = "linux") {
        return vec!["a node needs Linux".to_owned()];
    }
    let mut missing: Vec<String> = PROGRAMS
        .into_iter()
        .filter(|(program, _)| !is_installed(program))
        .map(|(program, package)| format!("no {program} (Debian: apt-get install {package})"))
        .collect();
    if !cni_programs().join("ptp").is_file() {
        missing.push("no CNI plugins (Debian: apt-get install containernetworking-plugins)".to_owned());
    }
    let trial = ["--net", "--mount", "--pid", "--fork", "--", "true"];
    if is_installed("unshare") && !succeeds(Command::new("unshare").args(trial)) {
        missing.push("no permission to create namespaces: run as root".to_owned());
    }
    if !cgroups::can_create() {
        missing.push("no permission to create cgroups: run as root, with a writable /sys/fs/cgroup".to_owned());
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
pub(crate) fn cni_programs() -> PathBuf {
    let found = CNI_FOLDERS.into_iter().find(|folder| Path::new(folder).join("ptp").is_file());
    PathBuf::from(found.unwrap_or(CNI_FOLDERS[0]))
}

fn is_installed(program: &str) -> bool {
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
