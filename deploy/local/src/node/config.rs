//! The configuration files of a node's programs.

use std::path::Path;

use crate::sandbox::{API_NAME, DAYPASS_NAME, NODE_ADDRESS, NODE_NAME, POD_RANGE};

pub(crate) const SOCKET: &str = "/run/containerd/containerd.sock";
pub(crate) const PAUSE_IMAGE: &str = "localhost/pause:1";

/// CoreDNS's Corefile: the cluster's names and the two public names. CoreDNS refuses all others and forwards none.
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

/// containerd's configuration. Without `restrict_oom_score_adj`, no container starts on a machine that may not lower
/// OOM scores, for example because it is a container itself.
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

/// The pods' network: one veth pair per pod, and routes. All traffic passes the node's packet filter, even between two
/// pods. Over a bridge it would not, and Services would not work between pods.
pub(crate) fn cni() -> String {
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "pods", "plugins": [{{
  "type": "ptp",
  "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "{POD_RANGE}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}
}}]}}
"#
    )
}

/// kubelet's configuration. It evicts no pod and removes no image, since other programs also fill this machine's disk
/// and memory.
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
evictionHard:
  memory.available: "0%"
  nodefs.available: "0%"
  nodefs.inodesFree: "0%"
  imagefs.available: "0%"
  imagefs.inodesFree: "0%"
"#,
        ca.display(),
        certificate.display(),
        key.display()
    )
}

/// kube-proxy's configuration. It leaves the size of the machine's connection table alone.
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
