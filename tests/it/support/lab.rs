//! A control plane with the chart in it.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_local::{Chart, ControlPlane, Options, RELEASE, Tools, fresh_state_dir};
use serde_json::{Value, json};

use super::daypass::{Daypass, Launch};
use super::eventually;
use super::http::Http;

/// A control plane with the chart in it, and no Daypass but those that are started.
pub struct Lab {
    pub plane: ControlPlane,
    pub chart: Chart,
    /// The chart's rights for Daypass.
    pub kubeconfig: PathBuf,
}

/// A role namespace that a test made for itself.
#[derive(Clone)]
pub struct Role {
    pub id: String,
    pub namespace: String,
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

impl Lab {
    /// The control plane and the Daypass that all tests share which do not take anything away.
    pub fn shared() -> (&'static Self, &'static Daypass) {
        static LAB: OnceLock<Lab> = OnceLock::new();
        static DAYPASS: OnceLock<Daypass> = OnceLock::new();
        let lab = LAB.get_or_init(Self::private);
        (lab, DAYPASS.get_or_init(|| Daypass::start(lab, &Launch::default())))
    }

    /// A control plane for one test, without a Daypass.
    pub fn private() -> Self {
        Self::start(true)
    }

    /// One without the admission policies, so that a test can do in role namespaces what they refuse.
    pub fn without_walls() -> Self {
        Self::start(false)
    }

