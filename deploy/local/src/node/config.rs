//! What the programs of a node are told.

use std::path::Path;

/// The node's address, and the API server's on it. 198.18.0.0/15 is for tests of networks (RFC 2544): nothing real is there.
pub(crate) const NODE_ADDRESS: &str = "198.18.0.1";
pub(crate) const SERVICE_RANGE: &str = "198.18.128.0/24";
/// The first of these: the Service `kubernetes`.
const API_SERVICE: &str = "198.18.128.1";
const POD_RANGE: &str = "198.18.1.0/24";
pub(crate) const NODE_NAME: &str = "node";
pub(crate) const SOCKET: &str = "/run/containerd/containerd.sock";
pub(crate) const PAUSE_IMAGE: &str = "localhost/pause:1";

/// The API server's public name in the sandbox. Port 443.
pub const API_NAME: &str = "api.node.test";
/// Daypass's: the Service `daypass` in the namespace `daypass`.
pub const DAYPASS_NAME: &str = "daypass.node.test";

/// Names and addresses of the API server that a node adds.
pub(crate) const API_HOSTS: [&str; 5] =
    [NODE_ADDRESS, API_SERVICE, "kubernetes.default.svc.cluster.local", API_NAME, NODE_NAME];

/// CoreDNS: the cluster's names, and the two public ones. What else is asked for is refused, not forwarded.
pub(crate) fn corefile(kubeconfig: &Path) -> String {
    format!(
        ".:53 {{
  errors
  rewrite name exact {API_NAME} kubernetes.default.svc.cluster.local answer auto
  rewrite name exact {DAYPASS_NAME} daypass.daypass.svc.cluster.local answer auto
  kubernetes cluster.local {{
    kubeconfig {} local
  }}
}}
",
        kubeconfig.display()
    )
}

/// containerd. A container may not lower its OOM score where the machine itself is a container or has no such right.
pub(crate) fn containerd(cni_programs: &Path, cni_config: &Path) -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{}"
    conf_dir = "{}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"#,
        cni_programs.display(),
        cni_config.display()
    )
}

/// The pods' network: a pair of interfaces for each, and routes. All that a pod sends passes the node's packet filter, to a pod on the same
/// node too; over a bridge it would not, and Services would not work between them.
pub(crate) fn cni() -> String {
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "pods", "plugins": [{{
  "type": "ptp",
  "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "{POD_RANGE}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}
}}]}}
"#
    )
}

/// kubelet. Nothing is evicted, and no image removed, for the sake of a disk or a memory that others fill too.
pub(crate) fn kubelet(cgroup_root: &str, ca: &Path, certificate: &Path, key: &Path) -> String {
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://{SOCKET}
cgroupDriver: cgroupfs
cgroupRoot: {cgroup_root}
failCgroupV1: false
failSwapOn: false
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: "{}"}}
authorization: {{mode: Webhook}}
tlsCertFile: "{}"
tlsPrivateKeyFile: "{}"
clusterDNS: [{NODE_ADDRESS}]
clusterDomain: cluster.local
resolvConf: ""
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {{memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}}
"#,
        ca.display(),
        certificate.display(),
        key.display()
    )
}

/// kube-proxy. The size of the machine's connection table is not its business here.
pub(crate) fn kube_proxy(kubeconfig: &Path) -> String {
    format!(
        r#"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: "{}"}}
mode: iptables
clusterCIDR: {POD_RANGE}
hostnameOverride: {NODE_NAME}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
"#,
        kubeconfig.display()
    )
}
