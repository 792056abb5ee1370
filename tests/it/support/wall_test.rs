//! Calls of kubectl as several people, and which admission policy refuses them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Output, Stdio};
use std::sync::OnceLock;

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::cluster::as_kubectl_reads;
use super::{Cluster, Daypass, eventually, time, wait_until};

/// Daypass itself.
pub const DAYPASS: &str = "system:serviceaccount:daypass:daypass";

/// The people of the tests and their ClusterRoles. RBAC allows everything that a test expects a policy to refuse.
const PEOPLE: [(&str, &[&str]); 6] = [
    // May write namespaces.
    ("nina", &["tests-namespaces"]),
    // Have Kubernetes' own `edit` and `admin` everywhere.
    ("eve", &["edit"]),
    ("adam", &["admin"]),
    // May write all RBAC and namespaces; the second also manages roles.
    ("rosa", &["tests-rbac", "tests-namespaces"]),
    ("gitops", &["tests-rbac", "tests-namespaces", "daypass-roles-manage"]),
    // Manages members with kubectl.
    ("mia", &["tests-members"]),
];

/// A call and its expected result.
#[derive(Clone, Copy)]
pub struct Attempt {
    what: &'static str,
    who: &'static str,
    args: &'static str,
    manifest: &'static str,
    /// The policy that refuses it and the start of its message. A name's prefix fits several policies.
    refusal: Option<(&'static str, &'static str)>,
}

/// A call that this policy refuses. An empty `who` is the administrator. The test's values replace `$NAME` in the
/// arguments (separated by single spaces) and in the manifest, which is kubectl's standard input.
pub const fn attack(
    what: &'static str,
    who: &'static str,
    args: &'static str,
    manifest: &'static str,
    refusal: (&'static str, &'static str),
) -> Attempt {
    Attempt { what, who, args, manifest, refusal: Some(refusal) }
}

/// A call that passes.
pub const fn legit(what: &'static str, who: &'static str, args: &'static str, manifest: &'static str) -> Attempt {
    Attempt { what, who, args, manifest, refusal: None }
}

/// A cluster with the people, and the values of `$NAME`s.
pub struct WallTest<'a> {
    cluster: &'a Cluster,
    names: BTreeMap<&'static str, String>,
}

impl<'a> WallTest<'a> {
    /// In the shared cluster, with the policies and the people's rights in force.
    pub fn shared() -> (WallTest<'static>, &'static Daypass) {
        static READY: OnceLock<()> = OnceLock::new();
        let (cluster, daypass) = Cluster::shared();
        READY.get_or_init(|| drop(WallTest::new(cluster)));
        (WallTest { cluster, names: BTreeMap::new() }, daypass)
    }

    /// In this cluster.
    pub fn new(cluster: &'a Cluster) -> Self {
        cluster.apply(&people().to_string());
        let test = Self { cluster, names: BTreeMap::new() };
        // Each of these was created last of its kind, so the earlier ones are in force too.
        eventually("people have their rights", || {
            let output = test.run("mia", "auth can-i delete members.daypass.dev -A", "");
            output.status.success().then_some(())
        });
        eventually("the policies are in force", || {
            let output = test.run("", "create token default -n daypass-projects-view", "");
            String::from_utf8_lossy(&output.stderr).contains("daypass-role-tokens").then_some(())
        });
        // Daypass replaces the `default` account of earlier roles once; for a moment it does not exist.
        let policy = cluster.object("", "validatingadmissionpolicybinding", "daypass-role-tokens").unwrap();
        wait_until(time(&policy["metadata"]["creationTimestamp"]) + TimeDelta::seconds(31));
        test
    }

    /// The control plane.
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// Sets the value of `$NAME`.
    pub fn set(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.names.insert(name, value.to_owned());
        self
    }

    /// Creates an ordinary namespace, `$PLAIN`.
    pub fn plain(&mut self, name: &str) -> &mut Self {
        self.cluster.kubectl(&["create", "namespace", name]);
        eventually("the namespace has its service account", || self.cluster.object(name, "serviceaccount", "default"));
        self.set("PLAIN", name)
    }

