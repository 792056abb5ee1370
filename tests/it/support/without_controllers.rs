//! A cluster where only Daypass ends anything and where everything may be written.

use std::sync::OnceLock;

use daypass_local::{Component, Shutdown};
use serde_json::json;

use super::{Cluster, Daypass, Launch, Role, eventually};

/// One role for each test that uses this cluster: without Kubernetes' controllers no namespace is complete later.
const ROLES: usize = 17;

/// Annotation that makes the API server refuse an object's deletion.
pub const KEEP: &str = "example.com/keep";

impl Cluster {
    /// A shared cluster without Kubernetes' controllers (their garbage collector would hide what Daypass leaves
    /// behind), without the admission policies and without the schema of Members: tests write what an administrator,
    /// an older version or a broken restore could. Each test takes a role with [`Cluster::reader`].
    pub fn without_controllers() -> (&'static Self, &'static Daypass) {
        static SHARED: OnceLock<(Cluster, Daypass)> = OnceLock::new();
        let (cluster, daypass) = SHARED.get_or_init(|| {
            let cluster = Self::own_without_walls();
            let roles = [(); ROLES].map(|()| cluster.reader());
            for role in &roles {
                cluster.wait_default_account(&role.namespace);
                // Without its controller a quota is never freed.
                cluster.kubectl(&["delete", "resourcequota", "daypass", "-n", &role.namespace]);
            }
            cluster.let_objects_be_kept(&roles[0]);
            cluster.plane.stop_component(Component::ControllerManager, Shutdown::Graceful).unwrap();
            cluster.drop_schema(&roles[0]);
            *cluster.spare_roles.lock().unwrap() = roles.into();
            let daypass = Daypass::start(&cluster, &Launch::default());
            (cluster, daypass)
        });
        (cluster, daypass)
    }

    /// Waits until Kubernetes has created the namespace's default account.
    pub fn wait_default_account(&self, namespace: &str) {
        eventually("the default service account", || self.object(namespace, "serviceaccount", "default").map(drop));
    }

    /// Makes the API server refuse deletions of objects with the annotation [`KEEP`].
    fn let_objects_be_kept(&self, role: &Role) {
        let version = "admissionregistration.k8s.io/v1";
        let rule = |group: &str, resources: &[&str]| {
            let (groups, operations) = ([group], ["DELETE"]);
            json!({"apiGroups": groups, "apiVersions": ["*"], "operations": operations, "resources": resources})
        };
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

    /// Makes the API server refuse deletions of an object, or stops that.
    pub fn keep(&self, role: &Role, kind: &str, name: &str, keep: bool) {
        let value = keep.then_some("");
        self.patch(&role.namespace, kind, name, &json!({"metadata": {"annotations": {KEEP: value}}}));
    }

    /// Makes the API server accept any content in a Member.
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
