//! A control plane with the chart installed.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_local::{Chart, ControlPlane, Options, RELEASE, Tools, fresh_state_dir};
use serde_json::{Value, json};

use super::api::{Api, collection};
use super::daypass::{Daypass, Launch};
use super::http::{Answer, Http};
use super::{DAYPASS, Pool, PoolGuard, eventually};

/// A control plane with the chart installed. Daypass runs in it only where a test starts one.
pub struct Cluster {
    pub plane: ControlPlane,
    pub chart: Chart,
    /// Whether that is the chart of this version. The one before knows no modes.
    is_current: bool,
    /// A kubeconfig with the rights that the chart grants to Daypass.
    pub kubeconfig: PathBuf,
    pub api: Api,
    /// Rendered manifests by a role's values. Rendering starts a helm process.
    rendered: Mutex<HashMap<String, String>>,
    /// Roles made in advance, for a cluster that cannot make namespaces later.
    pub(super) spare_roles: Mutex<Vec<Role>>,
}

/// A role namespace that belongs to one test.
#[derive(Clone)]
pub struct Role {
    pub id: String,
    pub namespace: String,
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The chart that this version of Daypass installs.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/charts/daypass");

/// Stands for the id in rendered manifests.
const PLACEHOLDER: &str = "role-placeholder";

impl Cluster {
    /// The cluster and the Daypass that most tests share. They work in roles and with callers of their own and change
    /// nothing else.
    pub fn shared() -> (&'static Self, &'static Daypass) {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        static DAYPASS: OnceLock<Daypass> = OnceLock::new();
        let cluster = CLUSTER.get_or_init(Self::own);
        (cluster, DAYPASS.get_or_init(|| Daypass::start(cluster, &Launch::default())))
    }

    /// A cluster for tests that change what all roles share. There are two, and one test at a time uses each. A test
    /// stops its Daypass and restores what it changed.
    pub fn exclusive() -> PoolGuard<Self> {
        static POOL: Pool<Cluster> = Pool::new(2);
        POOL.take(Self::own)
    }

    /// A new cluster for one test that nobody else could use afterwards. It costs ten seconds of CPU time.
    pub fn own() -> Self {
        Self::start(Path::new(CHART), true)
    }

    /// Like [`Cluster::own`], without the admission policies: the test does what they refuse.
    pub fn own_without_walls() -> Self {
        Self::start(Path::new(CHART), false)
    }

    /// Like [`Cluster::own`], with another chart.
    pub fn of_chart(chart: &Path) -> Self {
        Self::start(chart, true)
    }