    /// Gives Daypass an additional right in the role's namespace.
    pub fn grant_daypass(&self, verb: &str, resource: &str) {
        let role = self.fill("$ROLE");
        let (verb, resource) = (format!("--verb={verb}"), format!("--resource={resource}"));
        self.cluster.kubectl(&["create", "role", "tests", "-n", &role, &verb, &resource]);
        let account = "--serviceaccount=daypass:daypass";
        self.cluster.kubectl(&["create", "rolebinding", "tests", "-n", &role, "--role=tests", account]);
        self.wait_can(DAYPASS, &format!("{} {}", &verb["--verb=".len()..], &resource["--resource=".len()..]));
    }

    /// Waits until RBAC allows something in `$ROLE`.
    pub fn wait_can(&self, who: &str, what: &str) {
        let can = format!("auth can-i {what} -n $ROLE");
        eventually("the right is in force", || self.run(who, &can, "").status.success().then_some(()));
    }

    /// Makes every call and reports all unexpected results.
    #[track_caller]
    pub fn check_all(&self, attempts: &[Attempt]) {
        let wrong: Vec<String> = attempts.iter().filter_map(|attempt| self.check(attempt)).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    fn check(&self, attempt: &Attempt) -> Option<String> {
        let Attempt { what, who, args, manifest, refusal } = *attempt;
        let output = self.run(who, args, manifest);
        let error = String::from_utf8_lossy(&output.stderr);
        let as_expected = match refusal {
            None => output.status.success(),
            Some((policy, words)) => {
                let end = if words.is_empty() { "" } else { "): " };
                let message = format!("Daypass (policy {policy}{end}{words}");
                !output.status.success() && error.contains(&message) && error.to_lowercase().contains("forbidden")
            }
        };
        let expected = refusal.map_or("pass".to_owned(), |(policy, words)| format!("be refused by {policy}: {words}"));
        (!as_expected).then(|| format!("\"{what}\" ({who} {args}) should {expected}; {} {error}", output.status))
    }

    /// Runs kubectl. Writes are dry runs, which pass admission like any other.
    pub fn run(&self, who: &str, args: &str, manifest: &str) -> Output {
        let args = self.fill(args);
        let words: Vec<&str> = args.split(' ').collect();
        let mut kubectl = self.cluster.plane.kubectl();
        if !who.is_empty() {
            kubectl.arg(format!("--as={}", self.fill(who)));
        }
        kubectl.args(&words);
        let dry = matches!(words[0], "create" | "annotate" | "label" | "patch" | "delete" | "scale");
        if dry && words[1] != "token" && words[1] != "--raw" {
            kubectl.arg("--dry-run=server");
        }
        let mut child = kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // kubectl may exit before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(as_kubectl_reads(&self.fill(manifest)).as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Replaces `$NAME`s.
    pub fn fill(&self, text: &str) -> String {
        // Longer names first, since one may be a prefix of another.
        let names = self.names.iter().rev();
        names.fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value))
    }
}

fn people() -> Value {
    let group = "rbac.authorization.k8s.io";
    let version = format!("{group}/v1");
    let role = |name: &str, rules: Value| {
        let metadata = json!({"name": name});
        json!({"apiVersion": version, "kind": "ClusterRole", "metadata": metadata, "rules": rules})
    };
    let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["*"]});
    let namespaces = ["namespaces", "namespaces/status", "namespaces/finalize", "resourcequotas"];
    let mut items = vec![
        role("tests-namespaces", json!([rule("", &namespaces)])),
        role("tests-rbac", json!([rule(group, &["*"])])),
        role("tests-members", json!([rule("daypass.dev", &["members"])])),
    ];
    for (person, roles) in PEOPLE {
        for role in roles {
            items.push(json!({
                "apiVersion": version, "kind": "ClusterRoleBinding",
                "metadata": {"name": format!("tests-{person}-{role}")},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": group, "kind": "User", "name": person}],
            }));
        }
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}
