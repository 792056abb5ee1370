//! Calls of kubectl as somebody, and whether one of the admission policies refuses them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Output, Stdio};
use std::sync::OnceLock;

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::{Daypass, Lab, eventually, time, wait_until};

/// Daypass itself.
pub const DAYPASS: &str = "system:serviceaccount:daypass:daypass";

/// The people of the tests, and what RBAC lets them do. RBAC lets each do whatever a test sees refused.
const PEOPLE: [(&str, &[&str]); 6] = [
    // Writes namespaces.
    ("nina", &["tests-namespaces"]),
    // Has Kubernetes' own `edit`, and `admin`, everywhere.
    ("eve", &["edit"]),
    ("adam", &["admin"]),
    // Write all RBAC and namespaces; the second may manage roles too.
    ("rosa", &["tests-rbac", "tests-namespaces"]),
    ("gitops", &["tests-rbac", "tests-namespaces", "daypass-roles-manage"]),
    // Manages members with kubectl.
    ("mia", &["tests-members"]),
];

/// One call and what is to become of it.
#[derive(Clone, Copy)]
pub struct Attempt {
    what: &'static str,
    who: &'static str,
    args: &'static str,
    manifest: &'static str,
    /// The policy that refuses it, and how its message goes on; the beginning of its name where it is one of two.
    refusal: Option<(&'static str, &'static str)>,
}

/// A call that this policy refuses. An empty `who` is the administrator. `$NAME` in the arguments (without spaces in them) and in
/// the manifest, which goes to standard input, is replaced by what the stage was told.
pub const fn attack(
    what: &'static str,
    who: &'static str,
    args: &'static str,
    manifest: &'static str,
    refusal: (&'static str, &'static str),
) -> Attempt {
    Attempt { what, who, args, manifest, refusal: Some(refusal) }
}

/// The same for a call that passes.
pub const fn legit(what: &'static str, who: &'static str, args: &'static str, manifest: &'static str) -> Attempt {
    Attempt { what, who, args, manifest, refusal: None }
}

/// Where attempts are made.
pub struct Stage<'a> {
    lab: &'a Lab,
    names: BTreeMap<&'static str, String>,
}

impl<'a> Stage<'a> {
    /// In the shared control plane, with the policies and the people's rights in force.
    pub fn shared() -> (Stage<'static>, &'static Daypass) {
        static READY: OnceLock<()> = OnceLock::new();
        let (lab, daypass) = Lab::shared();
        READY.get_or_init(|| drop(Stage::new(lab)));
        (Stage { lab, names: BTreeMap::new() }, daypass)
    }

    /// In this control plane.
    pub fn new(lab: &'a Lab) -> Self {
        lab.apply(&people().to_string());
        let stage = Self { lab, names: BTreeMap::new() };
        // Each of these was made last of its kind: what was made before is in force as well.
        eventually("people have their rights", || {
            let output = stage.run("mia", "auth can-i delete members.daypass.dev -A", "");
            output.status.success().then_some(())
        });
        eventually("the policies are in force", || {
            let output = stage.run("", "create token default -n daypass-projects-view", "");
            String::from_utf8_lossy(&output.stderr).contains("daypass-role-tokens").then_some(())
        });
        // The `default` of a role that is made before is replaced once, and is not there for a moment.
        let policy = lab.object("", "validatingadmissionpolicybinding", "daypass-role-tokens").unwrap();
        wait_until(time(&policy["metadata"]["creationTimestamp"]) + TimeDelta::seconds(31));
        stage
    }

    /// The control plane.
    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    /// What `$NAME` stands for.
    pub fn set(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.names.insert(name, value.to_owned());
        self
    }

    /// An ordinary namespace, `$PLAIN`.
    pub fn plain(&mut self, name: &str) -> &mut Self {
        self.lab.kubectl(&["create", "namespace", name]);
        eventually("the namespace has its service account", || self.lab.object(name, "serviceaccount", "default"));
        self.set("PLAIN", name)
    }

    /// Gives Daypass a right in the role's namespace that it does not need itself.
    pub fn grant_daypass(&self, verb: &str, resource: &str) {
        let role = self.fill("$ROLE");
        let (verb, resource) = (format!("--verb={verb}"), format!("--resource={resource}"));
        self.lab.kubectl(&["create", "role", "tests", "-n", &role, &verb, &resource]);
        let account = "--serviceaccount=daypass:daypass";
        self.lab.kubectl(&["create", "rolebinding", "tests", "-n", &role, "--role=tests", account]);
        self.wait_can(DAYPASS, &format!("{} {}", &verb["--verb=".len()..], &resource["--resource=".len()..]));
    }

    /// Waits until somebody is allowed something in `$ROLE`.
    pub fn wait_can(&self, who: &str, what: &str) {
        let can = format!("auth can-i {what} -n $ROLE");
        eventually("the right is in force", || self.run(who, &can, "").status.success().then_some(()));
    }

    /// Makes every attempt and tells all that went otherwise.
    #[track_caller]
    pub fn play(&self, attempts: &[Attempt]) {
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

    /// Runs kubectl; what could change something is a dry run, which is admitted or refused like any other.
    pub fn run(&self, who: &str, args: &str, manifest: &str) -> Output {
        let args = self.fill(args);
        let words: Vec<&str> = args.split(' ').collect();
        let mut kubectl = self.lab.plane.kubectl();
        if !who.is_empty() {
            kubectl.arg(format!("--as={}", self.fill(who)));
        }
        kubectl.args(&words);
        let dry = matches!(words[0], "create" | "annotate" | "label" | "patch" | "delete" | "scale");
        if dry && words[1] != "token" && words[1] != "--raw" {
            kubectl.arg("--dry-run=server");
        }
        let mut child = kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It may be done without having read all of it.
        let _ = child.stdin.take().unwrap().write_all(self.fill(manifest).as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Replaces `$NAME`s.
    pub fn fill(&self, text: &str) -> String {
        // The longer names first: one may begin like another.
        let names = self.names.iter().rev();
        names.fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value))
    }
}

fn people() -> Value {
    let group = "rbac.authorization.k8s.io";
    let version = format!("{group}/v1");
    let role = |name: &str, rules: Value| json!({"apiVersion": version, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules});
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
                "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": {"name": format!("tests-{person}-{role}")},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": group, "kind": "User", "name": person}],
            }));
        }
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}
