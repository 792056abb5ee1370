//! OpenBao's Kubernetes engine: a lease is a generated service account with its binding and a token.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use daypass_local::{Process, free_port, guarded};
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually};
use crate::http::Http;
use crate::operations::{Operation, Stock, Subject};

const NAMESPACE: &str = "openbao";
const ROOT_TOKEN: &str = "bench";
const START: Duration = Duration::from_secs(30);
const LEASES: &str = "kubernetes/creds/view";

/// A server in memory, without TLS, in the cluster of the others.
pub(crate) struct OpenBao {
    _process: Process,
    http: Http,
    leases: Stock<String>,
}

impl OpenBao {
    /// Starts it and returns its version, too.
    pub(crate) fn start(program: &Path, cluster: &Cluster) -> Result<(Self, String)> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = guarded(program);
        command.args(["server", "-dev", "-dev-no-store-token", &format!("-dev-listen-address={address}")]);
        command.arg(format!("-dev-root-token-id={ROOT_TOKEN}")).env("HOME", cluster.plane.state_dir());
        let process = Process::start("openbao", command, &cluster.plane.log("openbao"), None)?;
        let http = Http::plain(&format!("http://{address}/v1"), Some(ROOT_TOKEN))?;
        eventually("OpenBao is ready", Instant::now() + START, || Ok(http.get("/sys/health").is_ok()))?;
        cluster.kubectl(&["create", "namespace", NAMESPACE])?;
        cluster.kubectl(&["create", "serviceaccount", "openbao", "-n", NAMESPACE])?;
        let subject = "--serviceaccount=openbao:openbao";
        cluster.kubectl(&["create", "clusterrolebinding", "openbao", "--clusterrole=cluster-admin", subject])?;
        let token = cluster.kubectl(&["create", "token", "openbao", "-n", NAMESPACE, "--duration=24h"])?;
        http.call("POST", "/sys/mounts/kubernetes", &json!({"type": "kubernetes"}))?;
        let config = json!({
            "kubernetes_host": cluster.plane.server_url(), "kubernetes_ca_cert": cluster.plane.ca_pem(),
            "service_account_jwt": token, "disable_local_ca_jwt": true,
        });
        http.call("POST", "/kubernetes/config", &config)?;
        let role = json!({
            "allowed_kubernetes_namespaces": [NAMESPACE], "kubernetes_role_name": "view",
            "kubernetes_role_type": "ClusterRole", "token_default_ttl": "1h", "token_max_ttl": "24h",
        });
        http.call("POST", "/kubernetes/roles/view", &role)?;
        let version = http.get("/sys/health")?["version"].as_str().context("no version")?.to_owned();
        Ok((Self { _process: process, http, leases: Stock::default() }, version))
    }

    /// Creates a lease. Returns its id and the name of its service account.
    pub(crate) fn create(&self) -> Result<(String, String)> {
        let answer = self.http.call("POST", &format!("/{LEASES}"), &json!({"kubernetes_namespace": NAMESPACE}))?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("no lease");
        Ok((text(&answer["lease_id"])?, text(&answer["data"]["service_account_name"])?))
    }

    /// Orders it to revoke all leases, and does not wait for it.
    pub(crate) fn revoke_all(&self) -> Result<()> {
        self.http.call("POST", &format!("/sys/leases/revoke-prefix/{LEASES}"), &json!({"sync": false})).map(drop)
    }
}

impl Subject for OpenBao {
    fn name(&self) -> &'static str {
        "OpenBao"
    }

    fn call(&self, operation: Operation) -> Result<()> {
        match operation {
            Operation::Create => self.leases.put(self.create()?.0),
            // Its lease comes with a token.
            Operation::Kubeconfig => {}
            Operation::List => drop(self.http.get(&format!("/sys/leases/lookup/{LEASES}?list=true"))?),
            Operation::Delete => {
                let body = json!({"lease_id": self.leases.take()?, "sync": true});
                self.http.call("POST", "/sys/leases/revoke", &body)?;
            }
        }
        Ok(())
    }

    fn live(&self) -> usize {
        self.leases.len()
    }

    fn is_slow(&self) -> bool {
        true
    }

    fn can(&self, operation: Operation) -> bool {
        operation != Operation::Kubeconfig
    }
}
