//! The gateway, with a real kubectl, with other clients and with hand-written requests.

mod answers;
mod broken_off;
mod causes;
mod clients;
mod clock;
mod limits;
mod own_host;
mod proxied;
mod readers;
mod refusals;
mod requests;
mod streams;
mod trust;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::support::{Cluster, Daypass, Http, NewMember, Role, eventually};

/// Two replicas beside the shared one, whose kubeconfigs point at the first.
struct Gateways {
    cluster: &'static Cluster,
    first: Daypass,
    second: Daypass,
}

impl Gateways {
    fn shared() -> &'static Self {
        static SHARED: OnceLock<Gateways> = OnceLock::new();
        SHARED.get_or_init(|| {
            // The shared one leads.
            let (cluster, _) = Cluster::shared();
            let start = || Daypass::with_args(cluster, &["--kubeconfig-mode=gateway", "--gateway-audit=all"]);
            Self { cluster, first: start(), second: start() }
        })
    }

    /// A role whose members may read and change ConfigMaps in `default` and see pods.
    fn role(&self) -> Role {
        self.cluster.role(json!([
            {"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["get", "list", "watch"]},
            {
                "apiGroups": [""], "resources": ["configmaps"],
                "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
            },
        ]))
    }

    /// A role whose members may run commands in pods.
    fn executor(&self) -> Role {
        self.cluster.role(json!([
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"]},
        ]))
    }

    /// A pod in `default` for this member. With a port, it is on a node whose kubelet should listen there.
    fn pod(&self, guest: &Guest, kubelet: Option<u16>) -> String {
        let name = format!("exec-{}", guest.member.name());
        let mut spec = json!({"automountServiceAccountToken": false, "containers": [{"name": "a", "image": "a"}]});
        if let Some(port) = kubelet {
            let endpoints = json!({"kubeletEndpoint": {"Port": port}});
            let addresses = json!([{"type": "InternalIP", "address": "127.0.0.1"}]);
            self.cluster.apply(
                &json!({
                    "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                    "status": {"addresses": addresses, "daemonEndpoints": endpoints},
                })
                .to_string(),
            );
            spec["nodeName"] = json!(name);
        }
        let metadata = json!({"name": name, "namespace": "default"});
        self.cluster.create(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}));
        name
    }

    /// A member for an hour, and its kubeconfig.
    #[track_caller]
    fn member(&self, role: &Role) -> Guest {
        Guest::of(self, NewMember::new(&self.first.owner, role, 1))
    }

    /// The same for a time in seconds.
    #[track_caller]
    fn member_for(&self, role: &Role, name: &str, seconds: u32) -> Guest {
        let spec = json!({"duration": format!("{seconds}s")});
        Guest::of(self, NewMember::applied(self.cluster, &self.first, role, name, &spec))
    }
}

/// A member with a gateway kubeconfig.
struct Guest {
    member: NewMember,
    token: String,
    file: PathBuf,
    /// The same kubeconfig, through the second replica.
    elsewhere: PathBuf,
    /// A client with the kubeconfig's token, at the gateway.
    api: Http,
}

impl Guest {
    #[track_caller]
    fn of(gateways: &Gateways, member: NewMember) -> Self {
        let (cluster, text) = (gateways.cluster, member.engineer.get(&member.path("/kubeconfig")).expect(200).text);
        let parsed: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(parsed["clusters"][0]["cluster"]["server"], format!("{}/dp-1/gateway", gateways.first.url));
        let token = parsed["users"][0]["user"]["token"].as_str().unwrap().to_owned();
        assert!(token.starts_with(&format!("dpg_{}.", member.id)), "{token}");
        let api = Http::new(&format!("{}/dp-1/gateway", gateways.first.url), &cluster.serving_certificate());
        Self {
            file: cluster.save(&text),
            elsewhere: cluster.save(&text.replace(&gateways.first.url, &gateways.second.url)),
            api: api.with_token(&token),
            token,
            member,
        }
    }

    /// Its role's namespace.
    fn namespace(&self) -> String {
        format!("daypass-{}", self.member.id.split_once('.').unwrap().0)
    }

    /// Its service account's user name.
    fn username(&self) -> String {
        let (role, name) = self.member.id.split_once('.').unwrap();
        format!("system:serviceaccount:daypass-{role}:{name}")
    }
}

/// A program that runs on.
struct Running {
    child: Child,
    folder: PathBuf,
}

impl Running {
    /// kubectl with these arguments.
    fn start(cluster: &Cluster, kubeconfig: &PathBuf, args: &[&str]) -> Self {
        let mut command: Command = cluster.plane.kubectl();
        command.env("KUBECONFIG", kubeconfig).args(args);
        Self::of(cluster, command)
    }

    fn of(cluster: &Cluster, mut command: Command) -> Self {
        let folder = cluster.fresh_folder("running");
        let [out, err] = ["out", "err"].map(|name| Stdio::from(fs::File::create(folder.join(name)).unwrap()));
        let child = command.stdout(out).stderr(err).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, folder }
    }

    /// What it has printed, on both streams.
    fn output(&self) -> String {
        ["out", "err"].map(|name| fs::read_to_string(self.folder.join(name)).unwrap()).concat()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        eventually(text, || self.output().contains(text).then_some(()));
    }

    /// Waits until it ends. Returns its status and what it has printed.
    #[track_caller]
    fn ended(mut self) -> (i32, String) {
        let status = eventually("the program ends", || self.child.try_wait().unwrap());
        (status.code().unwrap_or(-1), self.output())
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A ConfigMap in `default`.
fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}})
}
