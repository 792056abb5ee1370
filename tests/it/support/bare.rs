//! A control plane where nobody but Daypass ends anything, and where everything may be written.

use std::sync::{Mutex, OnceLock};

use daypass_local::{Component, Shutdown};
use serde_json::json;

use super::{Daypass, Lab, Launch, Role, eventually};

/// As many role namespaces as tests take from it: without Kubernetes' controllers none can be made later.
const ROLES: usize = 16;

/// Annotation of what may not be deleted, for the time being.
pub const KEEP: &str = "example.com/keep";

/// A control plane without Kubernetes' controllers, whose garbage collector would hide what Daypass leaves behind, without admission
/// policies and without the schema of Members: what tests write in it, an administrator, an older version or a broken restore could.
pub struct Bare {
    pub lab: Lab,
    pub daypass: Daypass,
    roles: Mutex<Vec<Role>>,
}

impl Bare {
    /// The one that all tests share.
    pub fn shared() -> &'static Self {
        static BARE: OnceLock<Bare> = OnceLock::new();
        BARE.get_or_init(|| {
            let lab = Lab::without_walls();
            let roles = lab.readers(ROLES);
            for role in &roles {
                lab.wait_default_account(&role.namespace);
                // Nobody would count any more.
                lab.kubectl(&["delete", "resourcequota", "daypass", "-n", &role.namespace]);
            }
            lab.let_objects_be_kept(&roles[0]);
            lab.plane.stop_component(Component::ControllerManager, Shutdown::Graceful).unwrap();
            lab.drop_schema(&roles[0]);
            let daypass = Daypass::start(&lab, &Launch::default());
            Self { lab, daypass, roles: Mutex::new(roles) }
        })
    }

    /// A role that reads pods and namespaces.
    pub fn role(&self) -> Role {
        let taken = self.roles.lock().unwrap().pop();
        taken.expect("one for each test")
    }
}

impl Lab {
    /// Waits until Kubernetes has made what every namespace gets.
    pub fn wait_default_account(&self, namespace: &str) {
        eventually("the default service account", || self.object(namespace, "serviceaccount", "default").map(drop));
    }

    /// Many roles like [`Lab::reader`], made at once.
    fn readers(&self, count: usize) -> Vec<Role> {
        let rules = json!([{"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["get", "list"]}]);
        let one = self.render_role("bare-n", &json!({"description": "A test's", "rules": rules}));
        let ids: Vec<String> = (0..count).map(|n| format!("bare-{n}")).collect();
        self.apply(&ids.iter().map(|id| one.replace("bare-n", id)).collect::<Vec<_>>().join("---\n"));
        ids.iter().map(|id| self.wait_role(id)).collect()
    }

    /// Makes the API server refuse the deletion of what is annotated with [`KEEP`], as somebody's admission policy could.
    fn let_objects_be_kept(&self, role: &Role) {
        let version = "admissionregistration.k8s.io/v1";
        let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "apiVersions": ["*"], "operations": ["DELETE"], "resources": resources});
        let is_free = format!("!oldObject.metadata.?annotations[?'{KEEP}'].hasValue()");
        let policy = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "keep"}, "spec": {
                "matchConstraints": {"resourceRules": [
                    rule("daypass.dev", &["members"]), rule("", &["serviceaccounts", "secrets"]),
                ]},
                "validations": [{"reason": "Forbidden", "expression": is_free}],
            }},
            {"apiVersion": version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "keep"},
             "spec": {"policyName": "keep", "validationActions": ["Deny"]}},
        ]});
        self.apply(&policy.to_string());
        self.keep(role, "serviceaccount", "default", true);
        let delete = ["delete", "serviceaccount", "default", "-n", &role.namespace, "--dry-run=server"];
        eventually("the policy is in force", || (!self.try_kubectl(&delete).status.success()).then_some(()));
    }

    /// Has deletions of an object refused, or no longer.
    pub fn keep(&self, role: &Role, kind: &str, name: &str, keep: bool) {
        let value = keep.then_some("");
        self.patch(&role.namespace, kind, name, &json!({"metadata": {"annotations": {KEEP: value}}}));
    }

    /// Makes the API server take any content as a Member.
    fn drop_schema(&self, role: &Role) {
        let open = json!([{
            "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema",
            "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }]);
        self.kubectl(&["patch", "crd", "members.daypass.dev", "--type=json", "-p", &open.to_string()]);
        let absurd = json!({
            "apiVersion": "daypass.dev/v1alpha1", "kind": "Member", "spec": 3,
            "metadata": {"name": "absurd", "namespace": role.namespace},
        });
        eventually("the schema is gone", || {
            self.try_apply(&["--dry-run=server"], &absurd.to_string()).status.success().then_some(())
        });
    }
}
