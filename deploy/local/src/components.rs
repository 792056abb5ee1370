//! The three programs of a control plane and their flags.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use crate::kubeconfig::{self, Identity};
use crate::pki::{Pair, Pki};
use crate::state::write_private;

/// One program of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// The store.
    Etcd,
    /// The API server.
    ApiServer,
    /// Garbage collection, quotas, default service accounts and the like.
    ControllerManager,
}

impl Component {
    /// Name of its program and of its log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
        }
    }
}

/// The audit log answers "which calls were made, by whom": request and response bodies would put secrets on disk.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n";

/// What the flags are made of.
pub(crate) struct Setup {
    dir: PathBuf,
    pub(crate) pki: Pki,
    pub(crate) etcd_port: u16,
    pub(crate) apiserver_port: u16,
    /// What a node asks of the API server, whatever else it is told.
    pub(crate) node_args: Vec<String>,
    apiserver_args: Mutex<Vec<String>>,
}

impl Setup {
    pub(crate) fn new(dir: &Path, apiserver_args: Vec<String>, hosts: &[&str]) -> Result<Self> {
        let pki = Pki::create(&dir.join("pki"), hosts)?;
        write_private(&dir.join("audit-policy.yaml"), AUDIT_POLICY)?;
        let apiserver_args = Mutex::new(apiserver_args);
        let (dir, node_args) = (dir.to_owned(), Vec::new());
        Ok(Self { dir, pki, etcd_port: 0, apiserver_port: 0, node_args, apiserver_args })
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

    /// Both kubeconfigs; again whenever the API server's port changes.
    pub(crate) fn write_kubeconfigs(&self) -> Result<()> {
        let write = |path: &Path, identity| kubeconfig::write(path, &self.server_url(), &self.pki.ca_pem, &identity);
        write(&self.admin_kubeconfig(), Identity::Certificate(&self.pki.admin))?;
        write(&self.controller_manager_kubeconfig(), Identity::Certificate(&self.pki.controller_manager))
    }

    pub(crate) fn args(&self, component: Component) -> Vec<String> {
        match component {
            Component::Etcd => self.etcd(),
            Component::ApiServer => self.apiserver(),
            Component::ControllerManager => self.controller_manager(),
        }
    }

    fn etcd(&self) -> Vec<String> {
        let Pair { cert, key } = &self.pki.etcd;
        let url = format!("https://127.0.0.1:{}", self.etcd_port);
        let mut flags = Flags::default();
        flags.path("data-dir", &self.dir.join("etcd"));
        flags.text("listen-client-urls", &url).text("advertise-client-urls", &url);
        // There is no peer, so any port will do and nobody needs to know it.
        flags.text("listen-peer-urls", "https://127.0.0.1:0");
        for prefix in ["", "peer-"] {
            flags.path(&format!("{prefix}cert-file"), cert).path(&format!("{prefix}key-file"), key);
            flags
                .path(&format!("{prefix}trusted-ca-file"), &self.pki.ca.cert)
                .text(&format!("{prefix}client-cert-auth"), "true");
        }
        // The data is thrown away with the control plane: it need not survive a power cut.
        flags.text("unsafe-no-fsync", "true").text("logger", "zap").text("log-level", "warn");
        flags.0
    }

    fn apiserver(&self) -> Vec<String> {
        let mut flags = Flags::default();
        flags.text("etcd-servers", &format!("https://127.0.0.1:{}", self.etcd_port));
        flags.path("etcd-cafile", &self.pki.ca.cert);
        flags.path("etcd-certfile", &self.pki.etcd_client.cert).path("etcd-keyfile", &self.pki.etcd_client.key);
        flags.text("bind-address", "127.0.0.1").text("secure-port", &self.apiserver_port.to_string());
        flags.text("advertise-address", "127.0.0.1").text("endpoint-reconciler-type", "none");
        flags.text("service-cluster-ip-range", "10.0.0.0/24");
        flags.path("tls-cert-file", &self.pki.apiserver.cert).path("tls-private-key-file", &self.pki.apiserver.key);
        flags.path("client-ca-file", &self.pki.ca.cert);
        let more = self.apiserver_args.lock().unwrap_or_else(PoisonError::into_inner);
        // Given twice, it is a longer list, and RBAC its first.
        if !more.iter().any(|arg| arg.starts_with("--authorization-mode=")) {
            flags.text("authorization-mode", "RBAC");
        }
        // The first of several is the one that signs.
        if !more.iter().any(|arg| arg.starts_with("--service-account-issuer=")) {
            flags.text("service-account-issuer", "https://kubernetes.default.svc");
        }
        flags.path("service-account-signing-key-file", &self.pki.service_account_key);
        flags.path("service-account-key-file", &self.pki.service_account_public);
        flags.path("audit-policy-file", &self.dir.join("audit-policy.yaml")).path("audit-log-path", &self.audit_log());
        // Megabytes: one file, however long it runs.
        flags.text("audit-log-maxsize", "100000");
        flags.0.extend(self.node_args.iter().chain(more.iter()).cloned());
        flags.0
    }

    fn controller_manager(&self) -> Vec<String> {
        let mut flags = Flags::default();
        flags.path("kubeconfig", &self.controller_manager_kubeconfig()).text("controllers", "*");
        flags.text("use-service-account-credentials", "true").text("leader-elect", "false");
        flags.path("root-ca-file", &self.pki.ca.cert);
        flags.path("service-account-private-key-file", &self.pki.service_account_key);
        flags.path("cluster-signing-cert-file", &self.pki.ca.cert).path("cluster-signing-key-file", &self.pki.ca.key);
        // It serves nothing but probes and metrics, which nobody reads here.
        flags.text("secure-port", "0").text("profiling", "false");
        // Tests make and delete namespaces by the dozen.
        flags.text("kube-api-qps", "200").text("kube-api-burst", "400");
        flags.0
    }
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
