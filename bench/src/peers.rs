//! What the gateway is measured beside: the API server itself, `kubectl proxy`, and small programs around the cores
//! that other proxies are made of. All of them serve one member.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_local::{Component, Process, RELEASE, write_private};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Daypass, cpu, eventually, memory};
use crate::gateway::Member;
use crate::http::Http;

/// The subjects' names, in their order. The first is the reference.
pub(crate) const API_SERVER: &str = "API server";
pub(crate) const GATEWAY: &str = "gateway";
const KUBECTL_PROXY: &str = "kubectl proxy";
/// The others' names, and their arguments.
const CORES: [(&str, &str); 2] = [("UpgradeAwareHandler", "upgrade-aware"), ("ReverseProxy", "reverse-proxy")];

const START: Duration = Duration::from_secs(30);

/// Where the same requests can be sent.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) base: String,
    /// The certificate that it is trusted for; without one it speaks HTTP.
    certificate: Option<String>,
    token: String,
    pid: u32,
}

impl Subject {
    /// The gateway, for this member.
    pub(crate) fn gateway(daypass: &Daypass, member: &Member) -> Self {
        Self {
            name: GATEWAY,
            base: member.server.clone(),
            certificate: Some(member.certificate.clone()),
            token: member.token.clone(),
            pid: daypass.pid(),
        }
    }

    /// A new connection.
    pub(crate) fn client(&self) -> Result<Http> {
        match &self.certificate {
            Some(certificate) => Http::kubectl(&self.base, certificate, &self.token),
            None => Http::plain(&self.base, None),
        }
    }

    /// Its CPU time so far, in seconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        cpu(self.pid)
    }

    /// Its resident memory, in MiB.
    pub(crate) fn memory(&self) -> Result<f64> {
        memory(self.pid)
    }

    /// Writes a kubeconfig for it, mode 0600.
    pub(crate) fn write_kubeconfig(&self, path: &Path) -> Result<()> {
        let mut cluster = json!({"server": self.base});
        if let Some(certificate) = &self.certificate {
            cluster["certificate-authority-data"] = STANDARD.encode(certificate).into();
        }
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": cluster}],
            "users": [{"name": "it", "user": {"token": self.token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        });
        write_private(path, &kubeconfig.to_string())
    }
}

/// All of them, running.
pub(crate) struct Subjects {
    pub(crate) all: Vec<Subject>,
    /// They are killed with it.
    processes: Vec<Process>,
}

impl Subjects {
    /// Starts those that do not run yet. Without `peers`, the program of the cores, these are left out.
    pub(crate) fn start(cluster: &Cluster, daypass: &Daypass, member: &Member, peers: Option<&Path>) -> Result<Self> {
        let plane = &cluster.plane;
        let (token, bearer) = (member.direct_token(cluster)?, member.token.clone());
        let folder = plane.state_dir().join("peers");
        fs::create_dir(&folder)?;
        let own = folder.join("member.kubeconfig");
        plane.write_token_kubeconfig(&own, &token)?;

        let server = Subject {
            name: API_SERVER,
            base: plane.server_url(),
            certificate: Some(plane.ca_pem().to_owned()),
            token,
            pid: plane.pid(Component::ApiServer).context("the API server does not run")?,
        };
        let gateway = Subject::gateway(daypass, member);
        let mut subjects = Self { all: vec![server, gateway], processes: Vec::new() };

        let mut kubectl = plane.guarded(&plane.tools().kubectl());
        kubectl.args(["proxy", "--port=0", "--disable-filter", "--kubeconfig"]).arg(&own);
        kubectl.env("KUBECACHEDIR", folder.join("cache"));
        let (port, pid) = subjects.launch(cluster, KUBECTL_PROXY, kubectl, "127.0.0.1:")?;
        let base = format!("http://127.0.0.1:{port}");
        subjects.all.push(Subject { name: KUBECTL_PROXY, base, certificate: None, token: bearer.clone(), pid });

        let Some(program) = peers else { return Ok(subjects) };
        let impersonating = folder.join("peer.kubeconfig");
        write_private(&impersonating, &impersonator(cluster, member, &folder)?)?;
        for file in ["tls.crt", "tls.key"] {
            write_private(&folder.join(file), &secret(cluster, file)?)?;
        }
        write_private(&folder.join("token"), &bearer)?;
        let kubeconfigs = [own, impersonating];
        for ((name, argument), kubeconfig) in CORES.into_iter().zip(kubeconfigs) {
            let mut command = plane.guarded(program);
            command.arg(argument).arg(kubeconfig).arg(&folder);
            let (port, pid) = subjects.launch(cluster, name, command, "port ")?;
            let (base, certificate) = (format!("https://127.0.0.1:{port}"), Some(member.certificate.clone()));
            subjects.all.push(Subject { name, base, certificate, token: bearer.clone(), pid });
        }
        Ok(subjects)
    }

    /// Starts a program that prints its port after `before`.
    fn launch(&mut self, cluster: &Cluster, name: &'static str, command: Command, before: &str) -> Result<(u16, u32)> {
        let log = cluster.plane.log(&name.replace(' ', "-").to_lowercase());
        let mut process = Process::start(name, command, &log, None)?;
        let mut port = None;
        eventually(name, Instant::now() + START, || {
            process.ensure_alive()?;
            let printed = fs::read_to_string(&log)?;
            port = printed.lines().find_map(|line| line.rsplit_once(before)?.1.parse().ok());
            Ok(port.is_some() && printed.ends_with('\n'))
        })?;
        let pid = process.id();
        self.processes.push(process);
        Ok((port.context("no port")?, pid))
    }
}

/// A kubeconfig of somebody who may impersonate everybody, as the member's service account.
fn impersonator(cluster: &Cluster, member: &Member, folder: &Path) -> Result<String> {
    cluster.kubectl(&["create", "serviceaccount", "peer", "-n", "default"])?;
    let role = ["create", "clusterrole", "peer", "--verb=impersonate", "--resource=users,groups,serviceaccounts"];
    cluster.kubectl(&role)?;
    cluster.kubectl(&[
        "create",
        "clusterrolebinding",
        "peer",
        "--clusterrole=peer",
        "--serviceaccount=default:peer",
    ])?;
    let token = cluster.kubectl(&["create", "token", "peer", "-n", "default", "--duration=24h"])?;
    let file = folder.join("token.kubeconfig");
    cluster.plane.write_token_kubeconfig(&file, &token)?;
    let mut kubeconfig: Value = serde_yaml::from_str(&fs::read_to_string(&file)?)?;
    let (namespace, name) = member.account()?;
    let user = &mut kubeconfig["users"][0]["user"];
    user["as"] = format!("system:serviceaccount:{namespace}:{name}").into();
    let groups = format!("system:serviceaccounts:{namespace}");
    user["as-groups"] = json!(["system:serviceaccounts", groups, "system:authenticated"]);
    Ok(kubeconfig.to_string())
}

/// A part of the Secret with Daypass's certificate, which all of them serve with.
fn secret(cluster: &Cluster, part: &str) -> Result<String> {
    let path = format!("jsonpath={{.data.{}}}", part.replace('.', "\\."));
    let data = cluster.kubectl(&["get", "secret", "daypass-tls", "-n", RELEASE, "-o", &path])?;
    Ok(String::from_utf8(STANDARD.decode(data)?)?)
}