    /// One for tests that change what all roles share, each alone in it. They leave it as they found it.
    pub fn alone() -> MutexGuard<'static, Self> {
        static LAB: OnceLock<Mutex<Lab>> = OnceLock::new();
        LAB.get_or_init(|| Mutex::new(Self::private())).lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(walls: bool) -> Self {
        let state = fresh_state_dir(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
        let plane = ControlPlane::start(&Tools::find_or_build().unwrap(), &state, Options::default()).unwrap();
        keep_audit_log(&plane);
        let chart = Chart::new(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/charts/daypass"))).unwrap();
        let lab = Self { kubeconfig: state.join("daypass.kubeconfig"), plane, chart };
        // Half of a role namespace each. Only before the chart's admission policies are in force can they be made.
        lab.kubectl(&["create", "namespace", "daypass-only-named"]);
        lab.kubectl(&["create", "namespace", "only-labelled"]);
        lab.kubectl(&["label", "namespace", "only-labelled", "daypass.dev/role-id=only-labelled"]);
        let mut values = lab.values();
        values["walls"] = json!({"enabled": walls});
        lab.chart.install(&lab.plane, &values).unwrap();
        lab.chart.write_kubeconfig(&lab.plane, &lab.kubeconfig).unwrap();
        lab.kubectl(&["create", "serviceaccount", "owner", "-n", "default"]);
        lab
    }

    /// Says that a test takes away what Daypass's rights rest on, so that it is refused what the chart grants.
    pub fn expect_refusals(&self) {
        if let Some(kept) = kept_audit_log(&self.plane) {
            fs::write(kept.with_extension("refusals"), "").unwrap();
        }
    }

    /// The values that the chart was installed with.
    pub fn values(&self) -> Value {
        let owner = json!({"kind": "ServiceAccount", "namespace": "default", "name": "owner"});
        json!({
            "replicas": 0,
            "dataPlane": {"id": "dp-1", "server": self.plane.server_url()},
            "server": {"publicUrl": "https://127.0.0.1:8443"},
            "managers": [owner],
            "accessTokens": {"generateBy": [owner], "manageBy": [owner]},
        })
    }

    /// Changes the release to these values.
    pub fn upgrade(&self, values: &Value) {
        self.chart.install(&self.plane, values).unwrap();
    }

    /// A role namespace of the test's own, as the chart renders it, with these rules for its members.
    pub fn role(&self, rules: Value) -> Role {
        self.role_of(&json!({"description": "A test's", "rules": rules}))
    }

    /// One of any values (`rules`, `clusterRoles`, `namespaces` and so on).
    pub fn role_of(&self, values: &Value) -> Role {
        let id = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.apply(&self.render_role(&id, values));
        self.wait_role(&id)
    }

    /// The manifests of a role and of nothing else.
    pub fn render_role(&self, id: &str, role: &Value) -> String {
        let mut values = self.values();
        values["roles"] = json!({
            "projects-view": null, "nodes-view": null, "storage-view": null, "pods-restart": null, (id): role,
        });
        values["roles"][id]["name"] = format!("Role {id}").into();
        let templates = ["templates/roles/namespaces.yaml", "templates/roles/bindings.yaml"];
        self.chart.render(&self.plane, &values, &templates).unwrap()
    }

    /// Waits until Daypass may work in a role's namespace.
    pub fn wait_role(&self, id: &str) -> Role {
        let namespace = format!("daypass-{id}");
        self.wait_allowed(&format!("system:serviceaccount:{RELEASE}:{RELEASE}"), "create", "members", Some(&namespace));
        Role { namespace, id: id.to_owned() }
    }

    /// Waits until the API server has noticed that this user was given this right on members (in all namespaces: `None`).
    fn wait_allowed(&self, user: &str, verb: &str, resource: &str, namespace: Option<&str>) {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (resource, subresource, user) =
            (format!("{resource}.daypass.dev"), format!("--subresource={subresource}"), format!("--as={user}"));
        let place = namespace.map_or("-A".to_owned(), |name| format!("-n={name}"));
        eventually("the right is in force", || {
            self.try_kubectl(&["auth", "can-i", verb, &resource, &subresource, &user, &place])
                .status
                .success()
                .then_some(())
        });
    }

    /// A role that reads pods and namespaces.
    pub fn reader(&self) -> Role {
        self.role(json!([{"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["get", "list"]}]))
    }

    /// Runs kubectl as the administrator; panics when it fails.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        success(self.try_kubectl(args))
    }

    pub fn try_kubectl(&self, args: &[&str]) -> Output {
        self.plane.kubectl().args(args).output().unwrap()
    }

    /// Applies manifests as the administrator.
    #[track_caller]
    pub fn apply(&self, manifests: &str) -> String {
        success(self.try_apply(&[], manifests))
    }

    /// `kubectl apply` with more arguments (`--as=…`).
    pub fn try_apply(&self, args: &[&str], manifests: &str) -> Output {
        let mut command = self.plane.kubectl();
        command.args(["apply", "-f", "-"]).args(args);
        with_input(&mut command, manifests)
    }

    /// kubectl with a member's kubeconfig alone.
    pub fn kubectl_with(&self, kubeconfig: &Path, args: &[&str]) -> Output {
        let mut command: Command = self.plane.kubectl();
        command.env("KUBECONFIG", kubeconfig).args(args).output().unwrap()
    }

    /// A kubeconfig as a file.
    pub fn save(&self, kubeconfig: &str) -> PathBuf {
        let file = self.fresh_folder("kubeconfig").join("config");
        fs::write(&file, kubeconfig).unwrap();
        file
    }

    /// An object as JSON; `None` when it is not there.
    pub fn object(&self, namespace: &str, kind: &str, name: &str) -> Option<Value> {
        let output = self.try_kubectl(&["get", kind, name, "-n", namespace, "-o", "json"]);
        if output.status.success() {
            return Some(serde_json::from_slice(&output.stdout).unwrap());
        }
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("NotFound"), "{error}");
        None
    }

    /// The names of all objects of a kind in a namespace.
    pub fn names(&self, namespace: &str, kind: &str) -> Vec<String> {
        let text = self.kubectl(&["get", kind, "-n", namespace, "-o", "name"]);
        text.lines()
            .map(|line| line.split('/').next_back().unwrap().to_owned())
            .filter(|name| name != "default")
            .collect()
    }

    /// A token of a service account.
    pub fn token(&self, namespace: &str, account: &str, audience: &str) -> String {
        let audience = format!("--audience={audience}");
        let args = ["create", "token", account, "-n", namespace, "--duration=2h"];
        let args: Vec<&str> =
            if audience == "--audience=" { args.to_vec() } else { [&args[..], &[&audience]].concat() };
        self.kubectl(&args).trim().to_owned()
    }

    /// A caller with these verbs on members (and subresources) in one role, or everywhere where that is `None`.
    pub fn caller(&self, daypass: &Daypass, verbs: &[&str], resources: &[&str], role: Option<&Role>) -> Http {
        let name = format!("caller{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.kubectl(&["create", "serviceaccount", &name, "-n", "default"]);
        if !verbs.is_empty() {
            let rules = json!([{"apiGroups": ["daypass.dev"], "resources": resources, "verbs": verbs}]);
            let meta = json!({"name": name, "namespace": role.map(|role| &role.namespace)});
            let (kind, binding) =
                if role.is_some() { ("Role", "RoleBinding") } else { ("ClusterRole", "ClusterRoleBinding") };
            let group = "rbac.authorization.k8s.io";
            let version = format!("{group}/v1");
            let manifests = json!({"apiVersion": "v1", "kind": "List", "items": [
                {"apiVersion": version, "kind": kind, "metadata": meta, "rules": rules},
                {"apiVersion": version, "kind": binding, "metadata": meta,
                 "roleRef": {"apiGroup": group, "kind": kind, "name": name},
                 "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}]},
            ]});
            self.apply(&manifests.to_string());
            let (user, namespace) =
                (format!("system:serviceaccount:default:{name}"), role.map(|role| &*role.namespace));
            self.wait_allowed(&user, verbs[0], resources[0], namespace);
        }
        daypass.owner.with_token(&self.token("default", &name, "daypass"))
    }

    /// Lets a service account make tokens of its own (`generate`), or of everybody (`manage`).
    pub fn may_make_tokens(&self, caller: &Http, privilege: &str) {
        let user = caller.username();
        let account = user.strip_prefix("system:serviceaccount:").unwrap();
        let name = format!("tokens-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let (role, subject) =
            (format!("--clusterrole=daypass-tokens-{privilege}"), format!("--serviceaccount={account}"));
        self.kubectl(&["create", "rolebinding", &name, "-n", RELEASE, &role, &subject]);
        self.wait_privilege(&user, privilege, true);
    }

    /// The certificate that Daypass serves with.
    pub fn serving_certificate(&self) -> String {
        let data = self.kubectl(&["get", "secret", "daypass-tls", "-n", "daypass", "-o", r"jsonpath={.data.tls\.crt}"]);
        String::from_utf8(STANDARD.decode(data).unwrap()).unwrap()
    }

    pub fn fresh_folder(&self, name: &str) -> PathBuf {
        let folder = self.plane.state_dir().join(format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&folder).unwrap();
        folder
    }
}

/// Where the API server's audit log outlives its control plane, for the check of Daypass's rights after all tests (`make test`).
fn kept_audit_log(plane: &ControlPlane) -> Option<PathBuf> {
    let name = plane.state_dir().file_name().unwrap();
    Some(PathBuf::from(env::var_os("DAYPASS_AUDIT_LOGS")?).join(name).with_extension("log"))
}

fn keep_audit_log(plane: &ControlPlane) {
    if let Some(kept) = kept_audit_log(plane) {
        fs::create_dir_all(kept.parent().unwrap()).unwrap();
        fs::hard_link(plane.audit_log(), kept).unwrap();
    }
}

fn with_input(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn success(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
