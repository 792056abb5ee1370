//! The three components of a control plane, and the flags that they start with.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use crate::kubeconfig::{self, Identity};
use crate::pki::{CertFiles, Pki};
use crate::sandbox::{API_HOSTS, NODE_ADDRESS, SERVICE_RANGE};
use crate::state::write_private;

/// One program of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// The data store.
    Etcd,
    /// The API server.
    ApiServer,
    /// Runs garbage collection, counts quotas, and makes each namespace's default ServiceAccount.
    ControllerManager,
}

impl Component {
    /// The name of its program and of its log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
        }
    }
}

/// Logs who made which call. Any higher level logs request and response bodies, and would write secrets to disk.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n";

/// The paths, ports, certificates and extra flags of one control plane.
pub(crate) struct PlaneConfig {
    dir: PathBuf,
    pub(crate) pki: Pki,
    pub(crate) etcd_port: u16,
    pub(crate) apiserver_port: u16,
    /// The API server's flags for a node. Empty without a sandbox.
    node_args: Vec<String>,
    apiserver_args: Mutex<Vec<String>>,
}

impl PlaneConfig {
    /// With `sandbox`, a node can join the control plane.
    pub(crate) fn new(dir: &Path, apiserver_args: Vec<String>, sandbox: bool) -> Result<Self> {
        let pki = Pki::create(&dir.join("pki"), if sandbox { &API_HOSTS } else { &[] })?;
        let node_args = if sandbox { node_args(&pki)? } else { Vec::new() };
        write_private(&dir.join("audit-policy.yaml"), AUDIT_POLICY)?;
        let apiserver_args = Mutex::new(apiserver_args);
        Ok(Self { dir: dir.to_owned(), pki, etcd_port: 0, apiserver_port: 0, node_args, apiserver_args })
    }

    pub(crate) fn set_apiserver_args(&self, args: Vec<String>) {
        *self.apiserver_args.lock().unwrap_or_else(PoisonError::into_inner) = args;
    }