    fn start(chart: &Path, walls: bool) -> Self {
        let state = fresh_state_dir(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
        let plane = ControlPlane::start(&Tools::find_or_build().unwrap(), &state, Options::default()).unwrap();
        keep_audit_log(&plane);
        let is_current = chart == Path::new(CHART);
        let chart = Chart::new(chart).unwrap();
        let (rendered, spare_roles) = (Mutex::default(), Mutex::default());
        let kubeconfig = state.join("daypass.kubeconfig");
        let cluster = Self { kubeconfig, api: Api::new(&plane), plane, chart, is_current, rendered, spare_roles };
        // Each has half of what makes a role namespace. The chart's admission policies refuse both.
        for (name, labels) in
            [("daypass-only-named", json!({})), ("only-labelled", json!({"daypass.dev/role-id": "only-labelled"}))]
        {
            let metadata = json!({"name": name, "labels": labels});
            cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}));
        }
        let mut values = cluster.values();
        values["walls"] = json!({"enabled": walls});
        cluster.chart.install(&cluster.plane, &values).unwrap();
        cluster.chart.write_kubeconfig(&cluster.plane, &cluster.kubeconfig).unwrap();
        cluster.create(&service_account("owner"));
        cluster
    }

    /// Declares that a test takes rights away from Daypass, so that the API server refuses what the chart grants.
    pub fn expect_refusals(&self) {
        if let Some(kept) = kept_audit_log(&self.plane) {
            fs::write(kept.with_extension("refusals"), "").unwrap();
        }
    }

    /// The values that the chart was installed with.
    pub fn values(&self) -> Value {
        let owner = json!({"kind": "ServiceAccount", "namespace": "default", "name": "owner"});
        let mut values = json!({
            "replicas": 0,
            "dataPlane": {"id": "dp-1", "server": self.plane.server_url()},
            "server": {"publicUrl": "https://127.0.0.1:8443"},
            "managers": [owner],
            "accessTokens": {"generateBy": [owner], "manageBy": [owner]},
        });
        if self.is_current {
            // The rights for either; a Daypass gets its mode when it starts.
            values["kubeconfig"] = json!({"mode": "both"});
        }
        values
    }

    /// Changes the release to these values.
    pub fn upgrade(&self, values: &Value) {
        self.chart.install(&self.plane, values).unwrap();
    }

    /// A role namespace for one test, as the chart renders it, whose members have these RBAC rules.
    pub fn role(&self, rules: Value) -> Role {
        self.role_of(&json!({"description": "A test's", "rules": rules}))
    }

    /// A role with any values of the chart (`rules`, `clusterRoles`, `namespaces`, …).
    pub fn role_of(&self, values: &Value) -> Role {
        let id = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let key = values.to_string();
        let cached = self.rendered.lock().unwrap().get(&key).cloned();
        let manifests = cached.unwrap_or_else(|| self.render_role(PLACEHOLDER, values));
        for object in serde_yaml::from_multiple::<Value>(&manifests.replace(PLACEHOLDER, &id)).unwrap() {
            if !object.is_null() {
                self.create(&object);
            }
        }
        self.rendered.lock().unwrap().insert(key, manifests);
        self.wait_role(&id)
    }

    /// The manifests of one role.
    pub fn render_role(&self, id: &str, role: &Value) -> String {
        let mut values = self.values();
        values["roles"] = json!({
            "projects-view": null, "nodes-view": null, "storage-view": null, "pods-restart": null, (id): role,
        });
        values["roles"][id]["name"] = format!("Role {id}").into();
        let templates = ["templates/roles/namespaces.yaml", "templates/roles/bindings.yaml"];
        self.chart.render(&self.plane, &values, &templates).unwrap()
    }

    /// Waits until members can be created in a role's namespace.
    pub fn wait_role(&self, id: &str) -> Role {
        let namespace = format!("daypass-{id}");
        self.wait_allowed(DAYPASS, "create", "members", Some(&namespace));
        // Until its quota is counted, the API server refuses every Member.
        eventually("the quota is counted", || {
            let quota = self.object(&namespace, "resourcequota", "daypass");
            quota.is_none_or(|it| it["status"]["used"]["count/members.daypass.dev"].is_string()).then_some(())
        });
        Role { namespace, id: id.to_owned() }
    }

    /// Waits until the API server's authorizer knows that a user has a right on a resource of Daypass's; in all
    /// namespaces for `None`.
    fn wait_allowed(&self, user: &str, verb: &str, resource: &str, namespace: Option<&str>) {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes = json!({
            "group": "daypass.dev", "resource": resource, "subresource": subresource, "verb": verb,
            "namespace": namespace.unwrap_or_default(),
        });
        eventually("the right is in force", || self.api.allows(user, &attributes).then_some(()));
    }

    /// A role that reads pods and namespaces.
    pub fn reader(&self) -> Role {
        if let Some(role) = self.spare_roles.lock().unwrap().pop() {
            return role;
        }
        self.role(json!([{"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["get", "list"]}]))
    }

    /// Creates an object.
    #[track_caller]
    pub fn create(&self, object: &Value) -> Value {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let path = collection(namespace, object["kind"].as_str().unwrap());
        self.api.post(&path, object).expect(201).json()
    }

    /// Deletes a namespace and waits until it is gone.
    pub fn delete_namespace(&self, name: &str) {
        self.kubectl(&["delete", "namespace", name, "--wait=false"]);
        eventually("the namespace is gone", || self.object("", "namespace", name).is_none().then_some(()));
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

    /// Runs `kubectl apply` with more arguments (`--as=…`).
    pub fn try_apply(&self, args: &[&str], manifests: &str) -> Output {
        let mut command = self.plane.kubectl();
        command.args(["apply", "-f", "-"]).args(args);
        with_input(&mut command, manifests)
    }

    /// Runs kubectl with a member's kubeconfig.
    pub fn kubectl_with(&self, kubeconfig: &Path, args: &[&str]) -> Output {
        let mut command: Command = self.plane.kubectl();
        command.env("KUBECONFIG", kubeconfig).args(args).output().unwrap()
    }

    /// Writes a text, such as a kubeconfig, into a new file.
    pub fn save(&self, kubeconfig: &str) -> PathBuf {
        let file = self.fresh_folder("kubeconfig").join("config");
        fs::write(&file, kubeconfig).unwrap();
        file
    }

    /// An object as JSON; `None` when it does not exist.
    #[track_caller]
    pub fn object(&self, namespace: &str, kind: &str, name: &str) -> Option<Value> {
        let answer = self.api.get(&format!("{}/{name}", collection(namespace, kind)));
        if answer.status == 404 {
            return None;
        }
        Some(self.parse(&answer.expect(200), &["get", kind, name, "-n", namespace]))
    }

    /// All objects of a kind in a namespace. (A list has no `kind` on its items.)
    #[track_caller]
    pub fn list(&self, namespace: &str, kind: &str) -> Vec<Value> {
        let answer = self.api.get(&collection(namespace, kind)).expect(200);
        let mut list = self.parse(&answer, &["get", kind, "-n", namespace]);
        serde_json::from_value(list["items"].take()).unwrap()
    }

    /// What the API server answered, or what kubectl prints: that omits the `managedFields`, which are nested too
    /// deeply for serde_json in tests with hostile objects.
    #[track_caller]
    fn parse(&self, answer: &Answer, kubectl: &[&str]) -> Value {
        serde_json::from_str(&answer.text)
            .unwrap_or_else(|_| serde_json::from_str(&self.kubectl(&[kubectl, &["-o", "json"]].concat())).unwrap())
    }

    /// The names of all objects of a kind in a namespace, except `default`.
    #[track_caller]
    pub fn names(&self, namespace: &str, kind: &str) -> Vec<String> {
        let objects = self.list(namespace, kind);
        let names = objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap().to_owned());
        names.filter(|name| name != "default").collect()
    }

    /// A token of a service account for an audience, or for the API server where that is empty.
    #[track_caller]
    pub fn token(&self, namespace: &str, account: &str, audience: &str) -> String {
        let audiences = if audience.is_empty() { json!([]) } else { json!([audience]) };
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": audiences, "expirationSeconds": 7200},
        });
        let path = format!("{}/{account}/token", collection(namespace, "serviceaccount"));
        self.api.post(&path, &request).expect(201).json()["status"]["token"].as_str().unwrap().to_owned()
    }

    /// A caller with these verbs on resources of Daypass's in one role, or in all namespaces for `None`.
    pub fn caller(&self, daypass: &Daypass, verbs: &[&str], resources: &[&str], role: Option<&Role>) -> Http {
        let name = format!("caller{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.create(&service_account(&name));
        if !verbs.is_empty() {
            let rules = json!([{"apiGroups": ["daypass.dev"], "resources": resources, "verbs": verbs}]);
            let (kind, binding) =
                if role.is_some() { ("Role", "RoleBinding") } else { ("ClusterRole", "ClusterRoleBinding") };
            let mut meta = json!({"name": name});
            if let Some(role) = role {
                meta["namespace"] = json!(role.namespace);
            }
            let group = "rbac.authorization.k8s.io";
            let version = format!("{group}/v1");
            self.create(&json!({"apiVersion": version, "kind": kind, "metadata": meta, "rules": rules}));
            self.create(&json!({
                "apiVersion": version, "kind": binding, "metadata": meta,
                "roleRef": {"apiGroup": group, "kind": kind, "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
            }));
            let (user, namespace) =
                (format!("system:serviceaccount:default:{name}"), role.map(|role| &*role.namespace));
            self.wait_allowed(&user, verbs[0], resources[0], namespace);
        }
        daypass.owner.with_token(&self.token("default", &name, "daypass"))
    }

    /// Lets everybody in this group create access tokens.
    pub fn let_group_create_tokens(&self, group: &str) {
        let (role, subject) = ("--clusterrole=daypass-tokens-generate", format!("--group={group}"));
        self.kubectl(&["create", "rolebinding", group, "-n", RELEASE, role, &subject]);
    }

    /// Gives a service account a right on access tokens: its own (`generate`) or everybody's (`manage`).
    pub fn may_make_tokens(&self, caller: &Http, privilege: &str) {
        let user = caller.username();
        let (namespace, name) = user.strip_prefix("system:serviceaccount:").unwrap().split_once(':').unwrap();
        let group = "rbac.authorization.k8s.io";
        let binding = format!("tokens-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.create(&json!({
            "apiVersion": format!("{group}/v1"), "kind": "RoleBinding",
            "metadata": {"name": binding, "namespace": RELEASE},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": format!("daypass-tokens-{privilege}")},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }));
        self.wait_privilege(&user, privilege, true);
    }

    /// The certificate that Daypass serves with.
    pub fn serving_certificate(&self) -> String {
        let secret = self.object(RELEASE, "secret", "daypass-tls").unwrap();
        String::from_utf8(STANDARD.decode(secret["data"]["tls.crt"].as_str().unwrap()).unwrap()).unwrap()
    }

    pub fn fresh_folder(&self, name: &str) -> PathBuf {
        let folder = self.plane.state_dir().join(format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&folder).unwrap();
        folder
    }
}

/// Where the API server's audit log is kept for `tests/granted.rs`, which runs after all other tests.
fn kept_audit_log(plane: &ControlPlane) -> Option<PathBuf> {
    let name = plane.state_dir().file_name().unwrap();
    Some(PathBuf::from(env::var_os("DAYPASS_AUDIT_LOGS")?).join(name).with_extension("log"))
}

/// Where this cluster's Daypasses keep an audit trail for `tests/granted.rs`.
pub(super) fn kept_trail(cluster: &Cluster, folder: &Path) -> Option<PathBuf> {
    let log = kept_audit_log(&cluster.plane)?;
    let name = format!("{}-{}.trail", log.file_stem()?.display(), folder.file_name()?.display());
    Some(log.with_file_name(name))
}

fn keep_audit_log(plane: &ControlPlane) {
    if let Some(kept) = kept_audit_log(plane) {
        fs::create_dir_all(kept.parent().unwrap()).unwrap();
        fs::hard_link(plane.audit_log(), kept).unwrap();
    }
}

/// A manifest for kubectl's standard input. Older ones (1.30 does, 1.34 does not) take what begins with a brace for
/// JSON, so YAML in flow style gets a separator first.
pub(super) fn as_kubectl_reads(manifest: &str) -> String {
    let is_flow = manifest.starts_with('{') && !manifest.starts_with("{\"");
    if is_flow { format!("---\n{manifest}") } else { manifest.to_owned() }
}

fn with_input(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(as_kubectl_reads(input).as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn success(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A service account in `default`.
fn service_account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}})
}