    pub(crate) fn server_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.apiserver_port)
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    pub(crate) fn audit_log(&self) -> PathBuf {
        self.log("kube-apiserver-audit")
    }

    pub(crate) fn admin_kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    fn controller_manager_kubeconfig(&self) -> PathBuf {
        self.dir.join("controller-manager.kubeconfig")
    }

    /// Writes both kubeconfigs. Call this again whenever the API server's port changes.
    pub(crate) fn write_kubeconfigs(&self) -> Result<()> {
        let write = |path: &Path, identity| kubeconfig::write(path, &self.server_url(), &self.pki.ca_pem, &identity);
        write(&self.admin_kubeconfig(), Identity::Certificate(&self.pki.admin))?;
        write(&self.controller_manager_kubeconfig(), Identity::Certificate(&self.pki.controller_manager))
    }

    /// The flags that `component` starts with.
    pub(crate) fn args(&self, component: Component) -> Vec<String> {
        match component {
            Component::Etcd => self.etcd_args(),
            Component::ApiServer => self.apiserver_args(),
            Component::ControllerManager => self.controller_manager_args(),
        }
    }

    fn etcd_args(&self) -> Vec<String> {
        let CertFiles { cert, key } = &self.pki.etcd;
        let url = format!("https://127.0.0.1:{}", self.etcd_port);
        let mut flags = Flags::default();
        flags.path("data-dir", &self.dir.join("etcd"));
        flags.text("listen-client-urls", &url).text("advertise-client-urls", &url);
        // There is no peer, so any port will do.
        flags.text("listen-peer-urls", "https://127.0.0.1:0");
        for prefix in ["", "peer-"] {
            flags.path(&format!("{prefix}cert-file"), cert).path(&format!("{prefix}key-file"), key);
            flags
                .path(&format!("{prefix}trusted-ca-file"), &self.pki.ca.cert)
                .text(&format!("{prefix}client-cert-auth"), "true");
        }
        // The data does not outlive the control plane, so it need not survive a power cut.
        flags.text("unsafe-no-fsync", "true").text("logger", "zap").text("log-level", "warn");
        flags.0
    }

    fn apiserver_args(&self) -> Vec<String> {
        let mut flags = Flags::default();
        flags.text("etcd-servers", &format!("https://127.0.0.1:{}", self.etcd_port));
        flags.path("etcd-cafile", &self.pki.ca.cert);
        flags.path("etcd-certfile", &self.pki.etcd_client.cert).path("etcd-keyfile", &self.pki.etcd_client.key);
        flags.text("bind-address", "127.0.0.1").text("secure-port", &self.apiserver_port.to_string());
        flags.text("advertise-address", "127.0.0.1").text("endpoint-reconciler-type", "none");
        flags.text("service-cluster-ip-range", "10.0.0.0/24");
        flags.path("tls-cert-file", &self.pki.apiserver.cert).path("tls-private-key-file", &self.pki.apiserver.key);
        flags.path("client-ca-file", &self.pki.ca.cert);
        let extra = self.apiserver_args.lock().unwrap_or_else(PoisonError::into_inner);
        // The API server concatenates repeated flags of this kind, so RBAC would stay the first authorizer. It refuses
        // this flag beside a file that lists the authorizers.
        if !extra
            .iter()
            .any(|arg| arg.starts_with("--authorization-mode=") || arg.starts_with("--authorization-config="))
        {
            flags.text("authorization-mode", "RBAC");
        }
        // The first issuer signs.
        if !extra.iter().any(|arg| arg.starts_with("--service-account-issuer=")) {
            flags.text("service-account-issuer", "https://kubernetes.default.svc");
        }
        flags.path("service-account-signing-key-file", &self.pki.service_account_key);
        flags.path("service-account-key-file", &self.pki.service_account_public);
        flags.path("audit-policy-file", &self.dir.join("audit-policy.yaml")).path("audit-log-path", &self.audit_log());
        // In megabytes: large enough never to rotate, since the tests read a single file.
        flags.text("audit-log-maxsize", "100000");
        flags.0.extend(self.node_args.iter().chain(extra.iter()).cloned());
        flags.0
    }

    fn controller_manager_args(&self) -> Vec<String> {
        let mut flags = Flags::default();
        flags.path("kubeconfig", &self.controller_manager_kubeconfig()).text("controllers", "*");
        flags.text("use-service-account-credentials", "true").text("leader-elect", "false");
        flags.path("root-ca-file", &self.pki.ca.cert);
        flags.path("service-account-private-key-file", &self.pki.service_account_key);
        flags.path("cluster-signing-cert-file", &self.pki.ca.cert).path("cluster-signing-key-file", &self.pki.ca.key);
        // It serves only probes and metrics, and nothing here reads them.
        flags.text("secure-port", "0").text("profiling", "false");
        // Tests create and delete namespaces by the dozen.
        flags.text("kube-api-qps", "200").text("kube-api-burst", "400");
        flags.0
    }
}

/// The API server's flags that let a node join, and the certificate that they name.
fn node_args(pki: &Pki) -> Result<Vec<String>> {
    // The API server's identity when it calls kubelet for logs and exec. kubelet asks the API server to authorize it.
    let client =
        pki.write_cert("apiserver-kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters"), &[])?;
    Ok(vec![
        "--bind-address=0.0.0.0".to_owned(),
        format!("--advertise-address={NODE_ADDRESS}"),
        "--endpoint-reconciler-type=lease".to_owned(),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        // In addition to RBAC: the API server concatenates repeated flags of this kind.
        "--authorization-mode=Node".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--kubelet-certificate-authority={}", pki.ca.cert.display()),
        format!("--kubelet-client-certificate={}", client.cert.display()),
        format!("--kubelet-client-key={}", client.key.display()),
    ])
}

#[derive(Default)]
struct Flags(Vec<String>);

impl Flags {
    fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.0.push(format!("--{name}={value}"));
        self
    }

    fn path(&mut self, name: &str, value: &Path) -> &mut Self {
        self.text(name, &value.display().to_string())
    }
}
